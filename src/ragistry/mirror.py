"""Files into a collection: what they hold now, which documents they no longer give, and which retriever is meant.

Every document gets the metadata `root`: the folder that its `source` is relative to. Together they name the file that it
came from, whatever paths were given when it was read. A path inside a folder that was read before is taken as a part of
that folder, so that its documents keep their ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .collection import Collection
from .engines import Location, holds_one
from .errors import InvalidInput
from .readers import find, read
from .registry import create, recipe
from .types import Document

Advance = Callable[[int, float], object]
"""Takes how many documents were read, and how many bytes that brought."""

_CONDITIONS = 100  # alternatives in one filter; more are not worth it


class Reading:
    """The documents of files and folders, and what there is to tell about reading them.

    Args:
        paths: Files and folders; one inside another is not read twice.
        tokens: The most tokens in a chunk.
        apart: A folder that is passed over: the collection itself.

    Attributes:
        files: The files to be read.
        size: Of all of them, in bytes.
        ids: Of the documents read so far.
        problems: One line for each file that was skipped or damaged.
        skipped: The files, or more, that could not be read to their end.

    Raises:
        InvalidInput: If a path is empty; while reading, if a record cannot be used or its id was read before.
        StorageError: If a path does not exist or cannot be read.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> _ = (folder / "guide.md").write_text("Use pip.")
        >>> reading = Reading([folder], tokens=200, apart=folder / "collection")
        >>> [(document.text, document.metadata["source"]) for document in reading.documents()]
        [('Use pip.', 'guide.md')]
    """

    def __init__(self, paths: Sequence[Path], tokens: int, *, apart: Path) -> None:
        self._tokens = tokens
        self._apart = _absolute(apart)
        self._paths = {path: _absolute(path) for path in paths}
        inner = {path for path, here in self._paths.items() if any(p in here.parents for p in self._paths.values())}
        self._read = {here: path for path, here in self._paths.items() if path not in inner}
        self._sizes = {
            here: _size(file)
            for path in self._read.values()
            for file in find(path)
            if not (here := _absolute(file)).is_relative_to(self._apart)
        }
        self.files = list(self._sizes)
        self.size = sum(self._sizes.values())
        self.ids: set[str] = set()
        self.problems: list[str] = []
        self.skipped: set[Path] = set()

    def documents(
        self, collection: Collection | None = None, advance: Advance = lambda count, size: None
    ) -> Iterator[Document]:
        """The documents in the order of the files, with ids and sources as the collection has them."""
        for here, path in self._read.items():
            root = here if path.is_dir() else here.parent
            folder = root if collection is None else _folder_of(root, collection)
            file, left = root, 0
            for document in read(path, tokens=self._tokens, report=self._reporter(root)):
                came_from = root / str(document.metadata["source"])
                if came_from.is_relative_to(self._apart):
                    continue
                past = 0
                if came_from != file:
                    file, past, left = came_from, left, self._sizes.get(came_from, 0)
                here_now = min(left, len(document.text))
                left -= here_now
                advance(1, past + here_now)
                placed = _placed(document, root, folder)
                if self._is_new(placed, came_from):
                    yield placed
            advance(0, left)

    def covers(self, file: Path) -> bool:
        """Whether a file is one of the paths, or below one of them."""
        return any(file.is_relative_to(path) for path in self._read)

    def where(self) -> dict[str, Any]:
        """A filter that lets every document pass whose file is covered, and few others."""
        conditions: list[dict[str, Any]] = []
        for path in self._read:
            conditions.append({"root": {"contains": str(path)}})
            above = [str(folder) for folder in path.parents]
            conditions.append({"root": {"in": above}, "source": {"contains": path.name}})
        return {"or": conditions} if len(conditions) <= _CONDITIONS else {"root": {"exists": True}}

    def _is_new(self, document: Document, file: Path) -> bool:
        """Whether an id comes for the first time; one made from name and text may repeat, in such a file elsewhere."""
        if document.id not in self.ids:
            self.ids.add(document.id)
            return True
        if document.id.startswith(f"{document.metadata['source']}#"):
            return False
        raise InvalidInput(
            f"{str(file)!r}, line {document.metadata.get('line')}: the id {document.id!r} was read before, from this "
            "file or another one; give every record an id that is unique in its collection"
        )

    def _reporter(self, root: Path) -> Callable[[str], object]:
        inside = f"{self._apart.relative_to(root).as_posix()}/" if self._apart.is_relative_to(root) else None

        def report(line: str) -> None:
            if not (inside and line.startswith(inside)):
                self.problems.append(line)
                if line.endswith("skipped"):
                    names = {
                        file: file.relative_to(root).as_posix() for file in self.files if file.is_relative_to(root)
                    }
                    self.skipped |= {file for file, name in names.items() if line.startswith(name)}

        return report


def stale(collection: Collection, reading: Reading) -> list[str]:
    """The ids of documents that came from files which a finished reading covers, but no longer come.

    A file that is there and cannot be read, or not to its end, keeps its documents.
    """
    found = []
    for document in collection.documents(reading.where()):
        if document.id not in reading.ids and "source" in document.metadata:
            file = Path(str(document.metadata["root"]), str(document.metadata["source"]))
            if reading.covers(file) and _decided(file) and file not in reading.skipped:
                found.append(document.id)
    return found


def opened(location: Location, retriever: str | None, fields: Mapping[str, Any]) -> Collection:
    """The collection at a location, made if there is none, provided that its retriever is the one asked for.

    Args:
        location: A directory or an address, of a collection or of nothing yet.
        retriever: A name or a YAML file; None for the one that is there, or "bm25".
        fields: Of the retriever. Those not given may have any value, for `fit` changes them.

    Raises:
        InvalidInput: If the collection has another retriever, or a field cannot be used.
        UnknownName: If no retriever has this name.
        StorageError: If the directory holds something else, or cannot be read or written.
    """
    if not holds_one(location):
        return Collection.create(location, create(recipe(retriever or "bm25", fields)))
    collection = Collection.open(location)
    held = collection.recipe
    asked = recipe(retriever or held["name"], fields).model_dump(mode="json", exclude_unset=True)
    if different := differences(asked, held):
        collection.close()
        raise InvalidInput(
            f"{collection.location!r} keeps another retriever than was asked for: "
            + "; ".join(f"its {field} is {there!r}, not {value!r}" for field, value, there in different)
            + ". Leave out --retriever and --set to keep it as it is, or index into another directory"
        )
    return collection


def differences(asked: Mapping[str, Any], held: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where a recipe differs from another in the fields that were asked for: field, value asked for, value held.

    Example:
        >>> differences({"name": "bm25", "k1": 0.9}, {"name": "bm25", "k1": 1.2, "b": 0.75})
        [('k1', 0.9, 1.2)]
    """
    found: list[tuple[str, Any, Any]] = []
    for name, value in asked.items():
        there = held.get(name)
        # Of a recipe only the fields given count; any other mapping, such as a hybrid's members, counts as a whole.
        if isinstance(value, dict) and isinstance(there, dict) and ("name" in value or value.keys() == there.keys()):
            found += differences(value, there, f"{prefix}{name}.")
        elif value != there:
            found.append((prefix + name, value, there))
    return found


