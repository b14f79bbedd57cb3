"""Exported models run by OpenVINO, in bfloat16 where the processor has it; nothing here imports torch."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import require
from ..types import Floats, Ints

PADDED, ALONE = 8, 32
"""Lengths are rounded up to a multiple of this, a text's that comes alone to one of `ALONE`: code is generated for each new
shape, and a shape other than the last one's costs more than the padding."""


class OpenVino:
    """A model in a file of ONNX, ready for many threads; each run takes one core.

    Cores are not shared between operations, for which a busy machine would have to be waited for. A forked child reads the
    model again when it needs it.

    Args:
        path: Of the file.
        cores: Runs side by side.

    Raises:
        MissingExtra: If openvino is not installed.

    Example:
        >>> OpenVino(Path("model.onnx"), 2).run(ids, mask).shape  # doctest: +SKIP
        (1, 16, 384)
    """

    def __init__(self, path: Path, cores: int) -> None:
        self.path = path
        self.cores = cores
        self._model: Any = self._compiled()
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        _running.add(self)

    def run(self, ids: Ints, mask: Ints) -> Floats:
        """Token embeddings, float32 [b, t, d], of token ids and mask, int64 [b, t]."""
        with self._lock:
            if self._model is None:
                self._model = self._compiled()
            request = self._idle.pop() if self._idle else self._model.create_infer_request()
        found: Floats = request.infer({"input_ids": ids, "attention_mask": mask})[0].copy()
        with self._lock:
            self._idle.append(request)
        return found

    def forked(self) -> None:
        """Forget what was loaded, without ending it: that would wait for threads that a forked child does not have."""
        for held in (self._model, *self._idle):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
        self._model, self._idle, self._lock = None, [], threading.Lock()

    def _compiled(self) -> Any:
        core = require("openvino", "openvino").Core()
        fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
            "INFERENCE_NUM_THREADS": self.cores,
            "NUM_STREAMS": self.cores,
        }
        model = core.compile_model(str(self.path), "CPU", settings)
        some = np.ones((1, PADDED), np.int64)
        with _alone:  # its bindings set themselves up when first used, and two threads that do so wait for each other
            model.create_infer_request().infer({"input_ids": some, "attention_mask": some})[0].copy()
        return model


_alone = threading.Lock()
_running: weakref.WeakSet[OpenVino] = weakref.WeakSet()


def _all_forked() -> None:
    global _alone
    _alone = threading.Lock()
    for one in list(_running):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_all_forked)
