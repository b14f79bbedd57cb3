"""The encoder over HTTP, against a server of this process: what it sends, when it tries again, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ragistry import Document
from ragistry.encoders import named as by_name
from ragistry.encoders import remote
from ragistry.encoders.cached import Cached
from ragistry.encoders.functions import register_encoder
from ragistry.encoders.named import encoder as named
from ragistry.encoders.remote import Remote
from ragistry.errors import InvalidInput, ModelNotFound, RagistryError, ServiceError
from ragistry.protocols import Encoder
from ragistry.testing import EncoderContract
from ragistry.testing.checks import at_once

httpx = pytest.importorskip("httpx")
pytest.importorskip("tenacity")

KEY = "sk-very-secret-0123456789"
WIDTH = 8
Answer = tuple[int, dict[str, str], bytes]


def vector(text: str, width: int = WIDTH) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [byte / 8 - 10 for byte in digest[:width]]


def reply(content: Any, status: int = 200, **headers: str) -> Answer:
    named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json"} | named_headers, json.dumps(content).encode()


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    return reply({"error": {"message": message, "code": code}}, status, **headers)


def embed(body: dict[str, Any]) -> Answer:
    """What OpenAI answers, but the last text's embedding first."""
    texts = body["input"]
    if not all(texts):
        return error(400, "input cannot be an empty string")
    width = body.get("dimensions", WIDTH)
    data = [{"object": "embedding", "index": i, "embedding": vector(text, width)} for i, text in enumerate(texts)]
    return reply({"object": "list", "data": data[::-1], "model": body["model"]})


