"""The values that pass between concepts, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragistry import Document, Hit, MultiVectors, Pair, Ranking
from ragistry.errors import InvalidInput
from ragistry.types import check_text

scores = st.floats(-1e6, 1e6, width=32)
scored = st.dictionaries(st.text(min_size=1, max_size=3), scores, max_size=12)


class TestDocument:
    def test_full_text(self) -> None:
        assert Document("1", "text").full_text == "text"
        assert Document("1", "text", title="Title").full_text == "Title\ntext"
        assert Document("1", "").metadata == {}

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Document("1", "text").text = "other"  # type: ignore[misc]

    @pytest.mark.parametrize("name", ["a b", "a/b", "🦜", " ", "\0", "x" * 10_000])
    def test_any_text_is_an_id(self, name: str) -> None:
        assert Document(name, "").id == name

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"id": ""}, "empty id"), ({"id": 3}, "`id` is int"), ({"id": None}, "`id`"), ({"id": b"1"}, "`id` is bytes"),
            ({"text": None}, "`text` is NoneType"), ({"text": ["a"]}, "`text` is list"), ({"title": 1}, "`title` is int"),
            ({"metadata": [1]}, "`metadata` is list"), ({"metadata": None}, "`metadata` is NoneType"),
            ({"id": "\ud800"}, "surrogate"), ({"text": "a\udfff"}, "surrogate at character 1"),
            ({"title": "\ud800"}, "`title`"),
        ],
    )  # fmt: skip
    def test_bad_fields_are_named(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidInput, match=named):
            Document(**({"id": "1", "text": "text"} | fields))

    @given(st.text())
    def test_only_surrogates_are_refused(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            with pytest.raises(InvalidInput, match="surrogate"):
                check_text(text, "the text")
        else:
            check_text(text, "the text")


class TestRanking:
    @given(scored, st.integers(0, 15))
    def test_of_sorts_by_score_then_id(self, found: dict[str, float], k: int) -> None:
        ranking = Ranking.of(list(found), list(found.values()), k)
        rounded = {name: float(np.float32(score)) for name, score in found.items()}
        assert list(ranking) == sorted(rounded.items(), key=lambda hit: (-hit[1], hit[0]))[:k]
        assert Ranking(ranking.ids, ranking.scores) == ranking

    @given(scored, st.integers(0, 15), st.integers(0, 15))
    def test_head(self, found: dict[str, float], k: int, more: int) -> None:
        whole = Ranking.of(list(found), list(found.values()))
        assert whole.head(k) == Ranking.of(list(found), list(found.values()), k) == whole.head(k + more).head(k)
        assert len(whole.head(k)) == min(k, len(whole))

    @pytest.mark.parametrize(
        ("ids", "values"),
        [
            (("a",), [float("nan")]), (("a",), [float("inf")]), (("a",), [-float("inf")]), (("a", "a"), [2.0, 1.0]),
            (("a", "b"), [1.0, 2.0]), (("b", "a"), [1.0, 1.0]), (("a", "b"), [1.0]), (("a",), [[1.0]]), ((), [1.0]),
            (("a", "c", "b"), [2.0, 1.0, 1.0]), (("a",), [1e39]),
        ],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore:overflow")
    def test_what_is_no_ranking_is_refused(self, ids: tuple[str, ...], values: Any) -> None:
        with pytest.raises(InvalidInput):
            Ranking(ids, values)

    @pytest.mark.parametrize(("ids", "values"), [(["a"], [1.0, 2.0]), (["a"], [float("nan")]), (["a", "a"], [1, 1])])
    def test_of_refuses(self, ids: list[str], values: list[float]) -> None:
        with pytest.raises(InvalidInput):
            Ranking.of(ids, values)

    def test_scores_are_read_only_float32(self) -> None:
        given = np.array([2.0, 1.0])
        ranking = Ranking(("a", "b"), given)  # type: ignore[arg-type]
        assert ranking.scores.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            ranking.scores[0] = 3
        own = np.array([2.0, 1.0], np.float32)
        Ranking(("a", "b"), own)
        own[0] = 3.0  # the caller's array stays writable

    def test_equality(self) -> None:
        assert Ranking.of(["a"], [1.0]) == Ranking(("a",), np.ones(1, np.float32))
        assert Ranking.of(["a"], [1.0]) != Ranking.of(["a"], [2.0])
        assert Ranking.of(["a"], [1.0]) != Ranking.of(["b"], [1.0])
        assert Ranking.of(["a"], [1.0]) != ("a",)
        with pytest.raises(TypeError):
            hash(Ranking.of([], []))

    def test_iterates_over_python_values(self) -> None:
        ((name, score),) = Ranking.of(["a"], [1.5])
        assert (name, score) == ("a", 1.5)
        assert type(score) is float


class TestMultiVectors:
    def test_items(self) -> None:
        vectors = MultiVectors(np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 1, 1, 4]))
        assert len(vectors) == 3
        assert [len(vectors[i]) for i in range(3)] == [1, 0, 3]
        assert vectors[2].tolist() == [[2, 3], [4, 5], [6, 7]]

    @pytest.mark.parametrize(
        ("shape", "offsets"),
        [((4,), [0, 4]), ((4, 2), []), ((4, 2), [[0, 4]]), ((4, 2), [1, 4]), ((4, 2), [0, 3]), ((4, 2), [0, 3, 2, 4])],
    )
    def test_bad_shapes_are_refused(self, shape: tuple[int, ...], offsets: list[Any]) -> None:
        with pytest.raises(InvalidInput):
            MultiVectors(np.zeros(shape, np.float32), np.array(offsets, np.int64))


def test_small_values() -> None:
    assert Pair("why?", "1") == ("why?", "1")
    assert Hit("1", 0.5, "text").metadata == {}
