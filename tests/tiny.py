"""A tiny BERT with random weights, saved as a folder that sentence-transformers lays out."""

from __future__ import annotations

import json
import string
from pathlib import Path

WORDS = ("the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a", "##s", "##ing")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_LENGTH = 32


def tiny_model(directory: Path, *, pooling: str = "mean", seed: int = 0) -> Path:
    """Save a model of 2 layers and 32 dimensions that reads 32 tokens, and return its folder.

    Args:
        directory: Where to make the folder.
        pooling: What sentence-transformers calls it: `mean`, `cls` or `lasttoken`.
        seed: Of the weights.
    """
    import torch
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel

    folder = directory / f"tiny-{pooling}-{seed}"
    folder.mkdir(parents=True)
    letters = [*string.ascii_lowercase, *string.digits]
    vocabulary = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    tokens = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    BertWordPieceTokenizer(vocab=tokens).save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    _write(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64} | names
    )
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


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
