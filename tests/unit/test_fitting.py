"""The command `ragistry fit`: what it says, what it draws, what it changes, and what it refuses. Pairs made of documents."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from ragistry import Collection, Document, create
from ragistry.cli import app
from ragistry.encoders.functions import register_encoder
from ragistry.errors import InvalidInput
from ragistry.training.own_pairs import own_pairs

from .test_collection import arrays
from .test_learning import DOCUMENTS, PAIRS, QUICK, Words

FORMS = ["sonnet", "haiku", "limerick", "ballade", "sestina", "villanelle", "triolet", "ghazal", "tanka", "ode"]
POEMS = [
    Document(
        f"poem {i}",
        f"The {form} came from city{i} long ago. It has line{i} and rhyme{i}, which a poet of city{i} learnt by heart "
        f"before festival{i} of year{i}.",
        title=f"About the {form}",
    )
    for i, form in enumerate(FORMS)
]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def language(texts: list[str]) -> np.ndarray:
    return Words()(texts)


def no_numbers_for_queries(texts: list[str]) -> np.ndarray:
    return np.array([[np.nan if "ask" in text else 1.0, 1.0] for text in texts])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("pairs") / "pairs.tsv", PAIRS)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed by a test."""
    return made(tmp_path_factory.mktemp("untaught") / "docs", QUICK)


@pytest.fixture
def docs(tmp_path: Path, untaught: Path) -> Path:
    with Collection.open(untaught) as collection:
        collection.save(tmp_path / "docs")
    return tmp_path / "docs"


def made(path: Path, spec: dict[str, Any], documents: Sequence[Document] = DOCUMENTS, source: Any = language) -> Path:
    register_encoder(source.__name__, source)
    with Collection.create(path, create(spec | {"model": source.__name__})) as collection:
        collection.add(documents)
    return path


def written(path: Path, rows: Sequence[tuple[object, ...]]) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def state(path: Path) -> Any:
    with Collection.open(path) as collection:
        return collection.info(), arrays(collection), (path / "manifest.json").read_bytes()


def test_what_is_learnt_is_shown_drawn_and_kept(docs: Path, tmp_path: Path) -> None:
    given = written(tmp_path / "pairs.tsv", [*PAIRS, ("nobody knows", "nowhere")])
    result = run("fit", docs, "--pairs", given, "--plot", tmp_path / "curve.svg")
    shown = result.stdout
    assert shown.startswith("chosen: a linear map")
    head, *rows = re.findall(r"^(?: +queries|seen |unseen |overall ).*$", shown, re.MULTILINE)
    assert head.split() == ["queries", "base", "fitted", "headroom", "p"]
    assert [re.split(r"  +", row)[0] for row in rows] == ["seen", "unseen", "overall (balanced)"]
    assert len({len(line) for line in (head, *rows)}) == 1  # numbers stand below each other
    assert re.fullmatch(r"overall \(balanced\) +0\.\d{4} +[01]\.\d{4} +1\.0000 +<0\.001", rows[2])
    assert re.search(r"seen: other queries taught.* unseen: none did", shown)
    assert re.search(r"by epoch of training, in one of the trials: 0 0\.\d{3}, 1 0\.\d{3},", shown)
    assert re.search(r"^kept: nDCG@10 rose from 0\.\d{4} to [01]\.\d{4}$", shown, re.MULTILINE)
    assert re.search(r"\d+ candidates tried on 160 queries in \d+\.\d s; 1 pair left out", " ".join(shown.split()))
    assert result.stderr == f"plot: {tmp_path / 'curve.svg'}\n"
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")
    assert run_json("search", docs, PAIRS[0][0], "-k", 3)["hits"][0]["id"] in ("d0", "d1")