def read_fields(assignments: Sequence[str]) -> dict[str, Any]:
    """Fields given as `name=value`, the values in YAML.

    Raises:
        InvalidInput: If one is not of this form.

    Example:
        >>> read_fields(["k1=0.9", "stemmer=null"])
        {'k1': 0.9, 'stemmer': None}
    """
    fields = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        try:
            fields[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise InvalidInput(f"--set {assignment!r} cannot be read; write --set FIELD=VALUE, such as --set k1=0.9")
    return fields


def _folder_of(root: Path, collection: Collection) -> Path:
    """The folder at or above this one that documents of the collection are relative to, else this one."""
    above = {"root": {"in": [str(folder) for folder in (root, *root.parents)]}}
    found = next(iter(collection.documents(above)), None)
    return root if found is None else Path(str(found.metadata["root"]))


def _placed(document: Document, root: Path, folder: Path) -> Document:
    """A document read below one folder, as if it had been read below another one that holds it."""
    source, id = str(document.metadata["source"]), document.id
    if root != folder:
        below = root.relative_to(folder).as_posix()
        id = f"{below}/{id}" if id.startswith(f"{source}#") else id
        source = f"{below}/{source}"
    own = {"root_": document.metadata["root"]} if "root" in document.metadata else {}
    return replace(document, id=id, metadata={**document.metadata, **own, "source": source, "root": str(folder)})


def _absolute(path: Path) -> Path:
    """An absolute path without dots, links left as they are, of characters that UTF-8 holds."""
    return Path(os.fsencode(os.path.normpath(path.absolute())).decode("utf-8", "replace"))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _decided(file: Path) -> bool:
    """Whether it is known what a file holds: it can be read, or is not there."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return os.access(file, os.R_OK)
