"""Documents found by name, against a plain loop over transformers: every name's tokens after every query, one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Collection, Document, Hit, Ranking, create
from ragistry.errors import FingerprintMismatch, InvalidInput, UnknownName
from ragistry.evaluation.selection import select
from ragistry.recipes.genre import GENRERecipe
from ragistry.registry import recipe
from ragistry.retrievers.constrained import ConstrainedSearch
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.generative import EMPTY, Generative
from ragistry.retrievers.namer import Namer
from ragistry.scorers.growing import grown
from ragistry.scorers.language_model import LanguageModel
from ragistry.testing.checks import expect_same, reloaded, saved
from ragistry.types import Floats

from ..tiny import tiny_language_model, tiny_model

CLOSE = 1e-4
KINDS = ("bart", "t5", "llama", "grown")
QUERIES = ["the cat sat", "a poem", "", "fourteen line 7"]
TITLES = ["the cat", "the cat sat", "cat", "dog 7", "sonnet", "the sonnets", "poem, line", "a b c d", "mat 1", "mat 2"]
TITLED = [Document(f"d{i}", f"text {i}", title) for i, title in enumerate(TITLES)]
every_kind = pytest.mark.parametrize("kind", KINDS)
quick = settings(deadline=None, max_examples=10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    speakers = {kind: tiny_language_model(place, kind) for kind in KINDS if kind != "grown"}
    return speakers | {"grown": tiny_model(place)}


@pytest.fixture(scope="module")
def namers(folders: dict[str, Path]) -> dict[str, Namer]:
    return {kind: namer_of(folder) for kind, folder in folders.items()}


def namer_of(folder: Path, name_tokens: int = 20) -> Namer:
    model = LanguageModel(folder, precision="fp32", grow="seq2seq", threads=1)
    return Namer(model, query_tokens=40, name_tokens=name_tokens)


Said = Callable[[str, str, str], float]


@pytest.fixture(scope="module")
def said(folders: dict[str, Path]) -> Said:
    """The log-probability of a name and its end after a query, under transformers' own model and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    @cache
    def plain(kind: str) -> tuple[Any, Any]:
        if kind == "grown":
            return grown(folders[kind], "seq2seq"), AutoTokenizer.from_pretrained(folders[kind])
        auto = AutoModelForCausalLM if kind == "llama" else AutoModelForSeq2SeqLM
        return auto.from_pretrained(folders[kind]).eval(), AutoTokenizer.from_pretrained(folders[kind])

    @cache
    @torch.no_grad()
    def of(kind: str, query: str, name: str) -> float:
        model, tokenizer = plain(kind)
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        prompt = list(tokenizer.encode(query)) if query else list(tokenizer.encode(""))
        own = list(tokenizer.encode(name, add_special_tokens=False))
        if model.config.is_encoder_decoder:
            begun = torch.tensor([[model.config.decoder_start_token_id, *own]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=begun, use_cache=False).logits[0]
        else:
            prompt = [*prompt, end]
            logits = model(input_ids=torch.tensor([prompt + own]), use_cache=False).logits[0, len(prompt) - 1 :]
        target = [*own, end]
        return float(torch.log_softmax(logits.double(), -1)[range(len(target)), target].sum())

    return of


def holding(namer: Namer, documents: Sequence[Document], beams: int = 30, few: int = 0, **rest: Any) -> Generative:
    made = Generative(namer, beams=beams, few=few, **rest)
    made.add(documents)
    return made


def expected(said: Said, kind: str, query: str, names: Mapping[str, Iterable[str]], k: int | None = None) -> Ranking:
    """By brute force, from the names of each document."""
    scores = {id: np.logaddexp.reduce([said(kind, query, name) for name in set(own)]) for id, own in names.items()}
    return Ranking.of(list(scores), list(scores.values()), k)


def same(found: Sequence[Ranking], wanted: Sequence[Ranking]) -> None:
    expect_same(found, wanted, CLOSE, "against brute force")


@every_kind
@pytest.mark.parametrize("few", [0, 64])
def test_with_a_beam_for_every_name_it_ranks_by_the_models_own_probability(
    kind: str, few: int, namers: dict[str, Namer], said: Said
) -> None:
    retriever = holding(namers[kind], TITLED, beams=len(TITLED), few=few)
    whole = [expected(said, kind, query, {d.id: [d.title] for d in TITLED}) for query in QUERIES]
    same(retriever.search(QUERIES, 100), whole)
    for k in (1, 3, 10):
        same(retriever.search(QUERIES, k), [ranking.head(k) for ranking in whole])
    assert max(abs(r.scores).max() for r in whole) > 5, "the probabilities are far from even"


@pytest.mark.parametrize("few", [0, 64])
@pytest.mark.parametrize("penalty", [0.5, 1.0])
def test_the_length_of_names_divides_what_they_score(
    few: int, penalty: float, namers: dict[str, Namer], said: Said
) -> None:
    retriever = holding(namers["bart"], TITLED, few=few, length_penalty=penalty)
    for query, found in zip(QUERIES, retriever.search(QUERIES, 100), strict=True):
        lengths = {d.id: len(retriever.namer.names([d.title])[0]) + 1 for d in TITLED}
        scores = [said("bart", query, d.title) / lengths[d.id] ** penalty for d in TITLED]
        same([found], [Ranking.of([d.id for d in TITLED], scores)])
    other = holding(namers["bart"], TITLED, few=few)
    same(other.penalised(penalty).search(QUERIES), retriever.search(QUERIES))
    same(other.search(QUERIES), holding(namers["bart"], TITLED).search(QUERIES))


@every_kind
@pytest.mark.parametrize("beams", [1, 3])
def test_few_beams_find_names_that_exist_with_the_scores_they_have(
    kind: str, beams: int, namers: dict[str, Namer], said: Said
) -> None:
    retriever = holding(namers[kind], TITLED, beams=beams)
    for query, found in zip(QUERIES, retriever.search(QUERIES, beams), strict=True):
        exact = dict(expected(said, kind, query, {d.id: [d.title] for d in TITLED}))
        assert 1 <= len(found) <= beams
        assert all(abs(exact[id] - score) < CLOSE for id, score in found)
    for k in range(1, beams + 1):
        same(retriever.search(QUERIES, k), [ranking.head(k) for ranking in retriever.search(QUERIES, beams)])


@every_kind
def test_a_new_name_changes_no_others_score(kind: str, namers: dict[str, Namer]) -> None:
    retriever = holding(namers[kind], TITLED)
    before = [dict(ranking) for ranking in retriever.search(QUERIES, 100)]
    retriever.add([Document("new", "", "the cat sat on"), Document("newer", "", "zebra"), Document("same", "", "cat")])
    for old, found in zip(before, retriever.search(QUERIES, 100), strict=True):
        assert old.keys() | {"new", "newer", "same"} == set(found.ids)
        assert all(abs(old[id] - score) < CLOSE for id, score in found if id in old)


@every_kind
@pytest.mark.parametrize("few", [0, 64])
def test_all_names_of_a_document_count(kind: str, few: int, namers: dict[str, Namer], said: Said) -> None:
    several = {"one": ["cat", "dog", "the dog"], "two": ["a poem", "cat"], "three": ["sonnet", "sonnet", " sonnet "]}
    documents = [Document(id, "", own[0], {"aliases": own[1:]}) for id, own in several.items()]
    documents.append(Document("four", "line", "", {"aliases": "mat"}))
    retriever = holding(namers[kind], documents, few=few)
    names = {id: [name.strip() for name in own] for id, own in several.items()} | {"four": ["line", "mat"]}
    for query, found in zip(QUERIES, retriever.search(QUERIES), strict=True):
        same([found], [expected(said, kind, query, names)])
        for id, score in found:
            assert score >= max(said(kind, query, name) for name in names[id]) - CLOSE
    assert len(retriever) == 4
    assert len(retriever.names) == 8, "names that are the same count once"


def test_names_are_read_from_the_field_that_is_named(namers: dict[str, Namer], said: Said) -> None:
    document = Document("1", "", "cat", {"aliases": ["dog"], "also": ("mat",), "none": []})
    for field, names in {
        "also": ["cat", "mat"],
        "none": ["cat"],
        "missing": ["cat"],
        "aliases": ["cat", "dog"],
    }.items():
        found = holding(namers["bart"], [document], aliases=field).search(["the"])
        same(found, [expected(said, "bart", "the", {"1": names})])


@pytest.mark.parametrize("bad", [3, {"cat": 1}, ["cat", 3], ["cat", None], [["cat"]], "\ud800", ["\ud800"]])
def test_aliases_that_are_no_texts_are_refused(bad: Any, namers: dict[str, Namer]) -> None:
    retriever = holding(namers["bart"], TITLED)
    before = retriever.search(QUERIES)
    with pytest.raises(InvalidInput, match=r"document 'd1'.*'aliases'"):
        retriever.add([Document("new", "cat"), Document("d1", "cat", metadata={"aliases": bad})])
    assert retriever.search(QUERIES) == before
    assert len(retriever) == len(TITLED)


@every_kind
@pytest.mark.parametrize("few", [0, 64])
def test_documents_with_one_name_are_all_found(kind: str, few: int, namers: dict[str, Namer], said: Said) -> None:
    colliding = {"b": "the  cat", "a": " the cat", "d": "the\ncat", "c": "dog", "e": "the cat"}
    retriever = holding(namers[kind], [Document(id, "x", title) for id, title in colliding.items()], few=few)
    names = {id: [" ".join(title.split())] for id, title in colliding.items()}
    for query, found in zip(QUERIES, retriever.search(QUERIES), strict=True):
        same([found], [expected(said, kind, query, names)])
        assert [id for id in found.ids if id != "c"] == ["a", "b", "d", "e"]
    assert [len(found) for found in retriever.search(QUERIES, 3)] == [3] * len(QUERIES)


@every_kind
def test_a_document_without_a_title_is_named_by_its_text(kind: str, namers: dict[str, Namer], said: Said) -> None:
    documents = [Document("1", "the cat sat"), Document("2", "dog", title=" \n"), Document("3", "x", title="mat")]
    found = holding(namers[kind], documents).search(QUERIES)
    names = {"1": ["the cat sat"], "2": ["dog"], "3": ["mat"]}
    same(found, [expected(said, kind, query, names) for query in QUERIES])


@every_kind
@pytest.mark.parametrize("few", [0, 3, 64])
def test_among_is_a_collection_of_those_alone(kind: str, few: int, namers: dict[str, Namer]) -> None:
    retriever = holding(namers[kind], TITLED, few=few)
    for some in (["d1"], ["d3", "d1", "nowhere", "d3"], [d.id for d in TITLED[::2]], {d.id for d in TITLED[3:]}):
        alone = holding(namers[kind], [d for d in TITLED if d.id in some], few=few)
        for k in (1, 2, 100):
            same(retriever.search(QUERIES, k, among=some), alone.search(QUERIES, k))
    for nothing in ([], set[str](), ["nowhere"]):
        assert [len(found) for found in retriever.search(QUERIES, among=nothing)] == [0] * len(QUERIES)


@pytest.mark.parametrize("few", [0, 64])
def test_names_are_cut(few: int, folders: dict[str, Path], said: Said) -> None:
    long = "cat dog poem line sat mat"
    titles = {"1": long, "2": f"{long} on a mat", "3": f"{long} " * 2000, "4": "cat dog poem"}
    retriever = holding(namer_of(folders["bart"], 6), [Document(id, "", t) for id, t in titles.items()], few=few)
    assert retriever.names.depth == 7
    for query, found in zip(QUERIES, retriever.search(QUERIES), strict=True):
        same([found], [expected(said, "bart", query, {"1": [long], "2": [long], "3": [long], "4": ["cat dog poem"]})])


def test_what_the_model_cannot_read_is_refused(folders: dict[str, Path]) -> None:
    for kind, query_tokens, name_tokens in (("bart", 97, 1), ("bart", 1, 95), ("llama", 60, 37), ("grown", 65, 8)):
        model = LanguageModel(folders[kind], precision="fp32", grow="seq2seq")
        retriever = Generative(Namer(model, query_tokens=query_tokens, name_tokens=name_tokens))
        with pytest.raises(InvalidInput, match=f"query_tokens={query_tokens}"):
            retriever.add([Document("1", "cat")])
        assert len(retriever) == 0
    for kind, query_tokens, name_tokens in (("bart", 96, 94), ("llama", 60, 36), ("grown", 64, 62)):
        model = LanguageModel(folders[kind], precision="fp32", grow="seq2seq")
        namer = Namer(model, query_tokens=query_tokens, name_tokens=name_tokens)
        for few in (0, 64):
            found = holding(namer, [Document("1", "cat " * 200), Document("2", "cat")], few=few).search(["dog " * 200])
            assert set(found[0].ids) == {"1", "2"}


@every_kind
def test_documents_without_a_name_are_kept_and_not_found(kind: str, namers: dict[str, Namer]) -> None:
    special = "</s>" if kind == "llama" else "[SEP] [CLS]"
    nameless = [Document("empty", ""), Document("blank", " \n\t"), Document("control", "x", "\0\x1b\x9f")]
    nameless.append(Document("special", special))
    retriever = holding(namers[kind], nameless)
    assert len(retriever) == 4
    assert [len(found) for found in retriever.search(QUERIES)] == [0] * len(QUERIES)
    retriever.add(TITLED)
    same(retriever.search(QUERIES, 100), holding(namers[kind], TITLED).search(QUERIES, 100))
    retriever.add([Document("control", "cat\0dog")])
    alone = retriever.search(QUERIES, 100, among=["control", "empty"])
    same(alone, holding(namers[kind], [Document("control", "cat dog")]).search(QUERIES, 100))
    retriever.remove(["empty", "control"])
    assert len(retriever) == 2 + len(TITLED)
    with reloaded(retriever, Generative(namers[kind], beams=30, few=0)) as loaded:
        assert len(loaded) == 2 + len(TITLED)
        assert loaded.ids(loaded.numbers(["special", "blank"])) == ["blank", "special"]


@every_kind
@pytest.mark.parametrize("few", [0, 64])
def test_one_name_and_fewer_names_than_beams(kind: str, few: int, namers: dict[str, Namer], said: Said) -> None:
    for count in (1, 2, 3):
        retriever = holding(namers[kind], TITLED[:count], beams=50, few=few)
        names = {d.id: [d.title] for d in TITLED[:count]}
        same(retriever.search(QUERIES), [expected(said, kind, query, names) for query in QUERIES])


def test_a_decoder_that_must_begin_with_a_token(namers: dict[str, Namer], tmp_path: Path) -> None:
    folder = tiny_language_model(tmp_path, "bart", seed=3)
    begin = {"decoder_start_token_id": 3, "forced_bos_token_id": 2, "eos_token_id": 3}
    (folder / "generation_config.json").write_text(json.dumps(begin), encoding="utf-8")
    namer = namer_of(folder)
    model, own = namer.model.model, namer.names(["the cat"])[0]
    prompts = torch.tensor(namer.prompts(["dog"]))
    with torch.no_grad():
        logits = model(input_ids=prompts, decoder_input_ids=torch.tensor([[3, 2, *own]])).logits[0, 1:]
    wanted = float(torch.log_softmax(logits, -1)[range(len(own) + 1), [*own, 3]].sum())
    for few in (0, 64):
        found = holding(namer, [Document("1", "the cat"), Document("2", "dog")], few=few).search(["dog"])[0]
        assert abs(dict(found)["1"] - wanted) < CLOSE


Step = tuple[str, list[tuple[int, str, list[str]]]]
words = st.lists(st.sampled_from(["the", "cat", "dog", "7"]), max_size=3).map(" ".join)
documents = st.lists(
    st.tuples(st.integers(0, 5), words, st.lists(words, max_size=2)), max_size=4, unique_by=lambda row: row[0]
)
steps = st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "save"]), documents), min_size=1, max_size=6)


