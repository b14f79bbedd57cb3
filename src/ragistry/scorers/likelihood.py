"""How likely texts are under transformers' language models: masks, output layers, and sums over batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..errors import Corrupt, InvalidInput
from ..models import loading, quiet

LOGITS = 128
"""Rows of the vocabulary computed at a time, which bounds memory: each is a float for every token there is."""
TOKENS = 1024
"""Of texts of like length that are computed with gradients at a time: with fewer, less is padding."""
UNLIMITED = 4096
"""Tokens read by models that set no limit."""
AFTER_PADDING = frozenset(
    "camembert data2vec-text roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod".split()
)
"""Models that number a text's places from the one after padding's."""


def load_language_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The causal or encoder-decoder model in a folder, as transformers reads it.

    Args:
        folder: Saved by transformers.
        dtype: Of its weights. What it computes of places keeps its own: rounded to bfloat16, far ones would be others.

    Raises:
        InvalidInput: If transformers cannot read it as either.
        Corrupt: If weights are missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    with loading(folder), quiet(), torch.random.fork_rng(devices=[]):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, found = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if missing := sorted(found["missing_keys"]):
        raise Corrupt(
            f"the model in {str(folder)!r} lacks {len(missing)} weights of a language model, {missing[0]!r} for one; give "
            "one trained to predict tokens, or make one of it with `ragistry.scorers.growing.grow`"
        )
    model.eval()
    if not config.is_encoder_decoder and _looks_ahead(model):
        raise InvalidInput(
            f"the model in {str(folder)!r} reads in both directions; give a causal language model, or make one of it with "
            "`ragistry.scorers.growing.grow`"
        )
    return model


def _looks_ahead(model: Any) -> bool:
    """Whether what comes later changes what a model says of the first token."""
    with torch.inference_mode():
        one, other = (layers_of(model)(input_ids=torch.tensor([[1, last]])).last_hidden_state[0, 0] for last in (1, 2))
    return not torch.allclose(one, other, atol=1e-5)


def limit_of(config: Any) -> int:
    """Tokens that a model can read, as its configuration says."""
    parts = (config, getattr(config, "encoder", None), getattr(config, "decoder", None))
    names = ("max_position_embeddings", "n_positions")
    found = [getattr(part, name, None) for part in parts if part is not None for name in names]
    relative = config.model_type in {"t5", "mt5", "umt5"}
    known = [] if relative else [int(value) for value in found if isinstance(value, int) and value > 0]
    return min(known, default=UNLIMITED) - first_place(config)


def first_place(config: Any) -> int:
    """The number that a model gives to a text's first place."""
    return int(config.pad_token_id) + 1 if config.model_type in AFTER_PADDING else 0


def start_of(config: Any) -> int:
    """The token that a decoder begins with."""
    for part in (config, getattr(config, "decoder", None)):
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            if isinstance(found := getattr(part, name, None), int):
                return found
    raise InvalidInput("the model's configuration has no decoder_start_token_id; set it, and save the model again")


def layers_of(model: Any) -> Any:
    """A causal model without its output layer."""
    return getattr(model, model.base_model_prefix)


def caching(layers: Any, cache: Any) -> dict[str, Any]:
    """The arguments that give a model its keys and values: transformers has renamed one."""
    known = inspect.signature(type(layers).forward).parameters
    return {"use_cache": True, "cache" if "cache" in known else "past_key_values": cache}


