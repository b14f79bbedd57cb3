"""How a server runs over HTTP, for many clients; for one that starts it, `server(...).run("stdio")` does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn
from mcp.server import MCPServer

from ragistry.errors import InvalidInput

from .access import bracketed, loopback, security

_PATIENCE = 3  # seconds that answers under way are given to end


def run_http(
    made: MCPServer[Any],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    origins: Iterable[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve many clients over streamable HTTP at `/mcp`, until the process is told to end.

    Args:
        made: By `server`.
        host: A name or an address. One that is not of this machine alone needs a server with a token.
        port: 0 takes a free one.
        origins: Where else it is reached from, such as `https://search.example.com` behind a proxy: with that name, and from
            web pages there.
        ready: Called with the URL once clients can connect.

    Raises:
        InvalidInput: If a token is needed, an origin is none, or the port is not free.
    """
    if made.settings.auth is None and not loopback(host):
        raise InvalidInput(
            f"host {host!r} is reached from other machines, where anyone could read all that is served; give a token, or "
            "127.0.0.1 as host"
        )
    allowed = security(host, origins)
    # Nothing is kept between requests, so none needs a session, nor a stream that stays open.
    app = made.streamable_http_app(stateless_http=True, json_response=True, transport_security=allowed, host=host)
    with _listening(host, port) as listener:
        if ready is not None:
            ready(f"http://{bracketed(host)}:{listener.getsockname()[1]}/mcp")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_PATIENCE
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, bound here because uvicorn would end the process where it cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"cannot listen on port {port} of {host!r}: {error}; give another port or host") from None
