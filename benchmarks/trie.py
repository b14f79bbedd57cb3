"""Tries of names: building them, their size, what the tokens allowed next cost at each step, and whole searches.

    python benchmarks/trie.py [--names 100000 300000 1000000] [--steps 100] [--rounds 7] [--model FOLDER]

Names are Wikipedia's titles as MiniLM's tokenizer cuts them, as far as there are so many (`wiki-titles` in RAGISTRY_DATA);
else made of 2 to 10 tokens drawn from a Zipf distribution. Beside ours stand nested dicts, which are walked from the root at
each step as GENRE's are, and, where it is installed, marisa-trie, asked for every completion of a prefix as GENRE's is.

Whole searches stand beside beam searches over the whole vocabulary (our own loop and that of transformers), and beside that
of transformers with the nested dict. Names as long as one another, of which any token may be one, show what wide nodes cost.
The model is grown from an embedding model and has learned nothing, which is fine for times; give one that was fitted to see
how early its searches end.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
import torch
from common import data, interleaved, jsonl, report, required
from tokenizers import Tokenizer
from transformers import PrefixConstrainedLogitsProcessor

from ragistry.models import MINILM, find_model
from ragistry.retrievers import constrained
from ragistry.retrievers.constrained import ConstrainedSearch
from ragistry.retrievers.decoding import Decoding
from ragistry.retrievers.trie import Ragged, Trie
from ragistry.scorers.language_model import LanguageModel
from ragistry.scorers.likelihood import filled

VOCABULARY, END, BEAMS, STEPS = 30_522, 102, 10, 15
Row: TypeAlias = dict[str, object]


class Nested:
    """A dict for each node, as GENRE keeps names."""

    def __init__(self, names: list[list[int]]) -> None:
        self.root: dict[int, Any] = {}
        for name in names:
            node = self.root
            for token in (*name, END):
                node = node.setdefault(token, {})

    def allowed(self, prefix: list[int]) -> list[int]:
        """The tokens that may follow."""
        node = self.root
        for token in prefix:
            node = node.get(token, {})  # nothing follows an end
        return list(node)

    def bytes(self) -> int:
        """Of the dicts alone, without the numbers in them."""
        size, going = 0, [self.root]
        while going:
            node = going.pop()
            size += sys.getsizeof(node)
            going += node.values()
        return size


class Marisa:
    """Names as text of one character a token, past those that text cannot hold."""

    def __init__(self, names: list[list[int]]) -> None:
        import marisa_trie

        self.trie = marisa_trie.Trie(["".join(map(self._character, (*name, END))) for name in names])

    def allowed(self, prefix: list[int]) -> list[int]:
        """The tokens that may follow, seen from every name that begins so."""
        begun = "".join(map(self._character, prefix))
        found = {ord(key[len(begun)]) for key in self.trie.keys(begun)}
        return [code if code < 0xD800 else code - 0x800 for code in found]

    def bytes(self) -> int:
        """As saved."""
        return len(self.trie.tobytes())

    @staticmethod
    def _character(token: int) -> str:
        return chr(token if token < 0xD800 else token + 0x800)


def titles() -> list[list[int]]:
    """Tokens of every title there is, in any order."""
    path = data("wiki-titles") / "titles.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    np.random.default_rng(0).shuffle(lines)
    tokenizer = Tokenizer.from_file(str(find_model(MINILM) / "tokenizer.json"))
    tokenizer.no_padding()
    return [found.ids for found in tokenizer.encode_batch_fast(lines, add_special_tokens=False) if found.ids]


def zipf(count: int) -> list[list[int]]:
    """Names of 2 to 10 tokens."""
    draw = np.random.default_rng(1)
    shares = np.cumsum(1 / np.arange(1, VOCABULARY - 1000))
    ends = np.cumsum(draw.integers(2, 11, count))
    tokens = 1000 + np.searchsorted(shares / shares[-1], draw.random(ends[-1]))
    return [part.tolist() for part in np.split(tokens, ends[:-1])]


def prefixes(names: list[list[int]], steps: int, depth: str) -> list[list[list[int]]]:
    """For each step what ten beams have said: one token of a name, or all of it but the last."""
    draw = np.random.default_rng(2)
    some = [[names[row] for row in draw.integers(len(names), size=BEAMS)] for _ in range(steps)]
    return [[name[:1] if depth == "second token" else name[:-1] for name in beams] for beams in some]


def node_of(trie: Trie, prefix: list[int]) -> int:
    """The node that a prefix leads to."""
    node = 0
    for token in prefix:
        found = trie.children([node])
        node = int(found.nodes[np.searchsorted(found.tokens, token)])
    return node


def step_times(trie: Trie, other: Any, asked: list[list[list[int]]]) -> dict[str, float]:
    """Median microseconds of a step: the allowed tokens of ten beams, and then their scores out of the logits."""
    nodes = [np.array([node_of(trie, prefix) for prefix in beams]) for beams in asked]
    said = [torch.zeros((BEAMS, max(map(len, beams)) + 1), dtype=torch.long) for beams in asked]
    for rows, beams in zip(said, asked, strict=True):
        for row, prefix in zip(rows, beams, strict=True):
            row[0], row[1 : len(prefix) + 1], row[len(prefix) + 1 :] = -1, torch.tensor(prefix, dtype=torch.long), -1
    logits, step = torch.randn(BEAMS, VOCABULARY), iter(range(10**9))
    flat, begins = logits.numpy().ravel(), VOCABULARY * np.arange(BEAMS)

    def gathered() -> object:
        tokens, _, offsets = trie.children(nodes[next(step) % len(asked)])
        return flat[np.repeat(begins, np.diff(offsets)) + tokens]

    mask = PrefixConstrainedLogitsProcessor(lambda _, row: other.allowed([t for t in row.tolist() if t >= 0]), BEAMS)
    tasks: dict[str, Callable[[], object]] = {
        "ours, allowed": lambda: trie.children(nodes[next(step) % len(asked)]),
        "theirs, allowed": lambda: [other.allowed(prefix) for prefix in asked[next(step) % len(asked)]],
        "ours, with scores": gathered,
        "theirs, with scores": lambda: mask(said[next(step) % len(asked)], logits),
    }
    for task in tasks.values():
        task()
    return {name: 1e6 * statistics.median(found) for name, found in interleaved(tasks, len(asked)).items()}


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """What is made, and the processor's seconds."""
    start = time.process_time()
    return make(), time.process_time() - start