class _Layers(nn.Module):
    """Stands for the layers of a model whose output is there already."""

    @property
    def decoder(self) -> _Layers:
        return self

    def forward(self, *given: Any, inputs_embeds: Any = None, **rest: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def head_of(model: Any) -> Any:
    """From what a causal model's layers give, [n, d], to its logits, [n, V]: all that its own class does after them."""
    shell = copy.copy(model)
    shell._modules = dict(model._modules) | {model.base_model_prefix: _Layers()}
    return lambda hidden: shell(inputs_embeds=hidden[None], use_cache=False).logits[0]


def log_probabilities(model: Any, hidden: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
    """Of one token at each place: float32 [n] from what the layers gave there, [n, d]; smoothed with the mean of all."""
    head = head_of(model)
    found = [hidden.new_empty(0, dtype=torch.float32)]
    for first in range(0, len(hidden), LOGITS):
        logits = head(hidden[first : first + LOGITS]).float()
        wanted = tokens[first : first + LOGITS]
        found.append(-cross_entropy(logits, wanted, reduction="none", label_smoothing=smoothing))
    return torch.cat(found)


def stop_mask(ends: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attention Stop: 0 where a place may look and the lowest number elsewhere, [b, 1, width, width].

    Up to the ending token, place e, attention is causal; after it, a place sees the ending token and what follows it only.

    Args:
        ends: e of each row, int64 [b].
        width: Of the rows.
        dtype: Of the mask.

    Example:
        >>> (stop_mask(torch.tensor([1]), 4)[0, 0] == 0).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    """
    place = torch.arange(width)
    row, column, end = place[:, None], place[None], ends[:, None, None]
    seen = (column <= row) & ((row <= end) | (column >= end))
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return mask[:, None]


def _stopped(model: Any, ends: Tensor, width: int) -> Any:
    """`stop_mask` as a model takes it: one, or one for each kind of layer where some see no further than a window."""
    mask = stop_mask(ends, width, layers_of(model).dtype)
    window = getattr(model.config, "sliding_window", None)
    if window is None or width <= window:
        return mask
    place = torch.arange(width)
    near = mask.masked_fill(place[:, None] - place[None] >= window, torch.finfo(mask.dtype).min)
    mixed = getattr(model.config, "layer_types", None) is not None
    return {"full_attention": mask, "sliding_attention": near} if mixed else near


def joint_log_likelihoods(
    model: Any,
    prefixes: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    stop: bool = False,
    smoothing: float = 0.0,
) -> list[Tensor]:
    """How likely each text is to follow its own prefix, in one pass, with gradients: float32 [len(target)] each.

    Args:
        model: Of transformers, causal or encoder-decoder.
        prefixes: Token ids, at least one of each.
        targets: Token ids.
        stop: Whether targets see only the last token of their prefix: see `stop_mask`.
        smoothing: Share of each logarithm that is the mean over all tokens in its place (label smoothing).
    """
    found: dict[int, Tensor] = {}
    lengths = [len(prefix) + len(target) for prefix, target in zip(prefixes, targets, strict=True)]
    together = _joint_decoder if model.config.is_encoder_decoder else _joint_causal
    for some in batches(lengths, TOKENS):
        parts = together(model, [prefixes[i] for i in some], [targets[i] for i in some], stop, smoothing)
        found |= dict(zip(some, parts, strict=True))
    return [found[i] for i in range(len(targets))]


def _joint_decoder(
    model: Any, prefixes: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], stop: bool, smoothing: float
) -> list[Tensor]:
    counts = [len(ids) for ids in targets]
    ids, mask = filled(prefixes)
    start = start_of(model.config)
    given, _ = filled([[start, *target[:-1]] for target in targets])
    logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=given, use_cache=False).logits
    rows = logits[torch.arange(given.shape[1]) < torch.tensor(counts)[:, None]].float()
    wanted = torch.tensor([token for target in targets for token in target], dtype=torch.long)
    return list(torch.split(-cross_entropy(rows, wanted, reduction="none", label_smoothing=smoothing), counts))


def _joint_causal(
    model: Any, prefixes: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], stop: bool, smoothing: float
) -> list[Tensor]:
    counts = [len(ids) for ids in targets]
    ids, _ = filled([[*prefix, *target] for prefix, target in zip(prefixes, targets, strict=True)])
    ends = torch.tensor([len(prefix) - 1 for prefix in prefixes])
    stopped = _stopped(model, ends, ids.shape[1]) if stop else None
    places = first_place(model.config) + torch.arange(ids.shape[1])[None].expand(len(ids), -1)
    hidden = layers_of(model)(
        input_ids=ids, attention_mask=stopped, position_ids=places, use_cache=False
    ).last_hidden_state
    rows = torch.cat([hidden[i, end : end + n] for i, (end, n) in enumerate(zip(ends.tolist(), counts, strict=True))])
    wanted = torch.tensor([token for target in targets for token in target], dtype=torch.long)
    return list(torch.split(log_probabilities(model, rows, wanted, smoothing), counts))


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length, so many that all are padded to the longest within so many tokens."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(1, tokens // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def filled(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids with zeros on the right, and where they are: int64 [b, n]."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
