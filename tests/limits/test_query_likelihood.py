"""Query likelihood against what it must be: a plain loop over pairs, a table of who sees whom, and texts read alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput
from ragistry.scorers import language_model
from ragistry.scorers.language_model import LanguageModel, Prefix
from ragistry.scorers.likelihood import joint_log_likelihoods, layers_of, load_language_model, stop_mask
from ragistry.scorers.prefixes import SUFFIX, Prefixes
from ragistry.scorers.prompts import Prompt
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.types import Document

from ..tiny import LANGUAGE_MODELS, LIMIT, tiny_language_model

KINDS = (*LANGUAGE_MODELS, "roberta")
ENCODER_DECODERS = ("t5", "bart")
CAUSAL = tuple(kind for kind in KINDS if kind not in ENCODER_DECODERS)
PROMPTS = {
    "plain": ("", "", True),
    "upr": ("Passage: ", ". Please write a question based on this passage.", False),
    "the {document} has a line": ("the ", " has a line", False),
}
QUERY = "the cat sat on poem 7"
TEXTS = ["a sonnet has fourteen lines", "", "cat", "the dog sat on the mat. " * 9, "poem, line; the cats", "cat"]
DOCUMENTS = [Document(str(i), text) for i, text in enumerate(TEXTS)] + [Document("t", "a poem", title="the cat")]
WORDS = st.lists(st.sampled_from(["the", "cat", "sonnet", "poems", "x", "7", ",", "é"]), max_size=12).map(" ".join)
quick = settings(deadline=None, max_examples=10)
of_kinds = pytest.mark.parametrize("kind", KINDS)
of_causal = pytest.mark.parametrize("kind", CAUSAL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {kind: tiny_language_model(place, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, LanguageModel]:
    return {kind: LanguageModel(folder, precision="fp32", threads=1) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> Callable[[str], tuple[Any, Any]]:
    """transformers' own model and tokenizer of a kind."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    found: dict[str, tuple[Any, Any]] = {}

    def load(kind: str) -> tuple[Any, Any]:
        if kind not in found:
            auto = AutoModelForSeq2SeqLM if kind in ENCODER_DECODERS else AutoModelForCausalLM
            model = auto.from_pretrained(folders[kind]).eval()
            found[kind] = model, AutoTokenizer.from_pretrained(folders[kind])
        return found[kind]

    return load


def sees(i: int, j: int, e: int, window: int = 10**6) -> bool:
    """The table M_ij of LLM-QL: whether place i looks at place j where e ends the document's part."""
    return i - j < window and ((i <= e and j <= i) or (i > e and e <= j <= i))


def table(e: int, width: int, window: int = 10**6) -> torch.Tensor:
    lowest = torch.finfo(torch.float32).min
    rows = [[0.0 if sees(i, j, e, window) else lowest for j in range(width)] for i in range(width)]
    return torch.tensor(rows)[None, None]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


@torch.no_grad()
def looped(
    loaded: tuple[Any, Any], query: str, documents: Sequence[Document], prompt: str, reduce: str, ends: bool, stop: bool
) -> list[float]:
    """One pair at a time, from texts to a number: all logits, their log-softmax, and those of the query's tokens."""
    model, tokenizer = loaded
    kind, seq2seq = model.config.model_type, model.config.is_encoder_decoder
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    before, after, ending = PROMPTS[prompt]
    scores = []
    for document in documents:
        text = f"{document.title}\n{document.text}" if document.title else document.text
        first = [*([begin] if begin is not None else []), *ids_of(tokenizer, before)]
        last = [*ids_of(tokenizer, after), *([end] if ending or stop or seq2seq else [])]
        target = ids_of(tokenizer, " " + query if kind in ("gpt2", "llama") else query)[:16] + [end] * ends
        read = 4096 if kind == "t5" else LIMIT - 1 if kind == "roberta" else LIMIT
        room = read - len(first) - len(last) - (0 if seq2seq else 16 + ends)
        prefix = [*first, *ids_of(tokenizer, text)[: min(room, 40)], *last] or [end]
        ids = torch.tensor([prefix + target])
        if seq2seq:
            given = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
            logits = model(input_ids=ids[:, : len(prefix)], decoder_input_ids=given).logits[0]
        else:
            e, width = len(prefix) - 1, ids.shape[1]
            mask: Any = None
            if stop:
                mask = table(e, width)
                if kind == "gemma2":
                    near = table(e, width, model.config.sliding_window)
                    mask = {"full_attention": mask, "sliding_attention": near}
            places = {"position_ids": torch.arange(width)[None]} if kind == "opt" else {}
            logits = model(input_ids=ids, attention_mask=mask, **places).logits[0, e : e + len(target)]
        found = logits.log_softmax(-1)[range(len(target)), target]
        scores.append(float(found.sum() if reduce == "sum" else found.mean()))
    return scores