def built(names: Ragged) -> Trie:
    """Ours."""
    trie = Trie(END)
    trie.add(names, np.arange(len(names.offsets) - 1))
    return trie


def rows_for(names: list[list[int]], origin: str, steps: int) -> list[Row]:
    """A row for each trie and depth."""
    values = np.concatenate([np.asarray(name, np.int64) for name in names])
    ragged = Ragged(values, np.concatenate(([0], np.cumsum([len(name) for name in names]))))
    trie, seconds = timed(lambda: built(ragged))
    peers: dict[str, Callable[[], Any]] = {"nested dict": lambda: Nested(names), "marisa-trie": lambda: Marisa(names)}
    rows = list[Row]()

    def row(name: str, made: float, size: int, depth: str, allowed: float, scores: float) -> None:
        head = {"names": f"{len(names):,} {origin}", "trie": name, "build s": round(made, 2)}
        sizes = {"MB": round(size / 1e6, 1), "bytes/node": round(size / trie.nodes, 2)}
        rows.append(
            head | sizes | {"before": depth, "allowed us": round(allowed, 1), "with scores us": round(scores, 1)}
        )

    for name, make in peers.items():
        try:
            other, taken = timed(make)
        except ImportError:
            continue
        for depth in ("second token", "last token"):
            found = step_times(trie, other, prefixes(names, steps, depth))
            if name == "nested dict":
                row("ours", seconds, trie.nbytes, depth, found["ours, allowed"], found["ours, with scores"])
            row(name, taken, other.bytes(), depth, found["theirs, allowed"], found["theirs, with scores"])
        del other
    return rows


