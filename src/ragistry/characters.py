"""Where the tokens of a text are, by the classes of its characters."""

from __future__ import annotations

from functools import cache
from typing import Any
from unicodedata import category

import numpy as np
import numpy.typing as npt

from .compiled import compiled, worth_loading
from .types import Ints

Codes = npt.NDArray[np.uint32]

_SEPARATOR, _LETTER, _UPPER, _DIGIT, _MARK, _UNSPACED, _CONNECTOR, _DOUBLE = range(8)
_CONNECTORS, _DOUBLE_CONNECTORS = "-./@+&#\\", ":_"
_SHARP, _PLUS = ord("#"), ord("+")
_LONGEST_WHOLE, _LONGEST_TOKEN = 64, 255
_LAST_SCRIPT = 0x33480  # no letters come after it

# Scripts written without spaces between words (or, for Hangul, with long inflected words).
_UNSPACED_RANGES = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1100, 0x115F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
    (0x1B00, 0x1B7F), (0x3005, 0x3007), (0x3040, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF), (0xA960, 0xA97F), (0xA980, 0xA9DF), (0xAA60, 0xAA7F), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D), (0xFFA0, 0xFFDC), (0x1B000, 0x1B16F), (0x20000, 0x33480),
)  # fmt: skip
# Second and third parts of decomposed Hangul syllables, and half-width voicing marks: they belong to what stands before.
_JOINED_RANGES = ((0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0xFF9E, 0xFF9F), (0x200C, 0x200D))

CONNECTORS = _CONNECTORS + _DOUBLE_CONNECTORS
"""What joins words to an identifier."""


