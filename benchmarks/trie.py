"""Tries of names: building them, their size, and what the tokens allowed next cost at each step of ten beams.

    python benchmarks/trie.py [--names 100000 300000 1000000] [--steps 100]

Names are Wikipedia's titles as MiniLM's tokenizer cuts them, as far as there are so many (`wiki-titles` in RAGISTRY_DATA);
else made of 2 to 10 tokens drawn from a Zipf distribution. Beside ours stand nested dicts, which are walked from the root at
each step as GENRE's are, and, where it is installed, marisa-trie, asked for every completion of a prefix as GENRE's is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import data, interleaved, report
from tokenizers import Tokenizer
from transformers import PrefixConstrainedLogitsProcessor

from ragistry.models import MINILM, find_model
from ragistry.retrievers.trie import Ragged, Trie

VOCABULARY, END, BEAMS = 30_522, 102, 10


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
            node = node[token]
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

    def gathered() -> object:
        tokens, _, offsets = trie.children(nodes[next(step) % len(asked)])
        rows = np.repeat(np.arange(BEAMS), np.diff(offsets))
        return logits[torch.from_numpy(rows), torch.from_numpy(tokens)]

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


def rows_for(names: list[list[int]], origin: str, steps: int) -> list[dict[str, object]]:
    """A row for each trie and depth."""
    values = np.concatenate([np.asarray(name, np.int64) for name in names])
    ragged = Ragged(values, np.concatenate(([0], np.cumsum([len(name) for name in names]))))
    trie, seconds = timed(lambda: built(ragged))
    peers: dict[str, Callable[[], Any]] = {"nested dict": lambda: Nested(names), "marisa-trie": lambda: Marisa(names)}
    rows: list[dict[str, object]] = []

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


def main() -> None:
    """Measure, print and write results/trie.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="+", default=[100_000, 292_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    real, rows = titles(), []
    for count in options.names:
        enough = len(real) >= count
        rows += rows_for(real[:count] if enough else zipf(count), "titles" if enough else "Zipf", options.steps)
    report(
        "trie",
        rows,
        title="Tries of names",
        notes=f"Processor seconds to build; medians of {options.steps} steps of {BEAMS} beams in turn, one thread. Allowed: "
        "the tokens that may follow. With scores: gathered out of the logits, or all others masked by transformers' "
        "processor of prefix_allowed_tokens_fn. Bytes of dicts are without the numbers in them, of marisa-trie as saved.",
    )


if __name__ == "__main__":
    main()
