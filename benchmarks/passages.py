"""Real text in any amount: passages and questions for the lexical benchmarks.

The passages of several collections come first, verbatim and in order. Where more are asked for, further ones are made of
sentences drawn at random (seeded) from all of them, as many as a randomly chosen real passage has, so that lengths and word
frequencies stay those of real text; only the vocabulary stops growing.
"""

from __future__ import annotations

import random
import re
import sysconfig
from pathlib import Path

from common import data, jsonl

COLLECTIONS = ("msmarco-mini", "nq-mini", "scifact", "cranfield", "csfcube", "chunking-eval")
ASKED = ("msmarco-mini", "nq-mini", "scifact")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def passages(count: int, seed: int = 1) -> tuple[list[str], str]:
    """So many texts, and a sentence that says where they come from."""
    real = [text for name in COLLECTIONS if _present(name) for text in _texts(name, "corpus")]
    origin = f"passages of {', '.join(COLLECTIONS)}"
    if not real:
        real, origin = _standard_library(), "blocks of the Python standard library's sources"
    texts = real[:count]
    if len(texts) < count:
        draw = random.Random(seed)
        sentences = [sentence for text in real for sentence in SENTENCE.split(text)]
        lengths = [len(SENTENCE.split(text)) for text in real]
        texts += [" ".join(draw.choices(sentences, k=draw.choice(lengths))) for _ in range(count - len(texts))]
    made = max(count - len(real), 0)
    return texts, f"{count - made:,} {origin}" + f", {made:,} made of their sentences (seed {seed})" * bool(made)


def lines(path: Path, count: int, words: int | None = None) -> str:
    """Write so many texts to a file, one a line, of each its first words if that is wanted; where they come from."""
    texts, origin = passages(count)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(" ".join(text.split()[:words]) + "\n" for text in texts)
    return origin if words is None else f"the first {words} words of {origin}"


def questions(count: int, seed: int = 2) -> list[str]:
    """So many queries: people's questions where there are data, otherwise a few neighbouring words of the texts."""
    draw = random.Random(seed)
    asked = [text for name in ASKED if _present(name) for text in _texts(name, "queries")]
    if not asked:
        words = [re.findall(r"\w+", text) for text in _standard_library()]
        asked = [" ".join(found[:5]) for found in words if len(found) >= 5]
    return draw.sample(asked, min(count, len(asked)))


def _present(name: str) -> bool:
    return (data(name) / "corpus.jsonl").exists()


def _texts(name: str, part: str) -> list[str]:
    rows = jsonl(data(name) / f"{part}.jsonl")
    return [f"{row['title']}\n{row['text']}" if row.get("title") else row["text"] for row in rows]


def _standard_library() -> list[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    sources = (file.read_text("utf-8", "replace") for file in files if "site-packages" not in file.parts)
    return [block for source in sources for block in source.split("\n\n") if len(block) > 80]
