"""The command `ragistry serve` as clients meet it: a process that speaks over pipes, or over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("mcp")

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from ragistry import Collection, Document, create
from ragistry.cli import app
from ragistry.encoders.functions import register_encoder
from ragistry.errors import InvalidInput
from ragistry_mcp import run_http, server
from ragistry_mcp.access import security

TOKEN = "0123456789abcdef-of-a-test"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
NOISY = '''
import os, subprocess, sys
import numpy as np
from ragistry.encoders.functions import register_encoder

def noise(where):
    print("printed", where, flush=True)
    print("printed and kept back", where)
    os.write(1, b"written to the descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('a child')"])

def letters(texts):
    noise("by a model")
    return np.array([[1 + text.count(letter) for letter in "aehinorst"] for text in texts], np.float32)

class Loud:
    """Speaks as soon as the server is being made."""

    def find_spec(self, name, path=None, target=None):
        if name == "ragistry_mcp.served":
            noise("at the start")

register_encoder("letters-of-a-test", letters)
sys.meta_path.insert(0, Loud())
sys.argv = ["ragistry", "serve", sys.argv[1], "--mcp"]
from ragistry.cli import main
main()
'''


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "docs"
    with Collection.create(path, create("bm25")) as docs:
        docs.add([Document("a/b", "The sonnet has fourteen lines.", "Sonnet"), Document("ü", "Three lines.", "Haiku")])
    return path


def started(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ragistry.cli", "serve", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )


def said(process: subprocess.Popen[str]) -> str:
    """The line that says what is served; there may be a warning of some library before."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("serving"):
            return line
    raise AssertionError("it ended without a word")


@contextmanager
def listening(*arguments: object, **environment: str) -> Iterator[str]:
    """The URL of a server that listens, and ends well."""
    process = started(*arguments, "--mcp", "--http", "--port", 0, **environment)
    line = said(process)
    assert TOKEN not in line
    found = re.search(r"http://\S+/mcp", line)
    assert found is not None
    try:
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "") and "Traceback" not in err


@pytest.fixture(scope="module")
def guarded(docs: Path) -> Iterator[str]:
    """The URL of a server that wants the token."""
    with listening(docs, "--token-env", "TOKEN", "--origin", "https://search.example.com", TOKEN=TOKEN) as url:
        yield url


def posted(url: str, **headers: str) -> httpx2.Response:
    return httpx2.post(url, json=LIST, headers=HEADERS | headers)


