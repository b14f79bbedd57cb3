"""The trie against nested dicts, whatever came before."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput
from ragistry.retrievers import trie as module
from ragistry.retrievers.trie import Ragged, Trie
from ragistry.storage import ArrayFiles

END = 3
Name: TypeAlias = tuple[int, ...]
Held: TypeAlias = dict[int, set[Name]]
"""The names of each entity."""
Change: TypeAlias = list[tuple[Name, int]] | list[int]
"""Names with their entities to add, or entities to remove."""

tokens = st.sampled_from((0, 1, 2, 4, 300, 70_000))
names = st.lists(tokens, min_size=1, max_size=5).map(tuple)
entities = st.integers(0, 9)
changes = st.lists(
    st.one_of(
        st.lists(st.tuples(names, entities), min_size=1, max_size=12), st.lists(entities, min_size=1, max_size=4)
    ),
    max_size=8,
)
quick = settings(deadline=None, max_examples=60)
PLAIN: Change = [((1, 2), 0), ((1, 2, 4), 1), ((1, 2), 2), ((0,), 0), ((1, 2), 0)]


def add(trie: Trie, pairs: list[tuple[Name, int]]) -> None:
    trie.add([name for name, _ in pairs], [number for _, number in pairs])


def applied(trie: Trie, held: Held, change: Change) -> None:
    if isinstance(change[0], tuple):
        pairs: Any = change
        add(trie, pairs)
        for name, number in pairs:
            held.setdefault(number, set()).add(name)
    else:
        gone: Any = change
        trie.remove(gone)
        for number in gone:
            held.pop(number, None)


def nested(held: Held) -> dict[int, Any]:
    """The reference: a dict for each node, and under the end token the entities."""
    root: dict[int, Any] = {}
    for number, own in held.items():
        for name in own:
            node = root
            for token in name:
                node = node.setdefault(token, {})
            node.setdefault(END, set()).add(number)
    return root


def check(trie: Trie, held: Held) -> None:
    """Walk all nodes of the trie, level by level, beside the dicts."""
    assert len(trie) == sum(map(len, held.values()))
    nodes, beside = np.zeros(1, np.int64), [nested(held)]
    while len(nodes):
        found = trie.children(nodes)
        assert found.offsets[0] == 0
        assert found.offsets[-1] == len(found.tokens) == len(found.nodes)
        following = []
        for i, node in enumerate(beside):
            own = slice(found.offsets[i], found.offsets[i + 1])
            assert found.tokens[own].tolist() == sorted(node)
            following += [
                (child, node[token]) for token, child in zip(found.tokens[own], found.nodes[own], strict=True)
            ]
        over = [(child, owners) for child, owners in following if isinstance(owners, set)]
        values, offsets = trie.entities([child for child, _ in over])
        for i, (_, owners) in enumerate(over):
            assert values[offsets[i] : offsets[i + 1]].tolist() == sorted(owners)
        inner = [(child, node) for child, node in following if isinstance(node, dict)]
        assert len(trie.entities([child for child, _ in inner]).values) == 0
        assert len(trie.children([child for child, _ in over]).tokens) == 0
        assert all(node for _, node in inner), "a dead end"
        nodes, beside = np.array([child for child, _ in inner], np.int64), [node for _, node in inner]


def grown(history: list[Change]) -> tuple[Trie, Held]:
    trie, held = Trie(END), Held()
    for change in history:
        applied(trie, held, change)
    return trie, held


@quick
@given(changes)
@example([PLAIN])
@example([PLAIN, [0], PLAIN, [1, 2], [0]])
def test_any_history_equals_nested_dicts(history: list[Change]) -> None:
    trie, held = Trie(END), Held()
    check(trie, held)
    for change in history:
        before, snapshot = trie.fork(), {number: set(own) for number, own in held.items()}
        applied(trie, held, change)
        check(trie, held)
        check(before, snapshot)


@quick
@given(changes, st.sets(entities), st.lists(entities, min_size=1), st.sampled_from((1, 10**9)))
@example([PLAIN], {0, 99}, [0], 1)
def test_views_equal_nested_dicts(history: list[Change], some: set[int], gone: list[int], share: int) -> None:
    trie, held = grown(history)
    wanted = {number: set(own) for number, own in held.items() if number in some}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "VIEW", share)  # a trie of its own, or marked nodes
        view = trie.among(some)
        check(view, wanted)
        check(view.among(gone), {number: own for number, own in wanted.items() if number in gone})
        for change in (gone, PLAIN):
            applied(view, wanted, change)
            check(view, wanted)
    check(trie, held)


@settings(deadline=None, max_examples=15)
@given(changes, st.sets(entities))
def test_saved_and_loaded(history: list[Change], some: set[int]) -> None:
    trie, held = grown(history)
    with TemporaryDirectory() as folder:
        files = ArrayFiles(Path(folder))
        state = json.loads(json.dumps(trie.save(files)))
        assert trie.save(files) == state
        loaded = Trie(END + 1)
        loaded.load(state, ArrayFiles(Path(folder)))
        check(loaded, held)
        assert loaded.save(ArrayFiles(Path(folder))) == state
        check(loaded.among(some), {number: own for number, own in held.items() if number in some})
        for change in ([3, 4], PLAIN):
            applied(loaded, held, change)
            check(loaded, held)


@pytest.mark.parametrize("share", [0, 4])
def test_many_segments_and_their_limit(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    monkeypatch.setattr(module, "SHARE", share)  # at 0 only the size of node numbers makes segments merge
    draw, trie, held, most = np.random.default_rng(0), Trie(END), Held(), 0
    for number in range(60):
        change: Change = [(tuple(draw.choice((0, 1, 2, 4), 4).tolist()), number % 50) for _ in range(4)]
        applied(trie, held, change)
        most = max(most, len(trie._segments))
    check(trie, held)
    assert most > (10 if share == 0 else 1)


@pytest.mark.parametrize("vocabulary", [60_000, 2**31 - 1])
def test_wide_nodes(vocabulary: int) -> None:
    draw = np.random.default_rng(1)
    first = (
        draw.choice(vocabulary - 9, 3000, replace=False) if vocabulary < 10**5 else draw.integers(9, vocabulary, 3000)
    )
    pairs: list[tuple[Name, int]] = [((int(token) + 8, 5), i) for i, token in enumerate(first)]
    pairs += [((7, int(token) + 8, *range(9, 9 + i % 4)), i) for i, token in enumerate(first[:2000])]
    trie, held = Trie(END), Held()
    applied(trie, held, pairs)
    check(trie, held)
    assert trie.nbytes <= 8 * trie.nodes
    applied(trie, held, list(range(0, 3000, 2)))
    check(trie, held)


@quick
@given(changes, st.randoms(use_true_random=False))
def test_nodes_in_any_order_and_twice(history: list[Change], draw: Any) -> None:
    trie, _ = grown(history)
    level = trie.children([0]).nodes
    nodes = np.concatenate(([0], level, trie.children(level).nodes))
    asked = [draw.choice(nodes) for _ in range(7)]
    together = trie.children(np.repeat(asked, 2)[::2] if draw.random() < 0.5 else asked)
    for i, node in enumerate(asked):
        alone, own = trie.children([node]), slice(together.offsets[i], together.offsets[i + 1])
        assert together.tokens[own].tolist() == alone.tokens.tolist()
        assert together.nodes[own].tolist() == alone.nodes.tolist()


def test_the_order_of_names_changes_nothing() -> None:
    draw = np.random.default_rng(2)
    pairs: list[tuple[Name, int]] = [
        (tuple(draw.integers(4, 9, draw.integers(1, 6)).tolist()), i % 70) for i in range(99)
    ]
    first, second = Trie(END), Trie(END)
    add(first, pairs)
    add(second, [pairs[i] for i in draw.permutation(len(pairs))] * 2)
    with TemporaryDirectory() as folder:
        assert first.save(ArrayFiles(Path(folder))) == second.save(ArrayFiles(Path(folder)))


def test_ragged_arrays_are_taken_as_they_are() -> None:
    trie, other = Trie(END), Trie(END)
    trie.add(Ragged(np.array([5, 6, 5]), np.array([0, 2, 3])), np.array([1, 0], np.int32))
    other.add([[5, 6], [5]], (1, 0))
    assert trie.children([0, 1]).tokens.tolist() == other.children([0, 1]).tokens.tolist() == [5, END, 6]
    assert trie.depth == 3


@pytest.mark.parametrize(
    ("added", "numbers", "message"),
    [
        ([[1, -1]], [0], "token ids run from -1"),
        ([[1, 2**31]], [0], "token ids run"),
        ([[1.5]], [0], "whole numbers"),
        ([["a"]], [0], "whole numbers"),
        ([1, 2], [0, 1], "list of token ids"),
        ([[1], []], [0, 1], "name 1 has no token"),
        ([[1], [2, END]], [0, 1], "name 1 holds the end token"),
        ([[1]], [0, 1], "1 names were given with 2"),
        ([[1]], [-1], "entity numbers run from -1"),
        ([[1]], [2**31], "entity numbers run"),
        ([[1]], ["a"], "whole numbers"),
        (Ragged(np.array([1, 2]), np.array([0, 1])), [0], "offsets"),
        (Ragged(np.array([1, 2]), np.array([0, 2, 1, 2])), [0, 1, 2], "offsets"),
    ],
)
def test_what_cannot_be_a_name_is_refused(added: Any, numbers: Any, message: str) -> None:
    trie = Trie(END)
    add(trie, [((1, 2), 5)])
    with pytest.raises(InvalidInput, match=message):
        trie.add(added, numbers)
    check(trie, {5: {(1, 2)}})


def test_what_cannot_be_a_node_or_a_number_is_refused() -> None:
    trie = Trie(END)
    with pytest.raises(InvalidInput, match="no node"):
        trie.children([1])
    add(trie, [((1, 2), 5)])
    for node in (-1, 10**6, -(2**40)):
        with pytest.raises(InvalidInput, match="no node"):
            trie.children([node])
        with pytest.raises(InvalidInput, match="no node"):
            trie.entities([node])
    for numbers in ("ab", 5, [0.5]):
        with pytest.raises(InvalidInput, match="whole numbers"):
            trie.remove(numbers)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="whole numbers"):
            trie.among(numbers)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="end tokens"):
        Trie(-1)