@pytest.mark.parametrize(("kind", "few"), [("bart", 0), ("llama", 0), ("llama", 64), ("grown", 64)])
@quick
@given(steps, st.sets(st.integers(0, 6)))
def test_after_any_changes_it_ranks_what_is_there(
    kind: str, few: int, namers: dict[str, Namer], said: Said, changes: list[Step], some: set[int]
) -> None:
    retriever, held = Generative(namers[kind], beams=100, few=few), dict[str, set[str]]()
    for action, rows in changes:
        if action == "add":
            retriever.add([Document(str(i), text, "", {"aliases": own}) for i, text, own in rows])
            held |= {str(i): {text, *own} - {""} for i, text, own in rows}
        elif action == "remove":
            retriever.remove(str(i) for i, *_ in rows)
            held = {id: names for id, names in held.items() if id not in {str(i) for i, *_ in rows}}
        else:
            with reloaded(retriever, Generative(namers[kind], beams=100, few=few)) as loaded:
                assert saved(loaded) == saved(retriever)
                retriever = loaded.fork()
    assert len(retriever) == len(held)
    among = {str(i) for i in some}
    for query in QUERIES[:2]:
        named = {id: names for id, names in held.items() if names}
        same(retriever.search([query], 100), [expected(said, kind, query, named)])
        here = {id: names for id, names in named.items() if id in among}
        same(retriever.search([query], 100, among=among), [expected(said, kind, query, here)])
    assert set(retriever.ids(retriever.numbers(held))) == held.keys()


