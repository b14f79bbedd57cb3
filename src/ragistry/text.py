"""Text to terms: the one `Analyzer` that queries and documents share.

A first pass, compiled, finds token spans by character class; a second one turns each *distinct* raw token into its term
(compatibility-normalised, case-folded, stop words dropped, stemmed) once and remembers it. Offsets therefore refer to the
text as it was given, which is what marking matched words needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple
from unicodedata import category, normalize

import numpy as np
import numpy.typing as npt
from numba import boolean, int64, types, uint64

from .compiled import I64, U8, U32, U64, compiled
from .errors import InvalidInput
from .types import Ints

ENGLISH_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or s such t that the their then there these they "
    "this to was will with".split()
)
"""Function words of English, with the `s` and `t` that apostrophes leave behind."""

_SEPARATOR, _LETTER, _UPPER, _DIGIT, _MARK, _UNSPACED, _CONNECTOR, _DOUBLE = range(8)
_CONNECTORS, _DOUBLE_CONNECTORS = "-./@+&#\\", ":_"
_SHARP, _PLUS = ord("#"), ord("+")
_INSIDE = frozenset(_CONNECTORS + _DOUBLE_CONNECTORS)
_LONGEST_WHOLE, _LONGEST_TOKEN = 64, 255
_BATCH_CHARACTERS = 1 << 21
_REMEMBERED = 1 << 22

# Scripts written without spaces between words (or, for Hangul, with long inflected words).
_UNSPACED_RANGES = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1100, 0x115F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
    (0x1B00, 0x1B7F), (0x3005, 0x3007), (0x3040, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF), (0xA960, 0xA97F), (0xA980, 0xA9DF), (0xAA60, 0xAA7F), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D), (0xFFA0, 0xFFDC), (0x1B000, 0x1B16F), (0x20000, 0x33480),
)  # fmt: skip
# Second and third parts of decomposed Hangul syllables, and half-width voicing marks: they belong to what stands before.
_JOINED_RANGES = ((0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0xFF9E, 0xFF9F), (0x200C, 0x200D))


class Token(NamedTuple):
    """A term and the characters `text[start:end]` it came from."""

    term: str
    start: int
    end: int


class Analyzer:
    """Turns text into terms; the same for queries and documents.

    Words are runs of letters, digits and marks of any script. Scripts without spaces (Chinese, Japanese, Korean, Thai, Lao,
    Khmer, Burmese, Tibetan, ...) give every character and every pair of neighbours. Identifiers give the whole and the
    parts: `os.path.join` gives itself and `os`, `path`, `join`; `getUserName` itself and `get`, `user`, `name`; `C++`
    itself and `c`.
    Safe to use from many threads.

    Args:
        stemmer: A Snowball algorithm ("english", "german", "porter", ...) or None. Identifiers with connectors and
            tokens in unspaced scripts are left as they are.
        stop_words: "english", None, or the words to drop.
        identifiers: Whether to look inside identifiers.

    Raises:
        InvalidInput: If the stemmer is not one of Snowball's (the message lists them), or a setting is of another type.

    Example:
        >>> Analyzer().terms("The parsers call os.path.join")
        ['parser', 'call', 'os', 'path', 'join', 'os.path.join']
        >>> Analyzer(stemmer=None).terms("getUserName 東京都")
        ['get', 'user', 'name', 'getusername', '東', '京', '東京', '都', '京都']

    Source: character pairs for unspaced scripts after Nie et al., "On the use of words and n-grams for Chinese information
    retrieval" (IRAL 2000); stemming by Snowball (Porter 2001).
    """

    def __init__(
        self,
        stemmer: str | None = "english",
        stop_words: str | Iterable[str] | None = "english",
        identifiers: bool = True,
    ) -> None:
        self.stemmer = stemmer
        self.stop_words = _words(stop_words)
        if not isinstance(identifiers, bool):
            raise InvalidInput(f"identifiers={identifiers!r:.100} is {type(identifiers).__name__}; give True or False")
        self.identifiers = identifiers
        self._stop = _stop_words(self.stop_words)
        self._stem = _snowball(stemmer)
        self._lock = threading.Lock()
        # What every raw token seen so far became: open addressing by its hash.
        self._hashes, self._keys, self._used = np.zeros(1 << 16, np.uint64), np.zeros(1 << 16, np.int64), 0

    def terms(self, text: str) -> list[str]:
        """The terms of a text in the order of their last character, repeats included."""
        return [token.term for token in self.tokens(text)]

    def tokens(self, text: str) -> list[Token]:
        """The terms of a text with the characters each came from.

        Raises:
            InvalidInput: If it is no text.
        """
        if not isinstance(text, str):
            raise InvalidInput(f"{text!r:.100} is {type(text).__name__}; one text is needed")
        _, starts, ends, _ = self._spans([text])
        with self._lock:
            found = [Token(self._term(text[a:b]), a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return [token for token in found if token.term]

    def keys(self, texts: Sequence[str]) -> tuple[Ints, Ints]:
        """Terms as 63-bit numbers, for machines.

        Returns:
            int64 [terms], and int64 [texts + 1]: text i has `keys[offsets[i]:offsets[i + 1]]`.
        """
        parts, offsets, total = [np.empty(0, np.int64)], [np.zeros(1, np.int64)], 0
        for batch in _batches(texts):
            joined, starts, ends, hashes = self._spans(batch)
            with self._lock:
                keys = self._known(joined, starts, ends, hashes)
            kept = keys > 0
            limits = np.cumsum(np.fromiter((len(text) + 1 for text in batch), np.int64, len(batch)))
            parts.append(keys[kept])
            offsets.append(total + np.searchsorted(starts[kept], limits))
            total += len(parts[-1])
        return np.concatenate(parts), np.concatenate(offsets)

    def _spans(self, texts: Sequence[str]) -> tuple[str, Ints, Ints, npt.NDArray[np.uint64]]:
        joined = "\0".join(texts) + "\0"
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        starts, ends = np.empty(2 * len(codes), np.int64), np.empty(2 * len(codes), np.int64)
        hashes = np.empty(2 * len(codes), np.uint64)
        found = _tokenize(codes, _classes(), self.identifiers, starts, ends, hashes)
        return joined, starts[:found], ends[:found], hashes[:found]

    def _known(self, joined: str, starts: Ints, ends: Ints, hashes: npt.NDArray[np.uint64]) -> Ints:
        keys = np.empty(len(hashes), np.int64)
        while (missing := _lookup(hashes, self._hashes, self._keys, keys)) > 0:
            if 2 * (self._used + missing) > len(self._hashes):
                self._grow(missing)
            unknown = np.flatnonzero(keys < 0)
            fresh, first = np.unique(hashes[unknown], return_index=True)
            where = unknown[first]
            raw = [joined[a:b] for a, b in zip(starts[where].tolist(), ends[where].tolist(), strict=True)]
            values = np.fromiter((term_key(self._term(token)) for token in raw), np.int64, len(raw))
            _insert(fresh, values, self._hashes, self._keys)
            self._used += len(fresh)
        return keys

    def _grow(self, missing: int) -> None:
        if self._used > _REMEMBERED:
            self._hashes[:], self._used = 0, 0
        size = len(self._hashes)
        while 2 * (self._used + missing) > size:
            size *= 2
        if size > len(self._hashes):
            hashes, keys, used = self._hashes, self._keys, self._hashes != 0
            self._hashes, self._keys = np.zeros(size, np.uint64), np.zeros(size, np.int64)
            _insert(hashes[used], keys[used], self._hashes, self._keys)

    def _term(self, raw: str) -> str:
        if raw.isascii():
            term = raw.lower()
        else:
            term = normalize("NFKC", normalize("NFKC", raw).casefold())
        if term in self._stop:
            return ""
        if self._stem is None or not _INSIDE.isdisjoint(term):
            return term
        stem: str = self._stem.stemWord(term)
        return stem


def term_key(term: str) -> int:
    """A term as a number in 1 .. 2^63 - 1 (0 for the empty term).

    It is a hash, so that no vocabulary needs to be kept or shared: among ten million terms the chance that any two share a
    number is about five in a million.
    """
    if not term:
        return 0
    return (int.from_bytes(blake2b(term.encode("utf-8", "replace"), digest_size=8).digest(), "little") >> 1) or 1


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 1
    if batch:
        yield batch


def _words(given: str | Iterable[str] | None) -> str | tuple[str, ...] | None:
    """Stop words in one order: that of a set differs between processes, and with it the encoder's fingerprint."""
    if given is None or isinstance(given, str):
        return given
    words = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(word, str) for word in words):
        raise InvalidInput(
            f'stop_words={given!r:.100} is no list of words; give "english", None, or the words themselves'
        )
    return tuple(sorted(set(words)))


