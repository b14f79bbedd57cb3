"""Collections: documents and a retriever in one directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ragistry
from ragistry import Collection, Document, Hit, create
from ragistry.errors import Corrupt, InvalidInput, Locked, StorageError, UnknownName

POEMS = [
    Document("sonnet 18", "Shall I compare thee to a summer's day?", title="Sonnet 18", metadata={"year": 1609}),
    Document(
        "ozymandias", "I met a traveller from an antique land", metadata={"year": 1818, "by": {"name": "Shelley"}}
    ),
    Document("daffodils", "I wandered lonely as a cloud", metadata={"year": 1807, "tags": ["flowers", "walks"]}),
    Document("🦜/haiku 1", "An old silent pond, a frog jumps into the pond", metadata={}),
]


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    with Collection.create(tmp_path / "docs", create("bm25")) as made:
        made.add(POEMS)
        yield made


def arrays(collection: Collection) -> dict[str, tuple[int, int]]:
    """Of each array file, its inode and time."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (collection.path / "files").iterdir()}


def found(collection: Collection, query: str = "pond cloud traveller day", **settings: Any) -> list[str]:
    return [hit.id for hit in collection.search(query, **settings)]


class TestCreateAndOpen:
    def test_what_was_added_is_there_when_opened(self, docs: Collection) -> None:
        with Collection.open(docs.path) as again:
            assert len(again) == 4
            assert list(again.documents()) == POEMS
            assert again.search("pond") == docs.search("pond")
            assert again.recipe == docs.recipe
            assert again.recovered == ""

    def test_empty(self, tmp_path: Path) -> None:
        with Collection.create(tmp_path / "a" / "b", create("hybrid", members={"a": "bm25"})) as docs:
            assert (len(docs), docs.search("anything"), list(docs.documents())) == (0, [], [])
        with Collection.open(tmp_path / "a" / "b") as docs:
            assert docs.search("anything") == []
            docs.check()

    def test_nothing_is_overwritten(self, docs: Collection, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="already holds a collection"):
            Collection.create(docs.path, create("bm25"))
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        with pytest.raises(StorageError, match="something else"):
            Collection.create(tmp_path / "mine", create("bm25"))
        assert len(docs) == 4

    def test_only_what_create_made_can_be_kept(self, tmp_path: Path) -> None:
        from ragistry.retrievers.fuse import Fuse

        with pytest.raises(InvalidInput, match="create"):
            Collection.create(tmp_path / "docs", Fuse({"a": create("bm25")}))
        assert not (tmp_path / "docs").exists()

    def test_other_directories_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("text")
        for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
            with pytest.raises(StorageError):
                Collection.open(path)

    def test_paths_may_be_text(self, tmp_path: Path) -> None:
        with Collection.create(str(tmp_path / "ünï cödé"), create("bm25")) as docs:
            docs.add(POEMS[0])
            assert docs.path == tmp_path / "ünï cödé"
            assert found(docs) == ["sonnet 18"]


class TestAdd:
    def test_counts(self, docs: Collection) -> None:
        changed = Document("daffodils", "A host of golden daffodils")
        copied = Document("copy", POEMS[1].text)
        assert docs.add([changed, POEMS[0], copied, Document("new", "Tyger Tyger")]) == (2, 1, 1, 1)
        assert len(docs) == 6
        assert found(docs, "cloud") == []
        assert found(docs, "golden") == ["daffodils"]
        assert docs.duplicates() == [("ozymandias", "copy")]

    def test_one_document_no_document(self, docs: Collection) -> None:
        generation = docs.info()["generation"]
        assert docs.add(POEMS[0]) == (0, 0, 1, 0)
        assert docs.add([]) == (0, 0, 0, 0)
        assert docs.info()["generation"] == generation
        assert docs.add(Document("one", "Tyger")).added == 1

    def test_a_stream_is_committed_in_batches(self, docs: Collection) -> None:
        taken: list[int] = []
        seen: list[tuple[int, int]] = []

        def stream() -> Iterator[Document]:
            for i in range(25):
                taken.append(i)
                yield Document(f"verse {i}", f"verse number {i}")

        def report(count: int) -> None:
            with Collection.open(docs.path) as other:
                seen.append((len(taken), len(other)))
            assert count in {10, 5}

        assert docs.add(stream(), batch=10, progress=report).added == 25
        assert seen == [(10, 14), (20, 24), (25, 29)]
        assert len(found(docs, "verse", k=100)) == 25

    def test_an_error_loses_only_its_batch(self, docs: Collection) -> None:
        def stream() -> Iterator[Document]:
            for i in range(15):
                yield Document(f"verse {i}", "verse")
            raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            docs.add(stream(), batch=10)
        assert len(docs) == 14
        assert len(found(docs, "verse", k=100)) == 10
        docs.check()

    @pytest.mark.parametrize(
        "bad",
        [
            [Document("a", "x"), Document("a", "y")], ["text"], [None], [{"id": "a", "text": "x"}], "text",
            [Document("a", "x", metadata={"when": object()})], [Document("a", "x", metadata={"n": float("nan")})],
        ],
        ids=["twice", "text", "None", "dict", "one text", "object", "NaN"],
    )  # fmt: skip
    def test_bad_documents_change_nothing(self, docs: Collection, bad: Any) -> None:
        before = docs.info()
        with pytest.raises(InvalidInput):
            docs.add(bad)
        assert docs.info() == before
        with Collection.open(docs.path) as again:
            assert found(docs) == found(again)
        docs.check()

    def test_a_batch_holds_a_document(self, docs: Collection) -> None:
        with pytest.raises(InvalidInput, match="batch=0"):
            docs.add(POEMS, batch=0)

    def test_other_metadata_leaves_the_index_files_alone(self, docs: Collection) -> None:
        before = arrays(docs)
        changed = [Document(d.id, d.text, d.title, {"year": 2024}) for d in POEMS]
        assert docs.add(changed) == (0, 4, 0, 0)
        assert arrays(docs) == before
        assert len(found(docs, where={"year": 2024})) == 4
        with Collection.open(docs.path) as again:
            assert again.add(POEMS).replaced == 4
            assert arrays(docs) == before
        assert found(docs, where={"year": 1609}) == ["sonnet 18"]