def test_a_query_asked_twice_is_answered_once(namers: dict[str, Namer], monkeypatch: pytest.MonkeyPatch) -> None:
    retriever, asked = holding(namers["bart"], TITLED), list[int]()
    plain = ConstrainedSearch.search

    def counted(self: ConstrainedSearch, prompts: Any, *rest: Any) -> Any:
        asked.append(len(prompts))
        return plain(self, prompts, *rest)

    monkeypatch.setattr(ConstrainedSearch, "search", counted)
    found = retriever.search(["cat", "dog", "cat", "cat"])
    assert asked == [2]
    assert found[0] == found[2] == found[3] != found[1]
    retriever.search(["cat"], 0)
    retriever.search(["cat"], among=["nowhere"])
    assert asked == [2], "what cannot be found is not looked for"


def test_more_than_there_are_beams(namers: dict[str, Namer]) -> None:
    retriever = holding(namers["bart"], TITLED, beams=2, few=3)
    assert all(len(found) == 3 for found in retriever.search(QUERIES, 3, among=["d1", "d2", "d3"])), "few are scored"
    lengths = [len(found) for found in retriever.search(QUERIES, 100)]
    assert all(2 <= length <= 10 for length in lengths)


def test_how_many_are_wanted_changes_no_score(namers: dict[str, Namer], said: Said) -> None:
    names = {str(i): [f"{a} {b}" for b in ("cat", "dog", "mat", "poem")] for i, a in enumerate("abcdef")}
    documents = [Document(id, "", own[0], {"aliases": own[1:]}) for id, own in names.items()]
    whole = [expected(said, "bart", query, names) for query in QUERIES]
    for k in (1, 2, 6):
        found = holding(namers["bart"], documents, beams=1, few=64).search(QUERIES, k)
        same(found, [ranking.head(k) for ranking in whole])
    retriever = holding(namers["bart"], documents, beams=8)
    most = retriever.search(QUERIES, 8)
    for k in range(1, 8):
        same(retriever.search(QUERIES, k), [ranking.head(k) for ranking in most])