def scorer_of(model: LanguageModel, **how: Any) -> QueryLikelihood:
    return QueryLikelihood(model, **{"document_tokens": 40, "query_tokens": 16} | how)


def random_prefixes(model: LanguageModel, seed: int = 0, lengths: Sequence[int] = (4, 12, 1)) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [[int(one) for one in draw.integers(4, model.vocabulary, n)] for n in lengths]


@of_kinds
@pytest.mark.parametrize("prompt", PROMPTS)
def test_scores_are_those_of_a_plain_loop(models: Any, plain: Any, kind: str, prompt: str) -> None:
    for stop, ends, reduce in product((False, True), (False, True), ("sum", "mean")):
        if stop and kind in ENCODER_DECODERS:
            continue
        attention = "stop" if stop else "full"
        scorer = scorer_of(models[kind], prompt=prompt, reduce=reduce, ends=ends, attention=attention)
        found = scorer.score(QUERY, DOCUMENTS)
        assert found.dtype == np.float32 and found.shape == (len(DOCUMENTS),)
        wanted = looped(plain(kind), QUERY, DOCUMENTS, prompt, reduce, ends, stop)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert len(np.unique(found.round(4))) >= 5  # a duplicate, and an empty text that may be like another


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 4))
@example([0, 9, 4], 0)
def test_the_mask_is_the_table(ends: list[int], more: int) -> None:
    width = max(ends) + 1 + more
    for dtype in (torch.float32, torch.bfloat16):
        found = stop_mask(torch.tensor(ends), width, dtype)
        assert found.dtype == dtype and found.shape == (len(ends), 1, width, width)
        for mask, e in zip(found[:, 0], ends, strict=True):
            for i, j in product(range(width), repeat=2):
                assert mask[i, j] == (0 if sees(i, j, e) else torch.finfo(dtype).min), (i, j, e)


@of_causal
def test_up_to_the_ending_token_attention_is_the_ordinary(models: Any, kind: str) -> None:
    layers, ends = layers_of(models[kind].model), torch.tensor([2, 5])
    ids = torch.tensor(random_prefixes(models[kind], lengths=(8, 8)))  # no longer than gemma2's window
    places = {"position_ids": torch.arange(8)[None].expand(2, -1)}
    with torch.no_grad():
        ordinary = layers(input_ids=ids, **places).last_hidden_state
        stopped = layers(input_ids=ids, attention_mask=stop_mask(ends, 8), **places).last_hidden_state
    for row, e in enumerate(ends.tolist()):
        torch.testing.assert_close(stopped[row, : e + 1], ordinary[row, : e + 1], atol=1e-5, rtol=1e-5)
        assert (stopped[row, e + 1 :] - ordinary[row, e + 1 :]).abs().amax(dim=1).min() > 1e-3


