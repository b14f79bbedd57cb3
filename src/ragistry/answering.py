"""The command `ragistry serve`: collections, answered from by a protocol that other programs speak."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import note
from .engines import shown
from .errors import InvalidInput
from .storage import explained


def serve(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR", help="Directories of collections, or databases' addresses.", show_default=False),
    ],
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Speak the Model Context Protocol; no other is there yet.", show_default=False)
    ] = False,
    http: Annotated[
        bool,
        typer.Option(
            "--http", help="Listen for many clients, instead of serving the one that starts this.", show_default=False
        ),
    ] = False,
    host: Annotated[
        str,
        typer.Option(metavar="HOST", help="What --http listens on; other than this machine alone with a token only."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --http; 0 takes a free one.")] = 8000,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with what clients of --http have to say."),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, in a file.")] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Where else --http is reached from, such as https://search.example.com behind a proxy; repeatable.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the server is called.")] = "ragistry",
) -> None:
    """Serve collections to language models and other programs, read-only.

    `ragistry serve my-docs --mcp` is what you tell a client, such as an editor or a chat, to start: it speaks over standard
    input and output.

    `ragistry serve my-docs --mcp --http` listens at http://127.0.0.1:8000/mcp. To be reached from other machines it needs a
    token, which clients send as `Authorization: Bearer ...`: from an environment variable or a file, as what is written here
    can be read by everybody on the machine. It does not encrypt: have a proxy with TLS in front, and name it as --origin.

    Documents that are added meanwhile are found. Ctrl-C ends it.
    """
    if not mcp:
        raise InvalidInput("say which protocol to speak: --mcp, the Model Context Protocol, is what there is")
    token = _token(token_env, token_file)
    if not http:
        given = {"--token-env": token_env, "--token-file": token_file, "--origin": origin}
        if useless := [option for option, value in given.items() if value]:
            raise InvalidInput(f"{useless[0]} is of no use without --http, which alone is reached over a network")
    listed = ", ".join(shown(one) for one in directories)

    def ready(url: str) -> None:
        note(f"serving {listed} at {url}{' to clients that send the token' if token else ''}; Ctrl-C ends it")

    with _ended_by_signals():
        if http:
            serving = _serving()
            made = serving.server(directories, name=name, token=token)
            serving.run_http(made, host=host, port=port, origins=origin or (), ready=ready)
            return
        with _prints_aside() as wire:
            made = _serving().server(directories, name=name)
            note(f"serving {listed} over standard input and output, for the client that started this; Ctrl-C ends it")
            sys.stdout.flush()
            os.dup2(wire, 1)  # the server takes it from here, and puts standard error in its place itself
            try:
                made.run("stdio")
            finally:
                os.dup2(2, 1)


def _serving() -> Any:
    """The package that holds the server."""
    from .registry import require

    require("mcp", "mcp")
    return require("ragistry_mcp", "mcp")


def _token(variable: str | None, file: Path | None) -> str | None:
    if variable is not None and file is not None:
        raise InvalidInput("--token-env and --token-file were both given; give one of them")
    if variable is not None:
        if not os.environ.get(variable):
            raise InvalidInput(f"--token-env names {variable!r}, an environment variable that is not set; set it first")
        return os.environ[variable]
    if file is None:
        return None
    with explained("read", file):
        return file.read_text(encoding="utf-8", errors="replace").strip()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the process well, for nothing else ends a server.

    At once: nothing is open for writing, and a thread that waits for standard input cannot be woken. Over HTTP the server
    sees signals first, and finishes answers under way.
    """

    def end(number: int, frame: object) -> None:
        os._exit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _prints_aside() -> Iterator[int]:
    """Have whatever is printed, by Python or below it, go to standard error; gives a descriptor of the true output.

    Standard output belongs to the protocol, where a single stray line, such as a library's greeting, breaks it.
    """
    sys.stdout.flush()
    wire = os.dup(1)
    os.dup2(2, 1)
    try:
        yield wire
    finally:
        sys.stdout.flush()  # what Python kept back goes aside, too
        os.dup2(wire, 1)
        os.close(wire)