@pytest.mark.parametrize("bad", ["\ud800", "cat \udfff"])
def test_a_query_that_no_tokenizer_reads_is_refused(bad: str, namers: dict[str, Namer]) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        holding(namers["bart"], TITLED).search(["cat", bad])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beams": 0}, "beams=0"),
        ({"few": -1}, "few=-1"),
        ({"batch": 0}, "batch=0"),
        ({"length_penalty": -1}, "length_p"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    setting: dict[str, Any], message: str, namers: dict[str, Namer]
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Generative(namers["bart"], **setting)
    with pytest.raises(InvalidInput, match="length_penalty=nan"):
        Generative(namers["bart"]).penalised(math.nan)


def test_numbers_and_ids(namers: dict[str, Namer]) -> None:
    retriever = holding(namers["bart"], TITLED)
    numbers = retriever.numbers(["d4", "nowhere", "d2"])
    assert retriever.ids(numbers) == ["d2", "d4"]
    assert retriever.ids(numbers[::-1]) == ["d4", "d2"]
    assert retriever.ids([]) == []
    assert retriever.names.among(numbers).children([0]).tokens.tolist() == sorted(
        {ids[0] for ids in retriever.namer.names([TITLES[2], TITLES[4]])}
    )
    before, twin = retriever.names, retriever.fork()
    twin.add([Document("new", "cat"), TITLED[0]])
    assert retriever.names is before
    retriever.add([TITLED[2]])
    retriever.remove(["d4"])
    assert (len(before), len(retriever.names), len(twin.names)) == (10, 9, 11), "what a search may read is not changed"
    for gone in (*numbers.tolist(), 99, -1):
        with pytest.raises(UnknownName, match=f"number {gone}"):
            retriever.ids([0, gone])
    assert retriever.ids(retriever.numbers(["d2", "d4"])) == ["d2"]
    retriever.add([Document(f"more {i}", "cat") for i in range(6)])  # so many that they are merged with those before
    assert retriever.numbers(["d3", "d2", "d4", "more 0", "more 5"]).tolist() == [3, 10, 11, 16]
    assert retriever.ids([16, 3, 10, 11]) == ["more 5", "d3", "d2", "more 0"]
    with pytest.raises(InvalidInput, match="give a list"):
        retriever.numbers("d2")


@pytest.fixture(scope="module")
def others(folders: dict[str, Path]) -> dict[str, Floats]:
    """Other values for the weights of the bart model: another random model's."""
    from safetensors.numpy import load_file

    other = load_file(tiny_language_model(folders["bart"].parent, "bart", seed=1) / "model.safetensors")
    return {name: value for name, value in other.items() if "layers" in name}


def test_tuned_weights_change_the_model_and_not_the_names(
    namers: dict[str, Namer], others: dict[str, Floats], folders: dict[str, Path]
) -> None:
    retriever = holding(namers["bart"], TITLED)
    before = retriever.search(QUERIES, 100)
    tuned = retriever.tuned(others)
    found = tuned.search(QUERIES, 100)
    assert [r.ids for r in found] != [r.ids for r in before]
    assert tuned.names is retriever.names
    assert tuned.weights == others
    assert not retriever.weights
    assert retriever.search(QUERIES, 100) == before
    whole = namer_of(folders["bart"])
    whole.model = whole.model.tuned(others)
    same(found, holding(whole, TITLED).search(QUERIES, 100))
    assert saved(tuned) == saved(tuned) != saved(retriever)
    with reloaded(tuned, Generative(namers["bart"], beams=30, few=0)) as loaded:
        same(loaded.search(QUERIES, 100), found)
        assert saved(loaded) == saved(tuned)
        with reloaded(retriever, loaded.fork()) as back:
            same(back.search(QUERIES, 100), before)
            assert not back.weights
        same(loaded.search(QUERIES, 100), found)
    same(tuned.tuned({}).search(QUERIES, 100), before)


def test_loading_the_same_weights_keeps_the_model(namers: dict[str, Namer], others: dict[str, Floats]) -> None:
    tuned = holding(namers["bart"], TITLED).tuned(others)
    expected = tuned.search(QUERIES)
    model = tuned.namer.model.model
    for one in (tuned, holding(namers["bart"], TITLED)):
        saved(one)
        with reloaded(one, one.fork()) as loaded:
            assert loaded.namer is one.namer
            with reloaded(one, loaded.fork()) as again:
                assert again.namer is one.namer
    assert tuned.namer.model.model is model
    plain = holding(namers["bart"], TITLED)
    with reloaded(plain, plain.tuned(others)) as untuned:
        assert not untuned.weights
    with reloaded(tuned.tuned({name: value + 1 for name, value in others.items()}), tuned.fork()) as changed:
        assert changed.namer is not tuned.namer
        assert changed.search(QUERIES) != expected
    with reloaded(Generative(namers["bart"]), tuned.fork()) as emptied:
        assert not emptied.weights
    assert tuned.search(QUERIES) == expected


class Unread(LanguageModel):
    """A model that must not be loaded."""

    def _loaded(self) -> Any:
        raise AssertionError("loaded")


def test_opening_loads_no_model(namers: dict[str, Namer], others: dict[str, Floats]) -> None:
    for one in (
        holding(namers["bart"], TITLED),
        holding(namers["bart"], TITLED).tuned(others),
        Generative(namers["bart"]),
    ):
        before = saved(one)
        fresh = Generative(Namer(Unread(namers["bart"].model.name), query_tokens=40, name_tokens=20))
        with reloaded(one, fresh) as loaded:
            assert saved(loaded.fork()) == before
            assert loaded.search(QUERIES, 0) == loaded.search(QUERIES, among=[]) == [EMPTY] * 4
            loaded.remove(["d1", "d2"])
            assert len(loaded) == max(0, len(one) - 2)


def test_names_of_another_tokenizer_or_length_are_refused(folders: dict[str, Path], namers: dict[str, Namer]) -> None:
    retriever = holding(namers["bart"], TITLED)
    for other in (namer_of(folders["llama"]), namer_of(folders["bart"], 19)):
        with reloaded(retriever, Generative(other, beams=30, few=0)) as loaded:
            for use in (lambda: loaded.search(["cat"]), lambda: loaded.add([Document("new", "cat")])):
                with pytest.raises(FingerprintMismatch, match=r"name_tokens.*or add the documents again"):
                    use()
            assert saved(loaded) == saved(retriever)
            loaded.remove(d.id for d in TITLED)
            loaded.add(TITLED)
            same(loaded.search(QUERIES), holding(other, TITLED).search(QUERIES))
        with reloaded(Generative(namers["bart"]), Generative(other, beams=30, few=0)) as loaded:
            loaded.add(TITLED)
            assert len(loaded.search(["cat"])[0]) == 10
    twin = tiny_language_model(folders["bart"].parent, "bart", seed=2)
    with reloaded(retriever, Generative(namer_of(twin), beams=30, few=0)) as loaded:
        assert len(loaded.search(["cat"])[0]) == 10, "other weights are no other names"


def test_a_fusion_with_words(namers: dict[str, Namer]) -> None:
    fused = Fuse({"names": Generative(namers["llama"], beams=30), "words": create("bm25")}, weights={"names": 0.5})
    fused.add(TITLED)
    found = fused.search(QUERIES, 100)
    assert all(set(ranking.ids) == {d.id for d in TITLED} for ranking in found)
    alone = Fuse({"names": Generative(namers["llama"], beams=30), "words": create("bm25")}, weights={"words": 0.0})
    alone.add(TITLED)
    plain = holding(namers["llama"], TITLED)
    assert [r.ids for r in alone.search(QUERIES, 100)] == [r.ids for r in plain.search(QUERIES, 100)]
    with reloaded(fused, fused.fork()) as loaded:
        assert loaded.search(QUERIES, 100) == found


def ranked(hits: Sequence[Hit]) -> Ranking:
    return Ranking(tuple(hit.id for hit in hits), np.array([hit.score for hit in hits], np.float32))


@pytest.mark.parametrize("kind", ["bart", "llama", "grown"])
def test_in_a_collection(kind: str, folders: dict[str, Path], said: Said, tmp_path: Path) -> None:
    made = create("genre", model=str(folders[kind]), query_tokens=40, name_tokens=20)
    with Collection.create(tmp_path / "docs", made) as docs:
        docs.add(Document(d.id, d.text, d.title, {"even": i % 2 == 0}) for i, d in enumerate(TITLED))
        docs.add([Document("more", "", "cat", {"aliases": ["dog", "a poem"], "even": True}), Document("empty", "")])
        names = {d.id: [d.title] for d in TITLED} | {"more": ["cat", "dog", "a poem"]}
        wanted = [expected(said, kind, query, names) for query in QUERIES]
        found = docs.search_many(QUERIES, 100)
    with Collection.open(tmp_path / "docs") as docs:
        assert docs.search_many(QUERIES, 100) == found
        same([ranked(hits) for hits in found], wanted)
        odd = [hit for hit in docs.search("cat", k=100) if not hit.metadata.get("even", True)]
        same([ranked(docs.search("cat", where={"even": False}, k=100))], [ranked(odd)])
        with pytest.raises(InvalidInput, match="document 'bad'"):
            docs.add([Document("fine", "cat"), Document("bad", "dog", metadata={"aliases": {"no": "texts"}})])
        docs.remove(["more", "d2"])
        assert len(docs) == len(docs.search("cat", k=100)) + 1 == 10
        docs.check()


def test_another_process_that_commits_leaves_the_model_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("genre", model=str(folders["bart"]), query_tokens=40)) as docs:
        docs.add(TITLED)
    with Collection.open(tmp_path / "docs") as docs, Collection.open(tmp_path / "docs") as elsewhere:
        docs.search("cat")
        before: Any = docs.retriever()
        elsewhere.add(Document("new", "", "the cat"))
        assert "new" in {hit.id for hit in docs.search("cat", k=100)}
        after: Any = docs.retriever()
        assert after is not before
        assert after.namer is before.namer