@of_causal
def test_a_stopped_query_sees_the_document_through_its_end_only(models: Any, kind: str) -> None:
    model = models[kind]
    layers, width, e = layers_of(model.model), 8, 4
    one, other = (torch.tensor(random_prefixes(model, seed, (width,))) for seed in (0, 1))
    other[:, e:] = one[:, e:]
    stopped, cut = stop_mask(torch.tensor([e]), width), stop_mask(torch.tensor([e]), width)
    cut[..., e, :e] = torch.finfo(torch.float32).min  # nor does the ending token see the document
    with torch.no_grad():
        for mask, alike in ((stopped, False), (cut, True)):
            first, second = (
                layers(input_ids=ids, attention_mask=mask, position_ids=torch.arange(width)[None]).last_hidden_state[0]
                for ids in (one, other)
            )
            assert torch.allclose(first[e:], second[e:], atol=1e-5) == alike
    # The same of what is kept: an ending token that has read nothing before it says the same of every document.
    target, end = [5, 6, 7], one[0, e].item()
    read = model.read([one[0, : e + 1].tolist(), other[0, : e + 1].tolist(), [end], [end]], stop=True)
    assert [prefix.states.shape[-2] for prefix in read] == [1, 1, 1, 1]
    found = model.log_likelihoods(read, target)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    np.testing.assert_allclose(found[2], found[3], atol=1e-6)


@of_kinds
def test_likelihoods_in_one_pass_are_those_of_reading_first(models: Any, kind: str) -> None:
    model, target = models[kind], [9, 5, 7, 20]
    prefixes = random_prefixes(model, lengths=(30, 12, 1, 5))
    for stop in (False,) if kind in ENCODER_DECODERS else (False, True):
        joint = joint_log_likelihoods(model.model, prefixes, [target] * 4, stop=stop)
        found = model.log_likelihoods(model.read(prefixes, stop=stop), target)
        np.testing.assert_allclose(torch.stack(joint).detach(), found, atol=1e-4)
        # Each prefix with a target of its own, of another length, one of none.
        targets = [[7], [], target, [4, 4]]
        for prefix, one, apart in zip(
            prefixes, targets, joint_log_likelihoods(model.model, prefixes, targets, stop=stop), strict=True
        ):
            assert apart.dtype == torch.float32 and apart.shape == (len(one),)
            alone = model.log_likelihoods(model.read([prefix], stop=stop), one)[0]
            np.testing.assert_allclose(apart.detach(), alone, atol=1e-4)
        nothing = joint_log_likelihoods(model.model, prefixes, [[]] * 4, stop=stop)
        assert [part.shape for part in nothing] == [(0,)] * 4


@of_kinds
def test_likelihoods_in_one_pass_have_gradients(models: Any, folders: Any, kind: str) -> None:
    model, prefixes, targets = load_language_model(folders[kind]), [[5, 6, 7], [8]], [[9, 10], [11, 12, 13]]
    loss = -torch.cat(joint_log_likelihoods(model, prefixes, targets)).mean()
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():  # a step against the gradient makes the targets more likely
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 1e-3 * weight.grad
        after = -torch.cat(joint_log_likelihoods(model, prefixes, targets)).mean()
    assert after < loss


@of_kinds
@quick
@given(documents=st.lists(WORDS, min_size=1, max_size=6), query=WORDS, seed=st.integers(0, 99))
@example(documents=["cat", "the cat sat on a mat " * 6, "", "poem"], query="cat", seed=0)
def test_documents_together_score_as_alone_and_in_any_order(
    models: Any, kind: str, documents: list[str], query: str, seed: int
) -> None:
    found = [Document(str(i), text) for i, text in enumerate(documents)]
    summed, mean = (scorer_of(models[kind], reduce=reduce) for reduce in ("sum", "mean"))
    together = mean.score(query, found)
    np.testing.assert_allclose(together, [mean.score(query, [one])[0] for one in found], atol=1e-4)
    order = np.random.default_rng(seed).permutation(len(found))
    np.testing.assert_allclose(mean.score(query, [found[i] for i in order]), together[order], atol=1e-4)
    tokens = max(1, len(mean.target(query)))
    np.testing.assert_allclose(summed.score(query, found) / tokens, together, atol=1e-4)


