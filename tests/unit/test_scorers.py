"""Scorers by language models: prompts, what is refused and how, and what a model is known by."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragistry.errors import Corrupt, InvalidInput, ModelNotFound, StorageError
from ragistry.protocols import Scorer
from ragistry.scorers.language_model import LanguageModel, Prefix
from ragistry.scorers.likelihood import limit_of, start_of
from ragistry.scorers.prefixes import Prefixes
from ragistry.scorers.prompts import PROMPTS, Prompt, prompt_of
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.types import Document

from ..tiny import LANGUAGE_MODELS, LIMIT, tiny_language_model, tiny_model

DOCUMENTS = [Document(str(i), text) for i, text in enumerate(["a cat sat", "the poem has a line", "", "dog " * 9])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {kind: tiny_language_model(place, kind) for kind in LANGUAGE_MODELS}


@pytest.fixture(scope="module")
def llama(folders: dict[str, Path]) -> LanguageModel:
    return LanguageModel(folders["llama"], precision="fp32")


def changed(folder: Path, name: str, **fields: Any) -> None:
    """Fields of a JSON file set, or removed where they are None."""
    content = json.loads((folder / name).read_text(encoding="utf-8")) | fields
    content = {key: value for key, value in content.items() if value is not None}
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def test_prompts_by_name_and_by_text() -> None:
    assert prompt_of("plain") == Prompt("", "", ending=True)
    assert prompt_of("upr") == Prompt("Passage: ", ". Please write a question based on this passage.")
    assert set(PROMPTS) == {"plain", "upr", "llm-qlm", "llm-ql"}
    assert [name for name, prompt in PROMPTS.items() if prompt.ending] == ["plain", "llm-ql"]
    assert prompt_of("{document}") == Prompt() and prompt_of("a {document} {x}") == Prompt("a ", " {x}")
    for unknown in ("Upr", "", "no place", "{document} and {document}", "{Document}"):
        with pytest.raises(
            InvalidInput, match=r"not known .* \{document\} once; use one of plain, upr, llm-qlm, llm-ql"
        ):
            prompt_of(unknown)


def test_a_scorer_reads_nothing_until_it_is_asked() -> None:
    prompt = Prompt("Read: ", "!")
    scorer = QueryLikelihood(LanguageModel("/nowhere/at/all"), prompt=prompt)
    assert isinstance(scorer, Scorer) and scorer.prompt is prompt
    with pytest.raises(ModelNotFound, match="'/nowhere/at/all' does not exist"):
        scorer.score("cat", DOCUMENTS)


def test_what_a_scorer_cannot_be_is_refused(llama: LanguageModel, tmp_path: Path) -> None:
    make: Any = QueryLikelihood
    for wrong, said in (
        ({"reduce": "max"}, "reduce='max' is not known; use one of sum, mean"),
        ({"attention": "none"}, "attention='none' is not known; use one of full, stop"),
        ({"prompt": "x"}, "'x' is not known"),
        ({"document_tokens": 0}, "document_tokens=0 and query_tokens=64; both must be at least 1"),
        ({"query_tokens": -1}, "query_tokens=-1; both"),
    ):
        with pytest.raises(InvalidInput, match=said):
            make(llama, **wrong)
    for megabytes in (0, -1.0, float("nan")):
        with pytest.raises(InvalidInput, match="a positive number is needed"):
            Prefixes(tmp_path, megabytes=megabytes)
    scorer: Any = QueryLikelihood(llama, query_tokens=9)
    with pytest.raises(InvalidInput, match="the query is int; a str is needed"):
        scorer.score(3, DOCUMENTS)
    with pytest.raises(InvalidInput, match="the query"):
        scorer.score("\ud800", DOCUMENTS)


def test_a_model_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    with pytest.raises(
        Corrupt, match=r"lacks \d+ weights of a language model, 'cls\..*`ragistry.scorers.growing.grow`"
    ):
        LanguageModel(tiny_model(tmp_path)).model  # noqa: B018
    folder = tiny_language_model(tmp_path, "bert")
    both = BertConfig.from_pretrained(folder, is_decoder=False)
    BertLMHeadModel.from_pretrained(folder, config=both).save_pretrained(folder)
    with pytest.raises(
        InvalidInput, match=r"reads in both directions; give a causal .*`ragistry.scorers.growing.grow`"
    ):
        LanguageModel(folder).model  # noqa: B018


@pytest.mark.parametrize(("kind", "lost"), [("llama", "lm_head.weight"), ("t5", "encoder.final_layer_norm.weight")])
def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path, kind: str, lost: str) -> None:
    path = tiny_language_model(tmp_path, kind) / "model.safetensors"
    weights = load_file(path)
    save_file({name: weight for name, weight in weights.items() if name != lost}, path, {"format": "pt"})
    with pytest.raises(Corrupt, match=f"lacks 1 weights of a language model, '{lost}' for one"):
        LanguageModel(path.parent).model  # noqa: B018


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    folder = tiny_language_model(tmp_path, "llama")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(Corrupt, match="are damaged"):
        LanguageModel(folder).limit  # noqa: B018
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"holds no \*.safetensors"):
        LanguageModel(folder).fingerprint()
    (folder / "model.safetensors").write_bytes(whole)
    changed(folder, "config.json", model_type="vit")
    with pytest.raises(InvalidInput, match="cannot be loaded by transformers"):
        LanguageModel(folder).model  # noqa: B018
    changed(folder, "config.json", model_type="llama")
    (folder / "tokenizer.json").unlink()
    model = LanguageModel(folder)
    for _ in range(2):  # a load that failed is not half done
        with pytest.raises(InvalidInput, match="tokenizer"):
            model.tokens(["cat"], 3)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_cannot_be_stopped(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    model = LanguageModel(folders[kind])
    assert not model.causal
    for kept in (None, Prefixes(tmp_path)):
        with pytest.raises(
            InvalidInput, match=r"is an encoder-decoder, .* use a causal model, or do not stop attention"
        ):
            QueryLikelihood(model, attention="stop", kept=kept, query_tokens=9).score("cat", DOCUMENTS)


def test_special_tokens_limits_and_sizes(folders: dict[str, Path], llama: LanguageModel) -> None:
    found = {kind: LanguageModel(folder) for kind, folder in folders.items()}
    ends = {kind: (model.begin, model.end) for kind, model in found.items()}
    assert ends == {kind: {"llama": (0, 1), "gpt2": (None, 0)}.get(kind, (2, 3)) for kind in folders}
    assert {kind: model.limit for kind, model in found.items()} == dict.fromkeys(folders, LIMIT) | {"t5": 4096}
    assert [kind for kind, model in found.items() if model.spaced] == ["llama", "gpt2"]
    assert [kind for kind, model in found.items() if not model.causal] == ["t5", "bart"]
    assert all(model.vocabulary == model.model.config.vocab_size for model in found.values())
    assert llama.text(llama.tokens(["the cat 7é"], 99)[0]) == "the cat 7é"
    assert llama.text([0, *llama.tokens(["cat"], 9)[0], 1]) == "cat"


def test_what_configurations_say() -> None:
    def config(**fields: Any) -> Any:
        return SimpleNamespace(**{"model_type": "x"} | fields)

    assert limit_of(config()) == limit_of(config(max_position_embeddings=-1)) == 4096
    assert limit_of(config(n_positions=7, max_position_embeddings=9)) == 7
    assert limit_of(config(encoder=config(max_position_embeddings=5), decoder=config(n_positions=6))) == 5
    assert limit_of(config(model_type="t5", n_positions=512)) == 4096
    assert limit_of(config(model_type="xlm-roberta", pad_token_id=1, max_position_embeddings=514)) == 512
    assert start_of(config(decoder_start_token_id=0, bos_token_id=1)) == 0
    assert start_of(config(decoder_start_token_id=None, decoder=config(bos_token_id=4))) == 4
    assert start_of(config(decoder_start_token_id=None, bos_token_id=None, pad_token_id=2)) == 2
    with pytest.raises(InvalidInput, match="has no decoder_start_token_id"):
        start_of(config())


def test_where_a_space_is_a_part_of_words_is_seen_from_what_tokens_do(tmp_path: Path) -> None:
    """Whatever a tokenizer is made of: some put the space there themselves, and then a query needs none of ours."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    ids = {piece: number for number, piece in enumerate(["</s>", "▁", "a", "b", "▁a", "▁b"])}
    merges = [("▁", "a"), ("▁", "b")]
    before, marked = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    for number, (normalizer, split, spaced) in enumerate(
        (
            (normalizers.Sequence([before, marked]), None, False),  # Llama 2
            (marked, None, True),  # Gemma
            (None, pre_tokenizers.Metaspace(prepend_scheme="always"), False),  # T5
            (None, pre_tokenizers.Metaspace(prepend_scheme="never"), True),
        )
    ):
        folder = tiny_language_model(tmp_path / str(number), "llama")
        tokenizer = Tokenizer(models.BPE(ids, merges))
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if split is not None:
            tokenizer.pre_tokenizer = split
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}'
        )
        model = LanguageModel(folder)
        assert model.spaced == spaced
        assert QueryLikelihood(model).target("a b") == [ids["▁a"], ids["▁b"]]


