"""Images as patches with ids of content: what `Images` gives to steps, and that TokenBridge finds images by snippets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, eye_array
from torch import nn
from transformers import BeitConfig, CLIPVisionConfig, DeiTConfig, ViTConfig, ViTModel

from ragistry.encoders.patches import Images, Pixels
from ragistry.encoders.steps import Features, Step
from ragistry.encoders.steps.pooling import Normalise, Pooling
from ragistry.encoders.steps.token_bridge import Paradigm, Statistics, TokenBridge
from ragistry.errors import InvalidInput
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.samplers import Sampler
from ragistry.training.trainer import Trainer
from ragistry.types import Floats, Ints

CODES, WIDTH = 128, 32
SMALL: dict[str, Any] = {
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SNIPPET = 6
"""Pixels of width and height, of 8."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> Pixels:
    """[1797, 8, 8], from 0 to 1, in an order of no meaning."""
    images = pytest.importorskip("sklearn.datasets").load_digits().images / 16
    found: Pixels = images[np.random.default_rng(0).permutation(len(images))]
    return found


def bridge(paradigm: Paradigm = "slr", **settings: Any) -> TokenBridge:
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, CODES + 1) if paradigm == "clr" else None
    return TokenBridge(WIDTH, CODES + 1, paradigm=paradigm, ignored=[CODES], head=head, **settings)


def built(*last: Step, seed: int = 0) -> Images:
    return Images(ViTConfig(**SMALL), [Pooling("mean"), Normalise(), *last], codes=CODES, seed=seed)