class TestRemove:
    def test_ids(self, docs: Collection) -> None:
        assert docs.remove("daffodils") == 1
        assert docs.remove(["sonnet 18", "sonnet 18", "nowhere"]) == 1
        assert docs.remove(name for name in ["nowhere"]) == 0
        assert docs.remove([]) == 0
        assert len(docs) == 2
        assert found(docs) == ["🦜/haiku 1", "ozymandias"]
        docs.check()

    def test_everything_and_back(self, docs: Collection) -> None:
        expected = docs.search("pond cloud traveller day")
        docs.remove([d.id for d in POEMS])
        assert (len(docs), found(docs)) == (0, [])
        docs.add(POEMS)
        assert docs.search("pond cloud traveller day") == expected


class TestSearch:
    def test_hits_carry_their_documents(self, docs: Collection) -> None:
        (hit,) = docs.search("summer")
        assert hit == Hit("sonnet 18", hit.score, POEMS[0].text, "Sonnet 18", {"year": 1609})
        assert hit.score > 0

    def test_titles_are_searched(self, docs: Collection) -> None:
        assert found(docs, "sonnet") == ["sonnet 18"]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({"year": {"lt": 1810}}, {"sonnet 18", "daffodils"}),
            ({"year": {"gte": 1807}, "tags": {"contains": "walks"}}, {"daffodils"}),
            ({"by.name": "Shelley"}, {"ozymandias"}),
            ({"year": {"exists": False}}, {"🦜/haiku 1"}),
            ({"not": {"year": 1609}}, {"ozymandias", "daffodils", "🦜/haiku 1"}),
            ({"year": 1}, set()),
            ({}, {d.id for d in POEMS}),
            (None, {d.id for d in POEMS}),
        ],
    )
    def test_where(self, docs: Collection, where: Any, expected: set[str]) -> None:
        assert set(found(docs, where=where)) == expected
        assert {d.id for d in docs.documents(where=where)} == expected
        assert len(docs.search("pond cloud traveller day", 1, where=where)) == min(1, len(expected))

    def test_where_is_asked_again_after_a_change(self, docs: Collection) -> None:
        assert found(docs, where={"year": 1818}) == ["ozymandias"]
        docs.add(Document("new", "another traveller", metadata={"year": 1818}))
        assert set(found(docs, where={"year": 1818})) == {"ozymandias", "new"}

    def test_many_filters(self, docs: Collection) -> None:
        for year in [*range(1590, 1650), *range(1590, 1650)]:
            assert found(docs, where={"year": year}) == (["sonnet 18"] if year == 1609 else [])

    @pytest.mark.parametrize("k", [0, -1])
    def test_no_hits_wanted(self, docs: Collection, k: int) -> None:
        assert docs.search("pond", k) == []

    def test_many_queries_at_once(self, docs: Collection) -> None:
        queries = ["pond", "", "cloud", "nothing such"]
        assert docs.search_many(queries) == [docs.search(query) for query in queries]
        assert docs.search_many([]) == []

    def test_bad_questions_are_refused(self, docs: Collection) -> None:
        for bad in (None, 3, ["pond"]):
            with pytest.raises(InvalidInput, match="a str is needed"):
                docs.search(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="list"):
            docs.search_many("pond")
        for where in ({"year": {"above": 3}}, ["year"], 3):
            with pytest.raises(InvalidInput):
                docs.search("pond", where=where)  # type: ignore[arg-type]

    def test_documents_by_id(self, docs: Collection) -> None:
        assert docs.get(["daffodils", "sonnet 18"]) == [POEMS[2], POEMS[0]]
        with pytest.raises(UnknownName, match="nowhere"):
            docs.get(["nowhere"])


