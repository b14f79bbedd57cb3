"""Constrained search against the sum of log-probabilities written out, one name and one prompt at a time."""

from __future__ import annotations

import itertools
import math
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput
from ragistry.retrievers import constrained as module
from ragistry.retrievers.constrained import ConstrainedSearch, Hypothesis, marginalise
from ragistry.retrievers.trie import Trie
from ragistry.retrievers.walking import likely

V, END, START = 24, 1, 2
CLOSE = 1e-4
PROMPTS = [[5, 6, 7, 8, 1], [9], [10, 3, 3, 11, 12, 13, 4, 4], [22, 21], [5, 6, 7, 8, 2]]
KINDS = ("t5", "bart", "bert", "llama", "gpt2", "bloom")
every_model = pytest.mark.parametrize("kind", KINDS)
quick = settings(deadline=None, max_examples=8)


@cache
def tiny(kind: str) -> Any:
    """A model with random weights, large enough that its distributions are far from even."""
    heads = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16}
    bart = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    common = {"vocab_size": V, "pad_token_id": 0, "eos_token_id": END, "bos_token_id": START}
    made: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration,
               {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}),
        "bart": (transformers.BartConfig, transformers.BartForConditionalGeneration,
                 bart | {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32,
                         "decoder_start_token_id": START}),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM,
                  heads | {"intermediate_size": 32, "max_position_embeddings": 32}),
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel,
                 {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
        "bloom": (transformers.BloomConfig, transformers.BloomForCausalLM, {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    }  # fmt: skip
    if kind == "bert":  # two models in one, as those grown from embedding models are
        part = heads | {"vocab_size": V, "intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": 0}
        parts = [transformers.BertConfig(**part), transformers.BertConfig(**part)]
        whole = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts, decoder_start_token_id=START)
        made[kind] = (lambda **_: whole, lambda config: transformers.EncoderDecoderModel(config=config), {})
    config, model, own = made[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = model(config(**common | own)).eval()
        for weight in found.parameters():
            if weight.ndim > 1:
                weight.data = torch.randn(weight.shape) * 0.4
    return found


def trie_of(names: list[list[int]], numbers: list[int] | None = None) -> Trie:
    trie = Trie(END)
    trie.add(names, range(len(names)) if numbers is None else numbers)
    return trie


def drawn(count: int, seed: int = 0) -> list[list[int]]:
    """Different names, of which some begin others."""
    draw = np.random.default_rng(seed)
    names: dict[tuple[int, ...], None] = {(5,): None, (5, 6): None, (5, 6, 7): None}
    while len(names) < count:
        names[tuple(draw.integers(3, 9, draw.integers(1, 6)).tolist())] = None
    return [list(name) for name in names]


@torch.no_grad()
def said(model: Any, prompt: list[int], name: list[int]) -> float:
    """The log-probability of a name and its end after a prompt."""
    target = [*name, END]
    if model.config.is_encoder_decoder:
        begun = torch.tensor([[model.config.decoder_start_token_id, *name]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=begun, use_cache=False).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + name]), use_cache=False).logits[0, len(prompt) - 1 :]
    return float(torch.log_softmax(logits.double(), -1)[range(len(target)), target].sum())


def ranking(model: Any, prompt: list[int], names: list[list[int]], alpha: float = 0.0) -> list[tuple[list[int], float]]:
    scores = [(name, said(model, prompt, name) / (len(name) + 1) ** alpha) for name in names]
    return sorted(scores, key=lambda pair: -pair[1])