def woken(step: TokenBridge) -> TokenBridge:
    """Its maps as training may leave them: not zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for table in step.maps.values():
            table.copy_(torch.randn(table.shape, generator=draw) * 0.3)
    return step


def gate(encoder: Images, features: Features) -> Floats:
    """What multiplies each element of a vector, per image, of length 1: float32 [n, d]."""
    step = encoder.steps[-1]
    ones = torch.ones(len(features["input_ids"]), WIDTH)
    with torch.no_grad():
        found = step(features | {"vector": ones}, "query")["vector"]
    return np.asarray(nn.functional.normalize(found, dim=-1).numpy(), np.float32)


def test_features_are_those_of_tokens(digits: Pixels) -> None:
    encoder = built().fit_codebook(digits[:300])
    features = encoder.features(digits[:5, :6, :4])
    assert features["embedding"].shape == (5, 1 + 3 * 2, WIDTH)
    assert features["embedding"].dtype == torch.float32
    assert features["input_ids"].dtype == features["attention_mask"].dtype == torch.int64
    assert features["input_ids"].shape == features["attention_mask"].shape == (5, 7)
    assert (features["input_ids"][:, 0] == encoder.cls).all()
    assert features["input_ids"].max() < encoder.vocabulary
    assert features["attention_mask"].all()
    vectors = encoder.encode(digits[:5], "document")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_code_is_the_nearest_of_the_codebook(digits: Pixels) -> None:
    encoder = built().fit_codebook(digits[:300])
    patches = np.stack(
        [digits[:50, i : i + 2, j : j + 2].reshape(50, 4) for i in range(0, 8, 2) for j in range(0, 8, 2)], axis=1
    )
    entries = encoder.codebook.numpy() * float(encoder.spread) + encoder.centre.numpy()
    distances = ((patches[:, :, None] - entries) ** 2).sum(axis=3)
    chosen = np.take_along_axis(distances, encoder.codes(digits[:50])[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen, distances.min(axis=2), atol=1e-9)
    assert chosen.mean() < 0.1 * distances.mean()  # the entries are where the patches are


def test_codes_tell_what_is_seen_not_where(digits: Pixels) -> None:
    encoder = built().fit_codebook(digits[:300])
    codes = encoder.codes(digits)
    assert len(np.unique(codes, axis=0)) > 0.99 * len(np.unique(digits, axis=0))
    moved = np.roll(digits, 2, axis=2)
    np.testing.assert_array_equal(encoder.codes(moved).reshape(-1, 4, 4), np.roll(codes.reshape(-1, 4, 4), 1, axis=2))
    snippets = encoder.codes(digits[:, :6, :4]).reshape(-1, 3, 2)
    np.testing.assert_array_equal(snippets, codes.reshape(-1, 4, 4)[:, :3, :2])


@pytest.mark.parametrize("paradigm", ["slr", "llr", "clr"])
def test_the_gate_differs_between_images(digits: Pixels, paradigm: Paradigm) -> None:
    """The published code took positions for ids, so that every image met the same gate."""
    encoder = built(woken(bridge(paradigm))).fit_codebook(digits[:300])
    with torch.no_grad():
        features = encoder.features(digits[:40])
    gates = gate(encoder, features)
    assert (gates > 0).all()
    assert len(np.unique(gates.round(5), axis=0)) == 40
    assert np.ptp(gates, axis=0).max() > 0.01
    if paradigm == "slr":
        positions = torch.arange(17).expand(40, 17)
        assert np.ptp(gate(encoder, features | {"input_ids": positions}), axis=0).max() < 1e-6  # the defect itself


@pytest.mark.parametrize("form", ["gate", "sum"])
@pytest.mark.parametrize("paradigm", ["slr", "llr", "clr"])
def test_a_bridge_changes_nothing_before_it_is_trained(digits: Pixels, paradigm: Paradigm, form: Any) -> None:
    plain = built().fit_codebook(digits[:300])
    bridged = built(bridge(paradigm, form=form, side="shared")).fit_codebook(digits[:300])
    for role, images in (("query", digits[:30, :SNIPPET, :SNIPPET]), ("document", digits[:30])):
        assert (plain.encode(images, role) == bridged.encode(images, role)).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("paradigm", ["slr", "llr", "clr"])
def test_what_an_image_gets_does_not_depend_on_its_batch(digits: Pixels, paradigm: Paradigm) -> None:
    step = woken(bridge(paradigm, form="sum", side="shared"))
    encoder = built(step).fit_codebook(digits[:300])
    step.start(Statistics.of(encoder.codes(digits[:300]).tolist(), encoder.vocabulary))
    together = encoder.encode(digits[:50], "query")
    alone = np.concatenate([encoder.encode(digits[i : i + 1], "query") for i in range(50)])
    np.testing.assert_allclose(alone, together, atol=2e-6)
    np.testing.assert_array_equal(
        encoder.codes(digits[:50]), np.concatenate([encoder.codes(digits[i : i + 1]) for i in range(50)])
    )


def test_the_same_seed_gives_the_same_and_the_state_holds_all(digits: Pixels) -> None:
    first, same, other = (built(bridge(), seed=seed).fit_codebook(digits[:300]) for seed in (0, 0, 1))
    vectors = first.encode(digits[:9], "query")
    assert (same.encode(digits[:9], "query") == vectors).all()
    assert (other.codebook != first.codebook).any()
    woken(first.steps[-1])  # type: ignore[arg-type]
    blank = built(bridge(), seed=2)
    blank.load_state_dict(first.state_dict())
    assert (blank.encode(digits[:9], "query") == first.encode(digits[:9], "query")).all()
    assert (blank.encode(digits[:9], "query") != vectors).any()


def test_other_models_and_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).random((12, 8, 8, 3))
    settings = SMALL | {"num_channels": 3}
    vit = Images(ViTConfig(**settings), codes=20).fit_codebook(colours)
    vit.model.save_pretrained(tmp_path)
    again = Images(tmp_path, codes=20).fit_codebook(colours)
    assert (again.encode(colours, "document") == vit.encode(colours, "document")).all()
    beit = BeitConfig(**settings, use_relative_position_bias=True, use_absolute_position_embeddings=True)
    for config in (beit, CLIPVisionConfig(**settings)):
        encoder = Images(config, codes=20).fit_codebook(colours)
        assert encoder.encode(colours[:, :4, :6], "query").shape == (12, WIDTH)
        assert encoder.features(colours[:, :4, :6])["embedding"].shape == (12, 7, WIDTH)


def test_none_and_larger_images(digits: Pixels) -> None:
    encoder = built().fit_codebook(digits[:300])
    assert encoder.encode(digits[:0], "query").shape == (0, WIDTH)
    larger = np.concatenate([digits[:3], digits[3:6]], axis=2)
    assert encoder.features(larger)["input_ids"].shape == (3, 1 + 32)
    odd = encoder.features(np.pad(digits[:3], ((0, 0), (0, 1), (0, 1))))  # the ninth row and column are no whole patch
    torch.testing.assert_close(odd["embedding"], encoder.features(digits[:3])["embedding"])


@pytest.mark.parametrize(
    ("images", "needed"),
    [
        (np.zeros((2, 8, 8), np.int64), "floats"),
        (np.zeros((8, 8)), "floats"),
        ([[1.0]], "list"),
        (np.zeros((2, 8, 8, 3)), "1 channels"),
        (np.zeros((2, 1, 8)), "patch"),
        (np.full((2, 8, 8), np.nan), "NaN"),
    ],
)
def test_images_that_cannot_be_used_are_refused(digits: Pixels, images: Any, needed: str) -> None:
    with pytest.raises(InvalidInput, match=needed):
        built().encode(images, "query")


def test_what_does_not_fit_is_refused(digits: Pixels) -> None:
    with pytest.raises(InvalidInput, match="fit_codebook"):
        built().encode(digits[:2], "query")
    with pytest.raises(InvalidInput, match="role 'answer'"):
        built().encode(digits[:2], "answer")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="codes=0"):
        Images(ViTConfig(**SMALL), codes=0)
    with pytest.raises(InvalidInput, match="distinct patches"):
        built().fit_codebook(digits[:2])
    with pytest.raises(InvalidInput, match="Normalise"):
        Images(ViTConfig(**SMALL), [Normalise()])
    with pytest.raises(InvalidInput, match="need 129"):
        built(TokenBridge(WIDTH, CODES))
    for model in (nn.Linear(2, 2), None):
        with pytest.raises(InvalidInput, match="images in patches"):
            Images(model)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="single token"):
        Images(DeiTConfig(**SMALL), codes=8).fit_codebook(digits).features(digits[:2])
    oblong = Images(ViTModel(ViTConfig(**SMALL | {"image_size": (8, 4)})), codes=8).fit_codebook(digits)
    assert oblong.encode(digits[:2, :, :4], "query").shape == (2, WIDTH)
    with pytest.raises(InvalidInput, match="not square"):
        oblong.encode(digits[:2], "query")


class Snippets:
    """A source for training: the top-left pixels of images ask for the images."""

    def __init__(self, encoder: Images, images: Pixels) -> None:
        self._snippets, self._images = encoder.inputs(images[:, :SNIPPET, :SNIPPET]), encoder.inputs(images)

    def queries(self, rows: Ints) -> Features:
        return {name: value[torch.from_numpy(rows)] for name, value in self._snippets.items()}

    def documents(self, rows: Ints) -> Features:
        return {name: value[torch.from_numpy(rows)] for name, value in self._images.items()}

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        raise NotImplementedError


def trained(images: Pixels, seed: int, *last: Step) -> Images:
    encoder = built(*last, seed=seed).fit_codebook(images)
    pairs = csr_array(eye_array(len(images)))
    sampler = Sampler(pairs, negatives="in-batch", size=32, seed=seed)
    Trainer(epochs=5, rate=2e-3, seed=seed).fit(encoder, InfoNCE(), sampler, Snippets(encoder, images))
    return encoder


def found(encoder: Images, images: Pixels) -> float:
    """nDCG@10 of snippets that ask for their own images; of equal scores the right one counts as the last."""
    snippets = encoder.encode(images[:, :SNIPPET, :SNIPPET], "query")
    scores = snippets @ encoder.encode(images, "document").T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_unseen_images_are_found_better_by_a_snippet(digits: Pixels, seed: int) -> None:
    """The same model, images, batches and steps, with the bridge and without."""
    shuffled = digits[np.random.default_rng(seed).permutation(len(digits))]
    seen, unseen = shuffled[:320], shuffled[400:1000]
    without = found(trained(seen, seed), unseen)
    assert found(trained(seen, seed, bridge(form="sum", side="shared")), unseen) > without + 0.05
