"""What building collections took, for costs that are true though embeddings are shared and builds interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .encoders.cached import Tally
from .storage import write_file


class Times:
    """Seconds by collection, kept in a file so that an interruption does not lose them.

    A vector that was taken from the cache took no time here, yet has its price: what encoding a text of its length took
    on average.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.built: dict[str, Any] = dict(found["built"])
            self.encoders: dict[str, Any] = dict(found["encoders"])
        except (OSError, ValueError, KeyError, TypeError):  # lost times are not known; nothing else is lost
            self.built, self.encoders = {}, {}

    def forget(self, key: str) -> None:
        """Of a collection that is begun anew."""
        self.built[key] = {"seconds": 0.0, "reused": {}}

    def add(self, key: str, seconds: float, tally: Tally) -> None:
        """Some more of a collection was built; the tally is cleared."""
        for fingerprint, texts in tally.encoded.items():
            encoder = self.encoders.setdefault(fingerprint, {"texts": 0, "characters": 0, "seconds": 0.0})
            encoder["texts"] += texts
            encoder["characters"] += tally.characters[fingerprint]
            encoder["seconds"] += tally.seconds[fingerprint]
        if key in self.built:
            self.built[key]["seconds"] += seconds
            reused = self.built[key]["reused"]
            for fingerprint, characters in tally.reused.items():
                reused[fingerprint] = reused.get(fingerprint, 0) + characters
        tally.clear()
        write_file(self.path, json.dumps({"built": self.built, "encoders": self.encoders}, indent=1).encode())

    def alone(self, key: str) -> float | None:
        """Seconds to build a collection without any shared vectors; None if they are not known."""
        built = self.built.get(key)
        if built is None:
            return None
        seconds: float = built["seconds"]
        for fingerprint, characters in built["reused"].items():
            if characters and fingerprint not in self.encoders:
                return None
            if characters:
                encoder = self.encoders[fingerprint]
                seconds += characters * encoder["seconds"] / max(encoder["characters"], 1)
        return seconds
