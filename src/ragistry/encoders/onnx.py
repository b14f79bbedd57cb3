"""Dense encoding by ONNX Runtime or OpenVINO, which start at once where torch takes seconds; nothing here imports torch."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import get_args

import numpy as np
from tokenizers import Tokenizer

from .. import machine
from ..errors import Corrupt, InvalidInput, ModelNotFound, StorageError
from ..models import first_tokens
from ..protocols import Encoder
from ..registry import require
from ..types import Floats, Ints, Item, Kind, Role
from .exports import EXTRA, LEAST_COSINE, MODEL, TOKENIZER, Engine, Export, Variant, find, forget
from .openvino import ALONE, PADDED, OpenVino
from .projected import unit
from .texts import batches, digest, prompted, side_by_side

CHUNK = 4096
"""Texts tokenised and sorted at a time, which bounds memory."""
POOLING = ("mean", "cls", "last")


class Onnx:
    """A `Stack` of pooling and unit length, run without torch: the same prompts, tokens, pooling and fingerprint.

    The model must have been exported, once: see `ragistry.encoders.exporting.export`, which refuses an export whose vectors
    are not those of torch (cosine 0.9999). So what torch has indexed this can search, and the other way round.

    Texts are sorted by length and batched under a budget of tokens; batches run side by side, one processor core each.
    What threads ask for at the same time, a query each, is encoded together. The model is loaded by the first call that
    needs it; a forked process goes on with it.

    Args:
        model: As `stack` takes it: a name, or a folder.
        pooling: `mean`, `cls` or `last`; the model's own by default.
        prompts: Text put before each item, by role; a role left out keeps the model's own.
        max_length: Tokens of a text that are read, special tokens included; the model's own by default.
        variant: Of the weights: `fp32`, or `int8`: a quarter of the size and twice the speed, but other vectors, which have
            a fingerprint of their own. Measure what they cost on your own queries with `agreement`.
        engine: What runs it: `onnxruntime`, or `openvino`, faster where the processor multiplies bfloat16. Its
            vectors were checked like the others.
        batch_tokens: Tokens in a batch, padding included, in fp32; in int8 texts go one by one. Vectors do not depend on it.
        threads: Processor cores to use; all by default, or as many as OMP_NUM_THREADS says.

    Raises:
        MissingExtra: If the engine is not installed.
        ModelNotFound: If the model was not exported, or has changed since, or was not checked with this engine.
        InvalidInput: If a value is out of range, or OpenVINO is asked for `int8`.

    Example:
        >>> from ragistry.encoders.exporting import export
        >>> _ = export("all-MiniLM-L6-v2")  # done once, and kept  # doctest: +SKIP
        >>> Onnx("all-MiniLM-L6-v2").encode(["how many lines has a sonnet?"], "query").shape  # doctest: +SKIP
        (1, 384)
    """

    kind: Kind = "dense"

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        prompts: Mapping[Role, str] | None = None,
        max_length: int | None = None,
        variant: Variant = "fp32",
        engine: Engine = "onnxruntime",
        batch_tokens: int = 512,
        threads: int | None = None,
    ) -> None:
        self.model = os.fspath(model)
        for given, known in ((variant, get_args(Variant)), (engine, get_args(Engine))):
            if given not in known:
                raise InvalidInput(f"{given!r} is not known; use {' or '.join(known)}")
        if (variant, engine) == ("int8", "openvino"):
            raise InvalidInput("int8 was asked for by OpenVINO; use the engine 'onnxruntime', or the variant 'fp32'")
        require(engine, EXTRA[engine])
        for name, value in (("max_length", max_length), ("batch_tokens", batch_tokens), ("threads", threads)):
            if value is not None and value < 1:
                raise InvalidInput(f"{name}={value} was given; a positive number is needed")
        if unknown := set(prompts or {}) - set(get_args(Role)):
            raise InvalidInput(f"prompts were given for {sorted(unknown)}; the roles are {', '.join(get_args(Role))}")
        if pooling is not None and pooling not in POOLING:
            raise InvalidInput(f"the pooling {pooling!r} is not known; use one of {', '.join(POOLING)}")
        found = find(self.model, variant)
        if found is None or found.problem:
            why = found.problem if found else "it was not, or the model has changed since"
            raise ModelNotFound(
                f"the model {self.model!r} must be exported for ONNX Runtime ({variant}) first, but {why}; call "
                "ragistry.encoders.exporting.export, which needs torch, or use the runtime 'torch'"
            )
        if engine == "openvino" and found.openvino < LEAST_COSINE:
            raise ModelNotFound(
                f"the vectors of {self.model!r} by OpenVINO are not those of torch, or were never compared (cosine "
                f"{found.openvino:.6f}, at least {LEAST_COSINE} is needed); call ragistry.encoders.exporting.export, which "
                "compares them, or use the engine 'onnxruntime'"
            )
        self.export = found
        self.engine = engine
        self.pooling = pooling or found.pooling
        self.prompts: Mapping[Role, str] = {**found.prompts, **(prompts or {})}
        self.max_length = max_length or found.max_length
        if not found.least <= self.max_length <= found.limit:
            raise InvalidInput(
                f"max_length={self.max_length} was given, but the model {self.model!r} reads {found.least} to "
                f"{found.limit} tokens"
            )
        self.batch_tokens = batch_tokens
        self.threads = threads or machine.threads()
        self._loading = threading.Lock()
        self._loaded: Model | None = None
        self._started: tuple[int, Shared] | None = None

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), dimensions], each of unit length.

        Raises:
            InvalidInput: If an item is not text that UTF-8 can hold, or the role is not known.
            Corrupt: If the export is damaged.
        """
        texts = prompted(items, role, self.prompts)
        if not texts:
            return self.encode([""], role)[:0]
        parts = [self._encode_chunk(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def tokens(self, items: Sequence[Item], role: Role) -> list[list[int]]:
        """The token ids of each item as the model reads it, with its prompt. Raises as `encode`."""
        return self.loaded().tokenise(prompted(items, role, self.prompts))

    def fingerprint(self) -> str:
        """That of the `Stack` with the same settings; with `int8`, one of its own."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        steps = [f"Pooling({self.pooling})", "Normalise()"]
        found = digest(self.prompts, self.max_length, steps, self.export.fingerprint)
        if self.export.variant != "fp32":
            found.update(self.export.variant.encode())
        return found.hexdigest()

    def loaded(self) -> Model:
        """The session and the tokenizer."""
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    self._loaded = Model(self.export, self.max_length, self.engine, self.threads)
        return self._loaded

    def _encode_chunk(self, texts: Sequence[str]) -> Floats:
        return self._shared()(self.loaded().tokenise(texts))

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Floats:
        _, mask, embedding = self.loaded().embed(tokens)
        return unit(pooled(embedding, mask, self.pooling))

    def _shared(self) -> Shared:
        started = self._started
        if started is None or started[0] != os.getpid():  # a forked child has none of its parent's threads
            with self._loading:
                started = self._started
                if started is None or started[0] != os.getpid():
                    # int8 arithmetic scales a batch as a whole: alone, a text gets the same vector in any company.
                    budget = 1 if self.export.variant == "int8" else self.batch_tokens
                    started = self._started = (os.getpid(), Shared(self._forward, budget, self.threads))
        return started[1]


class Model:
    """An exported model, ready to run in many threads, and its tokenizer: neither is changed after this.

    Args:
        export: Where they are.
        max_length: Tokens of a text that are kept.
        engine: What runs it.
        cores: Runs side by side.

    Raises:
        Corrupt: If the files are damaged.
    """

    def __init__(self, export: Export, max_length: int, engine: Engine = "onnxruntime", cores: int = 1) -> None:
        export.check()
        try:
            self._run = _by_openvino(export, cores) if engine == "openvino" else _by_onnxruntime(export)
            self.tokenizer = Tokenizer.from_file(str(export.path / TOKENIZER))
        except Exception as error:  # all raise a dozen unrelated types, or bare ones
            problem = str(error).strip().partition("\n")[0]
            raise Corrupt(f"the export in {str(export.path)!r} cannot be used ({problem}); export it again") from None
        self.tokenizer.enable_truncation(max_length, direction="right")
        self.tokenizer.no_padding()
        self.max_length = max_length
        self.padding = export.padding
        self.limit = export.limit
        self._alone, self._multiple = (ALONE, PADDED) if engine == "openvino" else (1, 1)

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of at most `max_length` tokens of each text, and at least one."""
        return first_tokens(self.tokenizer, texts, self.max_length, self.padding)

    def embed(self, tokens: Sequence[Sequence[int]]) -> tuple[Ints, Ints, Floats]:
        """Token ids and mask, int64 [b, t], and token embeddings, float32 [b, t, d], of a batch."""
        multiple = self._alone if len(tokens) == 1 else self._multiple
        longest = -(-max(map(len, tokens)) // multiple) * multiple
        ids = np.full((len(tokens), min(longest, self.limit)), self.padding, np.int64)
        mask = np.zeros_like(ids)
        for row, found in enumerate(tokens):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return ids, mask, self._run(ids, mask)


def _by_onnxruntime(export: Export) -> Callable[[Ints, Ints], Floats]:
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    # One core a batch: batches side by side stall less on a busy machine than operations shared between cores, and a
    # forked process that inherits a session with threads of its own does not end.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it helps batches of one shape only
    options.log_severity_level = 3
    session = runtime.InferenceSession(export.path / MODEL, options, ["CPUExecutionProvider"])

    def run(ids: Ints, mask: Ints) -> Floats:
        found: Floats = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return found

    return run


def _by_openvino(export: Export, cores: int) -> Callable[[Ints, Ints], Floats]:
    return OpenVino(export.path / MODEL, cores).run


def pooled(embedding: Floats, mask: Ints, mode: str) -> Floats:
    """One vector from the vectors of a text's tokens, float32 [b, d]: the step `Pooling`, with padding on the right.

    Example:
        >>> embedding = np.array([[[1, 2], [3, 4], [9, 9]]], np.float32)
        >>> pooled(embedding, np.array([[1, 1, 0]]), "mean"), pooled(embedding, np.array([[1, 1, 0]]), "last")
        (array([[2., 3.]], dtype=float32), array([[3., 4.]], dtype=float32))
    """
    if mode == "mean":
        weights = mask[:, None, :].astype(np.float32)
        mean: Floats = (weights @ embedding)[:, 0] / weights.sum(axis=2)
        return mean
    places = np.zeros(len(mask), np.int64) if mode == "cls" else mask.sum(axis=1) - 1
    found: Floats = embedding[np.arange(len(mask)), places]
    return found


class Shared:
    """Runs batches on a processor's cores; what fits into one batch is put together with what other threads ask.

    A thread that gets a core takes everything that waits then, its own texts and others', so that under load queries are
    encoded by the dozen, and without load at once. Many texts take the same cores, but not the queries' turn.

    Args:
        work: Vectors [b, d] of a batch of texts' tokens.
        budget: Tokens in a batch, padding included.
        cores: Batches at a time.

    Example:
        >>> double = Shared(lambda tokens: np.array([[2.0 * len(ids)] for ids in tokens], np.float32), 8, 1)
        >>> double([[7, 7, 7], [7]])
        array([[6.],
               [2.]], dtype=float32)
    """

    def __init__(self, work: Callable[[Sequence[Sequence[int]]], Floats], budget: int, cores: int) -> None:
        self.work = work
        self.budget = budget
        self._turns = threading.Semaphore(cores)
        self._lock = threading.Lock()
        self._waiting: list[tuple[Sequence[Sequence[int]], Future[Floats]]] = []
        self._pool = ThreadPoolExecutor(cores, "ragistry-onnx")

    def __call__(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """float32 [len(tokens), d]."""
        parts = list(batches([len(ids) for ids in tokens], self.budget))
        if len(parts) == 1:
            return self._together(tokens)
        return side_by_side(tokens, parts, lambda some: self._pool.submit(self.work, some))

    def _together(self, tokens: Sequence[Sequence[int]]) -> Floats:
        mine: Future[Floats] = Future()
        with self._lock:
            self._waiting.append((tokens, mine))
        with self._turns:
            with self._lock:
                taken, self._waiting = self._waiting, []
            self._run(taken)
        return mine.result()  # another thread may have taken it, and be at work

    def _run(self, taken: Sequence[tuple[Sequence[Sequence[int]], Future[Floats]]]) -> None:
        every = [ids for tokens, _ in taken for ids in tokens]
        try:
            found: dict[int, Floats] = {}
            for part in batches([len(ids) for ids in every], self.budget):
                found.update(zip(part, self.work([every[i] for i in part]), strict=True))
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        rows = iter(range(len(every)))
        for tokens, future in taken:
            future.set_result(np.stack([found[next(rows)] for _ in tokens]))


class Quick:
    """A model that answers queries by its export, so that the first needs no torch; documents by what is faster in bulk.

    That is OpenVINO, where it is installed; ONNX Runtime has no bfloat16 arithmetic, so that documents keep torch beside it.
    A damaged export costs a warning, and everything is encoded by torch.

    Args:
        exported: The exported model.
        torch: Makes the encoder of what the export does not encode. It must have the same fingerprint.

    Example:
        >>> from ragistry.encoders.backbones import stack
        >>> quick = Quick(Onnx("all-MiniLM-L6-v2"), stack)  # doctest: +SKIP
        >>> quick.fingerprint() == stack().fingerprint()  # doctest: +SKIP
        True
    """

    kind: Kind = "dense"

    def __init__(self, exported: Onnx, torch: Callable[[], Encoder]) -> None:
        self.exported = exported
        self._make = torch
        self._broken = False

    @cached_property
    def torch(self) -> Encoder:
        """What encodes the rest, and can be taught."""
        return self._make()

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), dimensions]. Raises as `Onnx` or `Stack` does."""
        if (role != "document" or self.exported.engine == "openvino") and not self._broken:
            try:
                return self.exported.encode(items, role)
            except Corrupt as error:
                warnings.warn(f"torch encodes instead: {error}", RuntimeWarning, stacklevel=2)
                self._broken = True
                with contextlib.suppress(StorageError):  # a cache that cannot be written
                    forget(self.exported.model, self.exported.export)
        return np.asarray(self.torch.encode(items, role), np.float32)

    def tokens(self, items: Sequence[Item], role: Role) -> list[list[int]]:
        """The token ids of each item as the model reads it, with its prompt."""
        return self.exported.tokens(items, role)

    def fingerprint(self) -> str:
        """The same for both runtimes."""
        return self.exported.fingerprint()