@of_kinds
def test_small_batches_change_nothing(models: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = scorer_of(models[kind]).score(QUERY, DOCUMENTS)
    for name in ("READ_TOKENS", "FOLLOW_TOKENS"):
        monkeypatch.setattr(language_model, name, 70)
    for module in ("language_model", "likelihood"):
        monkeypatch.setattr(f"ragistry.scorers.{module}.LOGITS", 7)
    np.testing.assert_allclose(scorer_of(models[kind]).score(QUERY, DOCUMENTS), wanted, atol=1e-4)


@of_kinds
def test_no_token_of_the_query_is_missing_or_doubled(models: Any, kind: str) -> None:
    """What goes into the model is the document's part, then the query but for its last token, which is only predicted."""
    model, seen = models[kind], []
    scorer = scorer_of(model, prompt="the {document} sat", ends=True)
    read, target = scorer.prefixes([Document("1", "a cat")])[0], scorer.target("ab")
    words = [part for part in model.model.modules() if getattr(part, "num_embeddings", 0) == model.vocabulary]
    hooks = [part.register_forward_pre_hook(lambda _, given: seen.append(given[0].tolist())) for part in words]
    try:
        scorer.score("ab", [Document("1", "a cat")])
    finally:
        for hook in hooks:
            hook.remove()
    start = [model.model.config.decoder_start_token_id] if kind in ENCODER_DECODERS else []
    assert seen == [[read], [[*start, *target[:-1]]]]
    assert target == [*model.tokens([" ab" if kind in ("gpt2", "llama") else "ab"], 9)[0], model.end]
    before, cat, after = model.tokens(["the ", "a cat", " sat"], 9)
    begin, end = [model.begin] if kind != "gpt2" else [], [model.end] if kind in ENCODER_DECODERS else []
    assert read == [*begin, *before, *cat, *after, *end]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_where_tokens_hold_the_space_before_a_word_the_query_gets_one(models: Any, kind: str) -> None:
    scorer = scorer_of(models[kind])
    [spaced], [bare] = models[kind].tokens([" cat"], 9), models[kind].tokens(["cat"], 9)
    assert models[kind].spaced and spaced != bare
    assert scorer.target("cat") == scorer.target(" cat") == spaced
    assert scorer.target("\ncat")[1:] == bare and scorer.target("") == []
    assert not models["bert"].spaced and scorer_of(models["bert"]).target("cat") == models["bert"].tokens(["cat"], 9)[0]


@of_kinds
def test_documents_are_cut_and_the_words_around_them_are_not(models: Any, kind: str) -> None:
    model, prompt = models[kind], Prompt("the ", " has a line", ending=True)
    long = Document("1", "cat poem " * 500)
    around = model.tokens([prompt.before, prompt.after], 99)
    longest = model.limit - (0 if kind in ENCODER_DECODERS else 16 + 1)
    for tokens in (5, 40, 10_000):
        scorer = scorer_of(model, prompt=prompt, document_tokens=tokens, ends=True)
        [found] = scorer.prefixes([long])
        first = ([] if model.begin is None else [model.begin]) + around[0]
        last = [*around[1], model.end]
        kept = found[len(first) : -len(last)]
        assert found[: len(first)] == first and found[-len(last) :] == last
        assert kept == model.tokens([long.text], len(kept))[0]
        whole = len(model.tokens([long.text], 10**6)[0])
        assert len(kept) == min(tokens, whole, longest - len(first) - len(last))
        assert np.isfinite(scorer.score("x " * 99, [long])).all()


@of_kinds
def test_a_long_query_is_cut(models: Any, kind: str) -> None:
    for ends in (False, True):
        scorer = scorer_of(models[kind], query_tokens=5, ends=ends, reduce="sum")
        tokens = scorer.target("the cat sat on the mat " * 20)
        assert tokens == scorer_of(models[kind], query_tokens=90).target("the cat sat on the mat " * 20)[:5] + (
            [models[kind].end] if ends else []
        )
        short = models[kind].text(tokens)
        if kind not in ("gpt2", "llama"):
            assert scorer.target(short) == tokens
        assert scorer.score("the cat sat on the mat " * 20, DOCUMENTS[:2]).tolist() != [0, 0]


@of_causal
def test_a_model_that_reads_too_little_is_told_with_numbers(models: Any, kind: str) -> None:
    model = models[kind]
    with pytest.raises(
        InvalidInput, match=rf"takes \d+ tokens and the query up to {model.limit}, .* the {model.limit} "
    ):
        scorer_of(model, query_tokens=model.limit).score("cat", DOCUMENTS)
    with pytest.raises(InvalidInput, match=r"takes \d+ tokens .* no room .* give a shorter prompt"):
        scorer_of(model, prompt="{document}" + "cat " * 200).score("cat", DOCUMENTS)
    with pytest.raises(InvalidInput, match=f"text 1 has {model.limit + 1} tokens; .* reads 1 to {model.limit}"):
        model.read([[5], [5] * (model.limit + 1)])
    with pytest.raises(InvalidInput, match="text 0 has 0 tokens"):
        model.read([[]])
    [full] = model.read([[5] * (model.limit - 2)])
    assert np.isfinite(model.log_likelihoods([full], [6, 7])).all()
    with pytest.raises(
        InvalidInput, match=rf"{model.limit - 2} tokens were read and 3 are to follow, .* {model.limit} in all"
    ):
        model.log_likelihoods([full], [6, 7, 8])


def test_a_decoder_that_reads_too_little_is_told_with_numbers(models: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"{LIMIT + 4} are to follow, .* reads {LIMIT}"):
        scorer_of(models["bart"], query_tokens=LIMIT + 4).score("cat " * 200, DOCUMENTS)


@of_kinds
def test_an_empty_query_scores_zero_and_an_empty_document_is_scored(models: Any, kind: str) -> None:
    scorer = scorer_of(models[kind], ends=True)
    assert scorer.score("", DOCUMENTS).tolist() == [0.0] * len(DOCUMENTS)
    assert scorer.score("cat", []).shape == (0,)
    empty = scorer_of(models[kind], prompt="{document}").score("cat", [Document("1", ""), Document("2", "cat")])
    assert np.isfinite(empty).all() and empty[0] != empty[1]


def test_without_a_beginning_or_words_what_ends_a_text_stands_for_nothing(models: Any) -> None:
    model = models["gpt2"]
    scorer = scorer_of(model, prompt="{document}")
    assert model.begin is None and model.end == model.model.config.pad_token_id == 0
    assert scorer.prefixes([Document("1", ""), Document("2", "cat")]) == [[0], model.tokens(["cat"], 9)[0]]


def test_tokens_that_pad_are_read_where_they_are_part_of_a_text(models: Any) -> None:
    """Where padding is the token that ends texts, that token counts as much as others, whatever stands beside it."""
    model = models["gpt2"]
    prefixes = [[5, 0], [5], [5, 0, 0], [0], [0, 0], [6] * 9]
    together = model.log_likelihoods(model.read(prefixes), [0, 7, 0])
    alone = [model.log_likelihoods(model.read([prefix]), [0, 7, 0])[0] for prefix in prefixes]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(np.unique(together.round(4), axis=0)) == len(prefixes)


@pytest.fixture
def counted(models: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many documents each call of llama's `read` was given."""
    calls: list[int] = []
    read = models["llama"].read
    monkeypatch.setattr(models["llama"], "read", lambda rows, **how: [calls.append(len(rows)), read(rows, **how)][1])
    yield calls


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


@of_kinds
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-6), ("fp16", 5e-3)])
def test_documents_from_disk_score_as_those_read_now(
    models: Any, tmp_path: Path, kind: str, precision: Any, near: float
) -> None:
    for attention in ("full",) if kind in ENCODER_DECODERS else ("full", "stop"):
        how: Any = {"prompt": "the {document} sat", "attention": attention}
        wanted = scorer_of(models[kind], **how).score(QUERY, DOCUMENTS)
        kept = scorer_of(models[kind], **how, kept=Prefixes(tmp_path, precision=precision))
        first, again = kept.score(QUERY, DOCUMENTS), kept.score(QUERY, DOCUMENTS)
        np.testing.assert_array_equal(first, again)  # not only near: ranks do not depend on what is kept
        np.testing.assert_allclose(first, wanted, atol=near)