def same(found: list[Hypothesis], expected: list[tuple[list[int], float]], names: list[list[int]]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [(*name, END) for name, _ in expected]
    assert [hypothesis.numbers for hypothesis in found] == [(names.index(name),) for name, _ in expected]
    assert np.allclose([hypothesis.score for hypothesis in found], [score for _, score in expected], atol=CLOSE)


@every_model
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_beams_for_every_name_rank_as_brute_force_does(kind: str, alpha: float) -> None:
    model, names = tiny(kind), drawn(25)
    search = ConstrainedSearch(model, beams=25, few=0, length_penalty=alpha)
    for prompt, beams, whole in zip(
        PROMPTS, search.search(PROMPTS, trie_of(names)), search.exhaustive(PROMPTS, trie_of(names)), strict=True
    ):
        expected = ranking(model, prompt, names, alpha)
        same(beams, expected, names)
        same(whole, expected, names)
        for hypothesis in beams:
            assert math.isclose(hypothesis.score * len(hypothesis.tokens) ** alpha, hypothesis.log_probability)


@every_model
@pytest.mark.parametrize(("beams", "k"), [(1, None), (2, 5), (4, 1), (4, 2)])
def test_few_beams_give_names_with_their_exact_scores(kind: str, beams: int, k: int | None) -> None:
    model, names = tiny(kind), drawn(60)
    for alpha in (0.0, 1.0):
        search = ConstrainedSearch(model, beams=beams, few=0, length_penalty=alpha)
        for prompt, found in zip(PROMPTS, search.search(PROMPTS, trie_of(names), k), strict=True):
            assert 0 < len(found) <= (k or beams)
            for hypothesis in found:
                name = list(hypothesis.tokens[:-1])
                assert hypothesis.numbers == (names.index(name),)
                assert abs(hypothesis.log_probability - said(model, prompt, name)) < CLOSE
                assert math.isclose(hypothesis.score, hypothesis.log_probability / (len(name) + 1) ** alpha)
            assert found == sorted(found, key=lambda hypothesis: -hypothesis.score)
            assert len(set(found)) == len(found)


@every_model
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_giving_beams_up_changes_nothing(kind: str, alpha: float) -> None:
    names = drawn(60)
    search = ConstrainedSearch(tiny(kind), beams=3, few=0, length_penalty=alpha)
    for k in (1, 2, 3):
        kept = search.search(PROMPTS, trie_of(names), 1000)  # so many that no beam is given up
        for some, every in zip(search.search(PROMPTS, trie_of(names), k), kept, strict=True):
            assert [h.tokens for h in some] == [h.tokens for h in every[:k]]


@every_model
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_scoring_the_last_few_names_finds_no_worse_ones(kind: str, alpha: float) -> None:
    model, names = tiny(kind), drawn(60, seed=4)
    plain = ConstrainedSearch(model, beams=3, few=0, length_penalty=alpha).search(PROMPTS, trie_of(names))
    for few in (3, 8, 25):
        search = ConstrainedSearch(model, beams=3, few=few, length_penalty=alpha)
        for prompt, some, found in zip(PROMPTS, plain, search.search(PROMPTS, trie_of(names)), strict=True):
            for beam, hypothesis in itertools.zip_longest(some, found):
                assert beam is None or hypothesis.score > beam.score - CLOSE
                name = list(hypothesis.tokens[:-1])
                assert abs(hypothesis.log_probability - said(model, prompt, name)) < CLOSE
            if few == 3:  # as many as there are beams
                assert [h.tokens for h in found] == [h.tokens for h in some]


@every_model
def test_the_names_below_the_last_beam_are_all_scored(kind: str) -> None:
    model = tiny(kind)
    names = [
        [first, *rest] for first in range(5, 9) for rest in ([9], [9, 10], [11, 12, 13], [14, 4, 5], [14, 4, 6, 7])
    ]
    for prompt in PROMPTS:
        less = ConstrainedSearch(model, beams=1, few=4).search([prompt], trie_of(names), 10)[0]
        assert len(less) < 5
        beam = less[0].tokens[0]
        found = ConstrainedSearch(model, beams=1, few=5).search([prompt], trie_of(names), 10)[0]
        same(found, ranking(model, prompt, [name for name in names if name[0] == beam]), names)


@every_model
def test_fewer_beams_than_names_leave_no_name_out_where_all_are_scored(kind: str) -> None:
    model, names = tiny(kind), drawn(25, seed=6)
    whole = ConstrainedSearch(model, beams=2, few=0).exhaustive(PROMPTS[:2], trie_of(names), 100)
    found = ConstrainedSearch(model, beams=2, few=25).search(PROMPTS[:2], trie_of(names), 100)
    for prompt, one, other in zip(PROMPTS[:2], found, whole, strict=True):
        expected = ranking(model, prompt, names)
        same(one, expected, names)
        same(other, expected, names)


@every_model
@pytest.mark.parametrize("few", [6, 20, 1000])
def test_reading_names_at_once_or_by_token_is_the_same(kind: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, trie = tiny(kind), trie_of(drawn(60, seed=5))
    trie.add([[6, 7, 8, 9, 10, 11, 12, token] for token in (13, 14)], [100, 101])
    found = []
    for cost in (-(10**6), 0, 5, 10**6):
        monkeypatch.setattr(module, "CALL", cost)
        found.append(ConstrainedSearch(model, beams=5, few=few).search(PROMPTS, trie, 20))
    for some in found[1:]:
        for one, other in zip(found[0], some, strict=True):
            assert [h.tokens for h in one] == [h.tokens for h in other]
            assert [h.numbers for h in one] == [h.numbers for h in other]
            assert np.allclose([h.score for h in one], [h.score for h in other], atol=CLOSE)


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_names_that_no_other_can_follow_take_one_call(kind: str) -> None:
    model, calls = tiny(kind), list[int]()
    chains = trie_of([[token, *range(5, 12)] for token in range(12, 22)])
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    for few, expected in ((0, 9), (4, 2), (16, 2)):
        calls.clear()
        found = ConstrainedSearch(model, beams=4, few=few).search(PROMPTS[:1], chains)[0]
        assert len(calls) == expected
        assert len(found) == 4
    hook.remove()


@quick
@given(
    st.lists(st.lists(st.sampled_from((-math.inf, -1.0, 0.0, 0.5, 2.0, math.nan)), min_size=9, max_size=9), min_size=1),
    st.data(),
)
def test_the_likely_tokens_of_rows(values: list[list[float]], data: st.DataObject) -> None:
    logits = np.array(values, np.float32)
    own = [sorted(data.draw(st.sets(st.integers(0, 8)))) for _ in values]
    most = [data.draw(st.sampled_from((1, 2, 3, 2**31 - 1))) for _ in values]
    end = data.draw(st.integers(0, 8))
    expected, first = list[int](), 0
    for row, tokens, count in zip(values, own, most, strict=True):
        ranks = sorted((row[token] for token in tokens if token != end and row[token] == row[token]), reverse=True)
        least = -math.inf if len(tokens) <= count or len(ranks) < count else ranks[count - 1]
        places = enumerate(tokens)
        expected += [first + place for place, token in places if token == end or not row[token] < least]
        first += len(tokens)
    offsets, ends = np.cumsum([0, *map(len, own)]), np.full(len(own), end)
    flat = np.array([token for tokens in own for token in tokens], np.int64)
    assert likely(logits, flat, offsets, np.array(most), ends).tolist() == expected


def test_a_cache_that_stays_empty_is_refused() -> None:
    model = deepcopy(tiny("bert"))
    model.decoder.base_model.encoder.layer[0].attention.self.layer_idx = 1  # as if the first had been taken out
    with pytest.raises(InvalidInput, match="keeps no cache"):
        ConstrainedSearch(model).search(PROMPTS, trie_of(drawn(30)))


@every_model
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("few", [0, 1000])
def test_batch_and_padding_change_nothing(kind: str, batch: int, few: int) -> None:
    model, trie = tiny(kind), trie_of(drawn(40))
    together = ConstrainedSearch(model, beams=4, few=few).search(PROMPTS, trie)
    apart = ConstrainedSearch(model, beams=4, few=few, batch=batch).search(PROMPTS, trie)
    backwards = ConstrainedSearch(model, beams=4, few=few).search(PROMPTS[::-1], trie)[::-1]
    for one, two, three in zip(together, apart, backwards, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in two] == [h.tokens for h in three]
        assert np.allclose([h.score for h in one], [h.score for h in two], atol=CLOSE)
        assert np.allclose([h.score for h in one], [h.score for h in three], atol=CLOSE)


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_a_trie_for_each_prompt(kind: str) -> None:
    model, names = tiny(kind), drawn(40)
    trie = trie_of(names)
    candidates = [[0, 1, 2], list(range(40)), [], [7], list(range(5, 30))]
    views = [trie.among(some) for some in candidates]
    for few in (0, 4, 1000):
        found = ConstrainedSearch(model, beams=50, few=few).search(PROMPTS, views)
        for prompt, some, own in zip(PROMPTS, candidates, found, strict=True):
            same(own, ranking(model, prompt, [names[i] for i in some]), names)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
@quick
@given(
    st.lists(st.tuples(st.lists(st.integers(3, 6), min_size=1, max_size=3), st.integers(0, 5)), min_size=1), st.data()
)
def test_any_names_after_additions_and_removals(
    kind: str, pairs: list[tuple[list[int], int]], data: st.DataObject
) -> None:
    trie, gone = Trie(END), data.draw(st.sets(st.integers(0, 5), max_size=3))
    for name, number in pairs:
        trie.add([name], [number])
    trie.remove(gone)
    held: dict[tuple[int, ...], set[int]] = {}
    for name, number in pairs:
        if number not in gone:
            held.setdefault((*name, END), set()).add(number)
    search = ConstrainedSearch(tiny(kind), beams=len(pairs), few=0)
    beams, whole = search.search(PROMPTS[:2], trie), search.exhaustive(PROMPTS[:2], trie)
    for one, other, prompt in zip(beams, whole, PROMPTS[:2], strict=True):
        assert {h.tokens: set(h.numbers) for h in one} == {h.tokens: set(h.numbers) for h in other} == held
        for hypothesis in (*one, *other):
            assert abs(hypothesis.score - said(tiny(kind), prompt, list(hypothesis.tokens[:-1]))) < CLOSE


class Forbidding(torch.nn.Module):
    """An output layer to which some tokens are impossible."""

    def __init__(self, inner: Any, tokens: list[int], value: float = -math.inf) -> None:
        super().__init__()
        self.inner, self.tokens, self.value = inner, tokens, value

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(states).clone()
        logits[..., self.tokens] = self.value
        return logits


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("few", [0, 1000])
def test_names_of_probability_zero_are_never_returned(kind: str, few: int) -> None:
    model, names = deepcopy(tiny(kind)), drawn(30)
    model.lm_head = Forbidding(model.lm_head, [5, 8])
    possible = [name for name in names if not {5, 8} & set(name)]
    search = ConstrainedSearch(model, beams=30, few=few)
    for prompt, found in zip(PROMPTS, search.search(PROMPTS, trie_of(names)), strict=True):
        same(found, ranking(model, prompt, possible), names)
    assert search.search(PROMPTS[:1], trie_of([[5], [6, 8]])) == [[]]
    model.lm_head.value = math.nan
    with pytest.raises(InvalidInput, match="NaN"):
        search.search(PROMPTS, trie_of(names))


@pytest.mark.parametrize("few", [0, 1000])
def test_entities_that_share_a_name_come_together(few: int) -> None:
    trie = trie_of([[5, 6], [7], [5, 6], [5, 6, 7], [7]], [3, 1, 0, 3, 9])
    found = ConstrainedSearch(tiny("t5"), few=few).search([PROMPTS[0]], trie)[0]
    assert {h.tokens[:-1]: h.numbers for h in found} == {(5, 6): (0, 3), (7,): (1, 9), (5, 6, 7): (3,)}
    sums = dict(marginalise(found))
    parts = [h.score for h in found if 3 in h.numbers]
    assert len(parts) == 2
    assert math.isclose(sums[3], float(np.logaddexp(*parts)))
    assert sums[1] == sums[9]
    assert sums[3] > sums[0]


def test_marginalised_entities_are_in_order() -> None:
    assert marginalise([]) == []
    found = [Hypothesis((4, 2), (5, END), -2.0, -2.0), Hypothesis((7,), (6, END), -1.0, -1.0)]
    assert marginalise(found) == [(7, -1.0), (2, -2.0), (4, -2.0)]
    assert marginalise(found[::-1]) == marginalise(found)


@every_model
def test_wide_nodes_and_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = tiny(kind), drawn(45, seed=3)
    expected = ConstrainedSearch(model, beams=5, few=0).search(PROMPTS, trie_of(names))
    whole = ConstrainedSearch(model).exhaustive(PROMPTS, trie_of(names))
    monkeypatch.setattr(module, "WIDE", 1)
    monkeypatch.setattr(module, "CHUNK", V * 20)
    found = ConstrainedSearch(model, beams=5, few=0).search(PROMPTS, trie_of(names))
    assert found == expected
    for one, other in zip(ConstrainedSearch(model).exhaustive(PROMPTS, trie_of(names)), whole, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert np.allclose([h.score for h in one], [h.score for h in other], atol=CLOSE)


@pytest.mark.parametrize("few", [0, 1000])
def test_the_encoder_runs_once_for_each_query(few: int) -> None:
    model, read = tiny("bart"), list[int]()

    def count(_: Any, given: Any, named: dict[str, Any]) -> None:
        read.append(len(named["input_ids"]))

    hook = model.get_encoder().register_forward_pre_hook(count, with_kwargs=True)
    ConstrainedSearch(model, beams=3, few=few, batch=2).search(PROMPTS, trie_of(drawn(40)))
    hook.remove()
    assert sum(read) == len(PROMPTS)


def test_the_trie_may_change_during_a_search() -> None:
    model, trie = tiny("gpt2"), trie_of(drawn(40))
    expected = ConstrainedSearch(model, beams=3, few=0).search(PROMPTS, trie)
    hook = model.register_forward_pre_hook(lambda *_: trie.remove(range(20)))
    found = ConstrainedSearch(model, beams=3, few=0).search(PROMPTS, trie)
    hook.remove()
    assert found == expected
    assert len(trie) == 20


def test_nothing_to_find() -> None:
    search = ConstrainedSearch(tiny("t5"))
    assert search.search([], trie_of([[5]])) == []
    assert search.search(PROMPTS[:2], Trie(END)) == [[], []]
    assert search.search(PROMPTS[:2], trie_of([[5]]), k=0) == [[], []]
    assert [len(found) for found in search.search(PROMPTS[:2], trie_of([[5]]), k=7)] == [1, 1]


def test_several_tokens_to_start_from() -> None:
    model, names = tiny("bart"), drawn(10)
    for few in (0, 1000):
        for own in ConstrainedSearch(model, few=few, start=[START, 9]).search(PROMPTS, trie_of(names)):
            assert len(own) == 10
    begun = ConstrainedSearch(model, start=[START, 9]).search([PROMPTS[0]], trie_of(names))[0][0]
    whole = said(model, PROMPTS[0], [9, *begun.tokens[:-1]]) - said_token(model, PROMPTS[0], 9)
    assert abs(begun.score - whole) < CLOSE


@torch.no_grad()
def said_token(model: Any, prompt: list[int], token: int) -> float:
    logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[START]])).logits[0, -1]
    return float(torch.log_softmax(logits, -1)[token])


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("t5", {"beams": 0}, "beams=0"),
        ("t5", {"batch": 1.5}, "batch=1.5"),
        ("t5", {"few": -1}, "few=-1"),
        ("t5", {"length_penalty": -1.0}, "length_penalty=-1"),
        ("t5", {"length_penalty": math.nan}, "length_penalty=nan"),
        ("t5", {"start": []}, "start"),
        ("gpt2", {"start": [1]}, "causal"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(kind: str, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ConstrainedSearch(tiny(kind), **setting).search(PROMPTS, trie_of([[5]]))


@pytest.mark.parametrize(
    ("prompts", "names", "k", "message"),
    [
        ([[]], [[5]], None, "prompt 0"),
        ([[5], "ab"], [[5]], None, "prompt 1"),
        ([[5, V]], [[5]], None, "the model knows 24"),
        ([[-1]], [[5]], None, "tokens from -1"),
        ([[5]], [[V]], None, "a name holds token 24"),
        ([[5]], [[5]], -1, "k=-1"),
        ([[5] * 30], [[5, 6, 7]], None, "32 positions"),
        ([[5]], [[5] * 40], None, "32 positions"),
    ],
)
@pytest.mark.parametrize("few", [0, 1000])
def test_what_a_model_cannot_read_is_refused(few: int, prompts: Any, names: Any, k: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ConstrainedSearch(tiny("llama"), few=few).search(prompts, trie_of(names), k)


def test_the_last_position_is_used() -> None:
    for prompt, name in (([5] * 29, [5, 6, 7]), ([5], [6] * 31)):
        found = ConstrainedSearch(tiny("gpt2"), few=0).search([prompt], trie_of([name]))[0]
        assert abs(found[0].score - said(tiny("gpt2"), prompt, name)) < CLOSE
    found = ConstrainedSearch(tiny("bart"), few=0).search([[5] * 32], trie_of([[6] * 31]))[0]
    assert abs(found[0].score - said(tiny("bart"), [5] * 32, [6] * 31)) < CLOSE


def test_a_model_in_training_or_too_few_tries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("t5")
    with pytest.raises(InvalidInput, match="2 tries for 5 prompts"):
        ConstrainedSearch(model).search(PROMPTS, [trie_of([[5]])] * 2)
    monkeypatch.setattr(model, "training", True)
    with pytest.raises(InvalidInput, match=r"model\.eval\(\)"):
        ConstrainedSearch(model).search(PROMPTS, trie_of([[5]]))
