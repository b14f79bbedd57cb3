"""Token bridges against what they must be at their limits: nothing learnt, nothing there, and a reference written out."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from ragistry.encoders.backbones import Backbone
from ragistry.encoders.stack import Stack
from ragistry.encoders.steps import Features
from ragistry.encoders.steps.pooling import Normalise, Pooling
from ragistry.encoders.steps.token_bridge import BridgeSide, Form, MaskedLMHead, Paradigm, Statistics, TokenBridge
from ragistry.errors import InvalidInput
from ragistry.types import Floats, Role

from ..tiny import tiny_model

Kind: TypeAlias = tuple[Paradigm, Form]
V, D, HIDDEN, LONGEST, IGNORED = 13, 6, 5, 12, (1, 2)
SIDES: tuple[BridgeSide, ...] = get_args(BridgeSide)
ROLES: tuple[Role, ...] = get_args(Role)
FORMS: tuple[Form, ...] = get_args(Form)
KINDS: list[Kind] = list(product(get_args(Paradigm), FORMS))
TEXT = st.lists(st.integers(0, V - 1), max_size=LONGEST)
TEXTS = st.lists(TEXT, min_size=1, max_size=5)
RUN = st.tuples(st.sampled_from(SIDES), st.sampled_from(ROLES), st.booleans(), st.booleans(), st.integers(0, 9))
VECTORS = arrays(np.float32, (3, D), elements=st.floats(-100, 100, width=16))
CORPUS = [[3, 3, 4], [3, 5, 6, 7, 8], [3, 9], [1, 3, 4, 2], [0, 10, 11, 12, 3, 3]]
STATISTICS = Statistics.of(CORPUS, V)
quick = settings(deadline=None, max_examples=20)
of_kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)
of_kinds_and_sides = pytest.mark.parametrize(("kind", "side"), list(product(KINDS, SIDES)))


def drawn(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


WORDS, PLACES = drawn(100, V, HIDDEN), drawn(101, 64, HIDDEN) / 2


def batch(texts: list[list[int]], vectors: Floats | None = None, left: bool = False, more: int = 0) -> Features:
    """The features of texts; embeddings depend on token and place, and padding holds what must not be read."""
    width = max([1, *map(len, texts)]) + more
    ids, mask = np.full((len(texts), width), 5, np.int64), np.zeros((len(texts), width), np.int64)
    embedding = np.full((len(texts), width, HIDDEN), 9, np.float32)
    for row, text in enumerate(texts):
        places = slice(width - len(text), width) if left else slice(len(text))
        ids[row, places], mask[row, places] = text, 1
        embedding[row, places] = WORDS[text] + PLACES[: len(text)]
    vectors = drawn(9, len(texts), D) if vectors is None else vectors
    found = {"input_ids": ids, "attention_mask": mask, "embedding": embedding, "vector": vectors}
    return {name: torch.from_numpy(value) for name, value in found.items()}


def bridge(kind: Kind, side: BridgeSide = "query", started: bool = False) -> Any:
    head = MaskedLMHead(torch.from_numpy(WORDS)) if kind[0] == "clr" else None
    step = TokenBridge(D, V, paradigm=kind[0], form=kind[1], side=side, ignored=IGNORED, hidden=HIDDEN, head=head)
    if started:
        step.start(STATISTICS, drawn(3, 20, D), strength=0.0)
    return step


def trained(kind: Kind, side: BridgeSide = "query", started: bool = False, seed: int = 0) -> Any:
    step, draw = bridge(kind, side, started), torch.Generator().manual_seed(seed)
    for weight in step.parameters():
        weight.data = torch.randn(weight.shape, generator=draw) * 0.7
    return step


def turned(step: TokenBridge, features: Features, role: Role = "query") -> Any:
    return step(features, role)["vector"].detach().numpy()


def double(tensor: Any) -> Any:
    return tensor.detach().numpy().astype(np.float64)


def dense(step: Any, features: Features, role: Role) -> Any:
    """Weights over the whole vocabulary, [b, V], token by token."""
    ids, mask, embedding = (double(features[name]) for name in ("input_ids", "attention_mask", "embedding"))
    x, length = np.zeros((len(ids), V)), step.length.item()
    idf = np.where(np.isin(np.arange(V), step.ignored), 0, STATISTICS.idf if length else 1)
    for row in range(len(ids)):
        places = np.flatnonzero((mask[row] > 0) & (idf[ids[row].astype(int)] > 0))
        tokens = ids[row, places].astype(int)
        if step.head is not None and role == "query":
            last, weight, bias = map(double, step.head.parameters())
            first = [*np.flatnonzero(mask[row]), 0][0]
            logits = WORDS @ (weight @ embedding[row, first] + bias) / HIDDEN**0.5 + last
            x[row] = np.log(1 + np.maximum(logits, 0)) * idf
            continue
        for token in tokens:
            x[row, token] = idf[token]
            if length and role == "document":
                count = (tokens == token).sum()
                x[row, token] *= count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(tokens) / length))
            if step.attend is not None and role == "query":
                heard = embedding[row, places[tokens == token]] @ double(step.attend.weight)[0]
                x[row, token] *= max(0, heard.max() + step.attend.bias.item())
    if length:
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return x * step.scale.item()


def reference(step: TokenBridge, features: Features, role: Role) -> Any:
    name, vector = "query" if step.side == "shared" else role, double(features["vector"])
    if name not in step.maps:
        return vector
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    moved = dense(step, features, role) @ double(step.maps[name])
    if step.form == "sum":
        new = vector + length * moved
    else:
        gate = np.exp(moved + double(step.bias[name]))
        new = gate / gate.sum(axis=1, keepdims=True) * vector
    return new / np.linalg.norm(new, axis=1, keepdims=True) * length


@settings(deadline=None, max_examples=6)
@given(vectors=VECTORS, texts=st.tuples(TEXT, TEXT, TEXT), started=st.booleans())
def test_an_untrained_bridge_changes_no_bit(vectors: Floats, texts: tuple[list[int], ...], started: bool) -> None:
    features = batch(list(texts), vectors)
    for kind, side in product(KINDS, SIDES):
        step = bridge(kind, side, started)
        assert all(np.array_equal(turned(step, features, role), vectors) for role in ROLES)


@of_kinds_and_sides
def test_a_role_has_its_own_map_a_shared_one_or_is_not_touched(kind: Kind, side: BridgeSide) -> None:
    features, kept, step = batch(CORPUS), batch(CORPUS), trained(kind, side)
    before = {role: turned(step, features, role) for role in ROLES}
    for role in ROLES:
        out, mapped = step(features, role), side in ("both", "shared", role)
        assert (out is features) == torch.equal(out["vector"], kept["vector"]) == (not mapped)
        assert all(torch.equal(features[name], kept[name]) for name in kept)
    assert np.array_equal(*before.values()) == (kind[0] == "slr" and side == "shared")
    step.maps["document" if side == "document" else "query"].data += torch.from_numpy(drawn(7, V, D))
    moved = [role for role in ROLES if not np.allclose(turned(step, features, role), before[role], atol=1e-3)]
    assert moved == {"shared": ["query", "document"], "document": ["document"]}.get(side, ["query"])


@settings(deadline=None, max_examples=80)
@given(texts=TEXTS, kind=st.sampled_from(KINDS), run=RUN)
def test_it_is_what_the_reference_is(texts: list[list[int]], kind: Kind, run: Any) -> None:
    side, role, started, left, seed = run
    step, features = trained(kind, side, started, seed), batch(texts, left=left)
    given = {name: features[name] for name in features if role == "query" or name != "embedding"}
    found, want = turned(step, given, role), reference(step, features, role)
    np.testing.assert_allclose(found, want, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), features["vector"].norm(dim=1), rtol=1e-5)
    if step.form == "gate":
        np.testing.assert_array_equal(np.sign(found), features["vector"].sign())


@quick
@given(texts=TEXTS, kind=st.sampled_from(KINDS), role=st.sampled_from(ROLES), started=st.booleans())
def test_batch_and_padding_cannot_be_seen(texts: list[list[int]], kind: Kind, role: Role, started: bool) -> None:
    texts = [text or [4] for text in texts]
    step, vectors = trained(kind, "both", started), drawn(4, len(texts), D)
    together = turned(step, batch(texts, vectors), role)
    for left, more in product((False, True), (0, 3)):
        np.testing.assert_allclose(turned(step, batch(texts, vectors, left, more), role), together, atol=1e-5)
        alone = [turned(step, batch([text], vectors[[i]], left, more), role)[0] for i, text in enumerate(texts)]
        np.testing.assert_allclose(alone, together, atol=1e-5)


@quick
@given(text=TEXT.filter(bool), form=st.sampled_from(FORMS), draw=st.data())
def test_statistical_weights_take_no_notice_of_order_and_repetition(text: list[int], form: Form, draw: Any) -> None:
    again = draw.draw(st.permutations(text))
    repeated = (again + draw.draw(st.lists(st.sampled_from(text), max_size=LONGEST)))[:LONGEST]
    for role, started in product(ROLES, (False, True)):
        step = trained(("slr", form), "both", started)
        want = turned(step, batch([text]), role)
        np.testing.assert_allclose(turned(step, batch([again]), role), want, atol=1e-6)
        if role == "query" or not started:
            np.testing.assert_allclose(turned(step, batch([repeated]), role), want, atol=1e-6)


@pytest.mark.parametrize(("form", "started", "share"), list(product(FORMS, (False, True), (-5.0, 0.3, 0.9))))
def test_a_place_that_is_not_the_loudest_of_its_token_is_not_heard(form: Form, started: bool, share: float) -> None:
    step, features = trained(("llr", form), started=started), batch([[3, 4, 3, 9, 3], [4]])
    louder = step.attend.weight[0].detach() / step.attend.weight.detach().norm() ** 2  # by 1
    for place, activation in ((0, 0.5), (2, 1.5), (4, 0.2), (3, 0.7)):
        features["embedding"][0, place] = louder * (activation - step.attend.bias.item())
    want = turned(step, features)
    features["embedding"][0, 0] += louder * share
    np.testing.assert_array_equal(turned(step, features), want)
    features["embedding"][0, 2] += louder
    assert not np.allclose(turned(step, features)[0], want[0], atol=1e-3)
    np.testing.assert_allclose(turned(step, features)[1], want[1], atol=1e-6)


CASES = [("query", False), ("query", True), ("document", False), ("document", True)]


@pytest.mark.parametrize(("role", "started"), CASES)
@quick
@given(text=TEXT)
@example(text=[3, 1, 3, 4, 1, 1])
def test_ignored_tokens_do_not_count(text: list[int], role: Role, started: bool) -> None:
    others = [place for place, token in enumerate(text) if token not in IGNORED]
    features, bare = batch([text]), batch([[text[place] for place in others]])
    bare["embedding"][0, : len(others)] = features["embedding"][0, others]
    for kind in KINDS[:4]:
        step = trained(kind, "both", started)
        np.testing.assert_allclose(turned(step, features, role), turned(step, bare, role), atol=1e-5)


@quick
@given(texts=TEXTS, kind=st.sampled_from(KINDS[:4]), scale=st.floats(0.1, 5))
def test_weights_have_the_length_of_the_scale(texts: list[list[int]], kind: Kind, scale: float) -> None:
    step = bridge(kind, "both", started=True)
    step.scale.data.fill_(scale)
    for role in ROLES:
        row, token, weight = (tensor.detach().numpy() for tensor in step.weights(batch(texts), role))
        there = sorted([i, found] for i, text in enumerate(texts) for found in {*text} - {*IGNORED})
        assert np.c_[row, token].tolist() == there
        lengths = np.sqrt(np.bincount(row, weight**2, len(texts)))
        np.testing.assert_allclose(lengths, [scale * bool({*text} - {*IGNORED}) for text in texts], rtol=1e-4)


def test_statistics_and_saturation_by_hand() -> None:
    held = np.array([sum(token in ids for ids in CORPUS) for token in range(V)])
    np.testing.assert_allclose(STATISTICS.idf, np.log(1 + (5 - held + 0.5) / (held + 0.5)), rtol=1e-6)
    assert (STATISTICS.length, STATISTICS.idf.dtype) == (4.0, np.dtype(np.float32))
    features = batch([[9] * count + [10] + [3] * (11 - count) for count in range(1, 11)])
    weight = double(bridge(KINDS[0], "both", started=True).weights(features, "document")[2]).reshape(10, 3)
    times = weight[:, 1] / weight[:, 2]  # 9 and 10 are in one document each
    assert (np.diff(times) > 0).all() and (np.diff(times, 2) < 0).all()
    assert times[0] == pytest.approx(1) and times[-1] < 1 + 1.2 * (0.25 + 0.75 * 12 / 4)


def test_a_sum_estimates_the_overlap_of_weighted_tokens() -> None:
    d, strength, features = 64, 0.5, batch([[3, 9, 4], [9, 5], [3, 7], [10, 11]])
    vectors = drawn(6, 200, d) * np.linspace(0.1, 3, d, dtype=np.float32)
    step = TokenBridge(d, V, form="sum", side="shared")
    tables = []
    for seed in range(20):
        step.start(STATISTICS, vectors, strength, seed)
        tables.append(double(step.maps["query"]))
    want = (x := dense(step, features, "query")) @ x.T * strength**2
    np.testing.assert_allclose(np.mean([x @ w @ w.T @ x.T for w in tables], axis=0), want, atol=0.2 * strength**2)
    assert want[0, 1] > 2 * want[0, 2] > want[0, 3] == 0  # a rare token that is shared, a common one, none
    spread = np.square(tables).mean(axis=(0, 1))
    assert spread[:8].min() > 3 * spread[-8:].max()  # quiet directions and loud ones


@pytest.mark.parametrize("started", [False, True])
@of_kinds
def test_the_identity_is_no_dead_start(kind: Kind, started: bool) -> None:
    step, features = bridge(kind, "query", started), batch(CORPUS[:3])
    for again in (False, True):
        step.zero_grad()
        (step(features, "query")["vector"] * torch.eye(3, D)).sum().backward()
        touched = step.maps["query"].grad.any(dim=1).nonzero().flatten().tolist()
        assert touched == [3, 4, 5, 6, 7, 8, 9] if kind[0] != "clr" else touched and not {*IGNORED} & {*touched}
        assert not again or all(weight.grad.any() for weight in step.parameters())
        for weight in step.parameters():
            weight.data += 0.5 * weight.grad


@of_kinds_and_sides
def test_what_is_saved_is_what_is_loaded(kind: Kind, side: BridgeSide) -> None:
    step, fresh, file = trained(kind, side, started=True), bridge(kind, side), io.BytesIO()
    torch.save(step.state_dict(), file)
    fresh.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for role in ROLES:
        np.testing.assert_array_equal(turned(fresh, batch(CORPUS), role), turned(step, batch(CORPUS), role))


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    elements = 0  # of the largest tensor that is made, inside other operations too

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            self.elements = max(self.elements, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return out


@pytest.mark.parametrize("kind", KINDS[:4], ids="-".join)
def test_no_tensor_of_the_vocabulary_is_made(kind: Kind) -> None:
    vocabulary, b, t = 50_000, 4, 64
    step = TokenBridge(D, vocabulary, paradigm=kind[0], form=kind[1], side="both", hidden=HIDDEN)
    step.start(Statistics(np.ones(vocabulary, np.float32), 64.0))
    features = batch([[3] * t] * b)
    features["input_ids"] = torch.from_numpy(np.random.default_rng(0).integers(vocabulary, size=(b, t)))
    for role in ROLES:
        with Largest() as largest:  # type: ignore[no-untyped-call]
            step(features, role)
        assert b * t <= largest.elements <= b * t * D < vocabulary


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("own", [False, True], ids=["grown", "own"])
def test_a_head_is_asked_about_the_tokens_of_most_documents(
    monkeypatch: pytest.MonkeyPatch, form: Form, own: bool
) -> None:
    monkeypatch.setattr("ragistry.encoders.steps.token_bridge.CANDIDATES", 5)
    layers = [torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, V)]
    head = torch.nn.Sequential(*layers) if own else MaskedLMHead(torch.from_numpy(WORDS))
    step = TokenBridge(D, V, paradigm="clr", form=form, ignored=IGNORED, hidden=HIDDEN, head=head)
    step.maps["query"].data = torch.from_numpy(drawn(5, V, D))
    features = batch([[3, 4, 5], [9]])
    logits = head(features["embedding"][:, 0]).detach()
    step.start(STATISTICS)
    assert step.candidates.tolist() == sorted(
        sorted(set(range(V)) - {*IGNORED}, key=lambda token: (STATISTICS.idf[token], token))[:5]
    )
    weights = torch.zeros(2, V)
    weights[:, step.candidates] = (torch.log1p(torch.relu(logits)) * step.idf)[:, step.candidates]
    added = torch.nn.functional.normalize(weights, dim=-1) @ step.maps["query"]
    vector = features["vector"]
    whole = vector + vector.norm(dim=-1, keepdim=True) * added if form == "sum" else vector * torch.exp(added)
    wanted = torch.nn.functional.normalize(whole, dim=-1) * vector.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(turned(step, features), wanted.detach().numpy(), atol=1e-5)
    step.start(STATISTICS)
    assert len(step.candidates) == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_model(tmp_path_factory.mktemp("models"))


def stacked(folder: Path, kind: Kind, by: float = 0.5, length: float = 6.0) -> Stack:
    size = 150  # the model knows fewer tokens
    head = MaskedLMHead(torch.from_numpy(drawn(11, size, 32))) if kind[0] == "clr" else None
    step = TokenBridge(32, size, paradigm=kind[0], form=kind[1], side="both", ignored=(0, 2, 3), head=head)
    step.start(Statistics(np.linspace(0.1, 2, size, dtype=np.float32), length))
    for seed, role in enumerate(ROLES):
        step.maps[role].data = torch.from_numpy(drawn(12 + seed, size, 32)) * by
    return Stack(Backbone(folder), [Pooling(), Normalise(), step], precision="fp32")


@of_kinds
def test_a_stack_encodes_alone_what_it_encodes_together(folder: Path, kind: Kind) -> None:
    texts = ["the cat sat", "", "a sonnet has fourteen lines", "dog", "poem " * 50, "the cat sat on the mat."]
    encoder, untrained = stacked(folder, kind), stacked(folder, kind, by=0.0)
    plain = Stack(encoder.backbone, encoder.steps[:2], precision="fp32")
    for role in ROLES:
        together = encoder.encode(texts, role)
        alone = np.concatenate([encoder.encode([text], role) for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_array_equal(untrained.encode(texts, role), plain.encode(texts, role))
        assert not np.allclose(together, plain.encode(texts, role), atol=1e-2)


def test_the_fingerprint_is_of_the_map_the_statistics_and_the_kind(folder: Path) -> None:
    encoders = [stacked(folder, kind) for kind in KINDS]
    encoders += [stacked(folder, KINDS[0], by=0.25), stacked(folder, KINDS[0], length=7.0), stacked(folder, KINDS[0])]
    marks = [encoder.fingerprint() for encoder in encoders]
    assert marks[-1] == marks[0] and len(set(marks)) == len(KINDS) + 2


def test_what_cannot_be_is_refused() -> None:
    make: Any = TokenBridge
    for what, of in (("paradigm", Paradigm), ("form", Form), ("side", BridgeSide)):
        with pytest.raises(InvalidInput, match=f"the {what} 'x' is not known; use one of {', '.join(get_args(of))}"):
            make(D, V, **{what: "x"})
    with pytest.raises(InvalidInput, match="'clr' needs a masked-LM head"):
        TokenBridge(D, V, paradigm="clr")
    with pytest.raises(InvalidInput, match=r"TokenBridge needs \['vector'\]"):
        Stack(Backbone("never read"), [TokenBridge(D, V), Pooling()])
