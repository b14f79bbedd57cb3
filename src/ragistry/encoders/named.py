"""Dense encoders by name: one of your own, one behind HTTP, or a model that runs here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import InvalidInput, ModelNotFound
from ..protocols import Encoder
from ..registry import require
from ..types import Role
from .functions import registered
from .remote import Remote

if TYPE_CHECKING:
    from .exports import Engine, Variant
    from .onnx import Onnx
    from .stack import Precision, Stack
    from .steps.pooling import PoolingMode

Runtime: TypeAlias = Literal["auto", "torch", "onnx", "onnx-int8", "openvino"]
WITHOUT_TORCH: dict[str, tuple[Variant, Engine]] = {
    "onnx": ("fp32", "onnxruntime"),
    "onnx-int8": ("int8", "onnxruntime"),
    "openvino": ("fp32", "openvino"),
}
OPENAI = "https://api.openai.com/"
OPENAI_KEY, OTHER_KEY = "OPENAI_API_KEY", "RAGISTRY_API_KEY"
"""Where keys are looked for. A stored recipe may name any address, so it cannot choose which secret is sent there."""


def encoder(
    model: str,
    *,
    url: str | None = None,
    dimensions: int | None = None,
    requests_per_minute: float | None = None,
    pooling: PoolingMode | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
) -> Encoder:
    """The dense encoder that a recipe describes.

    Args:
        model: A name given to `register_encoder`; else, with `url`, what that endpoint calls the model; else what `stack`
            takes: a name on the Hugging Face hub, or a folder. A folder with `bridge.safetensors` is a `TokenAware` encoder.
        url: An endpoint that speaks OpenAI's embeddings protocol: see `Remote`. OpenAI's own gets the key in the environment
            variable OPENAI_API_KEY, any other the one in RAGISTRY_API_KEY; neither needs to be set for a server without key.
        dimensions: With `url`: see `Remote`.
        requests_per_minute: With `url`: see `Remote`.
        pooling: Of a model that runs here: see `stack`.
        query_prompt: Put before queries; by default the model's own, or none with `url`.
        document_prompt: Put before documents, likewise.
        max_length: Of a model that runs here: see `stack`.
        precision: Of a model that runs here: see `stack`.
        runtime: Of a model that runs here. `torch`, `onnx` and `openvino` run all of it; the latter two export the model
            first, if need be. `auto`: by the export if there is one, which an encoder with `auto` makes by itself once it
            has encoded 500 documents (if onnx, onnxscript and onnxruntime are installed); else by torch. ONNX Runtime
            encodes queries, for which the first would have to wait for torch; OpenVINO, if it is installed, its vectors were
            checked and `precision` is `auto`, documents as well. The vectors agree, so a collection may be filled by one and
            searched by the other. With `bf16`, torch runs all. `onnx-int8`: weights of 8 bits, smaller and faster, but with
            other vectors: measure first what that costs, with `ragistry.encoders.exporting.agreement`.

    Raises:
        InvalidInput: If an option is given that this kind of encoder does not have, or two that exclude each other.
        MissingExtra: If a package is missing for a model that runs here.

    Example:
        >>> from ragistry.encoders.functions import register_encoder
        >>> mine = register_encoder("only-length", lambda texts: [[len(text), 1] for text in texts])
        >>> encoder("only-length") is mine
        True
    """
    given_prompts: dict[Role, str | None] = {"query": query_prompt, "document": document_prompt}
    prompts = {role: prompt for role, prompt in given_prompts.items() if prompt is not None}
    remote = {
        "dimensions": dimensions is not None,
        "requests_per_minute": requests_per_minute is not None,
    }
    local = {
        "pooling": pooling is not None,
        "max_length": max_length is not None,
        "precision": precision != "auto",
        "runtime": runtime in WITHOUT_TORCH,
    }
    if own := registered(model):
        prompted = {f"{role}_prompt": True for role in prompts}
        refuse({"url": url is not None} | remote | local | prompted, f"the encoder registered as {model!r}")
        return own
    if url is not None:
        refuse(local, f"the model {model!r} behind a url")
        return Remote(
            model,
            url,
            key_variable=OPENAI_KEY if url.startswith(OPENAI) else OTHER_KEY,
            dimensions=dimensions,
            prompts=prompts,
            requests_per_minute=requests_per_minute,
        )
    refuse(remote, f"the model {model!r}, which is not behind a url,")
    try:
        return _local(model, precision, runtime, {"pooling": pooling, "prompts": prompts, "max_length": max_length})
    except ModelNotFound as error:
        raise ModelNotFound(f"{error} If {model!r} is a function of your own, call `register_encoder` first.") from None


def _local(model: str, precision: Precision, runtime: Runtime, settings: dict[str, Any]) -> Encoder:
    """A model that runs here."""
    folder = Path(model).expanduser()
    bridged = (folder / "bridge.safetensors").is_file()
    if runtime in WITHOUT_TORCH:
        refused = {"token bridge": bridged, "precision 'bf16'": precision == "bf16"}
        if runtime == "openvino":
            refused["precision 'fp32'"] = precision == "fp32"
        refuse(refused, f"the runtime {runtime!r}")
        return _by_export(model, *WITHOUT_TORCH[runtime], settings)
    if bridged:
        require("torch", "dense")
        from .token_aware import TokenAware, model_of

        return TokenAware.load(folder, _by_torch(model_of(folder), precision, settings))
    if runtime == "auto" and precision != "bf16" and find_spec("onnxruntime"):
        from .exports import LEAST_COSINE, find

        exported = find(model)
        if exported is not None and not exported.problem:
            from .onnx import Onnx, Quick

            fast = precision == "auto" and exported.openvino >= LEAST_COSINE and find_spec("openvino") is not None
            by_export = Onnx(model, engine="openvino" if fast else "onnxruntime", **settings)
            return Quick(by_export, lambda: _by_torch(model, precision, settings)) if find_spec("torch") else by_export
        base = _by_torch(model, precision, settings)
        from .exporting import Exporting, can_export

        return Exporting(base) if can_export() and exported is None else base
    return _by_torch(model, precision, settings)


def _by_torch(model: str, precision: Precision, settings: dict[str, Any]) -> Stack:
    require("torch", "dense")
    require("transformers", "dense")
    from .backbones import stack

    return stack(model, precision=precision, **settings)


def _by_export(model: str, variant: Variant, engine: Engine, settings: dict[str, Any]) -> Onnx:
    """The exported model, which is exported now if it was not, or was not checked with the engine."""
    from .exports import EXTRA, find
    from .onnx import Onnx

    require(engine, EXTRA[engine])
    found = find(model, variant)
    if found is None or found.problem or (engine == "openvino" and not found.openvino):
        require("torch", "dense")
        require("transformers", "dense")
        from .exporting import export

        export(model, variant)
    return Onnx(model, variant=variant, engine=engine, **settings)


def refuse(options: dict[str, bool], what: str) -> None:
    """Refuse options that were given to something that has none of them."""
    if given := [name for name, is_given in options.items() if is_given]:
        raise InvalidInput(f"{what} has no {', '.join(given)}; leave that out")
