"""Fixtures for the reliability tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragistry import Collection

from .harness import THREE, document, make, state_of

MEMORY = Path("/dev/shm")


@pytest.fixture
def quick() -> Iterator[Path]:
    """A temporary directory, in memory where the system offers that: what kills a process spares both alike."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as directory:
        path = Path(directory)
        path.chmod(0o755)  # for tests that give up root's rights
        yield path


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed collection of forty documents, some replaced, some removed: to be copied, never changed."""
    path = make(tmp_path_factory.mktemp("filled") / "docs", {str(number): 0 for number in range(40)})
    with Collection.open(path) as docs:
        docs.add([document(number, 1) for number in range(5, 15)], batch=4)
        docs.remove([str(number) for number in range(10, 13)])
        docs.add([document(number, 0) for number in range(40, 43)])
        state_of(docs)  # also starts everything that is compiled or imported on first use, before anything is forked
    return path


@pytest.fixture
def docs(quick: Path) -> Iterator[Collection]:
    """An open collection of three documents."""
    with Collection.open(make(quick / "docs", THREE)) as docs:
        yield docs
