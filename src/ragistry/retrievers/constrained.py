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

from ..errors import InvalidInput
from ..types import Ints
from .decoding import Decoding, Doubles, log_probabilities
from .trie import Trie

Prompts: TypeAlias = Sequence[Sequence[int]]
"""Token ids of queries, of any lengths, with the special tokens that the model wants."""
Done: TypeAlias = tuple[float, tuple[int, ...], float, int]
"""A finished name: its score negated, tokens, log-probability and node."""

CHUNK = 1 << 25  # logits that are held at once when names are scored in full
WIDE = 1024  # of so many candidates those that cannot be among the best are put aside before sorting


class Hypothesis(NamedTuple):
    """A name as an answer: the entities that have it, its tokens with the end token, the sum of their log-probabilities, and
    that sum divided by `len(tokens) ** length_penalty`."""

    numbers: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probability: float
    score: float


class ConstrainedSearch:
    """Leads a model along the names of a trie: a beam search, or all names at once where there are few.

    Log-probabilities are the model's own, normalised over its whole vocabulary: a name's does not depend on which other
    names there are, on the batch or on padding (up to rounding). A name of probability zero is never returned. With at least
    as many beams as names, the beam search ranks as scoring every name does.

    Args:
        model: An encoder-decoder or causal language model of transformers that keeps a cache, in evaluation mode.
        beams: Unfinished names followed for each query. Finished ones take no place among them.
        length_penalty: Exponent of the length, in tokens with the end, that divides log-probabilities. 0 ranks by
            probability, as the paper's equation does; its released code divides by the length (1), mGENRE by the root (0.5).
        few: Up to so many names are scored in full, without beams.
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
    cannot win any more are given up, which changes no result; few names are not searched but scored.
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
        for method, whole in ((self._all, True), (self._beam, False)):
            some = [row for row in rows if (len(tries[row]) <= few) == whole]
            for chunk in run.batches(some, asked, self.batch):
                here = [tries[row] for row in chunk]
                run.check_room(len(asked[chunk[-1]]), max(trie.depth for trie in here))
                with torch.inference_mode():
                    done = method(copy(run), [asked[row] for row in chunk], here, k)
                for row, own in zip(chunk, done, strict=True):
                    found[row] = _named(tries[row], own)
        return found

    def _beam(self, run: Decoding, prompts: list[Ints], tries: list[Trie], k: int) -> list[list[Done]]:
        """Follow the best beginnings of names, token by token."""
        logits, count = run.begin(prompts), len(prompts)
        ends, longest = np.array([trie.end for trie in tries]), np.array([trie.depth for trie in tries])
        query, node, said = np.arange(count), np.zeros(count, np.int64), np.zeros((count, 0), np.int64)
        sums, least = np.zeros(count), np.full(count, -np.inf)  # what scores less is not among the best k
        done: list[list[Done]] = [[] for _ in prompts]
        while len(query):
            row, token, child = _offered(tries, query, node)
            total, asker = sums[row] + log_probabilities(logits, row, token), query[row]
            over, possible = token == ends[asker], total > -np.inf
            scores = total / (said.shape[1] + 1) ** self.length_penalty
            for place in np.flatnonzero(over & possible & (scores >= least[asker])).tolist():
                name = (*said[row[place]].tolist(), int(token[place]))
                done[asker[place]].append((-float(scores[place]), name, float(total[place]), int(child[place])))
            for number, own in enumerate(done):
                done[number] = sorted(own)[:k]
                least[number] = -done[number][-1][0] if len(own) >= k else -np.inf
            hope = total / longest[asker] ** self.length_penalty  # if all that follows were certain
            going = np.flatnonzero(~over & possible & (hope >= least[asker]))
            going = going[_best(asker[going], total[going], self.beams)]
            row, token, query, node, sums = row[going], token[going], asker[going], child[going], total[going]
            said = np.column_stack((said[row], token))
            if len(query):
                logits = run.go(row, token[:, None])[:, 0]
        return done

    def _all(self, run: Decoding, prompts: list[Ints], tries: list[Trie], k: int) -> list[list[Done]]:
        """Score all names, token by token at once."""
        logits, lists = run.begin(prompts), {id(trie): _listed(trie) for trie in tries}
        own = [lists[id(trie)] for trie in tries]
        query = np.repeat(np.arange(len(prompts)), [len(nodes) for _, nodes in own])
        width = max(tokens.shape[1] for tokens, _ in own)
        tokens = np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=-1) for t, _ in own])
        nodes, lengths = np.concatenate([nodes for _, nodes in own]), np.count_nonzero(tokens >= 0, axis=1)
        total = log_probabilities(logits, query, tokens[:, 0])
        order, size = np.argsort(lengths, kind="stable"), max(1, CHUNK // (logits.shape[-1] * width))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            read, said = tokens[rows, : lengths[rows[-1]] - 1], tokens[rows, 1 : lengths[rows[-1]]].ravel()
            further = (run if first + size >= len(order) else run.branch()).go(query[rows], np.maximum(read, 0))
            places = np.flatnonzero(said >= 0)
            gained = log_probabilities(further.flatten(0, 1), places, said[places])
            total[rows] += np.bincount(places // read.shape[1], gained, len(rows))
        done: list[list[Done]] = [[] for _ in prompts]
        scores = total / lengths**self.length_penalty
        for place in np.flatnonzero(total > -np.inf).tolist():
            name = tuple(tokens[place, : lengths[place]].tolist())
            done[query[place]].append((-float(scores[place]), name, float(total[place]), int(nodes[place])))
        return [sorted(found)[:k] for found in done]


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


def _listed(trie: Trie) -> tuple[Ints, Ints]:
    """All names, shortest first: tokens [n, longest], filled up with -1, and the node at which each ends."""
    tokens, nodes, said = list[Ints](), list[Ints](), np.zeros((1, 0), np.int64)
    found = trie.children([0])
    while len(found.tokens):
        said = np.column_stack((np.repeat(said, np.diff(found.offsets), axis=0), found.tokens))
        over = found.tokens == trie.end
        tokens.append(said[over])
        nodes.append(found.nodes[over])
        found = trie.children(found.nodes)
    wide = [np.pad(t, ((0, 0), (0, said.shape[1] - t.shape[1])), constant_values=-1) for t in tokens]
    return np.concatenate(wide), np.concatenate(nodes)


def _named(trie: Trie, done: Sequence[Done]) -> list[Hypothesis]:
    numbers, offsets = trie.entities([node for *_, node in done])
    runs = [tuple(own.tolist()) for own in np.split(numbers, offsets[1:-1])]
    found = [Hypothesis(own, tokens, total, -cost) for own, (cost, tokens, total, _) in zip(runs, done, strict=False)]
    return sorted(found, key=lambda hypothesis: (-hypothesis.score, hypothesis.numbers))


def _offered(tries: Sequence[Trie], query: Ints, node: Ints) -> tuple[Ints, Ints, Ints]:
    """What may follow each row: rows, tokens and nodes. The rows of a query lie together."""
    if all(trie is tries[0] for trie in tries):
        token, child, offsets = tries[0].children(node)
        return np.repeat(np.arange(len(node)), np.diff(offsets)), token, child
    rows, tokens, nodes = list[Ints](), list[Ints](), list[Ints]()
    for number in np.unique(query).tolist():
        own = np.flatnonzero(query == number)
        token, child, offsets = tries[number].children(node[own])
        rows.append(np.repeat(own, np.diff(offsets)))
        tokens.append(token)
        nodes.append(child)
    return np.concatenate(rows), np.concatenate(tokens), np.concatenate(nodes)


def _best(groups: Ints, scores: Doubles, k: int) -> Ints:
    """The places of the `k` highest scores of each group, best first. Groups rise; of equal scores the first is the best."""
    places = np.arange(len(scores))
    if len(scores) > WIDE:
        keep = np.ones(len(scores), np.bool_)
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(scores)]
        for begin, end in itertools.pairwise(edges):
            if end - begin > k:
                keep[begin:end] = scores[begin:end] >= np.partition(scores[begin:end], end - begin - k)[end - begin - k]
        places = np.flatnonzero(keep)
    places = places[np.lexsort((-scores[places], groups[places]))]
    return places[np.arange(len(places)) - np.searchsorted(groups[places], groups[places]) < k]


def _check_count(name: str, value: int, least: int) -> None:
    try:
        fits = operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise InvalidInput(f"{name}={value!r:.100}; give a whole number, {least} or more")