def test_as_json(docs: Path, pairs: Path, tmp_path: Path) -> None:
    found = run_json(
        "fit", docs, "--pairs", pairs, "--goal", "unseen", "--measure", "RR@10", "--plot", tmp_path / "c.png"
    )
    assert (found["kept"], found["goal"], found["measure"]) == (True, "unseen", "RR@10")
    assert found["fitted"] == found["parts"]["unseen"]["fitted"] > found["base"]
    assert found["history"]["points"][0]["epoch"] == 0
    assert found["plot"] == str(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_what_trains_nothing_has_no_curve(tmp_path: Path, pairs: Path) -> None:
    docs = made(tmp_path / "docs", {"name": "pefa-xs"})
    before = state(docs)
    result = run("fit", docs, "--pairs", pairs, "--plot", tmp_path / "curve.png")
    assert "chosen: nothing, as no candidate was better" in result.stdout
    assert "not kept: the collection stays as it was" in result.stdout
    assert "epoch" not in result.stdout
    assert "nothing was trained, so there is no curve" in result.stderr
    assert not (tmp_path / "curve.png").exists()
    assert state(docs) == before
    assert "plot" not in run_json("fit", docs, "--pairs", pairs, "--plot", tmp_path / "curve.png")
    assert "kept: nDCG@10 rose" in run("fit", docs, "--pairs", pairs, "--goal", "seen").stdout


def test_a_directory_of_beir(docs: Path, tmp_path: Path) -> None:
    data = tmp_path / "beir"
    (data / "qrels").mkdir(parents=True)
    (data / "corpus.jsonl").write_text("".join(json.dumps({"_id": d.id, "text": d.text}) + "\n" for d in DOCUMENTS))
    lines = [json.dumps({"_id": f"q{i}", "text": query}) for i, (query, _) in enumerate(PAIRS)]
    (data / "queries.jsonl").write_text("\n".join(lines))
    judged = [("query-id", "corpus-id", "score"), *((f"q{i}", id, 1) for i, (_, id) in enumerate(PAIRS))]
    written(data / "qrels" / "train.tsv", judged)
    assert run_json("fit", docs, "--pairs", data)["queries"][0] == len(PAIRS)


def test_pairs_of_the_documents_themselves(tmp_path: Path) -> None:
    docs = made(tmp_path / "docs", QUICK, POEMS)
    result = run("fit", docs, "--self")
    assert result.stderr.endswith("were made from the documents; none of them is a user's question\n")
    assert "kept" in result.stdout
    with Collection.create(tmp_path / "words", create("bm25")) as collection:
        collection.add(POEMS)
    shown = run("fit", tmp_path / "words", "--self").stdout
    assert re.search(r"nDCG@10 before +1\.0000", shown)  # these are easy for words, as documented
    assert run("fit", tmp_path / "words", "--help").stdout.count("users' questions") <= 1


REFUSED: dict[str, tuple[list[tuple[object, ...]] | None, list[str], str]] = {
    "nothing given": (None, [], "--pairs and --self were both left out"),
    "both given": (PAIRS, ["--self"], "--pairs and --self were both given"),
    "unknown ids": ([(query, f"x{id}") for query, id in PAIRS], [], "0 queries have an answer.*160 of 160 pairs"),
    "one query": (PAIRS[:1], [], "1 queries have an answer.*at least 10 are needed"),
    "no answers": ([(*pair, 0) for pair in PAIRS], [], "0 queries have an answer"),
    "contradiction": ([*((*pair, 1) for pair in PAIRS), (*PAIRS[0], 0)], [], "relevance 1 and 0.*keep the right one"),
    "no pair": ([("only one column",)], [], "only one column"),
    "goal": (PAIRS, ["--goal", "both"], "'both' is not one of"),
    "measure": (PAIRS, ["--measure", "beauty"], "beauty"),
    "extension": (PAIRS, ["--plot", "curve.bmp"], r"ends in \.png, \.svg, \.pdf"),
    "folder of the plot": (PAIRS, ["--plot", "nowhere/curve.png"], "no folder"),
}


@pytest.mark.parametrize(("rows", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    untaught: Path, tmp_path: Path, rows: list[tuple[object, ...]] | None, options: list[str], message: str
) -> None:
    before = state(untaught)
    given = [] if rows is None else ["--pairs", written(tmp_path / "pairs.tsv", rows)]
    error = run_json("fit", untaught, *given, *options, code=2)["error"]
    assert error["type"] in ("InvalidInput", "UnknownName", "UsageError")
    assert re.search(message, error["message"]), error["message"]
    assert state(untaught) == before


def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path, pairs: Path) -> None:
    docs = made(tmp_path / "docs", QUICK, source=no_numbers_for_queries)
    before = state(docs)
    assert "NaN" in run_json("fit", docs, "--pairs", pairs, code=2)["error"]["message"]
    assert state(docs) == before


def test_what_cannot_be_drawn_is_said_first(
    untaught: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collection, "fit", None)
    (tmp_path / "folder.png").mkdir()
    for plot, code in ((tmp_path / "folder.png", 2), (tmp_path / "curve", 2)):
        assert "--plot" in run("fit", untaught, "--pairs", pairs, "--plot", plot, code=code).stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = run_json("fit", untaught, "--pairs", pairs, "--plot", tmp_path / "curve.png", code=2)["error"]
    assert (error["type"], "ragistry[plot]" in error["message"]) == ("MissingExtra", True)


def test_exit_codes(untaught: Path, pairs: Path, tmp_path: Path) -> None:
    assert run_json("fit", untaught, "--pairs", tmp_path / "no.tsv", code=3)["error"]["type"] == "StorageError"
    assert run_json("fit", tmp_path / "no", "--pairs", pairs, code=3)["error"]["type"] == "StorageError"
    with FileLock(untaught / ".lock"):
        assert run_json("fit", untaught, "--pairs", pairs, code=5)["error"]["type"] == "Locked"


class TestOwnPairs:
    def test_several_kinds_of_each_document(self) -> None:
        asked = [pair.query for pair in own_pairs(POEMS) if pair.document_id == "poem 1"]
        assert len(asked) == 3
        assert "The haiku came from city1 long ago." in asked
        words, part = (query for query in asked if query != "The haiku came from city1 long ago.")
        assert len(words.split()) == 3 and set(words.split()) <= {
            "city1",
            "festival1",
            "haiku",
            "line1",
            "rhyme1",
            "year1",
        }
        assert len(part.split()) == 12 and part in POEMS[1].text
        assert {pair.relevance for pair in own_pairs(POEMS)} == {1}

    def test_neither_order_nor_repetition_changes_them(self) -> None:
        assert own_pairs(iter(POEMS[::-1])) == own_pairs(POEMS)
        assert own_pairs(POEMS, seed=1) != own_pairs(POEMS)

    def test_no_more_than_asked_for(self) -> None:
        few = own_pairs(POEMS, queries=12)
        assert len({pair.query for pair in few}) == 12
        assert {pair.query for pair in few} <= {pair.query for pair in own_pairs(POEMS)}

    def test_a_title_where_there_is_no_sentence(self) -> None:
        titled = [Document(str(i), f"{form} word{i} only", title=f"About {form}s") for i, form in enumerate(FORMS)]
        assert {"About sonnets", "About odes"} <= {pair.query for pair in own_pairs(titled)}
        assert not any(pair.query.startswith("About") for pair in own_pairs(POEMS))

    def test_twins_answer_together(self) -> None:
        twin = Document("twin", POEMS[0].text, POEMS[0].title)
        answers: dict[str, set[str]] = {}
        for pair in own_pairs([*POEMS, twin]):
            answers.setdefault(pair.query, set()).add(pair.document_id)
        assert {"poem 0", "twin"} in answers.values()
        assert all(("twin" in ids) == ("poem 0" in ids) for ids in answers.values())

    def test_what_others_hold_as_well_is_not_asked_for(self) -> None:
        inner = Document("inner", "city1 line1 rhyme1 haiku year1 " + POEMS[1].text)
        found = own_pairs([*POEMS, inner])
        assert {pair.query for pair in found if pair.document_id == "poem 1"} == {"About the haiku"}

    @pytest.mark.parametrize(
        "documents", [[], POEMS[:1], POEMS[:3], [Document(str(i), "all the same words") for i in range(30)]]
    )
    def test_too_few_are_refused(self, documents: list[Document]) -> None:
        with pytest.raises(InvalidInput, match=r"\d queries can be made.*at least 10"):
            own_pairs(documents)

    def test_ids_are_unique(self) -> None:
        with pytest.raises(InvalidInput, match="same id"):
            own_pairs([*POEMS, POEMS[0]])
        with pytest.raises(InvalidInput, match="queries=0"):
            own_pairs(POEMS, queries=0)
