"""`RagistryIndex`: loads that LangChain's `index` and `aindex` bring up to date."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from pydantic import ValidationError

from ragistry import Collection
from ragistry.errors import InvalidInput, StorageError
from ragistry_langchain import RagistryIndex, RagistryRetriever

SONNET = Document("The sonnet has fourteen lines.", metadata={"source": "sonnet.html", "year": 1609})
HAIKU = Document("The haiku has three lines.", metadata={"source": "haiku.html"})
HAIKU_TOO = Document("The haiku names a season.", metadata={"source": "haiku.html"})
Counts = tuple[int, int, int]


@pytest.fixture
def records() -> InMemoryRecordManager:
    made = InMemoryRecordManager("poems")
    made.create_schema()
    return made


async def load(
    asynchronous: bool, pages: list[Document], records: InMemoryRecordManager, into: RagistryIndex, cleanup: Any
) -> Counts:
    """Added, skipped and deleted."""
    about: dict[str, Any] = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}
    if asynchronous:
        done = await aindex(pages, records, into, **about)
    else:
        done = index(pages, records, into, **about)
    return done["num_added"], done["num_skipped"], done["num_deleted"]


def texts(docs: RagistryIndex) -> set[str]:
    return {document.text for document in docs.collection.documents()}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_incremental_loads_replace_what_a_source_held(
    asynchronous: bool, empty: Collection, records: InMemoryRecordManager
) -> None:
    docs = RagistryIndex(collection=empty)
    assert await load(asynchronous, [SONNET, HAIKU, HAIKU_TOO], records, docs, "incremental") == (3, 0, 0)
    assert await load(asynchronous, [SONNET, HAIKU, HAIKU_TOO], records, docs, "incremental") == (0, 3, 0)
    changed = Document("The haiku has seventeen syllables.", metadata={"source": "haiku.html"})
    assert await load(asynchronous, [changed], records, docs, "incremental") == (1, 0, 2)
    assert texts(docs) == {SONNET.page_content, changed.page_content}
    assert docs.invoke("season") == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_full_loads_take_out_what_is_gone(
    asynchronous: bool, empty: Collection, records: InMemoryRecordManager
) -> None:
    docs = RagistryIndex(collection=empty)
    assert await load(asynchronous, [SONNET, HAIKU, HAIKU_TOO], records, docs, "full") == (3, 0, 0)
    assert await load(asynchronous, [HAIKU], records, docs, "full") == (0, 1, 2)
    assert texts(docs) == {HAIKU.page_content}
    assert await load(asynchronous, [], records, docs, "full") == (0, 0, 1)
    assert len(empty) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_scoped_full_loads_leave_other_sources_alone(
    asynchronous: bool, empty: Collection, records: InMemoryRecordManager
) -> None:
    docs = RagistryIndex(collection=empty)
    assert await load(asynchronous, [SONNET, HAIKU, HAIKU_TOO], records, docs, "scoped_full") == (3, 0, 0)
    assert await load(asynchronous, [HAIKU], records, docs, "scoped_full") == (0, 1, 1)
    assert texts(docs) == {SONNET.page_content, HAIKU.page_content}


def test_what_was_loaded_is_found_and_filtered(empty: Collection, records: InMemoryRecordManager) -> None:
    docs = RagistryIndex(collection=empty, k=1)
    index([SONNET, HAIKU], records, docs, key_encoder="sha256")
    assert [d.metadata for d in docs.invoke("lines", filter={"year": {"gte": 1600}}, k=5)] == [SONNET.metadata]
    (found,) = docs.invoke("lines of the sonnet")
    assert (found.page_content, found.metadata) == (SONNET.page_content, SONNET.metadata)
    assert docs.get([found.id]) == [found]  # type: ignore[list-item]
    assert RagistryRetriever(collection=empty, k=1).invoke("lines of the sonnet") == [found]


def test_a_load_that_fails_is_not_recorded(empty: Collection, records: InMemoryRecordManager) -> None:
    docs = RagistryIndex(collection=empty)
    bad = Document("The ode.", metadata={"source": "ode.html", "when": date(1819, 9, 19)})
    with pytest.raises(InvalidInput, match="'when'"):
        index([bad], records, docs, key_encoder=lambda document: document.page_content)
    assert records.list_keys() == [] and len(empty) == 0
    index([SONNET], records, docs, key_encoder=lambda document: document.page_content)
    assert len(empty) == 1


def test_metadata_that_json_cannot_hold_is_named_and_nothing_is_added(empty: Collection) -> None:
    docs = RagistryIndex(collection=empty)
    fine, bad = Document("fine", id="1"), Document("bad", metadata={"when": {"day": date(1819, 9, 19)}})
    with pytest.raises(InvalidInput, match=r"the metadata of document 1\['when'\]\['day'\] is date, which JSON cannot"):
        docs.upsert([fine, bad])
    bad.id = "ode"
    with pytest.raises(InvalidInput, match=r"the metadata of document 1 \('ode'\)\['when'\]"):
        docs.upsert([fine, bad])
    with pytest.raises(InvalidInput, match="the id '1' is given to 2 documents"):
        docs.upsert([fine, Document("also", id="1")])
    assert len(empty) == 0


def test_what_was_given_stays_as_it_was(empty: Collection) -> None:
    docs = RagistryIndex(collection=empty)
    pages = [Document("one", metadata={"tags": ("a", "b")}), Document("two", id="2")]
    before = [page.model_copy(deep=True) for page in pages]
    done = docs.upsert(pages)
    assert pages == before and pages[0].id is None
    assert len(set(done["succeeded"])) == 2 and done["succeeded"][1] == "2" and done["failed"] == []
    docs.get(["2"])[0].metadata["mine"] = True
    assert docs.get(["2"])[0].metadata == {}


async def test_deleting_needs_ids_and_says_what_was_there(docs: Collection) -> None:
    found = RagistryIndex(collection=docs)
    with pytest.raises(ValueError, match="no ids were given"):
        found.delete()
    with pytest.raises(ValueError, match="no ids were given"):
        await found.adelete()
    done = found.delete(["haiku", "x", "sonnet", "haiku", "y"])
    assert (done["succeeded"], done["num_deleted"], done["failed"]) == (["haiku", "sonnet"], 2, [])
    assert (await found.adelete(["haiku", "couplet"]))["succeeded"] == ["couplet"]
    assert found.delete([])["num_deleted"] == 0
    assert len(docs) == 2


def test_getting_passes_over_what_is_not_there(docs: Collection) -> None:
    found = RagistryIndex(collection=docs)
    assert [d.id for d in found.get(["x", "haiku", "y", "z", "sonnet", "haiku"])] == ["haiku", "sonnet"]
    assert found.get([]) == [] == found.get(["x"])
    assert found.get(["sonnet"])[0].metadata["title"] == "Sonnet"


async def test_a_typing_error_is_refused(empty: Collection, records: InMemoryRecordManager) -> None:
    docs = RagistryIndex(collection=empty)
    with pytest.raises(TypeError, match="batch"):
        index([SONNET], records, docs, key_encoder="sha256", upsert_kwargs={"batch": 3})
    with pytest.raises(TypeError, match="batch"):
        await docs.aupsert([SONNET], batch=3)


def test_only_a_collection_can_be_written(docs: Collection) -> None:
    class Searched:
        def search_many(self, queries: Any, k: int = 10, *, where: Any = None) -> Any:
            return [[] for _ in queries]

    with pytest.raises(ValidationError, match="Searched cannot be written"):
        RagistryIndex(collection=Searched())
    assert len(RagistryIndex(collection=docs.path).invoke("lines", k=2)) == 2


def test_another_writer_is_an_error_and_not_a_silent_failure(docs: Collection) -> None:
    with docs._store.writer(), Collection.open(docs.path) as other, pytest.raises(StorageError):
        RagistryIndex(collection=other).upsert([SONNET])