def test_tokens_are_cut_and_never_padded(folders: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = tiny_language_model(tmp_path, "bert")
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    saved.enable_padding(length=20)
    saved.enable_truncation(1, direction="left")
    saved.save(str(folder / "tokenizer.json"))
    for model in (LanguageModel(folders["bert"]), LanguageModel(folder)):
        assert model.tokens(["the cat sat", "", "dog", " "], 2) == [[5, 9], [], [10], []]
        assert model.tokens(["the cat sat", "dog"], 0) == [[], []]
        assert model.tokens(["the cat sat"], 9) == [[5, 9, 11]] and model.tokens([], 3) == [] and not model.spaced


def test_tokens_of_many_threads_with_two_lengths(llama: LanguageModel) -> None:
    def cut(i: int) -> bool:
        return [len(ids) for ids in llama.tokens(["a cat sat on the mat"] * 20, 3 + i % 2)] == [3 + i % 2] * 20

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(cut, range(200)))


def test_fingerprints_are_of_model_and_precision(folders: dict[str, Path], tmp_path: Path) -> None:
    same = tiny_language_model(tmp_path, "llama")
    other = tiny_language_model(tmp_path, "llama", seed=1)
    marks = {
        "fp32": LanguageModel(folders["llama"], precision="fp32").fingerprint(),
        "bf16": LanguageModel(folders["llama"], precision="bf16").fingerprint(),
        "seed": LanguageModel(other, precision="fp32").fingerprint(),
        "kind": LanguageModel(folders["gpt2"], precision="fp32").fingerprint(),
    }
    assert len(set(marks.values())) == len(marks)
    assert LanguageModel(same, precision="fp32", threads=2).fingerprint() == marks["fp32"]
    assert LanguageModel(same).fingerprint() in (marks["fp32"], marks["bf16"])
    changed(same, "config.json", rms_norm_eps=1e-3)
    assert LanguageModel(same, precision="fp32").fingerprint() not in marks.values()