def test_other_length_penalties_are_tried(folders: dict[str, Path]) -> None:
    made: Any = create("genre", model=str(folders["bart"]), query_tokens=40, length_penalty=0.5)
    made.add(TITLED)
    variants = list(made.recipe.variants(made))
    assert [r.length_penalty for r, _ in variants] == [v.length_penalty for _, v in variants] == [0.0, 1.0]
    for other, variant in variants:
        built: Any = create(other)
        built.add(TITLED)
        assert built.search(QUERIES) == variant.search(QUERIES)
        assert variant.names is made.names
    judged = {f"about {d.title} {i}": {d.id: 1} for d in TITLED for i in range(2)}
    fit = select(judged, 0, made.recipe, made)
    assert fit.candidates == 2
    assert made.length_penalty == 0.5


def test_the_recipe_says_what_it_takes(folders: dict[str, Path]) -> None:
    default = recipe("genre")
    assert isinstance(default, GENRERecipe)
    assert (default.model, default.beams, default.query_tokens, default.name_tokens) == (
        "all-MiniLM-L6-v2",
        10,
        128,
        32,
    )
    made: Any = create(
        "genre", model=str(folders["llama"]), prompt="{query} =", beams=3, few=0, length_penalty=1, aliases="also",
        query_tokens=30, name_tokens=7, precision="bf16",
    )  # fmt: skip
    assert (made.beams, made.few, made.length_penalty, made.aliases) == (3, 0, 1.0, "also")
    assert (made.namer.prompt, made.namer.query_tokens, made.namer.name_tokens) == ("{query} =", 30, 7)
    assert made.namer.model.model.dtype == torch.bfloat16
    for field, value in {"beams": 0, "few": -1, "length_penalty": -1, "name_tokens": 0, "precision": "fp8"}.items():
        with pytest.raises(InvalidInput, match=field):
            create("genre", **{field: value})
    with pytest.raises(InvalidInput, match=r"\{query\}"):
        create("genre", prompt="no place")


