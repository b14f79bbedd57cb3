"""Exporting a transformer for ONNX Runtime, once, with torch; and measuring what a variant of it costs."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from ..errors import Corrupt, InvalidInput, RagistryError
from ..models import MINILM, find_model, load_tokenizer
from ..protocols import Encoder
from ..registry import require
from ..types import Floats, Item, Role
from .backbones import Backbone, load_model
from .exports import LEAST_COSINE, MODEL, TOKENIZER, Engine, Export, Variant, find, keep, making, same, source_of
from .onnx import POOLING, Model, pooled
from .projected import unit
from .stack import Stack

ENOUGH = 500
"""Documents encoded before a model is exported by itself: what it takes, some seconds, should be worth it."""
UNFIT = 1e-6
"""The cosine of an engine that cannot run a model."""
NEEDED = ("onnxruntime", "onnx", "onnxscript")
SAMPLE = (
    "a",
    "",
    "how many lines has a sonnet?",
    "The brake disc was replaced at 40,000 km; see section 3.2 (b) of the manual.",
    "naïve café, 東京, Ελλάδα, déjà vu — “quoted” and 🙂",
    "A sonnet has fourteen lines. " * 8,
    "one two three four five six seven eight nine ten " * 500,
)
"""Texts that an export is checked with: short, empty, of other scripts, and longer than models read."""


def export(model: str | os.PathLike[str] = MINILM, variant: Variant = "fp32") -> Export:
    """Export a model for ONNX Runtime, check it against torch, and keep it in the cache; or find it there.

    Where OpenVINO is installed, its vectors are checked as well, and `openvino` of what is returned says how near they are.

    Args:
        model: As `stack` takes it: a name, or a folder.
        variant: `fp32`, or `int8`: weights rounded to 8 bits, whose vectors differ; `cosine` of what is returned says how
            much on a few texts, `agreement` on your own.

    Raises:
        MissingExtra: If onnx, onnxscript or onnxruntime is not installed.
        ModelNotFound: If there is no such model.
        InvalidInput: If it cannot be exported, or, in fp32, its vectors are not those of torch.
        StorageError: If the cache cannot be written.

    Example:
        >>> export("all-MiniLM-L6-v2").cosine > 0.9999  # doctest: +SKIP
        True
    """
    if variant not in get_args(Variant):
        raise InvalidInput(f"the variant {variant!r} is not known; use {' or '.join(get_args(Variant))}")
    for package in NEEDED:
        require(package, "onnx")
    name = os.fspath(model)
    source = source_of(find_model(name))  # before anything is read, so that a change meanwhile is seen
    backbone = Backbone(name)
    layout = backbone.layout()
    with making() as folder:
        unchecked = variant == "fp32" and importlib.util.find_spec("openvino") is not None
        found = find(name, variant)
        if found and not found.problem and (found.openvino or not unchecked) and _sound(found):
            return found
        tokenizer, padding = load_tokenizer(layout.folder)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.save(str(folder / TOKENIZER))
        made = Export(
            variant=variant,
            fingerprint=backbone.fingerprint(),
            pooling=layout.pooling,
            prompts=dict(layout.prompts),
            max_length=layout.max_length,
            least=tokenizer.num_special_tokens_to_add(False) + 1,
            limit=layout.limit,
            padding=padding,
            source=source,
        )
        try:
            reference = load_model(layout.folder, torch.float32)
            if there := same(made.fingerprint, variant):
                for file in there.path.glob(f"{MODEL}*"):
                    shutil.copy(file, folder)
            elif variant == "int8" and (there := same(made.fingerprint, "fp32")):
                _round(there.path / MODEL, folder / MODEL)
            else:
                _write(reference, folder / MODEL, variant)
            written = replace(made, folder=str(folder))
            cosine = _checked(reference, written)
            if variant == "fp32" and not cosine >= LEAST_COSINE:
                raise _Refused(
                    f"its vectors are not those of torch: cosine {cosine:.6f}, at least {LEAST_COSINE} is needed"
                )
            openvino = _by_openvino(reference, written) if unchecked else 0.0
        except _Refused as refused:
            keep(name, replace(made, problem=str(refused)))
            raise InvalidInput(f"the model {name!r} cannot be used with ONNX Runtime: {refused}") from refused.__cause__
        return keep(name, replace(made, cosine=cosine, openvino=openvino), folder)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one encoder's answers are from another's.

    Attributes:
        cosine: Between the two vectors of a query, on average.
        least: The least of these.
        overlap: Share of the first `k` documents that both find, on average.
        first: Share of the queries whose first document is the same.
        k: How many documents were compared.
    """

    cosine: float
    least: float
    overlap: float
    first: float
    k: int


