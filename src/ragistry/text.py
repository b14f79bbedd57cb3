"""Text to terms: the one `Analyzer` that queries and documents share.

A first pass, compiled unless there is little to do, finds token spans by character class; a second one turns each
*distinct* raw token into its term (compatibility-normalised, case-folded, stop words dropped, stemmed) once and remembers
it. Offsets therefore refer to the text as it was given, which is what marking matched words needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from .characters import CONNECTORS, Codes, code_points, hashed, spans
from .compiled import compiled, worth_loading
from .errors import InvalidInput
from .types import Ints

ENGLISH_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or s such t that the their then there these they "
    "this to was will with".split()
)
"""Function words of English, with the `s` and `t` that apostrophes leave behind."""

_INSIDE = frozenset(CONNECTORS)
_BATCH_CHARACTERS = 1 << 21
_REMEMBERED = 1 << 22


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
        starts, ends = spans(code_points(text + "\0"), self.identifiers)
        return [token for token in self._tokens(text, starts, ends) if token.term]

    def keys(self, texts: Sequence[str]) -> tuple[Ints, Ints]:
        """Terms as 63-bit numbers, for machines.

        Returns:
            int64 [terms], and int64 [texts + 1]: text i has `keys[offsets[i]:offsets[i + 1]]`.
        """
        parts, offsets, total = [np.empty(0, np.int64)], [np.zeros(1, np.int64)], 0
        for batch in _batches(texts):
            joined = "\0".join(batch) + "\0"
            codes = code_points(joined)
            starts, ends = spans(codes, self.identifiers)
            if worth_loading(0):
                keys = self._known(joined, codes, starts, ends)
            else:
                keys = np.array([term_key(token.term) for token in self._tokens(joined, starts, ends)], np.int64)
            kept = keys > 0
            limits = np.cumsum(np.fromiter((len(text) + 1 for text in batch), np.int64, len(batch)))
            parts.append(keys[kept])
            offsets.append(total + np.searchsorted(starts[kept], limits))
            total += len(parts[-1])
        return np.concatenate(parts), np.concatenate(offsets)

    def _tokens(self, text: str, starts: Ints, ends: Ints) -> list[Token]:
        """The spans as terms, the empty one for stop words."""
        with self._lock:
            return [Token(self._term(text[a:b]), a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _known(self, joined: str, codes: Codes, starts: Ints, ends: Ints) -> Ints:
        """The key of each span, from what is remembered where it was met before."""
        hashes = hashed(codes, starts, ends)
        keys = np.empty(len(hashes), np.int64)
        with self._lock:
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


@compiled("int64(U64, U64, I64, int64[::1])")
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


@compiled("void(U64, I64, uint64[::1], int64[::1])")
def _insert(hashes: Any, keys: Any, table: Any, values: Any) -> None:
    mask = np.uint64(len(table) - 1)
    for i in range(len(hashes)):
        slot = (hashes[i] >> np.uint64(8)) & mask
        while table[slot] != np.uint64(0) and table[slot] != hashes[i]:
            slot = (slot + np.uint64(1)) & mask
        table[slot], values[slot] = hashes[i], keys[i]