def test_a_document_on_disk_is_not_read_again(models: Any, tmp_path: Path, counted: list[int]) -> None:
    scorer = scorer_of(models["llama"], kept=Prefixes(tmp_path))
    scorer.score(QUERY, DOCUMENTS[:4])
    scorer.score("dog", DOCUMENTS[:4])
    scorer_of(models["llama"], kept=Prefixes(tmp_path)).score("poem", DOCUMENTS[:4])
    assert counted == [4] and len(files(tmp_path)) == 4
    scorer.score("poem", DOCUMENTS)  # of three more one is there under another id
    assert counted == [4, 2] and len(files(tmp_path)) == 6
    scorer_of(models["llama"]).score(QUERY, DOCUMENTS)  # in memory, a text that comes twice is read once
    assert counted == [4, 2, 6]


def test_what_is_kept_is_known_by_model_precision_attention_and_words(
    models: Any, folders: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    llama, document = models["llama"], [Document("1", "cat")]
    other = LanguageModel(tiny_language_model(tmp_path_factory.mktemp("other"), "llama", seed=1), precision="fp32")
    ways: list[tuple[LanguageModel, dict[str, Any]]] = [
        (llama, {}),
        (llama, {"attention": "stop"}),
        (llama, {"prompt": "upr"}),
        (llama, {"prompt": "{document}"}),
        (other, {}),
        (LanguageModel(folders["llama"], precision="bf16"), {}),
    ]
    for number, (model, how) in enumerate(ways):
        scorer = scorer_of(model, kept=Prefixes(tmp_path, precision="fp32"), **how)
        found = scorer.score(QUERY, document)
        assert len(files(tmp_path)) == number + 1
        np.testing.assert_allclose(found, scorer_of(model, **how).score(QUERY, document), atol=1e-5)
    scorer_of(llama, reduce="sum", ends=True, kept=Prefixes(tmp_path, precision="fp32")).score("dog", document)
    assert len(files(tmp_path)) == len(ways)  # what follows a document does not change how it is read


def test_a_stopped_document_takes_a_tenth(models: Any, tmp_path: Path) -> None:
    document = [Document("1", "cat poem " * 40)]
    sizes = {}
    for attention in ("full", "stop"):
        scorer = scorer_of(models["llama"], attention=attention, kept=Prefixes(tmp_path / attention))
        scorer.score(QUERY, document)
        [file] = files(tmp_path / attention)
        [prefix] = scorer.read(document)
        sizes[attention] = prefix.bytes, file.stat().st_size
        assert prefix.length == 42 and prefix.bytes == 2 * (prefix.states.numel() + prefix.last.numel())
    assert all(10 * stop <= full for full, stop in zip(sizes["full"], sizes["stop"], strict=True))


def prefix(value: float, n: int = 500) -> Prefix:
    return Prefix(torch.full((1, 2, 1, n, 1), value), torch.full((1,), value), n)


def test_a_full_folder_loses_what_was_written_first(tmp_path: Path) -> None:
    Prefixes(tmp_path, precision="fp32").put("size", prefix(0))
    size = files(tmp_path)[0].stat().st_size
    files(tmp_path)[0].unlink()
    kept = Prefixes(tmp_path, megabytes=3.5 * size / 1e6, precision="fp32")
    for number, name in enumerate("edcba"):  # names that would sort the other way
        kept.put(name, prefix(number))
        os.utime(tmp_path / f"{name}{SUFFIX}", (number, number))
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 3.5 * size
        assert kept.get(name) is not None
    assert kept.get("e") is None and kept.get("d") is None
    assert kept.get("a").states.unique().tolist() == [4] and kept.get("a").length == 500  # type: ignore[union-attr]
    kept.put("large", prefix(9, n=2000))
    assert kept.get("large") is None and kept.get("a") is not None  # it is not kept, and drives nothing out
    Prefixes(tmp_path, megabytes=1.5 * size / 1e6, precision="fp32").put("new", prefix(7))
    assert [file.name for file in files(tmp_path)] == [f"new{SUFFIX}"]
    Prefixes(tmp_path, megabytes=1.05 * size / 1e6, precision="fp32").put("newer", prefix(8))  # nearly all there is
    assert [file.name for file in files(tmp_path)] == [f"newer{SUFFIX}"]


def test_a_full_folder_is_not_counted_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting takes as long as there are files, and there may be a hundred thousand."""
    counts, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [counts.append(1), glob(path, pattern)][1])
    kept = Prefixes(tmp_path, megabytes=0.1)
    for number in range(200):
        kept.put(str(number), prefix(number))
    assert 2 < len(counts) < 50
    monkeypatch.undo()
    assert 80_000 < sum(file.stat().st_size for file in files(tmp_path)) <= 100_000
    assert kept.get("199") is not None and kept.get("0") is None


def test_a_folder_too_small_changes_no_score(models: Any, tmp_path: Path) -> None:
    wanted = scorer_of(models["llama"]).score(QUERY, DOCUMENTS)
    for megabytes in (1e-6, 0.03):
        kept = Prefixes(tmp_path / str(megabytes), megabytes=megabytes, precision="fp32")
        scorer = scorer_of(models["llama"], kept=kept)
        for _ in range(2):
            np.testing.assert_allclose(scorer.score(QUERY, DOCUMENTS), wanted, atol=1e-6)
        assert sum(file.stat().st_size for file in files(kept.path)) <= megabytes * 1e6


def test_a_damaged_file_counts_as_not_there(models: Any, tmp_path: Path, counted: list[int]) -> None:
    scorer = scorer_of(models["llama"], kept=Prefixes(tmp_path))
    wanted = scorer.score(QUERY, DOCUMENTS[:3])
    whole = files(tmp_path)[1].read_bytes()
    for damaged in (b"", whole[:5], whole[:-1], b"\xff" * len(whole), whole[:8] + b"x" * 99, whole + b"more"):
        files(tmp_path)[1].write_bytes(damaged)
        counted.clear()
        np.testing.assert_array_equal(scorer.score(QUERY, DOCUMENTS[:3]), wanted)
        assert counted == [1] and files(tmp_path)[1].read_bytes() == whole


def test_another_precision_counts_as_not_there(models: Any, tmp_path: Path, counted: list[int]) -> None:
    half, full = (scorer_of(models["llama"], kept=Prefixes(tmp_path, precision=p)) for p in ("fp16", "fp32"))
    half.score(QUERY, DOCUMENTS[:3])
    exact = scorer_of(models["llama"]).score(QUERY, DOCUMENTS[:3])
    np.testing.assert_allclose(full.score(QUERY, DOCUMENTS[:3]), exact, atol=1e-6)
    assert counted == [3, 3, 3]


def test_threads_share_a_folder(models: Any, tmp_path: Path) -> None:
    wanted = scorer_of(models["llama"]).score(QUERY, DOCUMENTS)
    limits = {"all": 1.0, "some": 0.03}
    for name, megabytes in limits.items():
        scorers = [
            scorer_of(models["llama"], kept=Prefixes(tmp_path / name, megabytes=megabytes, precision="fp32"))
            for _ in range(2)
        ]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: scorers[i % 2].score(QUERY, DOCUMENTS), range(12)))  # noqa: B023
        for one in found:
            np.testing.assert_allclose(one, wanted, atol=1e-6)
        assert all(path.suffix == SUFFIX for path in (tmp_path / name).iterdir())
    assert len(files(tmp_path / "all")) == 6
