"""Files laid out in a folder."""

from __future__ import annotations

from pathlib import Path


def lay(directory: Path, files: dict[str, str | bytes]) -> Path:
    """Write files by their paths below a directory, and return it."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory
