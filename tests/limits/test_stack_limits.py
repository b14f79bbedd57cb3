"""A dense stack in fp32 equals the plain transformer: one text at a time, no padding, pooled by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ragistry.encoders.backbones import Backbone, stack
from ragistry.models import MINILM

from ..tiny import tiny_model

WORDS = "the cat sat on a mat with fourteen sonnets, naïve pœms & 日本 lines; antidisestablishmentarianism".split()
TEXTS = ["", "Hello", *(" ".join(np.random.default_rng(n).choice(WORDS, n * n)) for n in range(1, 24, 2))]


def plain(folder: Path, pooling: str, length: int) -> np.ndarray:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()
    vectors = []
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            states = model(**tokens).last_hidden_state[0]
        vectors.append({"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling].numpy())
    return np.array([vector / np.linalg.norm(vector) for vector in vectors])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_tiny_equals_the_plain_transformer(tmp_path: Path, pooling: str) -> None:
    folder = tiny_model(tmp_path)
    encoder = stack(folder, pooling=pooling, precision="fp32", max_length=24)
    np.testing.assert_allclose(encoder.encode(TEXTS, "document"), plain(folder, pooling, 24), atol=1e-5)


def test_minilm_equals_the_plain_transformer() -> None:
    encoder = stack(MINILM, precision="fp32")
    want = plain(Backbone(MINILM).layout().folder, "mean", 256)
    found = encoder.encode(TEXTS, "document")
    assert (found * want).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(found, want, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([t], "query") for t in TEXTS]), found, atol=1e-5)


def test_bf16_stays_within_a_thousandth_of_fp32() -> None:
    exact = stack(MINILM, precision="fp32").encode(TEXTS, "document")
    rounded = stack("sentence-transformers/all-MiniLM-L6-v2", precision="bf16").encode(TEXTS, "document")
    cosines = (exact * rounded).sum(axis=1)
    assert cosines.min() >= 0.999
    assert not np.array_equal(exact, rounded)
