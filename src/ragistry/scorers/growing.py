"""Small language models grown from an embedding model's weights, where no language model is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from ..errors import InvalidInput
from ..models import MINILM, find_model, loading, quiet, read_json
from ..storage import explained

Growth: TypeAlias = Literal["causal", "seq2seq"]
Layers: TypeAlias = int | Literal["half"] | None
"""How many layers are taken; none: all."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "merges.txt")


def grow(
    path: str | os.PathLike[str],
    base: str | os.PathLike[str] = MINILM,
    *,
    kind: Growth = "causal",
    layers: int | None = None,
    encoder_layers: Layers = None,
) -> Path:
    """Save a language model whose weights are those of a model that was none.

    `causal` takes the layers as they are, but has each place see only those before it, and predicts tokens by the inner
    product of their word embeddings with a map, which starts at the identity, of what the layers give. `seq2seq` takes the
    model as it is for an encoder, and its layers once more, causal, for a decoder, whose attention to the encoder starts as
    a copy of that to itself with an output of nothing. Both can be taught, and cannot say much before.

    Args:
        path: The folder to write, which transformers and `LanguageModel` load.
        base: A name or folder of an encoder that transformers has as a language model too, such as BERT's.
        kind: See above.
        layers: How many of the layers the causal model or the decoder has, evenly chosen; all by default.
        encoder_layers: How many the encoder of `seq2seq` has, the first ones; all by default. What the last layers of an
            embedding model give says little of single words: its first half is better to repeat words from.

    Returns:
        The folder.

    Raises:
        InvalidInput: If the kind is not known, transformers cannot make a language model of the base, or there are not so
            many layers to choose from.
        StorageError: If the folder cannot be written.
        ModelNotFound: If there is no such model.

    Example:
        >>> import tempfile
        >>> folder = grow(tempfile.mkdtemp() + "/lm", kind="causal")
        >>> (folder / "config.json").exists()
        True
    """
    if kind not in get_args(Growth):
        raise InvalidInput(f"the kind {kind!r} is not known; use one of {', '.join(get_args(Growth))}")
    folder, target = find_model(os.fspath(base)), Path(path)
    return saved(grown(folder, kind, layers, encoder_layers), folder, target)


def saved(model: Any, folder: Path, target: Path) -> Path:
    """Write a model, with the tokenizer of the folder it came from."""
    with explained("write", target):
        target.mkdir(parents=True, exist_ok=True)
        with quiet():
            model.save_pretrained(target)
        for name in TOKENIZER:
            if (folder / name).is_file():
                (target / name).write_bytes((folder / name).read_bytes())
    return target


def grown(folder: Path, kind: Growth = "causal", layers: int | None = None, encoder_layers: Layers = None) -> Any:
    """The language model grown from the model in a folder; its own where it is one. See `grow`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with loading(folder), quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "seq2seq":
            both = _encoder_decoder(folder)
            _thin(both.decoder, layers)
            _thin(both.encoder, encoder_layers, first=True)
            return both
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.is_decoder = True
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
        _start(model, set(found["missing_keys"]))
        _thin(model, layers)
        return model.eval()


def speaks(folder: Path) -> bool:
    """Whether a folder holds a language model already, as its configuration says."""
    config = read_json(folder / "config.json", dict[str, Any]())
    names = " ".join(config.get("architectures") or ())
    spoken = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "EncoderDecoderModel")
    return bool(config.get("is_encoder_decoder") or config.get("is_decoder") or any(name in names for name in spoken))


def _encoder_decoder(folder: Path) -> Any:
    from transformers import AutoTokenizer, EncoderDecoderModel

    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        folder,
        folder,
        encoder_local_files_only=True,
        decoder_local_files_only=True,
        encoder_use_safetensors=True,
        decoder_use_safetensors=True,
    )
    decoder = model.decoder
    missing = {name for name, _ in decoder.named_parameters() if name.startswith("cls.predictions.transform")}
    _start(decoder, missing)
    with torch.no_grad():
        for layer in decoder.base_model.encoder.layer:
            layer.crossattention.self.load_state_dict(layer.attention.self.state_dict())
            layer.crossattention.output.load_state_dict(layer.attention.output.state_dict())
            layer.crossattention.output.dense.weight.zero_()
            layer.crossattention.output.dense.bias.zero_()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config = model.config
    config.decoder_start_token_id, config.eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    config.pad_token_id, config.tie_word_embeddings = tokenizer.pad_token_id, False
    return model.eval()


def _start(model: nn.Module, missing: set[str]) -> None:
    """Set maps that the base has not to the identity, and all else that it lacks to what changes nothing."""
    with torch.no_grad():
        for name, part in model.named_modules():
            if not isinstance(part, nn.Linear) or f"{name}.weight" not in missing:
                continue
            if part.in_features == part.out_features:
                nn.init.eye_(part.weight)
            if part.bias is not None:
                part.bias.zero_()


def _thin(model: Any, layers: Layers, first: bool = False) -> None:
    """Leave some of a model's layers, the first or evenly chosen ones with the last; all where no number is given."""
    if layers is None:
        return
    held = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if held is None:
        raise InvalidInput(f"layers={layers}; those of {type(model).__name__} cannot be left out: give no number")
    if layers == "half":
        layers = max(1, len(held) // 2)
    if not 1 <= layers <= len(held):
        raise InvalidInput(f"layers={layers}; the model has {len(held)}, so 1 to {len(held)} are needed")
    places = [i if first else round((i + 1) * len(held) / layers) - 1 for i in range(layers)]
    model.base_model.encoder.layer = nn.ModuleList([held[place] for place in places])
    model.config.num_hidden_layers = layers
    for number, layer in enumerate(model.base_model.encoder.layer):  # by which a layer finds its keys and values again
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
