"""The names that a language model finds most probable, and nothing but names."""

from __future__ import annotations

import inspect
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..types import Ints
from .trie import Trie

Prompts: TypeAlias = Sequence[Sequence[int]]
"""Token ids of queries, of any lengths, with the special tokens that the model wants."""
Doubles: TypeAlias = npt.NDArray[np.float64]
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
        run = _Run(self.model, self.start)
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

    def _beam(self, run: _Run, prompts: list[Ints], tries: list[Trie], k: int) -> list[list[Done]]:
        """Follow the best beginnings of names, token by token."""
        logits, count = run.begin(prompts), len(prompts)
        ends, longest = np.array([trie.end for trie in tries]), np.array([trie.depth for trie in tries])
        query, node, said = np.arange(count), np.zeros(count, np.int64), np.zeros((count, 0), np.int64)
        sums, least = np.zeros(count), np.full(count, -np.inf)  # what scores less is not among the best k
        done: list[list[Done]] = [[] for _ in prompts]
        while len(query):
            row, token, child = _offered(tries, query, node)
            total, asker = sums[row] + _log_probabilities(logits, row, token), query[row]
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

    def _all(self, run: _Run, prompts: list[Ints], tries: list[Trie], k: int) -> list[list[Done]]:
        """Score all names, token by token at once."""
        logits, lists = run.begin(prompts), {id(trie): _listed(trie) for trie in tries}
        own = [lists[id(trie)] for trie in tries]
        query = np.repeat(np.arange(len(prompts)), [len(nodes) for _, nodes in own])
        width = max(tokens.shape[1] for tokens, _ in own)
        tokens = np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=-1) for t, _ in own])
        nodes, lengths = np.concatenate([nodes for _, nodes in own]), np.count_nonzero(tokens >= 0, axis=1)
        total = _log_probabilities(logits, query, tokens[:, 0])
        order, size = np.argsort(lengths, kind="stable"), max(1, CHUNK // (logits.shape[-1] * width))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            read, said = tokens[rows, : lengths[rows[-1]] - 1], tokens[rows, 1 : lengths[rows[-1]]].ravel()
            further = (run if first + size >= len(order) else run.branch()).go(query[rows], np.maximum(read, 0))
            places = np.flatnonzero(said >= 0)
            gained = _log_probabilities(further.flatten(0, 1), places, said[places])
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


def _log_probabilities(logits: Tensor, rows: Ints, tokens: Ints) -> Doubles:
    """Of tokens, each in a row of logits [rows, vocabulary], normalised over the vocabulary."""
    if len(tokens) and tokens.max() >= logits.shape[-1]:
        raise InvalidInput(f"a name holds token {tokens.max()}, the model knows {logits.shape[-1]}; use its tokenizer")
    whole = logits.float()
    row, token = (torch.from_numpy(places).to(whole.device) for places in (rows, tokens))
    found: Doubles = (whole[row, token] - torch.logsumexp(whole, -1)[row]).double().cpu().numpy()
    if np.isnan(found).any():
        raise InvalidInput("the model's logits are NaN; load it in float32 or bfloat16, or check its weights")
    return found


def _check_count(name: str, value: int, least: int) -> None:
    try:
        fits = operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise InvalidInput(f"{name}={value!r:.100}; give a whole number, {least} or more")


class _Run:
    """A model that reads prompts, and then goes on from any of the rows it has read."""

    def __init__(self, model: Any, start: Sequence[int] | None) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters hide what is taken
        self.taken = inspect.signature(inner.forward).parameters
        self.model, self.config, self.two = model, model.config, bool(model.config.is_encoder_decoder)
        if model.training:
            raise InvalidInput("the model is in training mode, where dropout changes answers; call model.eval() first")
        first = getattr(self.config, "decoder_start_token_id", None) if self.two else None
        self.cache: Any = None
        self.start = list(start) if start is not None else [first] if first is not None else []
        if self.two != bool(self.start):
            raise InvalidInput(
                f"start={start}; a decoder beside an encoder needs a token to start from, a causal model takes none: end "
                "its prompts with these tokens"
            )

    def checked(self, prompt: Sequence[int], row: int) -> Ints:
        ids = np.asarray(prompt)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise InvalidInput(f"prompt {row} is {prompt!r:.100}; give a list of token ids, at least one")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            known = f"the model knows {self.config.vocab_size}; use its tokenizer"
            raise InvalidInput(f"prompt {row} holds tokens from {ids.min()} to {ids.max()}, {known}")
        return ids.astype(np.int64)

    def check_room(self, prompt: int, name: int) -> None:
        """Refuse what goes past the model's last position: all but the end token is read."""
        room = getattr(self.config, "max_position_embeddings", None)
        if room and (max(prompt, len(self.start) + name - 1) if self.two else prompt + name - 1) > room:
            raise InvalidInput(
                f"a prompt of {prompt} tokens and names of up to {name} do not fit the model's {room} positions; shorten "
                "the prompt, or leave the longest names out"
            )

    def batches(self, rows: Sequence[int], prompts: Sequence[Ints], size: int) -> Iterator[list[int]]:
        """Divide rows. A causal model that is not told positions gets prompts of one length."""
        chunk: list[int] = []
        for row in rows:
            mixed = (
                chunk and len(prompts[row]) != len(prompts[chunk[0]]) and not (self.two or "position_ids" in self.taken)
            )
            if len(chunk) == size or mixed:
                yield chunk
                chunk = []
            chunk.append(row)
        if chunk:
            yield chunk

    def begin(self, prompts: Sequence[Ints]) -> Tensor:
        """Read prompts, filled up on the left for a causal model: logits [prompts, vocabulary] of what comes next."""
        width, self.query = max(map(len, prompts)), np.arange(len(prompts))
        gaps = [(0, width - len(prompt)) if self.two else (width - len(prompt), 0) for prompt in prompts]
        ids = self._tensor(np.stack([np.pad(prompt, gap) for prompt, gap in zip(prompts, gaps, strict=True)]))
        self.mask = self._tensor(np.stack([np.pad(np.ones_like(p), gap) for p, gap in zip(prompts, gaps, strict=True)]))
        if self.two:
            self.states = self.model.get_encoder()(input_ids=ids, attention_mask=self.mask)[0]
            return self._decoded(np.tile(self.start, (len(prompts), 1)))[:, -1]
        places = self.mask.cumsum(1).sub(1).clamp(min=0)
        return self._read({"input_ids": ids, "position_ids": places, "logits_to_keep": 1})[:, -1]

    def go(self, rows: Ints, tokens: Ints) -> Tensor:
        """Go on from rows, which are the rows from now on, with tokens [rows, n]: logits [rows, n, vocabulary]."""
        query = self.query[rows]
        if not np.array_equal(rows, np.arange(len(self.query))):
            index, moved = self._tensor(rows), not np.array_equal(query, self.query)
            (self.cache if moved or not self.two else self.cache.self_attention_cache).reorder_cache(index)
            if moved:  # else what belongs to the queries may stay where it is
                self.mask, self.states = self.mask[index], self.states[index] if self.two else None
        self.query = query
        if self.two:
            return self._decoded(tokens)
        ids = self._tensor(tokens)
        places = self.mask.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
        self.mask = torch.cat((self.mask, torch.ones_like(ids)), 1)
        return self._read({"input_ids": ids, "position_ids": places})

    def branch(self) -> _Run:
        """A copy that goes on by itself."""
        twin = copy(self)
        twin.cache = deepcopy(self.cache)
        return twin

    def _decoded(self, tokens: Ints) -> Tensor:
        return self._read({"decoder_input_ids": self._tensor(tokens), "encoder_outputs": (self.states,)})

    def _read(self, inputs: dict[str, Any]) -> Tensor:
        name = "cache" if "cache" in self.taken else "past_key_values"  # its older name
        given = inputs | {"attention_mask": self.mask} | ({} if self.cache is None else {name: self.cache})
        answer = self.model(
            **{key: v for key, v in given.items() if key in self.taken}, use_cache=True, return_dict=True
        )
        self.cache = getattr(answer, name, None)
        if not hasattr(self.cache, "reorder_cache"):
            kind = type(self.model).__name__
            raise InvalidInput(
                f"{kind} keeps no cache that beams can share; use another model, or a newer transformers"
            )
        logits: Tensor = answer.logits
        return logits

    def _tensor(self, values: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.model.device)