class Server(ThreadingHTTPServer):
    """It lets many connect at once, and is silent about those who leave."""

    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Endpoint:
    """A server that notes what it is asked, and first gives the answers in `queue`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.queue: list[Answer | Callable[[dict[str, Any]], Answer]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, content = endpoint.answer(self.path, self.headers["Authorization"], body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> Answer:
        with self._lock:
            self.paths.append(path)
            self.keys.append(key)
            self.bodies.append(body)
            answer = self.queue.pop(0) if self.queue else embed
        return answer(body) if callable(answer) else answer

    def inputs(self) -> list[list[str]]:
        return [body["input"] for body in self.bodies]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(remote, "sleep", time.sleep)
    monkeypatch.setattr(remote, "clock", time.clock)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, verify=False))  # reading certificates takes 50 ms
    return time


def unit(*texts: str, width: int = WIDTH) -> np.ndarray:
    rows = np.array([vector(text, width) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class TestContract(EncoderContract):
    @pytest.fixture(autouse=True)
    def served(self, endpoint: Endpoint) -> None:
        self.url = endpoint.url

    def make(self) -> Encoder:
        return Remote("small", self.url, batch=3)

    def make_other(self) -> Encoder:
        return Remote("large", self.url)


def test_vectors_are_ordered_by_index_and_of_unit_length(endpoint: Endpoint) -> None:
    found = Remote("small", endpoint.url).encode(["cat", Document("1", "dog", title="On"), "日本"], "document")
    np.testing.assert_allclose(found, unit("cat", "On\ndog", "日本"), atol=1e-6)
    assert found.dtype == np.float32
    assert endpoint.bodies == [{"model": "small", "input": ["cat", "On\ndog", "日本"], "encoding_format": "float"}]
    assert endpoint.paths == ["/v1/embeddings"]
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_vectors_can_be_left_as_they_come(endpoint: Endpoint) -> None:
    found = Remote("small", endpoint.url, normalise=False).encode(["cat"], "document")
    np.testing.assert_allclose(found, [vector("cat")])


def test_batches_are_bounded_by_texts_and_characters(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url, batch=3, batch_characters=10)
    texts = ["a", "b", "c", "d", "x" * 20, "e" * 6, "f" * 5]
    np.testing.assert_allclose(encoder.encode(texts, "document"), unit(*texts), atol=1e-6)
    assert endpoint.inputs() == [["a", "b", "c"], ["d"], ["x" * 20], ["e" * 6], ["f" * 5]]


def test_prompts_cuts_and_empty_texts(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url, prompts={"query": "q: "}, max_characters=4)
    encoder.encode(["abcdef", ""], "query")
    encoder.encode(["abcdef", ""], "document")
    assert endpoint.inputs() == [["q: abcd", "q: "], ["abcd", " "]]


def test_dimensions_are_asked_for(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url, dimensions=4)
    assert encoder.encode([], "query").shape == (0, 4)
    assert not endpoint.bodies
    np.testing.assert_allclose(encoder.encode(["cat"], "query"), unit("cat", width=4), atol=1e-6)
    assert endpoint.bodies[0]["dimensions"] == 4


def test_no_items_ask_once_for_the_width(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url)
    assert [encoder.encode([], "query").shape for _ in range(3)] == [(0, WIDTH)] * 3
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_key_is_sent_if_there_is_none(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    Remote("small", endpoint.url, key_variable="MY_KEY").encode(["cat"], "query")
    assert endpoint.keys == [None]


def test_passing_failures_are_tried_again(endpoint: Endpoint, time: Time) -> None:
    endpoint.queue = [
        error(429, Retry_After="7"),
        error(500),
        error(503, "busy"),
        (502, {}, b"<html>Bad Gateway</html>"),
    ]
    found = Remote("small", endpoint.url).encode(["cat"], "document")
    np.testing.assert_allclose(found, unit("cat"), atol=1e-6)
    assert endpoint.inputs() == [["cat"]] * 5
    assert time.slept[0] == 7
    assert [0.5 * 2**n <= seconds <= 2**n for n, seconds in enumerate(time.slept[1:])] == [True] * 3


def test_a_retry_after_may_be_a_date(endpoint: Endpoint, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "time", lambda: 784111777.0 - 20)
    endpoint.queue = [error(429, Retry_After="Sun, 06 Nov 1994 08:49:37 GMT")]
    Remote("small", endpoint.url).encode(["cat"], "document")
    assert time.slept == [20]


def test_connections_that_fail_are_tried_again(time: Time) -> None:
    closed = Endpoint()
    closed.close()
    with pytest.raises(ServiceError, match=r"each of 3 attempts.*ConnectError"):
        Remote("small", closed.url, retries=2).encode(["cat"], "document")
    assert len(time.slept) == 2


def test_timeouts_are_tried_again(endpoint: Endpoint, time: Time) -> None:
    hurry = threading.Event()

    def late(body: dict[str, Any]) -> Answer:
        hurry.wait(5)
        return embed(body)

    endpoint.queue = [late]
    found = Remote("small", endpoint.url, timeout=0.1).encode(["cat"], "document")
    hurry.set()
    np.testing.assert_allclose(found, unit("cat"), atol=1e-6)
    assert len(time.slept) == 1


def test_it_gives_up_with_what_was_said(endpoint: Endpoint, time: Time) -> None:
    endpoint.queue = [error(500, "the cache is on fire")] * 9
    with pytest.raises(ServiceError, match=r"each of 7 attempts.*status 500.*the cache is on fire"):
        Remote("small", endpoint.url).encode(["cat"], "document")
    assert len(endpoint.bodies) == 7
    assert sum(time.slept) <= 31.5


def test_hours_are_not_waited_for(endpoint: Endpoint, time: Time) -> None:
    endpoint.queue = [error(429, "daily limit", Retry_After="7200")]
    with pytest.raises(ServiceError, match=r"7,200 s.*daily limit"):
        Remote("small", endpoint.url).encode(["cat"], "document")
    assert not time.slept


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (error(400, "this model's maximum context length is 8192 tokens"), InvalidInput, "maximum context.*max_characters"),
        (error(422, "bad"), InvalidInput, "422"),
        (reply({"detail": "too many inputs"}, 413), InvalidInput, "too many inputs"),
        (error(404, "The model `small` does not exist", "model_not_found"), ModelNotFound, "'small'.*does not exist"),
        (error(400, "no such model", "model_not_found"), ModelNotFound, "no such model"),
        ((404, {}, b"<h1>Not Found</h1>"), ModelNotFound, "/embeddings.*'Not Found'"),
        (error(429, "You exceeded your current quota", "insufficient_quota"), ServiceError, "quota"),
        (error(401, f"Incorrect API key provided: {KEY}, {KEY[:8]}***"), ServiceError, "OPENAI_API_KEY holds"),
        (error(403, f"the key {KEY} may not use this"), ServiceError, r"the key \*\*\* may not"),
        (reply({"error": f"bad key {KEY}"}, 400), InvalidInput, r"bad key \*\*\*"),
        ((302, {"Location": "/login"}, b""), ServiceError, "302"),
    ],
)  # fmt: skip
def test_refusals_are_not_tried_again(
    endpoint: Endpoint, time: Time, answer: Answer, kind: type[RagistryError], message: str
) -> None:
    endpoint.queue = [answer]
    with pytest.raises(kind, match=message) as caught:
        Remote("small", endpoint.url).encode(["cat"], "document")
    assert len(endpoint.bodies) == 1
    assert not time.slept
    assert KEY[:8] not in f"{caught.value}{caught.value!r}"


def test_a_missing_key_is_named(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint.queue = [error(401)]
    with pytest.raises(ServiceError, match="OPENAI_API_KEY is not set"):
        Remote("small", endpoint.url).encode(["cat"], "document")


def test_a_broken_key_is_not_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nsecond line")
    with pytest.raises(InvalidInput, match="OPENAI_API_KEY") as caught:
        Remote("small", endpoint.url).encode(["cat"], "document")
    assert KEY[:8] not in str(caught.value)


def test_the_key_is_kept_nowhere(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url)
    encoder.encode(["cat"], "query")
    assert KEY not in f"{encoder!r}{vars(encoder)}{vars(encoder._line)}{encoder._line._client.headers}"  # type: ignore[union-attr]


def items(*embeddings: Any) -> list[dict[str, Any]]:
    return [{"index": i, "embedding": embedding} for i, embedding in enumerate(embeddings)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": items([1, 2])}, "1 embeddings for 2 texts"),
        ({"data": items([1, 2], [3, 4], [5, 6])}, "3 embeddings for 2 texts"),
        ({"data": [{"index": 0, "embedding": [1, 2]}] * 2}, "each `index`"),
        ({"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}, "each `index`"),
        ({"data": items([1, 2], [3])}, "item 1 has 1 dimensions where item 0 has 2"),
        ({"data": items([1, 2], [3, float("nan")])}, "item 1 holds a number that is NaN"),
        ({"data": items([1, 2], [3, None])}, "item 1"),
        ({"data": items([1, 2], "AACAPwAAAEA=")}, "item 1 is str"),
        ({"data": items([], [])}, "no dimensions"),
        ({"data": "vectors"}, "no `data`"),
        ([[1, 2], [3, 4]], "no `data`"),
        ({"error": {"message": "model is loading"}}, "model is loading"),
    ],
)  # fmt: skip
def test_bad_answers_are_refused(endpoint: Endpoint, content: Any, message: str) -> None:
    endpoint.queue = [reply(content)]
    with pytest.raises(ServiceError, match=message):
        Remote("small", endpoint.url).encode(["cat", "dog"], "document")


def test_what_cannot_be_decompressed_is_refused(endpoint: Endpoint, time: Time) -> None:
    endpoint.queue = [(200, {"Content-Encoding": "gzip"}, b"not gzip")]
    with pytest.raises(ServiceError, match="cannot be used"):
        Remote("small", endpoint.url).encode(["cat"], "document")
    assert not time.slept


@pytest.mark.parametrize("body", [b"<html><body>Sign in</body></html>", b"", b"\xff\xfe", b"[" * 100_000, b"{"])
def test_what_is_not_json_is_refused(endpoint: Endpoint, body: bytes) -> None:
    endpoint.queue = [(200, {"Content-Type": "text/html"}, body)]
    with pytest.raises(ServiceError, match="'text/html', not JSON"):
        Remote("small", endpoint.url).encode(["cat"], "document")


def test_other_widths_are_refused(endpoint: Endpoint) -> None:
    endpoint.queue = [lambda body: embed(body | {"dimensions": 5})]
    with pytest.raises(ServiceError, match="5 dimensions where 4 were asked for"):
        Remote("small", endpoint.url, dimensions=4).encode(["cat"], "document")
    endpoint.queue = [embed, lambda body: embed(body | {"dimensions": 5})]
    with pytest.raises(ServiceError, match=f"5 dimensions where {WIDTH} came before"):
        Remote("small", endpoint.url, batch=1).encode(["cat", "dog"], "document")


def test_huge_numbers_do_not_overflow(endpoint: Endpoint) -> None:
    endpoint.queue = [reply({"data": items([3e200, 4e200], [0, 0])})]
    found = Remote("small", endpoint.url).encode(["cat", "dog"], "document")
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], atol=1e-6)


def test_the_rate_is_shared_by_threads(endpoint: Endpoint, time: Time) -> None:
    encoder = Remote("small", endpoint.url, requests_per_minute=30, batch=1)
    endpoint.queue = [error(429, Retry_After="0")]
    time.sleep = lambda seconds: time.slept.append(seconds)  # type: ignore[method-assign]
    remote.sleep = time.sleep
    at_once([lambda: encoder.encode(["cat", "dog"], "document")] * 3)
    waits = sorted(seconds for seconds in time.slept if seconds >= 2)
    assert waits == [2, 4, 6, 8, 10, 12]  # seven requests, 2 s apart, while the clock stands still


def test_the_rate_waits_only_as_long_as_it_must(endpoint: Endpoint, time: Time) -> None:
    encoder = Remote("small", endpoint.url, requests_per_minute=60)
    for passed in (0, 0.25, 5, 0):
        time.now += passed
        encoder.encode(["cat"], "document")
    assert time.slept == [0.75, 1]


def test_threads_get_their_own_vectors(endpoint: Endpoint) -> None:
    encoder = Remote("small", endpoint.url, batch=2)
    texts = [[f"{thread} {number}" for number in range(5)] for thread in range(8)]
    found = at_once([lambda mine=mine: encoder.encode(mine, "document") for mine in texts])  # type: ignore[misc]
    for mine, vectors in zip(texts, found, strict=True):
        np.testing.assert_allclose(vectors, unit(*mine), atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_another_process_has_connections_of_its_own(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Remote("small", endpoint.url)
    encoder.encode(["cat"], "document")
    before = encoder._line
    monkeypatch.setattr(os, "getpid", lambda: before.process + 1)  # forking here would fork other tests' threads
    encoder.encode(["cat"], "document")
    assert encoder._line is not before
    assert encoder._line._client is not before._client


def test_a_cache_saves_requests(endpoint: Endpoint, tmp_path: Path) -> None:
    texts = ["cat", "dog", "cat", ""]
    first = Cached(Remote("small", endpoint.url), tmp_path / "v.sqlite").encode(texts, "document")
    assert len(endpoint.bodies) == 1
    again = Cached(Remote("small", endpoint.url, batch=2), tmp_path / "v.sqlite").encode(texts[::-1], "document")
    np.testing.assert_array_equal(again[::-1], first)
    assert len(endpoint.bodies) == 1
    Cached(Remote("large", endpoint.url), tmp_path / "v.sqlite").encode(texts, "document")
    assert len(endpoint.bodies) == 2


def test_the_fingerprint_is_of_what_decides_vectors() -> None:
    same = [
        Remote("small"),
        Remote(
            "small", "http://localhost/v1/", key_variable="OTHER", batch=1, batch_characters=5, timeout=1, retries=0
        ),
        Remote("small", requests_per_minute=5, prompts={"query": ""}),
    ]
    others = [
        Remote("large"),
        Remote("small", dimensions=5),
        Remote("small", prompts={"query": "q"}),
        Remote("small", prompts={"document": "q"}),
        Remote("small", max_characters=5),
        Remote("small", normalise=False),
    ]
    assert len({encoder.fingerprint() for encoder in same}) == 1
    assert len({encoder.fingerprint() for encoder in [same[0], *others]}) == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 0}, {"dimensions": -1}, {"batch_characters": 0}, {"max_characters": 0}, {"requests_per_minute": 0},
        {"timeout": float("nan")}, {"retries": -1}, {"prompts": {"passage": "x"}}, {"prompts": {"query": "\ud800"}},
        {"model": ""}, {"model": "\ud800"}, {"url": "localhost:11434"}, {"url": "ftp://host/v1"}, {"url": "http://"},
        {"url": "http://host:port/v1"}, {"url": "http://[::1/v1"}, {"url": "http://ho st/v1"}, {"url": ""},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Remote(**{"model": "small"} | settings)


@pytest.mark.parametrize(
    "url", [f"https://me:{KEY}@host/v1", f"ftp://{KEY}@host/v1", f"https://host/v1?key={KEY}", f"https://host/#{KEY}"]
)
def test_a_secret_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidInput, match="key_variable") as caught:
        Remote("small", url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("bad", [["a", "\ud800"], "text", [3]])
def test_bad_items_reach_no_network(endpoint: Endpoint, bad: Any) -> None:
    encoder: Any = Remote("small", endpoint.url)
    with pytest.raises(InvalidInput):
        encoder.encode(bad, "document")
    with pytest.raises(InvalidInput, match="role"):
        encoder.encode(["a"], "passage")
    assert not endpoint.bodies


def test_by_name_with_a_url(endpoint: Endpoint) -> None:
    encoder = named("small", url=endpoint.url, dimensions=4, requests_per_minute=1e6, query_prompt="q: ")
    assert isinstance(encoder, Remote)
    assert encoder.encode(["cat"], "query").shape == (1, 4)
    assert endpoint.inputs() == [["q: cat"]]
    assert encoder.fingerprint() == Remote("small", dimensions=4, prompts={"query": "q: "}).fingerprint()


def test_by_name_options_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidInput, match="pooling, max_length, precision"):
        named("small", url="http://localhost/v1", pooling="cls", max_length=5, precision="fp32")
    with pytest.raises(InvalidInput, match="dimensions, requests_per_minute"):
        named("all-MiniLM-L6-v2", dimensions=5, requests_per_minute=5)


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://api.openai.com.evil.example/v1", "RAGISTRY_API_KEY"),
        ("http://api.openai.com/v1", "RAGISTRY_API_KEY"),
        ("https://elsewhere.example/v1", "RAGISTRY_API_KEY"),
    ],
)
def test_the_key_of_openai_goes_nowhere_else(url: str, variable: str) -> None:
    encoder = named("small", url=url)
    assert isinstance(encoder, Remote)
    assert encoder.key_variable == variable


def test_by_name_one_of_your_own() -> None:
    mine = register_encoder("mine in test_remote", lambda texts: [[1.0, len(text)] for text in texts])
    assert named(mine.name) is mine
    with pytest.raises(InvalidInput, match="url, dimensions, pooling, query_prompt"):
        named(mine.name, url="http://localhost/v1", dimensions=5, pooling="cls", query_prompt="q: ")


def test_by_name_a_model_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    backbones = ModuleType("ragistry.encoders.backbones")
    backbones.stack = lambda name, **settings: (name, settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, backbones.__name__, backbones)
    needed: list[tuple[str, str]] = []
    monkeypatch.setattr(by_name, "require", lambda module, extra: needed.append((module, extra)))
    found: Any = named("tiny", pooling="cls", document_prompt="d: ", max_length=9, precision="fp32", runtime="torch")
    settings = {"pooling": "cls", "prompts": {"document": "d: "}, "max_length": 9, "precision": "fp32"}
    assert found == ("tiny", settings)
    assert needed == [("torch", "dense"), ("transformers", "dense")]