def test_many_threads_score_as_one(folders: dict[str, Path]) -> None:
    queries = ["the cat", "poem 7", "x", "a line on the mat", "dog", "sat", "é", "on"]
    for kind in ("llama", "t5"):
        scorer = QueryLikelihood(LanguageModel(folders[kind], precision="fp32", threads=2), query_tokens=9)
        with ThreadPoolExecutor(8) as pool:  # the first use of the model, by all of them
            found = list(pool.map(lambda query: scorer.score(query, DOCUMENTS), queries * 3))  # noqa: B023
        alone = QueryLikelihood(LanguageModel(folders[kind], precision="fp32", threads=1), query_tokens=9)
        wanted = [alone.score(query, DOCUMENTS) for query in queries * 3]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_bfloat16_is_near_float32(folders: dict[str, Path], kind: str) -> None:
    half, full = (LanguageModel(folders[kind], precision=precision) for precision in ("bf16", "fp32"))  # type: ignore[arg-type]
    prefixes = [[int(one) for one in np.random.default_rng(0).integers(4, 99, n)] for n in (40, 3, 20)]
    found, wanted = (model.log_likelihoods(model.read(prefixes), [9, 8, 7, 6]) for model in (half, full))
    assert found.dtype == np.float32 and half.model.dtype == torch.bfloat16
    assert 0 < np.abs(found - wanted).mean() < 0.1
    if kind == "llama":  # the angles of places are not rounded, or far places would be others
        assert half.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_weights_saved_in_half_are_read_in_full(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_language_model(tmp_path, "llama")
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    model = LanguageModel(folder, precision="fp32")
    assert {weight.dtype for weight in model.model.parameters()} == {torch.float32}
    assert not model.model.training


def test_a_folder_that_cannot_be_written_is_named(llama: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = Prefixes(tmp_path / "file")
    assert kept.get("a") is None
    with pytest.raises(StorageError, match="file"):
        QueryLikelihood(llama, kept=kept, query_tokens=9).score("cat", DOCUMENTS)


def test_what_does_not_fit_half_precision_is_its_largest(tmp_path: Path) -> None:
    kept = Prefixes(tmp_path)
    given = Prefix(torch.tensor([1e6, -1e6, 0.1]).reshape(1, 1, 1, 3, 1), torch.tensor([2.0]), 9)
    kept.put("a", given)
    found = kept.get("a")
    assert found is not None and found.length == 9 and found.bytes == 8
    assert found.states.flatten().tolist() == [65504, -65504, torch.tensor(0.1).half().item()]
    assert torch.equal(found.states, kept.rounded(given).states)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_no_damage_is_more_than_nothing_kept(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = Prefixes(tmp_path_factory.getbasetemp() / "damaged")
    kept.put("a", Prefix(torch.ones(1, 2, 1, 2, 2), torch.ones(2), 2))
    path = kept.path / "a.safetensors"
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    found = kept.get("a")
    assert found is None or isinstance(found, Prefix)
