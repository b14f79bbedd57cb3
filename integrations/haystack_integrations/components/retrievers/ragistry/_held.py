"""A collection that a component was given: its path, or the collection itself."""

from __future__ import annotations

import os
import threading

from haystack.core.errors import SerializationError

from ragistry import Collection
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable

_OPENING = threading.Lock()  # not of each object: components are copied, locks are not


class Held:
    """Opens a collection when it is first needed, and closes what it opened."""

    def __init__(self, given: str | os.PathLike[str] | Searchable) -> None:
        if isinstance(given, str | os.PathLike):
            self._path: str | None = os.fspath(given)
            self._found: Searchable | None = None
        elif isinstance(given, Searchable):
            self._path = given.location if isinstance(given, Collection) else None
            self._found = given
        else:
            raise InvalidInput(f"{given!r:.100} is {type(given).__name__}; give a collection or its path")
        self._ours = self._found is None

    def get(self) -> Searchable:
        """The collection, opened."""
        found = self._found
        if found is None:
            with _OPENING:
                if self._found is None:
                    self._found = Collection.open(str(self._path))
                found = self._found
        return found

    def close(self) -> None:
        """Close it if it was opened here; `get` opens it again."""
        if self._ours and isinstance(self._found, Collection):
            self._found.close()
            self._found = None

    def path(self) -> str:
        """Where it is, for what is kept of a pipeline.

        Raises:
            SerializationError: If it is somebody else's store, which has no path here.
        """
        if self._path is None:
            raise SerializationError(
                f"a component over {type(self._found).__name__} cannot be serialised: it is no collection on disk; give "
                "the path of one, or put the component into the pipeline after loading it"
            )
        return self._path
