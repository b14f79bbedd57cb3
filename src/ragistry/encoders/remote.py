"""A dense encoder behind HTTP: any endpoint that speaks OpenAI's embeddings protocol."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, get_args
from urllib.parse import urlsplit

import numpy as np

from ..errors import InvalidInput, ModelNotFound, ServiceError
from ..registry import require
from ..types import Floats, Item, Kind, Role, check_text
from .functions import texts_of, vectors_of

if TYPE_CHECKING:
    import httpx
    import tenacity

OPENAI = "https://api.openai.com/v1"
PASSING = frozenset({408, 409, 429})
"""Statuses that, like those from 500, another attempt may mend."""
FIRST_PAUSE, LONGEST_BACK_OFF = 0.5, 60.0
LONGEST_PAUSE = 300.0
"""Seconds; a service that asks for more is not waited for."""
QUOTED = 300
"""Characters of what a service says that go into an error."""
NO_PROMPTS: Mapping[Role, str] = MappingProxyType({})

sleep = time.sleep
clock = time.monotonic


class Remote:
    """A dense encoder over an HTTP endpoint that speaks OpenAI's embeddings protocol: OpenAI's own, other vendors', or a
    server of your own (Ollama, vLLM, llama.cpp, text-embeddings-inference, ...).

    Texts are sent in batches, one request after the other, and requests that fail in passing are sent again, later each
    time. Any number of threads may encode at once; they share connections and the rate. Nothing is sent before the first
    call of `encode`. The key is read from the environment for each request, is kept nowhere, and appears in no message.

    Args:
        model: What the endpoint calls the model.
        url: The endpoint, without its last part `/embeddings`.
        key_variable: The environment variable that holds the key. It may be unset, for servers that need no key. Its
            value is sent to `url`, so name another than OpenAI's for another vendor.
        dimensions: How many to ask for, of models that can shorten their vectors; by default the model's own.
        prompts: Text put before each item, by role; a role left out has none.
        batch: The most texts in a request. Vectors do not depend on it.
        batch_characters: The most characters in a request, unless one text alone has more.
        max_characters: Characters of an item that are sent, the prompt not counted; all by default. Many endpoints refuse
            a text of more tokens than the model reads.
        requests_per_minute: The most requests in a minute, attempts that fail included, evenly spaced.
        retries: How often a request is sent again after a failed connection, a timeout, or status 408, 409, 429 or 5xx.
        timeout: Seconds to wait for a connection, and for an answer to go on.
        normalise: Whether to make vectors of unit length, so that a dot product is a cosine.

    Raises:
        InvalidInput: If a value is out of range, or the URL holds a password or a query.

    Example:
        >>> prompts = {"query": "search_query: ", "document": "search_document: "}
        >>> encoder = Remote("nomic-embed-text", "http://localhost:11434/v1", prompts=prompts)
        >>> encoder.fingerprint() == Remote("nomic-embed-text", "https://elsewhere.org/v1", prompts=prompts).fingerprint()
        True
    """

    kind: Kind = "dense"

    def __init__(
        self,
        model: str,
        url: str = OPENAI,
        *,
        key_variable: str = "OPENAI_API_KEY",
        dimensions: int | None = None,
        prompts: Mapping[Role, str] = NO_PROMPTS,
        batch: int = 128,
        batch_characters: int = 200_000,
        max_characters: int | None = None,
        requests_per_minute: float | None = None,
        retries: int = 6,
        timeout: float = 60.0,
        normalise: bool = True,
    ) -> None:
        limits = {"batch": batch, "batch_characters": batch_characters, "max_characters": max_characters}
        rates = {"requests_per_minute": requests_per_minute, "timeout": timeout, "dimensions": dimensions}
        for name, value in (limits | rates).items():
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"{name}={value} was given; a positive number is needed")
        if retries < 0:
            raise InvalidInput(f"retries={retries} was given; 0 or more are needed")
        if unknown := set(prompts) - set(get_args(Role)):
            raise InvalidInput(f"prompts were given for {sorted(unknown)}; the roles are {', '.join(get_args(Role))}")
        for role, prompt in prompts.items():
            check_text(prompt, f"the {role} prompt")
        if not model:
            raise InvalidInput("the model's name is empty; give what the endpoint calls it")
        check_text(model, "the model's name")
        _check_url(url)
        self.model = model
        self.url = url.rstrip("/")
        self.key_variable = key_variable
        self.dimensions = dimensions
        self.prompts = {role: prompts.get(role, "") for role in get_args(Role)}
        self.batch = batch
        self.batch_characters = batch_characters
        self.max_characters = max_characters
        self.requests_per_minute = requests_per_minute
        self.retries = retries
        self.timeout = timeout
        self.normalise = normalise
        self._address = f"{self.url}/embeddings"
        self._width = dimensions
        self._line = _Line()

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order. For no items a word is sent, unless the number of dimensions is known.

        Args:
            items: Texts, or documents (whose title and text are read). They may be empty: a space is sent.
            role: Which prompt to use.

        Returns:
            float32 [len(items), dimensions].

        Raises:
            InvalidInput: If an item is not text that UTF-8 can hold, the role is not known, or the endpoint refuses the
                texts.
            ModelNotFound: If the endpoint has no such model, or there is no endpoint.
            ServiceError: If it cannot be reached, refuses the key, fails each time, or gives an answer of another form.
            MissingExtra: If `httpx` or `tenacity` is not installed.
        """
        texts = [self.prompts[role] + text[: self.max_characters] or " " for text in texts_of(items, role)]
        if not texts:
            width = self._width or self._ask(["text"]).shape[1]
            return np.empty((0, width), dtype=np.float32)
        return np.concatenate([self._ask(batch) for batch in self._batches(texts)])

    def fingerprint(self) -> str:
        """A hash of the model's name, the dimensions, the prompts, the length and whether vectors are normalised.

        Not of the endpoint: two that give a model the same name are taken to serve the same model.
        """
        settings = {
            "model": self.model,
            "dimensions": self.dimensions,
            "prompts": self.prompts,
            "max_characters": self.max_characters,
            "normalise": self.normalise,
        }
        return hashlib.sha256(json.dumps(["remote", 1, settings], sort_keys=True).encode()).hexdigest()

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        characters = 0
        for text in texts:
            if batch and (len(batch) == self.batch or characters + len(text) > self.batch_characters):
                yield batch
                batch, characters = [], 0
            batch.append(text)
            characters += len(text)
        yield batch

    def _ask(self, texts: list[str]) -> Floats:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        if self.dimensions:
            body["dimensions"] = self.dimensions
        response = self._post(body)
        try:
            vectors = vectors_of(_rows(response, len(texts)), len(texts), normalise=self.normalise)
        except ValueError as error:
            raise ServiceError(
                f"{self._address} answered what cannot be used: {error}; check that the URL is of an embeddings endpoint as "
                f"OpenAI's, and that {self.model!r} is an embedding model. The answer: {self._said(response)!r}"
            ) from None
        self._width = self._width or vectors.shape[1]
        if vectors.shape[1] != self._width:
            wanted = "were asked for: leave `dimensions` out" if self.dimensions else "came before: check the service"
            raise ServiceError(
                f"{self._address} gave vectors of {vectors.shape[1]} dimensions where {self._width} {wanted}"
            )
        return vectors

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        """The answer to a request, after as many attempts as it takes or are allowed."""
        require("httpx", "remote")
        require("tenacity", "remote")
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=_pause,
            retry=retry_if_exception_type(_Passing),
            sleep=lambda seconds: sleep(seconds),
            reraise=True,
        )
        try:
            return attempts(self._attempt, body)
        except _Passing as failure:
            raise ServiceError(
                f"{self._address} failed in each of {self.retries + 1} attempts, the last time so: {failure}; check the URL "
                "and that the service runs, set requests_per_minute if it is asked too often, or raise retries or timeout"
            ) from failure.__cause__

    def _attempt(self, body: Mapping[str, Any]) -> httpx.Response:
        import httpx

        if self._line.process != os.getpid():  # a forked child must not write into its parent's connections
            self._line = _Line()
        line = self._line
        if self.requests_per_minute:
            line.wait(60 / self.requests_per_minute)
        key = self._key()
        try:
            response = line.client(self.timeout).post(
                self._address, json=body, headers={"Authorization": f"Bearer {key}"} if key else {}
            )
        except httpx.TransportError as error:
            raise _Passing(f"{type(error).__name__}: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(f"{self._address} cannot be used: {error}; check the URL") from error
        if not response.is_success:
            self._refuse(response, len(body["input"]))
        return response

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise InvalidInput(
                f"the environment variable {self.key_variable} holds characters that no key has; set it again"
            )
        return key

    def _refuse(self, response: httpx.Response, count: int) -> NoReturn:
        """Raise the error that a status stands for."""
        status, said, code = response.status_code, self._said(response), _error(response).get("code")
        if status in (401, 403):
            key = "holds a key that it does not accept for this" if self._key() else "is not set"
            reason = f": {said!r}" if status == 403 else ""  # answers to 401 may hold a part of the key
            raise ServiceError(
                f"{self._address} refused access ({status}){reason}; the environment variable {self.key_variable} {key}: "
                f"set it to a key of this service that may use {self.model!r}"
            )
        if status == 404 or code == "model_not_found":
            raise ModelNotFound(
                f"{self._address} has no model {self.model!r}, or is no embeddings endpoint ({status}): {said!r}; check the "
                f"model's name, and that the URL is what comes before /embeddings, as {OPENAI} is"
            )
        if code == "insufficient_quota":
            raise ServiceError(f"{self._address} refused ({status}), for the account's quota is used up: {said!r}")
        if status in PASSING or status >= 500:
            after = _seconds(response.headers.get("retry-after", ""))
            if after <= LONGEST_PAUSE:
                raise _Passing(f"status {status}: {said!r}", after)
            raise ServiceError(
                f"{self._address} asks not to be tried for {after:,.0f} s ({status}): {said!r}; come back then"
            )
        if 400 <= status < 500:
            raise InvalidInput(
                f"{self._address} refused a request of {count} texts ({status}): {said!r}; if they are too long or too many "
                "for it, set max_characters, batch_characters or batch"
            )
        raise ServiceError(f"{self._address} answered with status {status}: {said!r}; check the URL")

    def _said(self, response: httpx.Response) -> str:
        """What an answer says, in short; a service may repeat the key, which is taken out."""
        error = _error(response)
        said = next((error[name] for name in ("message", "detail") if isinstance(error.get(name), str)), response.text)
        said = said.replace(self._key() or "\0", "***")
        said = " ".join(re.sub(r"<[^>]*>", " ", said[: 100 * QUOTED]).split())
        return said if len(said) <= QUOTED else f"{said[:QUOTED]}..."


class _Passing(Exception):
    """A failure that another attempt may mend, not before so many seconds."""

    def __init__(self, problem: str, after: float = 0.0) -> None:
        super().__init__(problem)
        self.after = after


class _Line:
    """What the threads of one process share: connections, and when the next request may be sent."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._next = -math.inf

    def client(self, timeout: float) -> httpx.Client:
        """The connections."""
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=timeout)
            return self._client

    def wait(self, interval: float) -> None:
        """Wait for one's turn; turns are so many seconds apart."""
        with self._lock:
            now = clock()
            turn = max(now, self._next)
            self._next = turn + interval
        if turn > now:
            sleep(turn - now)


def _check_url(url: str) -> None:
    if any(mark in url for mark in "@?#"):  # which may be a secret, so it is not repeated
        raise InvalidInput(
            "the URL holds a user, a query or a fragment; leave that out, and put the key into the environment variable "
            "that key_variable names"
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in url:
        raise InvalidInput(f"the URL {url!r} cannot be used; one such as {OPENAI} is needed, without /embeddings")


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: twice as many each time, shortened by chance so that clients do not meet again."""
    failure = state.outcome.exception() if state.outcome else None
    longest = min(LONGEST_BACK_OFF, FIRST_PAUSE * 2 ** (state.attempt_number - 1))
    return max(random.uniform(longest / 2, longest), failure.after if isinstance(failure, _Passing) else 0)


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for, as seconds or a date; 0 if it says nothing.

    Example:
        >>> _seconds("7"), _seconds("soon"), _seconds("Thu, 01 Jan 1970 00:00:00 GMT")
        (7.0, 0.0, 0.0)
    """
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def _content(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _error(response: httpx.Response) -> Mapping[str, Any]:
    """The error in an answer, in OpenAI's form or one of those of other servers."""
    content = _content(response)
    error = content.get("error", content) if isinstance(content, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def _rows(response: httpx.Response, count: int) -> list[Any]:
    """The embeddings in an answer, by index.

    Raises:
        ValueError: If it does not have one for each text.
    """
    content = _content(response)
    if content is None:
        raise ValueError(f"it is {response.headers.get('content-type', 'of no type')!r}, not JSON")
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) and "embedding" in item for item in data):
        raise ValueError("it has no `data` with an `embedding` for each text")
    if len(data) != count:
        raise ValueError(f"it has {len(data)} embeddings for {count} texts")
    by_index = {item["index"]: item["embedding"] for item in data if type(item.get("index")) is int}
    if set(by_index) != set(range(count)):
        raise ValueError(f"its items do not have each `index` from 0 to {count - 1} once")
    return [by_index[index] for index in range(count)]