class TestOthers:
    def test_a_second_opener_sees_commits_of_the_first(self, docs: Collection) -> None:
        with Collection.open(docs.path) as other:
            for i in range(3):
                docs.add(Document(f"new {i}", f"unheard of {i}"))
                assert len(other) == len(docs) == 5 + i
                assert other.search("unheard") == docs.search("unheard")
                assert len(other.search("unheard")) == i + 1
            other.remove("new 0")
            assert "new 0" not in found(docs, "unheard")
            assert list(docs.documents()) == list(other.documents())

    def test_a_writer_in_another_process_is_told_of(self, docs: Collection) -> None:
        program = """
import sys
from ragistry import Collection, Document
docs = Collection.open(sys.argv[1])
def stream():
    print("writing", flush=True)
    sys.stdin.readline()
    yield Document("late", "a late arrival")
docs.add(stream())
"""
        source = Path(ragistry.__file__).parents[1]
        with subprocess.Popen(
            [sys.executable, "-c", program, str(docs.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(source)}, text=True,
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            with pytest.raises(Locked, match="another writer"):
                docs.add(Document("mine", "mine"))
            with pytest.raises(Locked):
                docs.remove("daffodils")
            assert found(docs, "cloud") == ["daffodils"]
            writer.communicate("go on\n", timeout=60)
        assert writer.returncode == 0
        assert found(docs, "late") == ["late"]
        assert docs.add(Document("mine", "mine")).added == 1


class TestEvaluate:
    @pytest.fixture
    def asked(self) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        queries = {"1": "frog pond", "2": "lonely cloud", "3": "nothing such"}
        return queries, {"1": {"🦜/haiku 1": 1}, "2": {"daffodils": 1, "ozymandias": 1}, "3": {"sonnet 18": 1}}

    def test_evaluate(self, docs: Collection, asked: Any, tmp_path: Path) -> None:
        evaluation = docs.evaluate(*asked, ["R@10", "RR@10"])
        assert evaluation.means == pytest.approx({"R@10": 0.5, "RR@10": 2 / 3})
        assert evaluation.name == "bm25"
        queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
        queries.write_text("\n".join(json.dumps({"_id": name, "text": text}) for name, text in asked[0].items()))
        lines = [f"{query}\t{name}\t{value}" for query, held in asked[1].items() for name, value in held.items()]
        qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
        assert docs.evaluate(queries, qrels, ["R@10", "RR@10"]).means == evaluation.means

    def test_judgements_of_other_documents_are_refused(self, docs: Collection) -> None:
        with pytest.raises(InvalidInput, match="none of the 2 judged documents"):
            docs.evaluate({"1": "pond"}, {"1": {"nowhere": 1, "elsewhere": 1}})


class TestSaveInfoCheck:
    def test_a_copy_stands_alone(self, docs: Collection, tmp_path: Path) -> None:
        docs.save(tmp_path / "copy")
        docs.remove("daffodils")
        with Collection.open(tmp_path / "copy") as copy:
            assert list(copy.documents()) == POEMS
            assert found(copy, "cloud") == ["daffodils"]
            copy.add(Document("new", "text"))
            copy.check()
        assert len(docs) == 3
        with pytest.raises(StorageError, match="already holds"):
            docs.save(tmp_path / "copy")

    def test_info(self, docs: Collection) -> None:
        info = docs.info()
        assert (info["documents"], info["retriever"], info["duplicates"], info["recovered"]) == (4, "bm25", 0, "")
        assert info["index_bytes"] == sum(path.stat().st_size for path in (docs.path / "files").iterdir())
        assert info["corpus_bytes"] > 0
        assert info["recipe"]["k1"] == 1.2
        assert info["version"] == ragistry.__version__
        json.dumps(info)

    def test_check_finds_damage(self, docs: Collection) -> None:
        docs.check()
        victim = max((docs.path / "files").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
        with pytest.raises(Corrupt, match=victim.name):
            docs.check()
        with pytest.raises(Corrupt, match=victim.name):
            Collection.open(docs.path)

    def test_the_index_of_another_collection_is_noticed(self, docs: Collection, tmp_path: Path) -> None:
        with Collection.create(tmp_path / "other", create("bm25")) as other:
            other.add([Document(f"other {i}", "pond") for i in range(4)])
        for name in ("manifest.json", "files"):
            target = docs.path / name
            target.rename(docs.path / f"old {name}")
            (tmp_path / "other" / name).rename(target)
        with pytest.raises(Corrupt, match="does not hold"):
            docs.search("pond")

    def test_a_closed_collection_refuses(self, docs: Collection) -> None:
        docs.close()
        with pytest.raises(ragistry.RagistryError):
            docs.search("pond")
        with pytest.raises(ragistry.RagistryError):
            docs.add(Document("new", "text"))
        docs.close()
