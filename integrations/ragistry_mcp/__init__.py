"""Ragistry in the Model Context Protocol: collections that any client searches and reads.

From a shell, `ragistry serve DIR --mcp` serves a collection to the client that starts it, and with `--http` to many. Clients
are mostly told so in JSON: `{"mcpServers": {"docs": {"command": "ragistry", "args": ["serve", "/path/of/docs", "--mcp"]}}}`.
From Python, `server` makes a server of collections that are open already, to be run here or mounted in an application.

Example:
    >>> from ragistry_mcp import server
    >>> class Nothing:
    ...     def search_many(self, queries, k=10, *, where=None):
    ...         return [[] for _ in queries]
    >>> server({"docs": Nothing()}).name
    'ragistry'
"""

from .running import run_http
from .serving import server

__all__ = ["run_http", "server"]
