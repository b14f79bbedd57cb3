"""Dense encoders by name: one of your own, one behind HTTP, or a model that runs here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInput, ModelNotFound
from ..protocols import Encoder
from ..registry import require
from ..types import Role
from .functions import registered
from .remote import Remote

if TYPE_CHECKING:
    from .stack import Precision
    from .steps.pooling import PoolingMode

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

    Raises:
        InvalidInput: If an option is given that this kind of encoder does not have.
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
    local = {"pooling": pooling is not None, "max_length": max_length is not None, "precision": precision != "auto"}
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
    require("torch", "dense")
    require("transformers", "dense")
    from .backbones import stack

    bridged = (Path(model).expanduser() / "bridge.safetensors").is_file()
    try:
        if bridged:
            from .token_aware import TokenAware, model_of

            name = model_of(Path(model).expanduser())
            base = stack(name, pooling=pooling, prompts=prompts, max_length=max_length, precision=precision)
            return TokenAware.load(Path(model).expanduser(), base)
        return stack(model, pooling=pooling, prompts=prompts, max_length=max_length, precision=precision)
    except ModelNotFound as error:
        raise ModelNotFound(f"{error} If {model!r} is a function of your own, call `register_encoder` first.") from None


def refuse(options: dict[str, bool], what: str) -> None:
    """Refuse options that were given to something that has none of them."""
    if given := [name for name, is_given in options.items() if is_given]:
        raise InvalidInput(f"{what} has no {', '.join(given)}; leave that out")