def _stop_words(given: str | tuple[str, ...] | None) -> frozenset[str]:
    if given is None:
        return frozenset()
    if isinstance(given, str):
        if given != "english":
            raise InvalidInput(f'stop_words={given!r} is not known; give "english", None, or the words themselves')
        return ENGLISH_STOP_WORDS
    return frozenset(normalize("NFKC", normalize("NFKC", word).casefold()) for word in given)


def _snowball(name: str | None) -> Any:
    if name is None:
        return None
    import Stemmer

    if name not in Stemmer.algorithms():
        raise InvalidInput(f"stemmer={name!r} is not known; give None or one of {', '.join(Stemmer.algorithms())}")
    return Stemmer.Stemmer(name, 0)  # its own cache costs more than it saves where every term is remembered anyway


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """uint8 [0x110000]: the class of every code point."""
    of = {"Lu": _UPPER, "Lt": _UPPER, "L": _LETTER, "N": _DIGIT, "M": _MARK}
    kinds = {k: of.get(k, of.get(k[0], _SEPARATOR)) for k in {category(chr(c)) for c in range(0x33480)} | {"Mn"}}
    table = np.zeros(0x110000, np.uint8)
    table[:0x33480] = [kinds[category(chr(c))] for c in range(0x33480)]
    for first, last in _UNSPACED_RANGES:
        block = table[first : last + 1]
        block[(block == _LETTER) | (block == _UPPER)] = _UNSPACED
    for first, last in ((0xE0100, 0xE01EF), *_JOINED_RANGES):
        table[first : last + 1] = _MARK
    for classes, characters in ((_CONNECTOR, _CONNECTORS), (_DOUBLE, _DOUBLE_CONNECTORS)):
        table[[ord(c) for c in characters]] = classes
    table[0x3006:0x3008] = _UNSPACED
    return table


