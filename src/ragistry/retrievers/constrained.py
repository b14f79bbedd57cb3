"""The names that a language model finds most probable, and nothing but names."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..types import Bools, Ints
from .decoding import Decoding, Doubles, check_tokens, log_probabilities
from .trie import LARGEST, Children, Trie
from .walking import likely

Prompts: TypeAlias = Sequence[Sequence[int]]
"""Token ids of queries, of any lengths, with the special tokens that the model wants."""
Done: TypeAlias = tuple[float, tuple[int, ...], float, int]
"""A finished name: its score negated, tokens, log-probability and node."""

CHUNK = 1 << 25  # logits that are held at once when names are scored in full
CALL = 16  # tokens, one from each beam or several of a name, that a model reads in the time that each call costs anyway
WIDE = 1024  # of so many candidates those that cannot be among the best are put aside before sorting


class Hypothesis(NamedTuple):
    """A name as an answer: the entities that have it, its tokens with the end token, the sum of their log-probabilities, and
    that sum divided by `len(tokens) ** length_penalty`."""

    numbers: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probability: float
    score: float


class ConstrainedSearch:
    """Leads a model along the names of a trie: a beam search, until so few names are left that all of them are scored.

    Log-probabilities are the model's own, normalised over its whole vocabulary: a name's does not depend on which other
    names there are, on the batch or on padding (up to rounding). A name of probability zero is never returned. With at least
    as many beams as names, the beam search ranks as scoring every name does.

    Args:
        model: An encoder-decoder or causal language model of transformers that keeps a cache, in evaluation mode.
        beams: Unfinished names followed for each query. Finished ones take no place among them.
        length_penalty: Exponent of the length, in tokens with the end, that divides log-probabilities. 0 ranks by
            probability, as the paper's equation does; its released code divides by the length (1), mGENRE by the root (0.5).
        few: Where at most so many names can still follow a query's beams, or there are no more from the start, every one is
            scored, however many beams there are. No more than there are beams change no result, more find better ones.
        batch: Queries at once.
        start: What a decoder beside an encoder reads before the name; the model's `decoder_start_token_id` by default.

    Raises:
        InvalidInput: If a setting cannot be used.

    Example:
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        >>> model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
        >>> trie = Trie(end=1)
        >>> trie.add([[5, 6], [5, 7]], [10, 11])
        >>> found = ConstrainedSearch(model).search([[3, 4, 1]], trie)
        >>> sorted(hypothesis.numbers for hypothesis in found[0])
        [(10,), (11,)]

    Source: GENRE, arXiv:2010.00904 (2021), section 3. Deviations: finished names leave their beam to others, and beams that
    cannot win any more are given up, which changes no result. The last few names are all scored, so that what is found is as
    good or better, and read several tokens at a time where that is cheaper: most nodes of a trie have one child.
    """

    def __init__(
        self,
        model: Any,
        *,
        beams: int = 10,
        length_penalty: float = 0.0,
        few: int = 16,
        batch: int = 16,
        start: Sequence[int] | None = None,
    ) -> None:
        for name, value, least in (("beams", beams, 1), ("few", few, 0), ("batch", batch, 1)):
            _check_count(name, value, least)
        if not (math.isfinite(length_penalty) and length_penalty >= 0):
            raise InvalidInput(f"length_penalty={length_penalty}; give 0, for probabilities, or more")
        self.model, self.beams, self.length_penalty = model, beams, length_penalty
        self.few, self.batch, self.start = few, batch, start

    def search(self, prompts: Prompts, names: Trie | Sequence[Trie], k: int | None = None) -> list[list[Hypothesis]]:
        """The best names for each prompt, best first; fewer than `k` if there are fewer, or the beams reach no more.

        Args:
            prompts: What is asked.
            names: One trie for all, or one for each prompt, such as a mention's candidates (`Trie.among`).
            k: How many; as many as there are beams by default.

        Raises:
            InvalidInput: If the model cannot read a prompt or a name, or is in training mode.
        """
        return self._answered(prompts, names, k, self.few)

    def exhaustive(
        self, prompts: Prompts, names: Trie | Sequence[Trie], k: int | None = None
    ) -> list[list[Hypothesis]]:
        """As `search`, but every name is scored, however many there are."""
        return self._answered(prompts, names, k, math.inf)

    def _answered(
        self, prompts: Prompts, names: Trie | Sequence[Trie], k: int | None, few: float
    ) -> list[list[Hypothesis]]:
        k = self.beams if k is None else k
        _check_count("k", k, 0)
        run = Decoding(self.model, self.start)
        asked = [run.checked(prompt, row) for row, prompt in enumerate(prompts)]
        given = [names] * len(asked) if isinstance(names, Trie) else list(names)
        if len(given) != len(asked):
            raise InvalidInput(f"{len(given)} tries for {len(asked)} prompts; give one for all, or one for each")
        held = {id(trie): trie.fork() for trie in given}  # what is added meanwhile changes nothing here
        tries = [held[id(trie)] for trie in given]
        found: list[list[Hypothesis]] = [[] for _ in asked]
        rows = sorted((row for row, trie in enumerate(tries) if len(trie) and k), key=lambda row: len(asked[row]))
        for chunk in run.batches(rows, asked, self.batch):
            here = [tries[row] for row in chunk]
            run.check_room(len(asked[chunk[-1]]), max(trie.depth for trie in here))
            with torch.inference_mode():
                done = self._followed(copy(run), [asked[row] for row in chunk], here, k, few)
            for row, own in zip(chunk, done, strict=True):
                found[row] = _named(tries[row], own)
        return found

    def _followed(self, run: Decoding, prompts: list[Ints], tries: list[Trie], k: int, few: float) -> list[list[Done]]:
        """Follow the best beginnings of names token by token, and read the rest of the last few names at once."""
        logits, count = run.begin(prompts), len(prompts)
        ends, longest = np.array([trie.end for trie in tries]), np.array([trie.depth for trie in tries])
        kept = np.array([self.beams if len(trie) > few else LARGEST for trie in tries])
        query, said, sums = np.arange(count), np.zeros((count, 0), np.int64), np.zeros(count)
        best, most = _Best(count, k, self.length_penalty), CHUNK // run.vocabulary
        offered = _offered(tries, query, np.zeros(count, np.int64))
        while True:
            row, token, child = _likely(logits, offered, kept[query], ends[query])
            total, asker = sums[row] + log_probabilities(logits, row, token), query[row]
            over, possible = token == ends[asker], total > -np.inf
            ended = np.flatnonzero(over & possible)
            best.add(asker[ended], np.column_stack((said[row[ended]], token[ended])), total[ended], child[ended])
            hope = total / longest[asker] ** self.length_penalty  # if all that follows were certain
            going = np.flatnonzero(~over & possible & (hope >= best.least[asker]))
            going = going[_highest(asker[going], total[going], kept)]
            if not len(going):
                return best.names
            row, query, sums = row[going], asker[going], total[going]
            said, offered = np.column_stack((said[row], token[going])), _offered(tries, query, child[going])
            rest = _below(tries, query, ends, offered, few)
            kept[rest.short] = LARGEST  # whether read at once or not
            if rest.short[query].all() and (rest.together <= rest.apart or len(query) > most):
                names = np.column_stack((said[rest.rows], rest.tokens))
                gained = _read(run, row[rest.rows], names[:, said.shape[1] - 1 :], most)
                best.add(query[rest.rows], names, sums[rest.rows] + gained, rest.nodes)
                return best.names
            logits = run.go(row, said[:, -1:])[:, 0]


class _Best:
    """The best `k` names of each query so far."""

    def __init__(self, count: int, k: int, length_penalty: float) -> None:
        self.k, self.length_penalty = k, length_penalty
        self.names: list[list[Done]] = [[] for _ in range(count)]
        self.least = np.full(count, -np.inf)  # what scores less is not among them

    def add(self, query: Ints, names: Ints, totals: Doubles, nodes: Ints) -> None:
        """Names of queries, filled up with -1 [n, longest], their log-probabilities and the nodes at which they end."""
        lengths = np.count_nonzero(names >= 0, axis=1)
        scores = totals / lengths**self.length_penalty
        for place in np.flatnonzero((totals > -np.inf) & (scores >= self.least[query])).tolist():
            name = tuple(names[place, : lengths[place]].tolist())
            self.names[query[place]].append((-float(scores[place]), name, float(totals[place]), int(nodes[place])))
        for number in np.unique(query).tolist():
            own = self.names[number] = sorted(self.names[number])[: self.k]
            if len(own) == self.k:
                self.least[number] = -own[-1][0]


def marginalise(hypotheses: Sequence[Hypothesis]) -> list[tuple[int, float]]:
    """Entities with the logarithm of the sum of exp(score) over their names, best first, ties by number.

    Example:
        >>> found = [Hypothesis((1, 2), (5, 9), -1.0, -1.0), Hypothesis((2,), (6, 9), -1.0, -1.0)]
        >>> [(number, round(score, 3)) for number, score in marginalise(found)]
        [(2, -0.307), (1, -1.0)]

    Source: mGENRE, arXiv:2103.12528 (2022), section 3, where an entity's names are those in other languages.
    """
    scores: dict[int, list[float]] = {}
    for hypothesis in hypotheses:
        for number in hypothesis.numbers:
            scores.setdefault(number, []).append(hypothesis.score)
    sums = {number: float(np.logaddexp.reduce(sorted(own))) for number, own in scores.items()}
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))


def _read(run: Decoding, rows: Ints, names: Ints, most: int) -> Doubles:
    """The log-probability of each name without its first token, going on from rows.

    Names come shortest first, [n, longest] filled up with -1; `most` logits of a token each are held at once.
    """
    total, lengths, size = np.zeros(len(rows)), np.count_nonzero(names >= 0, axis=1), max(1, most // names.shape[1])
    for first in range(0, len(rows), size):
        last = min(first + size, len(rows))
        width = lengths[last - 1] - 1
        logits = (run if last == len(rows) else run.branch()).go(
            rows[first:last], np.maximum(names[first:last, :width], 0)
        )
        said = names[first:last, 1 : width + 1].ravel()
        places = np.flatnonzero(said >= 0)
        gained = log_probabilities(logits.flatten(0, 1), places, said[places])
        total[first:last] = np.bincount(places // width, gained, last - first)
    return total


class _Rest(NamedTuple):
    """What may still follow rows up to the end of names, where those of every query are few."""

    short: Bools  # of each query, whether they are; if of any they are not, the rest means nothing
    rows: Ints
    tokens: Ints  # shortest first, [n, longest], filled up with -1
    nodes: Ints  # at which the names end
    together: float  # what it costs to read them all at once, in tokens, padding included
    apart: float  # and one token after the other


def _below(tries: Sequence[Trie], query: Ints, ends: Ints, offered: Children, few: float) -> _Rest:
    """The names below rows, of which `offered` are the children; those of a query with more than `few` are not followed."""
    short = np.bincount(query, np.diff(offered.offsets), len(ends)) <= few
    rows, said, ended = np.arange(len(query)), np.zeros((len(query), 0), np.int64), np.zeros(len(ends), np.int64)
    found, apart = [(rows[:0], said[:0], rows[:0])], 0.0
    while short[query[rows]].any():
        apart += CALL + len(rows)
        row, token, node = _rows(offered), offered.tokens, offered.nodes
        keep = np.flatnonzero(short[query[rows[row]]])
        said, rows, node = np.column_stack((said[row[keep]], token[keep])), rows[row[keep]], node[keep]
        over = said[:, -1] == ends[query[rows]]
        found.append((rows[over], said[over], node[over]))
        ended += np.bincount(query[rows[over]], minlength=len(ends))
        rows, said, node = rows[~over], said[~over], node[~over]
        offered = _offered(tries, query[rows], node)
        short &= ended + np.bincount(query[rows], np.diff(offered.offsets), len(ends)) <= few
    width = said.shape[1]
    wide = [np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])), constant_values=-1) for _, tokens, _ in found]
    rows, nodes = np.concatenate([part for part, *_ in found]), np.concatenate([part for *_, part in found])
    return _Rest(short, rows, np.concatenate(wide), nodes, CALL + len(rows) * width, apart)


def _rows(found: Children) -> Ints:
    return np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))


def _likely(logits: Tensor, offered: Children, most: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """What may follow each row, as far as it may be among the best: rows, tokens and nodes."""
    tokens, nodes, offsets = offered
    if len(tokens) <= WIDE:
        return _rows(offered), tokens, nodes
    check_tokens(logits, tokens)
    places = likely(np.ascontiguousarray(logits.float().cpu().numpy()), tokens, offsets, most, ends)
    return offsets.searchsorted(places, "right") - 1, tokens[places], nodes[places]


def _named(trie: Trie, done: Sequence[Done]) -> list[Hypothesis]:
    numbers, offsets = trie.entities([node for *_, node in done])
    runs = [tuple(own.tolist()) for own in np.split(numbers, offsets[1:-1])]
    found = [Hypothesis(own, tokens, total, -cost) for own, (cost, tokens, total, _) in zip(runs, done, strict=False)]
    return sorted(found, key=lambda hypothesis: (-hypothesis.score, hypothesis.numbers))


def _offered(tries: Sequence[Trie], query: Ints, node: Ints) -> Children:
    """What may follow each row. The rows of a query lie together."""
    if not len(node) or all(trie is tries[0] for trie in tries):
        return tries[0].children(node)
    found = [tries[number].children(node[query == number]) for number in np.unique(query).tolist()]
    tokens, nodes, counts = (np.concatenate(p) for p in zip(*((t, n, np.diff(o)) for t, n, o in found), strict=True))
    return Children(tokens, nodes, np.append(0, np.cumsum(counts)))


def _highest(groups: Ints, scores: Doubles, k: Ints) -> Ints:
    """The places of the `k[group]` highest scores of each group, best first. Groups rise; of equal scores the first wins."""
    places = np.arange(len(scores))
    if len(scores) > WIDE:
        keep = np.ones(len(scores), np.bool_)
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(scores)]
        for begin, end in itertools.pairwise(edges):
            if end - begin > k[groups[begin]]:
                place = end - begin - k[groups[begin]]
                keep[begin:end] = scores[begin:end] >= np.partition(scores[begin:end], place)[place]
        places = np.flatnonzero(keep)
    places = places[np.lexsort((-scores[places], groups[places]))]
    return places[np.arange(len(places)) - np.searchsorted(groups[places], groups[places]) < k[groups[places]]]


def _check_count(name: str, value: int, least: int) -> None:
    try:
        fits = operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise InvalidInput(f"{name}={value!r:.100}; give a whole number, {least} or more")