def agreement(
    reference: Encoder, other: Encoder, queries: Sequence[str], documents: Sequence[Item], k: int = 10
) -> Agreement:
    """What an encoder would change: vectors of queries compared, and what each finds when it also encodes the documents.

    It is for deciding on `int8`, or on bf16 (`stack(model, precision="bf16")`), with your own queries.

    Args:
        reference: The encoder in use, such as `stack(model, precision="fp32")`.
        other: The one in question, such as `Onnx(model, variant="int8")`.
        queries: Your own; at least one.
        documents: Your own, or some of them; at least one.
        k: How many of the documents found are compared.

    Raises:
        InvalidInput: If there are no queries or documents, or `k` is not positive.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> counts = Function(lambda texts: [[text.count(letter) for letter in "abc"] for text in texts], "counts")
        >>> agreement(counts, counts, ["ab", "c"], ["aab", "cc", "b"], k=1)
        Agreement(cosine=1.0, least=1.0, overlap=1.0, first=1.0, k=1)
    """
    if not queries or not documents or k < 1:
        raise InvalidInput(
            f"{len(queries)} queries, {len(documents)} documents and k={k} were given; at least one of each is needed"
        )
    k = min(k, len(documents))
    vectors, tops = [], []
    for encoder in (reference, other):
        asked = np.asarray(encoder.encode(list(queries), "query"), np.float32)
        there = np.asarray(encoder.encode(list(documents), "document"), np.float32)
        vectors.append(unit(asked))
        tops.append(np.argsort(-(asked @ there.T), axis=1, kind="stable")[:, :k])
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    shared = [len(np.intersect1d(one, two)) / k for one, two in zip(*tops, strict=True)]
    return Agreement(
        cosine=round(float(cosines.mean()), 6),
        least=round(float(cosines.min()), 6),
        overlap=round(float(np.mean(shared)), 6),
        first=round(float((tops[0][:, 0] == tops[1][:, 0]).mean()), 6),
        k=k,
    )


class Exporting(Stack):
    """A stack that exports its model when it has encoded `ENOUGH` documents, for the queries of processes to come.

    Torch is loaded then anyway. It is done once, and takes some seconds. A model that cannot be exported costs a warning.

    Args:
        base: What to be otherwise.
    """

    def __init__(self, base: Stack) -> None:
        super().__init__(
            base.backbone,
            base.steps,
            prompts=base.prompts,
            max_length=base.max_length,
            batch_tokens=base.batch_tokens,
            precision=base.precision,
            threads=base.threads,
        )
        self._counting = threading.Lock()
        self._left: int | None = ENOUGH

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """As `Stack.encode`."""
        vectors = super().encode(items, role)
        if role == "document" and self._due(len(vectors)):
            try:
                export(self.backbone.name)
            except RagistryError as error:
                warnings.warn(f"queries will need torch: {error}", RuntimeWarning, stacklevel=2)
        return vectors

    def _due(self, count: int) -> bool:
        """Whether it is time, which it is once."""
        with self._counting:
            if self._left is None:
                return False
            self._left -= count
            if self._left > 0:
                return False
            self._left = None
            return find(self.backbone.name) is None


def can_export() -> bool:
    """Whether the packages that `export` needs are installed."""
    return all(importlib.util.find_spec(package) for package in NEEDED)


class _Refused(Exception):
    """A model that ONNX Runtime cannot run as torch does."""


class _Embeddings(torch.nn.Module):
    """A transformer as a function of two tensors to one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return output


def _write(model: Any, path: Path, variant: Variant) -> None:
    """Trace the model, and round the weights to 8 bits if asked."""
    plain = path if variant == "fp32" else path.with_name("plain.onnx")
    model.set_attn_implementation("eager")  # the same, in operations that both engines know to join
    # Sizes of 0 and 1 would be taken for constants.
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0], [8, 7, 6, 5]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _silent("torch.onnx"), torch.no_grad():
        try:
            torch.onnx.export(
                _Embeddings(model),
                (ids, mask),
                plain,
                input_names=["input_ids", "attention_mask"],
                output_names=["token_vectors"],
                dynamic_shapes=(sizes, sizes),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        except Exception as error:  # the exporter raises what the model's code does, and its own
            raise _Refused(f"torch.onnx.export: {str(error).strip().partition(chr(10))[0]}") from error
    if variant == "int8":
        _round(plain, path)
        for left in plain.parent.glob("plain.onnx*"):
            left.unlink()


def _round(plain: Path, path: Path) -> None:
    """Weights of 8 bits, one scale a column; activations are scaled when they are there."""
    quantization = require("onnxruntime.quantization", "onnx")
    with _silent(None):  # it recommends, on the root logger, a step that changes nothing here
        quantization.quantize_dynamic(plain, path, per_channel=True, use_external_data_format=True)


@contextmanager
def _silent(logger: str | None) -> Iterator[None]:
    """Without warnings, and what a logger says below errors."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(level)


def _checked(reference: Any, made: Export, engine: Engine = "onnxruntime") -> float:
    """The least cosine to what torch gives, alone and in a batch; in fp32 by every pooling, as any may be asked for."""
    modes = POOLING if made.variant == "fp32" else (made.pooling,)
    least = 1.0
    try:
        exported = Model(made, made.max_length, engine)
        tokens = exported.tokenise(SAMPLE)
        for batch in [tokens, *([ids] for ids in tokens)]:
            ids, mask, found = exported.embed(batch)
            with torch.inference_mode():
                given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
                wanted = reference(**given).last_hidden_state.numpy()
            for mode in modes:
                apart = unit(pooled(found, mask, mode)) - unit(pooled(wanted, mask, mode))
                # A cosine, and 1 where both are zero; NaN stays NaN.
                least = float(np.minimum(least, 1 - (apart**2).sum(axis=1).max() / 2))
    except Exception as error:  # both runtimes raise a dozen unrelated types
        raise _Refused(f"running it: {str(error).strip().partition(chr(10))[0]}") from error
    return least


def _by_openvino(reference: Any, made: Export) -> float:
    """The same by OpenVINO; a little above 0 if it cannot run the model, so that nobody tries again."""
    try:
        return float(np.nan_to_num(max(_checked(reference, made, "openvino"), UNFIT)))
    except _Refused as refused:
        warnings.warn(f"OpenVINO does not run the model: {refused}", RuntimeWarning, stacklevel=2)
        return UNFIT


def _sound(found: Export) -> bool:
    try:
        found.check()
    except Corrupt:
        return False
    return True