_W64 = types.Array(uint64, 1, "C")
_W = types.Array(int64, 1, "C")


@compiled(uint64(U32, int64, int64))
def _hash(codes: Any, start: int, end: int) -> Any:
    value = np.uint64(0x9E3779B97F4A7C15)
    for i in range(start, end):
        value = (value ^ np.uint64(codes[i])) * np.uint64(0xD6E8FEB86659FD93)
        value ^= value >> np.uint64(32)
    value = (value ^ np.uint64(end - start)) * np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(29)
    return value | np.uint64(1)


@compiled(int64(U32, U8, boolean, _W, _W, _W64))
def _tokenize(codes: Any, classes: Any, identifiers: bool, starts: Any, ends: Any, hashes: Any) -> int:
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
                starts[found], ends[found], hashes[found] = start, end, _hash(codes, start, end)
                found += 1
                if before >= 0 and end - before <= _LONGEST_TOKEN:
                    starts[found], ends[found], hashes[found] = before, end, _hash(codes, before, end)
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
                        starts[found], ends[found], hashes[found] = part, end, _hash(codes, part, end)
                        found += 1
                        parts += 1
                        part = i
                i += 1
            end = min(i, part + _LONGEST_TOKEN)
            starts[found], ends[found], hashes[found] = part, end, _hash(codes, part, end)
            found += 1
            if parts > 0 and i - word <= _LONGEST_WHOLE:
                starts[found], ends[found], hashes[found] = word, i, _hash(codes, word, i)
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
                starts[found], ends[found], hashes[found] = word, i + step, _hash(codes, word, i + step)
                found += 1
        if words > 1 and i - whole <= _LONGEST_WHOLE:
            starts[found], ends[found], hashes[found] = whole, i, _hash(codes, whole, i)
            found += 1
    return found


@compiled(int64(U64, U64, I64, _W))
def _lookup(hashes: Any, table: Any, values: Any, out: Any) -> int:
    """Fill `out` with the value of each hash, -1 where there is none, and count those."""
    mask = np.uint64(len(table) - 1)
    missing = 0
    for i in range(len(hashes)):
        slot = (hashes[i] >> np.uint64(8)) & mask
        while table[slot] != np.uint64(0) and table[slot] != hashes[i]:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] == np.uint64(0):
            out[i] = -1
            missing += 1
        else:
            out[i] = values[slot]
    return missing


@compiled(types.void(U64, I64, _W64, _W))
def _insert(hashes: Any, keys: Any, table: Any, values: Any) -> None:
    mask = np.uint64(len(table) - 1)
    for i in range(len(hashes)):
        slot = (hashes[i] >> np.uint64(8)) & mask
        while table[slot] != np.uint64(0) and table[slot] != hashes[i]:
            slot = (slot + np.uint64(1)) & mask
        table[slot], values[slot] = hashes[i], keys[i]