async def test_a_client_starts_it_and_speaks_over_pipes(docs: Path) -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "ragistry.cli", "serve", str(docs), "--mcp"])
    async with Client(parameters) as client:
        found: Any = await client.call_tool("search", {"query": "sonnet"})
        assert [hit["id"] for hit in found.structured_content["hits"]] == ["a/b"]
        found = await client.read_resource("doc://docs/%C3%BC")
        assert found.contents[0].text == "Three lines."


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a server that prints whenever it can."""

    def letters(texts: list[str]) -> Any:
        return [[1 + text.count(letter) for letter in "aehinorst"] for text in texts]

    folder = tmp_path_factory.mktemp("noisy")
    register_encoder("letters-of-a-test", letters)
    with Collection.create(folder / "docs", create("dense", model="letters-of-a-test")) as docs:
        docs.add([Document("1", "The sonnet has fourteen lines."), Document("2", "zzz")])
    script = folder / "noisy.py"
    script.write_text(NOISY)
    return [str(script), str(folder / "docs")]


async def test_prints_of_any_kind_do_not_reach_the_client(noisy: list[str], tmp_path: Path) -> None:
    problems: list[Exception] = []

    async def heard(message: Any) -> None:
        if isinstance(message, Exception):  # a line that is no message
            problems.append(message)

    parameters = StdioServerParameters(command=sys.executable, args=noisy)
    with (tmp_path / "errors").open("w+") as errors:
        transport = stdio_client(parameters, errlog=errors)
        async with Client(transport, mode="legacy", message_handler=heard) as client:
            for query in ("The sonnet has fourteen lines.", "the sonnet has fourteen lines", "fourteen lines"):
                found: Any = await client.call_tool("search", {"query": query, "k": 1})
                assert [hit["id"] for hit in found.structured_content["hits"]] == ["1"]
        errors.seek(0)
        noise = errors.read()
    assert problems == []
    assert noise.count("printed by a model") == 3 and noise.count("printed at the start") == 1
    assert noise.count("written to the descriptor") == noise.count("a child") == 4


def test_nothing_but_messages_is_ever_on_standard_output(noisy: list[str]) -> None:
    """The pipe itself, to its end: what Python had kept back would come after the last message."""
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    sent: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": about},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "lines"}}},
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *noisy], text=True, **pipes)
    assert process.stdin is not None and process.stdout is not None
    for message in sent:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()
    lines = [process.stdout.readline(), process.stdout.readline()]
    out, err = process.communicate(timeout=30)
    assert [json.loads(line)["id"] for line in lines] == [1, 2] and out == "" and process.returncode == 0
    assert "kept back at the start" in err and "kept back by a model" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_though_it_waits_for_input(docs: Path, number: signal.Signals) -> None:
    process = started(docs, "--mcp")
    assert str(docs) in said(process)
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read() == "" and "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_with_the_token_search_over_http(guarded: str, mode: str) -> None:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as web,
        Client(streamable_http_client(guarded, http_client=web), mode=mode) as client,
    ):
        found: Any = await client.call_tool("search", {"query": "sonnet"})
        assert [hit["id"] for hit in found.structured_content["hits"]] == ["a/b"]
        found = await client.read_resource("doc://a%2Fb")
        assert found.contents[0].text == "The sonnet has fourteen lines."
        asked = [("fetch", {"id": id}) for id in ("a/b", "ü")] * 20
        parts: list[Any] = await asyncio.gather(*(client.call_tool(*one) for one in asked))
        assert [part.structured_content["id"] for part in parts] == ["a/b", "ü"] * 20


def test_others_are_turned_away(guarded: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = posted(guarded, **headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        assert "sonnet" not in answer.text and "search" not in answer.text
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert posted(guarded, **token).status_code == 200
    assert posted(guarded, **token, Origin="https://evil.example").status_code == 403
    assert posted(guarded, **token, Host="evil.example").status_code == 421
    assert posted(guarded, **token, Host="search.example.com", Origin="https://search.example.com").status_code == 200
    assert posted(guarded, **token, Origin="https://search.example.com.evil.example").status_code == 403
    for path in ("", "/", "/.well-known/oauth-protected-resource"):
        assert httpx2.get(guarded.removesuffix("/mcp") + path).status_code == 404


async def test_without_a_token_this_machine_alone_is_answered(docs: Path) -> None:
    with listening(docs) as url:
        assert posted(url).status_code == 200
        for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
            assert posted(url, Origin=origin).status_code == 403
        assert posted(url, Host="evil.example").status_code == 421  # a name that was pointed at this machine
        assert posted(url, Origin="http://localhost:3000").status_code == 200
        spec: Any = pytest.importorskip("llama_index.tools.mcp")
        tools = await spec.McpToolSpec(spec.BasicMCPClient(url)).to_tool_list_async()
        search = next(tool for tool in tools if tool.metadata.name == "search")
        assert "fourteen" in str((await search.acall(query="sonnet")).raw_output)


def test_what_is_not_safe_is_refused(docs: Path) -> None:
    with pytest.raises(InvalidInput, match="token"):
        run_http(server(docs), host="0.0.0.0")
    with pytest.raises(InvalidInput, match="origin"):
        security("127.0.0.1", ["search.example.com"])
    for origin in ("https://search.example.com/path", "null", "*", "ftp://x", "https://", "https://x:y"):
        with pytest.raises(InvalidInput, match="origin"):
            security("127.0.0.1", [origin])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InvalidInput, match="another port"):
        run_http(server(docs), port=taken.getsockname()[1])
    with pytest.raises(InvalidInput, match="another port or host"):
        run_http(server(docs, token=TOKEN), host="no.such.host.invalid")
    assert "[::1]:*" in security("::1", []).allowed_hosts
    assert "192.0.2.1:*" in security("192.0.2.1", []).allowed_hosts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--mcp"),
        (["--mcp", "--token-env", "UNSET_IN_TESTS"], "UNSET_IN_TESTS"),
        (["--mcp", "--token-env", "PATH", "--token-file", "x"], "one of them"),
        (["--mcp", "--token-env", "PATH"], "--http"),
        (["--mcp", "--origin", "https://x.example"], "--http"),
        (["--mcp", "--http", "--host", "0.0.0.0"], "token"),
        (["--mcp", "--http", "--token-env", "SHORT"], "16"),
    ],
)
def test_wrong_usage_is_said(docs: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "secret")
    before = signal.getsignal(signal.SIGINT)
    result = CliRunner().invoke(app, ["serve", str(docs), *arguments])
    assert result.exit_code == 2 and message in result.stderr and not result.stdout
    assert "secret" not in result.stderr
    assert signal.getsignal(signal.SIGINT) is before


def test_a_directory_without_a_collection_is_said(tmp_path: Path) -> None:
    for more in ([], ["--http"]):
        result = CliRunner().invoke(app, ["serve", str(tmp_path), "--mcp", *more])
        assert result.exit_code == 3 and str(tmp_path) in result.stderr and not result.stdout


def test_a_token_is_read_from_a_file(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ragistry_mcp

    made: list[dict[str, Any]] = []
    monkeypatch.setattr(ragistry_mcp, "server", lambda directories, **given: made.append(given))
    monkeypatch.setattr(ragistry_mcp, "run_http", lambda made, **given: given["ready"]("http://here"))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    arguments = ["serve", str(docs), "--mcp", "--http", "--token-file", str(file), "--name", "poems"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and made == [{"name": "poems", "token": TOKEN}]
    assert "http://here" in result.stderr and TOKEN not in result.stderr
    file.unlink()
    assert CliRunner().invoke(app, arguments).exit_code == 3


def test_without_the_extra_it_says_how_to_get_it(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mcp")
    monkeypatch.setattr(sys, "meta_path", [_Hidden(), *sys.meta_path])
    result = CliRunner().invoke(app, ["serve", str(docs), "--mcp"])
    assert result.exit_code == 2 and "pip install 'ragistry[mcp]'" in result.stderr


class _Hidden:
    """Finds no `mcp`, as where it is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "mcp":
            raise ModuleNotFoundError("No module named 'mcp'", name="mcp")


def test_other_commands_load_no_server() -> None:
    code = "import sys, ragistry.cli; print(*{'mcp', 'uvicorn', 'starlette'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