def code_points(text: str) -> Codes:
    """uint32 [characters]: a text as numbers."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def spans(codes: Codes, identifiers: bool) -> tuple[Ints, Ints]:
    """Where the tokens of a text that ends in a zero start and end."""
    room = 2 * len(codes)
    if worth_loading(len(codes)):
        starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        found = _tokenize(codes, _table(), identifiers, starts, ends)
        return starts[:found], ends[:found]
    # The same function as it is written, given what the interpreter is quickest with.
    given = codes.tolist()
    distinct = sorted({*given})
    classes = dict(zip(distinct, _classes(np.array(distinct, np.uint32)).tolist(), strict=True))
    first, last = [0] * room, [0] * room
    found = _tokenize.__wrapped__(given, classes, identifiers, first, last)  # type: ignore[attr-defined]
    return np.array(first[:found], np.int64), np.array(last[:found], np.int64)


@cache
def _table() -> npt.NDArray[np.uint8]:
    """uint8 [0x110000]: the class of every code point."""
    return _classes(np.arange(0x110000, dtype=np.uint32))


def _classes(codes: Codes) -> npt.NDArray[np.uint8]:
    """The class of each of some code points, which rise."""
    of = {"Lu": _UPPER, "Lt": _UPPER, "L": _LETTER, "N": _DIGIT, "M": _MARK}
    given = [category(chr(code)) for code in codes[codes < _LAST_SCRIPT].tolist()]
    kinds = {k: of.get(k, of.get(k[0], _SEPARATOR)) for k in {*given}}
    found = np.zeros(len(codes), np.uint8)
    found[: len(given)] = [kinds[k] for k in given]

    def within(first: int, last: int) -> slice:
        return slice(*np.searchsorted(codes, (first, last + 1)).tolist())

    for first, last in _UNSPACED_RANGES:
        block = found[within(first, last)]
        block[(block == _LETTER) | (block == _UPPER)] = _UNSPACED
    for first, last in ((0xE0100, 0xE01EF), *_JOINED_RANGES):
        found[within(first, last)] = _MARK
    for kind, characters in ((_CONNECTOR, _CONNECTORS), (_DOUBLE, _DOUBLE_CONNECTORS)):
        for code in map(ord, characters):
            found[within(code, code)] = kind
    found[within(0x3006, 0x3007)] = _UNSPACED
    return found


@compiled("uint64[::1](U32, I64, I64)")
def hashed(codes: Any, starts: Any, ends: Any) -> Any:
    """A number for each span, of its characters."""
    hashes = np.empty(len(starts), np.uint64)
    for j in range(len(starts)):
        start, end = starts[j], ends[j]
        value = np.uint64(0x9E3779B97F4A7C15)
        for i in range(start, end):
            value = (value ^ np.uint64(codes[i])) * np.uint64(0xD6E8FEB86659FD93)
            value ^= value >> np.uint64(32)
        value = (value ^ np.uint64(end - start)) * np.uint64(0xD6E8FEB86659FD93)
        value ^= value >> np.uint64(29)
        hashes[j] = value | np.uint64(1)
    return hashes


@compiled("int64(U32, U8, boolean, int64[::1], int64[::1])")
def _tokenize(codes: Any, classes: Any, identifiers: bool, starts: Any, ends: Any) -> int:
    """Fill in where tokens start and end, in the order of their ends, and count them. It also runs uncompiled."""
    n, found, i = len(codes), 0, 0
    while i < n:
        kind = classes[codes[i]]
        if kind == _UNSPACED:
            before = -1  # where the preceding character of this run starts
            while i < n and classes[codes[i]] == _UNSPACED:
                start = i
                i += 1
                while i < n and classes[codes[i]] == _MARK:
                    i += 1
                end = min(i, start + _LONGEST_TOKEN)
                starts[found], ends[found] = start, end
                found += 1
                if before >= 0 and end - before <= _LONGEST_TOKEN:
                    starts[found], ends[found] = before, end
                    found += 1
                before = start
            continue
        if kind not in (_LETTER, _UPPER, _DIGIT):
            i += 1
            continue
        whole, words = i, 0
        while True:  # words joined by connectors
            word, part, parts = i, i, 0
            while i < n:
                kind = classes[codes[i]]
                if kind not in (_LETTER, _UPPER, _DIGIT, _MARK):
                    break
                if identifiers and kind == _UPPER and i > part:
                    # Accents written as marks of their own must not hide what they stand on.
                    left, right = i - 1, i + 1
                    while left > part and classes[codes[left]] == _MARK:
                        left -= 1
                    while right < n and classes[codes[right]] == _MARK:
                        right += 1
                    before_kind = classes[codes[left]]
                    after_kind = classes[codes[right]] if right < n else _SEPARATOR
                    if before_kind == _LETTER or (before_kind == _UPPER and after_kind == _LETTER):
                        end = min(i, part + _LONGEST_TOKEN)
                        starts[found], ends[found] = part, end
                        found += 1
                        parts += 1
                        part = i
                i += 1
            end = min(i, part + _LONGEST_TOKEN)
            starts[found], ends[found] = part, end
            found += 1
            if parts > 0 and i - word <= _LONGEST_WHOLE:
                starts[found], ends[found] = word, i
                found += 1
            words += 1
            if not identifiers or i + 1 >= n:
                break
            step = 0
            kind = classes[codes[i]]
            if kind in (_CONNECTOR, _DOUBLE):
                step = 2 if kind == _DOUBLE and codes[i + 1] == codes[i] else 1
            if step == 0 or i + step >= n:
                break
            kind = classes[codes[i + step]]
            if kind not in (_LETTER, _UPPER, _DIGIT):
                break
            i += step
        if identifiers and i - word < _LONGEST_WHOLE:  # C# and C++
            step = 1 if codes[i] == _SHARP else 2 if codes[i] == _PLUS and codes[i + 1] == _PLUS else 0
            if step > 0 and classes[codes[i + step]] in (_SEPARATOR, _CONNECTOR, _DOUBLE):
                starts[found], ends[found] = word, i + step
                found += 1
        if words > 1 and i - whole <= _LONGEST_WHOLE:
            starts[found], ends[found] = whole, i
            found += 1
    return found
