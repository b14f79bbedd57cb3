"""Tiny models with random weights: a BERT in a folder that sentence-transformers lays out, and language models."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

WORDS = ("the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a", "##s", "##ing")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_LENGTH = 32
LANGUAGE_MODELS = ("llama", "gpt2", "gemma2", "opt", "bert", "t5", "bart")
LIMIT = 96
MERGES = "t h,th e,c a,ca t,Ġ t,Ġt h,Ġth e,Ġ c,Ġc a,Ġca t,Ġ p,Ġp o,Ġpo e,Ġpoe m"


def tiny_model(directory: Path, *, pooling: str = "mean", seed: int = 0) -> Path:
    """Save a model of 2 layers and 32 dimensions that reads 32 tokens, and return its folder.

    Args:
        directory: Where to make the folder.
        pooling: What sentence-transformers calls it: `mean`, `cls` or `lasttoken`.
        seed: Of the weights.
    """
    import torch
    from transformers import BertConfig, BertModel

    folder = directory / f"tiny-{pooling}-{seed}"
    folder.mkdir(parents=True)
    tokens = _pieces(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    _write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": pooling})
    return folder


def tiny_language_model(directory: Path, kind: str, seed: int = 0) -> Path:
    """Save a language model of 2 layers that reads 96 tokens, and return its folder.

    Those of "gpt2" and "llama" are pieces of bytes, the space before a word included; of the others they are `tiny_model`'s.

    Args:
        directory: Where to make the folder.
        kind: One of `LANGUAGE_MODELS`, or "roberta", which counts places from another number than 0.
        seed: Of the weights.
    """
    import torch
    import transformers as hf

    folder = directory / f"tiny-{kind}-{seed}"
    folder.mkdir(parents=True)
    ids = _bytes(folder, kind == "llama") if kind in ("gpt2", "llama") else _pieces(folder)
    begin, end = ids.get("<s>", ids.get("[CLS]")), ids.get("</s>", ids.get("[SEP]"))
    same: dict[str, Any] = {"vocab_size": len(ids), "initializer_range": 0.3, "tie_word_embeddings": kind != "llama"}
    same |= {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": ids.get("[PAD]", end)}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": LIMIT}
    grouped: dict[str, Any] = sizes | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
    half = {
        f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 4))
    }
    feeds = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    make: dict[str, Any] = {
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**same, **grouped)),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**same, n_positions=LIMIT, n_embd=32, n_layer=2, n_head=4)),
        "gemma2": lambda: hf.Gemma2ForCausalLM(
            hf.Gemma2Config(**same, **grouped, query_pre_attn_scalar=8, final_logit_softcapping=3.0, sliding_window=8)
        ),
        "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**_opt(same), **sizes, ffn_dim=64, word_embed_proj_dim=16)),
        "bert": lambda: hf.BertLMHeadModel(hf.BertConfig(**same, **sizes, intermediate_size=64, is_decoder=True)),
        "roberta": lambda: hf.RobertaForCausalLM(
            hf.RobertaConfig(**same, **sizes, intermediate_size=64, is_decoder=True)
        ),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(**same, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
        ),
        "bart": lambda: hf.BartForConditionalGeneration(
            hf.BartConfig(
                **_opt(same), **half, **feeds, d_model=32, max_position_embeddings=LIMIT, decoder_start_token_id=end
            )
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make[kind]().save_pretrained(folder)
    return folder


def _opt(same: dict[str, Any]) -> dict[str, Any]:
    return {"init_std" if name == "initializer_range" else name: value for name, value in same.items()}


def _pieces(folder: Path) -> dict[str, int]:
    """Save the tokenizer of `tiny_model`; its tokens."""
    from tokenizers.implementations import BertWordPieceTokenizer

    letters = [*string.ascii_lowercase, *string.digits]
    vocabulary = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    tokens = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    BertWordPieceTokenizer(vocab=tokens).save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    _write(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64} | names
    )
    return tokens


def _bytes(folder: Path, begins: bool) -> dict[str, int]:
    """Save a tokenizer of pieces of bytes, with a token that begins texts or without; its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(merge.split()) for merge in MERGES.split(",")]
    special = ["<s>", "</s>"] if begins else ["</s>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokens = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(tokens, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "</s>"} | ({"bos_token": "<s>"} if begins else {})
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | names)
    return tokens


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