@pytest.mark.parametrize("kind", ["alone", "hybrid", "reranked"])
def test_names_that_were_changed_are_changed_in_a_collection(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    genre = {"name": "genre", "model": str(folders["t5"]), "query_tokens": 40, "name_tokens": 20}
    spec = {
        "alone": genre,
        "hybrid": {"name": "hybrid", "members": {"names": genre, "words": "bm25"}, "weights": {"words": 0.0}},
        "reranked": {
            "name": "ql-rerank",
            "model": str(folders["t5"]),
            "first": genre,
            "weight": 0.0,
            "query_tokens": 20,
        },
    }[kind]
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add([Document("1", "a", "the cat"), Document("2", "a", "dog", {"aliases": ["mat"]})])
        before = {hit.id: hit.score for hit in docs.search("poem")}
        docs.add([Document("2", "a", "dog", {"aliases": ["sonnet"]})])
        changed = {hit.id: hit.score for hit in docs.search("poem")}
        docs.add([Document("2", "a", "dog", {"aliases": ["mat"]})])
        again = {hit.id: hit.score for hit in docs.search("poem")}
    assert before["1"] == pytest.approx(changed["1"], abs=CLOSE)
    assert abs(before["2"] - changed["2"]) > 10 * CLOSE
    assert before["2"] == pytest.approx(again["2"], abs=CLOSE)
