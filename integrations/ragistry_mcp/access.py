"""Who may use a server over HTTP: those who know a token, from hosts and web pages that are named."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from ragistry.errors import InvalidInput

SHORTEST = 16
"""Characters of a token, at least."""
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Token(TokenVerifier):
    """Lets in whoever says a token.

    Raises:
        InvalidInput: If it is short, or not what a header can carry.

    Example:
        >>> Token("secret")
        Traceback (most recent call last):
        ragistry.errors.InvalidInput: the token has 6 characters; give at least 16, such as `openssl rand -hex 32` prints
    """

    def __init__(self, token: str) -> None:
        if len(token) < SHORTEST:
            raise InvalidInput(
                f"the token has {len(token)} characters; give at least {SHORTEST}, such as `openssl rand -hex 32` prints"
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise InvalidInput(
                "the token holds what a header cannot carry; give ASCII letters, digits and signs, no spaces"
            )
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whether it is the token, in a time that does not tell how much of it is right."""
        if not hmac.compare_digest(token.encode(errors="replace"), self._token):
            return None
        return AccessToken(token=token, client_id="bearer", scopes=[])

    @property
    def settings(self) -> AuthSettings:
        """What the server needs besides: there is no one who issues tokens, so none is advertised."""
        return AuthSettings(issuer_url=AnyHttpUrl("http://localhost"), resource_server_url=None)


def loopback(host: str) -> bool:
    """Whether a host is this machine alone.

    Example:
        >>> [loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.com")]
        [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def security(host: str, origins: Iterable[str]) -> TransportSecuritySettings:
    """Which names a server answers to, and which web pages may ask it: those of this machine, and those that are given.

    Without that, any page open in a browser here could ask it, by pointing a name of its own at this machine.

    Args:
        host: What the server listens on.
        origins: Where else it is reached from, such as `https://search.example.com`.

    Raises:
        InvalidInput: If one is no origin.

    Example:
        >>> security("127.0.0.1", ["https://search.example.com"]).allowed_hosts[-2:]
        ['search.example.com', 'search.example.com:*']
    """
    names = [*_LOCAL, bracketed(host)]
    if not loopback(host):
        names.append(socket.gethostname())
    hosts = [pattern for name in dict.fromkeys(names) for pattern in (name, f"{name}:*")]
    pages = [f"http://{pattern}" for pattern in hosts]
    for origin in origins:
        host, port = _parts(origin)
        hosts += [f"{host}:{port}"] if port else [host, f"{host}:*"]
        pages.append(origin)
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=pages)


def _parts(origin: str) -> tuple[str, int | None]:
    """Host and port of an origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = bracketed(parts.hostname or "")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or origin != f"{parts.scheme}://{parts.netloc}"
        or "@" in origin
    ):
        raise InvalidInput(f"the origin {origin!r:.200} is none; give it as https://search.example.com, without a path")
    return host, port
