"""The command line: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from ragistry import Collection, Document, __version__, registry
from ragistry.cli import app
from ragistry.mirror import Reading, stale

CONTROLS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def run(*arguments: object, code: int = 0, typed: str = "") -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def process(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ragistry.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "more").mkdir(parents=True)
    (folder / "guide.md").write_text("# Guide\n\nWelcome.\n")
    (folder / "install.md").write_text("# Install\n\nUse pip to install the sonnet parser.\n")
    (folder / "notes.txt").write_text("A sonnet has [bold]fourteen[/bold] lines.\n")
    (folder / "more" / "terms.jsonl").write_text(
        '{"id": "t1", "text": "A villanelle has nineteen lines.", "lang": "en"}\n'
        '{"id": "t2", "text": "Ein Sonett hat vierzehn Zeilen.", "lang": "de"}\n'
    )
    return folder


@pytest.fixture
def indexed(folder: Path, tmp_path: Path) -> Path:
    run("index", folder, "-o", tmp_path / "collection")
    return tmp_path / "collection"


def texts(directory: Path) -> set[str]:
    with Collection.open(directory) as collection:
        return {document.text for document in collection.documents()}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["schema", "dense"], ["--version"], ["fit", "--help"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom ragistry.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'faiss', 'transformers', 'numba', 'langchain_core', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_help_documents_exit_codes_and_version_is_printed() -> None:
    shown = " ".join(run("--help").stdout.split())
    for meaning in ("0 fine", "1 nothing", "2 wrong", "3 a file", "4 stored", "5 another", "130 interrupted"):
        assert meaning in shown
    assert run("--version").stdout == f"{__version__}\n"


def test_list_and_schema() -> None:
    assert {"bm25", "hybrid"} <= {found["name"] for found in run_json("list")}
    assert "words in common" in run("list").stdout
    assert run_json("schema", "bm25") == json.loads(run("schema", "bm25").stdout) == registry.schema("bm25")


def test_list_shows_what_is_wrong_with_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "broken", "nowhere:Recipe"

        def load(self) -> None:
            raise ImportError("no [red]module")

    monkeypatch.setattr(registry, "_plugins", lambda: [Entry()])
    assert "[red]module" in run("list").stdout
    assert "cannot be loaded" in next(found for found in run_json("list") if found["name"] == "broken")["problem"]


def test_search_shows_passages_with_their_places(folder: Path, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = run("search", indexed, "install sonnets").stdout
    assert re.search(r"^ *1 +\d\.\d+ +Install\n +install\.md:1\n +# Install Use pip", shown, re.MULTILINE)
    assert "[bold]fourteen[/bold]" in shown
    assert "notes.txt:1" in shown
    assert "t2 in more/terms.jsonl:2" in run("search", indexed, "sonett").stdout
    monkeypatch.chdir(folder / "more")
    assert f"{folder / 'notes.txt'}:1\n" in run("search", indexed, "fourteen").stdout


def test_search_as_json(indexed: Path) -> None:
    found = run_json("search", indexed, "lines", "-k", 2)
    assert found["query"] == "lines"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    first = run_json("search", indexed, "villanelle")["hits"][0]
    assert (first["id"], first["text"]) == ("t1", "A villanelle has nineteen lines.")
    assert (first["metadata"]["source"], first["metadata"]["lang"]) == ("more/terms.jsonl", "en")


def test_search_filters_and_reads_from_standard_input(indexed: Path) -> None:
    assert [hit["id"] for hit in run_json("search", indexed, "lines", "--where", '{"lang": "en"}')["hits"]] == ["t1"]
    assert run_json("search", indexed, "lines", "--where", '{"lang": "de"}', code=1)["hits"] == []
    assert run("search", indexed, "zzz", code=1).stderr == "nothing found\n"
    assert "nineteen" in run("search", indexed, "-", typed="villanelle\n").stdout
    assert run_json("search", indexed, "nineteen", "lines")["query"] == "nineteen lines"


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", registry.create("bm25")) as collection:
        document = Document(
            "i\x1bd", "word \x1b[31mred\x9b2J \u202eevil", title="a\x07 title", metadata={"source": "s\x1b"}
        )
        collection.add(document)
    shown = run("search", tmp_path / "c", "word")
    assert not CONTROLS.search(shown.stdout)
    assert "�[31mred" in shown.stdout
    machine = run("search", tmp_path / "c", "word", "--json").stdout
    assert not CONTROLS.search(machine)
    assert json.loads(machine)["hits"][0]["text"] == document.text


def test_index_brings_a_collection_up_to_date(folder: Path, indexed: Path) -> None:
    with Collection.open(indexed) as collection:
        collection.add(Document("mine", "Not from a file.", metadata={"source": "guide.md"}))
    assert run_json("index", folder, "-o", indexed)["unchanged"] == 5
    (folder / "install.md").write_text("# Install\n\nUse uv to install.\n")
    (folder / "notes.txt").unlink()
    done = run_json("index", folder, "-o", indexed)
    assert {key: done[key] for key in ("added", "replaced", "unchanged", "removed", "documents", "files")} == {
        "added": 1, "replaced": 0, "unchanged": 3, "removed": 2, "documents": 5, "files": 3,
    }  # fmt: skip
    assert not any("pip" in text or "fourteen" in text for text in texts(indexed))
    assert "Not from a file." in texts(indexed)


def test_index_leaves_alone_what_lies_elsewhere(folder: Path, indexed: Path) -> None:
    everything = texts(indexed)
    (folder / "notes.txt").unlink()
    (folder / "more" / "terms.jsonl").write_text('{"id": "t1", "text": "A villanelle has nineteen lines."}\n')
    done = run_json("index", folder / "more", "-o", indexed)
    assert (done["removed"], done["replaced"]) == (1, 1)
    assert everything - texts(indexed) == {"Ein Sonett hat vierzehn Zeilen."}
    assert run_json("index", folder / "guide.md", "-o", indexed)["removed"] == 0


def test_a_part_of_a_folder_keeps_its_ids(folder: Path, indexed: Path) -> None:
    for path in (folder / "more", folder / "install.md", *sorted(folder.glob("*.*"))):
        done = run_json("index", path, "-o", indexed)
        assert (done["added"], done["replaced"], done["removed"], done["documents"]) == (0, 0, 0, 5)
    (folder / "more" / "deep").mkdir()
    (folder / "more" / "deep" / "new.txt").write_text("Brand new.")
    run("index", folder / "more" / "deep", "-o", indexed)
    hit = run_json("search", indexed, "brand")["hits"][0]
    assert hit["id"].startswith("more/deep/new.txt#")
    assert (hit["metadata"]["source"], hit["metadata"]["root"]) == ("more/deep/new.txt", str(folder))
    assert run_json("index", folder, "-o", indexed)["unchanged"] == 6


def test_many_paths_at_once(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(60)]
    for file in files:
        file.write_text(f"Number {file.stem}.")
    assert run_json("index", *files, "-o", tmp_path / "c")["added"] == 60
    files[0].write_text("Changed.")
    done = run_json("index", *files, "-o", tmp_path / "c")
    assert (done["added"], done["removed"], done["unchanged"]) == (1, 1, 59)


def test_files_that_cannot_be_read_keep_their_documents(
    folder: Path, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading([folder], 200, apart=indexed)
    with Collection.open(indexed) as collection:
        assert len(stale(collection, reading)) == 5
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("notes.txt"))
        assert len(stale(collection, reading)) == 4


def test_add_removes_nothing(folder: Path, indexed: Path) -> None:
    (folder / "notes.txt").write_text("Rewritten.")
    done = run_json("add", indexed, folder / "notes.txt")
    assert (done["added"], done["removed"]) == (1, 0)
    assert any("fourteen" in text for text in texts(indexed))


def test_a_collection_inside_the_folder_does_not_index_itself(folder: Path) -> None:
    inside = folder / "index"
    assert run_json("index", folder, "-o", inside)["files"] == 4
    again = run_json("index", folder, folder / "more", "-o", inside)
    assert (again["files"], again["unchanged"], again["removed"], again["problems"]) == (4, 5, 0, [])


def test_paths_may_share_file_names_but_records_not_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "LICENSE").write_text("Free to use.")
        (tmp_path / name / "table.csv").write_text("word\nfree\n")
    assert run_json("index", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c")["documents"] == 2
    for name in ("a", "b"):
        (tmp_path / name / "r.jsonl").write_text('{"id": "same", "text": "' + name + '"}')
    error = run_json("index", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c", code=2)["error"]
    assert "'same' was read before" in error["message"]
    assert str(tmp_path / "b" / "r.jsonl") in error["message"]


def test_own_root_of_a_record_is_kept_beside(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "1", "text": "words", "root": "oak"}')
    run("index", tmp_path / "r.jsonl", "-o", tmp_path / "c")
    metadata = run_json("search", tmp_path / "c", "words")["hits"][0]["metadata"]
    assert (metadata["root_"], metadata["root"], metadata["source"]) == ("oak", str(tmp_path), "r.jsonl")


def test_problems_are_noted_on_standard_error(folder: Path, tmp_path: Path) -> None:
    for number in range(12):
        (folder / f"image{number}.bin").write_bytes(b"\xff\0\xfe")
    result = run("index", folder, "-o", tmp_path / "c")
    assert "image0.bin" in result.stderr
    assert "and 2 more" in result.stderr
    assert "image" not in result.stdout
    assert len(run_json("index", folder, "-o", tmp_path / "c")["problems"]) == 12


def test_a_collection_keeps_its_retriever(folder: Path, indexed: Path, tmp_path: Path) -> None:
    error = run_json("index", folder, "-o", indexed, "--retriever", "query-likelihood", code=2)["error"]
    assert "its name is 'bm25', not 'query-likelihood'" in error["message"]
    assert "its k1 is 1.2, not 0.9" in run("index", folder, "-o", indexed, "--set", "k1=0.9", code=2).stderr
    run("index", folder, "-o", indexed, "--retriever", "bm25", "--set", "k1=1.2")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: hybrid\nmembers: {words: bm25, likelihood: {name: query-likelihood, stemmer: null}}\n")
    run("index", folder, "-o", tmp_path / "h", "--retriever", recipe)
    run("index", folder, "-o", tmp_path / "h", "--retriever", recipe)
    recipe.write_text("name: hybrid\nmembers: {words: bm25}\n")
    assert "its members is" in run("index", folder, "-o", tmp_path / "h", "--retriever", recipe, code=2).stderr


def test_fields_are_set(folder: Path, tmp_path: Path) -> None:
    run("index", folder, "-o", tmp_path / "c", "--set", "k1=0.9", "--set", "stemmer=null")
    recipe = run_json("info", tmp_path / "c")["recipe"]
    assert (recipe["k1"], recipe["stemmer"]) == (0.9, None)
    for wrong in ("k1", "k1={", "k2=1"):
        assert "k1" in run("index", folder, "-o", tmp_path / "d", "--set", wrong, code=2).stderr


def test_remove_by_id_and_by_filter(indexed: Path) -> None:
    result = run("remove", indexed, "t1", "nobody")
    assert result.stdout == "removed 1 document, 4 left\n"
    assert "1 document of those named" in result.stderr
    assert run_json("remove", indexed, "--where", '{"source": "guide.md"}')["documents"] == 3
    assert run_json("remove", indexed, "t1", code=1)["removed"] == 0
    assert run("remove", indexed, "--where", '{"source": "x"}', code=1).stdout == ""
    for wrong in ([], ["--where", "{}"], ["t2", "--where", '{"lang": "de"}']):
        run("remove", indexed, *wrong, code=2)


@pytest.mark.parametrize("where", ["lang=en", "[1]", "[" * 100_000, '{"lang": {"like": 1}}'])
def test_filters_that_are_none_are_explained(indexed: Path, where: str) -> None:
    error = run_json("search", indexed, "lines", "--where", where, code=2)["error"]
    assert error["type"] == "InvalidInput"
    assert len(error["message"]) < 1000


def test_evaluate(indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("q1\tvillanelle\nq2\tSonett\nq3\tnothing\n")
    (tmp_path / "qrels.txt").write_text("q1 0 t1 1\nq2 0 t1 1\n")
    given = ("evaluate", indexed, "--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.txt")
    found = run_json(*given, "--measure", "RR@10", "--per-query", tmp_path / "each.csv")
    assert (found["means"], found["queries"], found["unjudged"]) == ({"RR@10": 0.5}, 2, 1)
    assert (tmp_path / "each.csv").read_text() == "query,RR@10\nq1,1.0\nq2,0.0\n"
    shown = run(*given).stdout
    assert re.search(r"nDCG@10 +0\.5000", shown)
    assert "2 queries" in shown
    assert run_json(*given, "--measure", "beauty", code=2)["error"]["type"] == "UnknownName"
    assert "write" in run(*given, "--per-query", tmp_path / "missing" / "each.csv", code=3).stderr


def test_fit_and_index_again(tmp_path: Path) -> None:
    words = [f"term{letter}x" for letter in "abcdefghijklmnopqrst"]
    with Collection.create(tmp_path / "c", registry.create("bm25")) as collection:
        for number, word in enumerate(words):
            filler = " ".join(f"f{i}" for i in range(60))
            collection.add(
                [Document(f"long{number}", f"{word} {word} {filler}"), Document(f"short{number}", f"{word} x")]
            )
    (tmp_path / "pairs.tsv").write_text("".join(f"{word}\tlong{number}\n" for number, word in enumerate(words)))
    shown = run("fit", tmp_path / "c", "--pairs", tmp_path / "pairs.tsv").stdout
    assert re.search(r"best other settings +1\.0000", shown)
    assert "kept: " in shown
    assert "b 0.75 → " in shown
    again = run_json("fit", tmp_path / "c", "--pairs", tmp_path / "pairs.tsv")
    assert (again["kept"], again["base"]) == (False, 1.0)
    (tmp_path / "new.txt").write_text("One more.")
    run("index", tmp_path / "new.txt", "-o", tmp_path / "c", "--retriever", "bm25")
    assert run_json("info", tmp_path / "c")["recipe"] == again["recipe"]
    assert "nothing helped" in run("fit", tmp_path / "c", "--pairs", tmp_path / "pairs.tsv").stdout
    (tmp_path / "few.tsv").write_text("termax\tlong0\n")
    assert run_json("fit", tmp_path / "c", "--pairs", tmp_path / "few.tsv", code=2)["error"]["type"] == "InvalidInput"


def test_info(indexed: Path) -> None:
    assert run_json("info", indexed)["documents"] == 5
    assert re.search(r"documents +5", run("info", indexed).stdout)


def test_exit_codes(folder: Path, indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run_json("index", tmp_path / "empty", "-o", tmp_path / "c", code=1) == {"files": 0}
    assert run_json("schema", "bm52", code=2)["error"] == {
        "type": "UnknownName",
        "message": run("schema", "bm52", code=2).stderr.removeprefix("error: ").strip(),
    }
    assert run_json("search", indexed, "x", "-k", 0, code=2)["error"]["type"] == "UsageError"
    assert run_json("search", tmp_path / "no", "x", code=3)["error"]["type"] == "StorageError"
    assert run_json("index", tmp_path / "no", "-o", tmp_path / "c", code=3)["error"]["type"] == "StorageError"
    assert not (tmp_path / "c").exists()
    assert run_json("index", folder, "-o", folder, code=3)["error"]["type"] == "StorageError"
    with FileLock(indexed / ".lock"):
        assert run_json("remove", indexed, "t1", code=5)["error"]["type"] == "Locked"
    (indexed / "manifest.json").write_text("{")
    result = run("info", indexed, code=4)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_missing_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "transformers", "faiss"):
        monkeypatch.setitem(sys.modules, name, None)
    error = run_json("index", folder, "-o", tmp_path / "c", "--retriever", "dense", code=2)["error"]
    assert "pip install 'ragistry[dense]'" in error["message"]


def test_ctrl_c_keeps_what_is_committed_and_the_next_run_continues(tmp_path: Path) -> None:
    total, batch, source, directory = 30_000, 4096, tmp_path / "r.jsonl", tmp_path / "c"
    source.write_text("".join(f'{{"id": "{i}", "text": "number{i} {"of many " * 10}"}}\n' for i in range(total)))
    running = process("index", source, "-o", directory, "--json")
    deadline = time.monotonic() + 60
    manifest = directory / "manifest.json"
    while not manifest.exists() or json.loads(manifest.read_text())["generation"] == 0:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    with Collection.open(directory) as collection:
        committed = len(collection)
        collection.check()
        assert [hit.id for hit in collection.search("number17")] == ["17"]
    assert 0 < committed < total
    assert committed % batch == 0
    assert json.loads(stdout)["error"]["type"] == "KeyboardInterrupt"
    assert f"error: interrupted: {committed:,} documents" in stderr.decode()
    assert b"Traceback" not in stderr
    done = run_json("index", source, "-o", directory)
    assert (done["unchanged"], done["added"], done["documents"]) == (committed, total - committed, total)


def test_a_reader_that_stops_reading_is_no_error(indexed: Path) -> None:
    for arguments in (["search", indexed, "lines"], ["search", indexed, "lines", "--json"]):
        running = process(*arguments)
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


def test_terminals_that_lack_characters(indexed: Path) -> None:
    with Collection.open(indexed) as collection:
        collection.add(Document("東", "villanelle 東京 …"))
    stdout, stderr = process("search", indexed, "villanelle 東京", PYTHONIOENCODING="ascii").communicate()
    assert (b"nineteen" in stdout, stderr) == (True, b"")
    stdout, _ = process("search", indexed, "villanelle", "--json", PYTHONIOENCODING="ascii").communicate()
    assert {hit["id"] for hit in json.loads(stdout)["hits"]} == {"t1", "東"}