class Split:
    """Milliseconds of a search: in all, within the model, and within what finds or forbids tokens; and the model's calls."""

    def __init__(self, model: Any) -> None:
        self.spent = {"model": 0.0, "tokens": 0.0}
        self.calls = 0
        parts = [(model.encoder, "forward"), (model.decoder, "forward"), (Trie, "children"), (Trie, "entities")]
        self.parts = [*parts, (constrained, "likely"), (PrefixConstrainedLogitsProcessor, "__call__")]

    def of(self, task: Callable[[], object]) -> tuple[float, float, float, int]:
        """Run it."""
        self.spent, self.calls = dict.fromkeys(self.spent, 0.0), 0
        with ExitStack() as stack:
            for place, (owner, name) in enumerate(self.parts):
                timed = self._timed(getattr(owner, name), "model" if place < 2 else "tokens", place == 1)
                stack.enter_context(mock.patch.object(owner, name, timed))
            start = time.perf_counter()
            task()
            whole = time.perf_counter() - start
        return 1e3 * whole, 1e3 * self.spent["model"], 1e3 * self.spent["tokens"], self.calls

    def _timed(self, inner: Callable[..., Any], where: str, counted: bool) -> Callable[..., Any]:
        @wraps(inner)
        def timed(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = inner(*given, **named)
            self.spent[where] += time.perf_counter() - start
            self.calls += counted
            return found

        return timed


@torch.inference_mode()
def unconstrained(model: Any, prompts: Sequence[Sequence[int]], steps: int) -> Any:
    """A beam search over the whole vocabulary, as lean as ours: tokens [prompts, beams, steps]."""
    run = Decoding(model, None)
    total, token = torch.log_softmax(run.begin([np.asarray(prompt) for prompt in prompts]), -1).topk(BEAMS)
    row, said = torch.arange(len(prompts)).repeat_interleave(BEAMS), token.view(-1, 1)
    for _ in range(steps - 1):
        scores = torch.log_softmax(run.go(row.numpy(), said[:, -1:].numpy())[:, 0], -1) + total.view(-1, 1)
        total, place = scores.view(len(prompts), -1).topk(BEAMS)
        row = (place // VOCABULARY + BEAMS * torch.arange(len(prompts))[:, None]).flatten()
        said = torch.cat((said[row], (place % VOCABULARY).view(-1, 1)), 1)
    return said.view(len(prompts), BEAMS, steps)


def generated(model: Any, prompts: Sequence[Sequence[int]], steps: int, other: Nested | None) -> Any:
    """What transformers finds, all tokens allowed or those of nested dicts: [prompts * beams, tokens]."""
    ids, mask = filled(prompts)
    allowed = None if other is None else lambda _, row: other.allowed(row.tolist()[1:]) or [END]
    return model.generate(
        input_ids=ids, attention_mask=mask, decoder_start_token_id=model.config.decoder_start_token_id, eos_token_id=END,
        pad_token_id=END, num_beams=BEAMS, num_return_sequences=BEAMS, max_new_tokens=steps, do_sample=False,
        prefix_allowed_tokens_fn=allowed,
    )  # fmt: skip


def search_rows(model: Any, kind: str, names: list[list[int]], prompts: list[list[int]], rounds: int) -> list[Row]:
    """A row for each number of queries at once and way to search."""
    values = np.concatenate([np.asarray(name, np.int64) for name in names])
    trie = built(Ragged(values, np.concatenate(([0], np.cumsum([len(name) for name in names])))))
    other, split, rows = Nested(names), Split(model), list[Row]()
    steps = min(STEPS, max(map(len, names)) + 1)
    for batch in (1, 16):
        search = ConstrainedSearch(model, beams=BEAMS, batch=batch)
        tasks: dict[str, Callable[[list[list[int]]], object]] = {
            "ours": lambda some, search=search: search.search(some, trie),  # type: ignore[misc]
            "no constraint": lambda some: unconstrained(model, some, steps),
            "generate, no constraint": lambda some: generated(model, some, steps, None),
            "generate, nested dict": lambda some: generated(model, some, steps, other),
        }
        found: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in tasks}
        for turn in range(-1, rounds):
            some = [prompts[(batch * (turn + 1) + i) % len(prompts)] for i in range(batch)]
            order = list(tasks)[turn % len(tasks) :] + list(tasks)[: turn % len(tasks)]
            for name in order:
                times = split.of(partial(tasks[name], some))
                if turn >= 0:  # one round to warm up
                    found[name].append(times)
        ours = np.array(found["ours"])
        for name, taken in found.items():
            whole, inner, tokens, calls = np.median(taken, axis=0).tolist()
            ratios = np.array(taken) / ours
            part = {"model": inner, "tokens": tokens, "rest": whole - inner - tokens}
            rows.append(
                {"names": kind, "queries": batch, "search": name, "ms/query": round(whole / batch, 1)}
                | {f"{key} ms": round(value / batch, 2) for key, value in part.items()}
                | {"calls": calls, "times ours": round(float(np.median(ratios[:, 0])), 2)}
                | {"a call": round(float(np.median(ratios[:, 0] / ratios[:, 3])), 2)}
            )
    return rows


def searches(options: argparse.Namespace, real: list[list[int]]) -> None:
    """Measure whole searches, print and write results/trie_search.json."""
    given = LanguageModel(options.model, grow="seq2seq", precision="fp32")
    before, after = given.around
    lines = [line["text"] for line in itertools.islice(jsonl(required(data("nq-mini") / "queries.jsonl")), 160)]
    prompts = [[*before, *ids, *after] for ids in given.tokens(lines, 60)]
    draw = np.random.default_rng(3)
    tokens = np.setdiff1d(np.arange(1000, VOCABULARY), [END])
    wide = [[int(a), int(b)] for a in draw.choice(tokens, 30, False) for b in draw.choice(tokens, 10_000, False)]
    sets = {
        f"{len(real):,} titles": real,
        f"{len(tokens):,} of one token": tokens[:, None].tolist(),
        "30 x 10,000 of two tokens": wide,
    }
    rows = [
        row
        for kind, names in sets.items()
        if names
        for row in search_rows(given.model, kind, names, prompts, options.rounds)
    ]
    report(
        "trie_search",
        rows,
        title="Searches for names",
        notes=f"Medians of {options.rounds} rounds in turn, {BEAMS} beams, one thread; the model is {options.model}, as an "
        f"encoder-decoder. Other searches go on to the longest name or {STEPS} tokens. Tokens: the time to find or forbid "
        "them. Times ours: the median of the rounds' ratios, of whole searches and of a call of the model.",
    )


def main() -> None:
    """Measure, print and write results/trie.json and results/trie_search.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="*", default=[100_000, 292_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7, help="of whole searches; 0 for none")
    parser.add_argument("--model", default=MINILM)
    options = parser.parse_args()
    torch.set_num_threads(1)
    real, rows = titles(), list[Row]()
    for count in options.names:
        enough = len(real) >= count
        rows += rows_for(real[:count] if enough else zipf(count), "titles" if enough else "Zipf", options.steps)
    if rows:
        report(
            "trie",
            rows,
            title="Tries of names",
            notes=f"Processor seconds to build; medians of {options.steps} steps of {BEAMS} beams in turn, one thread. "
            "Allowed: the tokens that may follow. With scores: gathered out of the logits, or all others masked by "
            "transformers' processor of prefix_allowed_tokens_fn. Bytes of dicts are without the numbers in them, of "
            "marisa-trie as saved.",
        )
    if options.rounds:
        searches(options, real)


if __name__ == "__main__":
    main()
