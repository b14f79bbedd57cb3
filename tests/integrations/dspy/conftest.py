"""DSPy keeps a cache in the home directory; these tests keep it out of there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["DSPY_CACHEDIR"] = str(Path(tempfile.gettempdir()) / "ragistry-tests-dspy")  # read when dspy is imported
