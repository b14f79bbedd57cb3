"""Teaching names: the pairs that are made, the loss, and a collection that learns what its documents are called."""

from __future__ import annotations

import random
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from ragistry import Collection, Document, create
from ragistry.errors import InvalidInput
from ragistry.retrievers.generative import Generative
from ragistry.retrievers.linking import Linker
from ragistry.retrievers.markup import Markup
from ragistry.retrievers.namer import Marked, Namer
from ragistry.scorers.growing import grown, speaks
from ragistry.scorers.language_model import LanguageModel
from ragistry.scorers.likelihood import caching
from ragistry.training.live import Tokens, changed
from ragistry.training.losses import Batch
from ragistry.training.losses.likelihood import Likelihood
from ragistry.training.name_pairs import Linked, Pair, copies, forms_of, linked, mentions, passages
from ragistry.training.naming import Naming, learn, lessons, names_of, said, stages, written
from ragistry.training.speaking import Speaking

from ..tiny import tiny_language_model, tiny_model

DRAW = random.Random(3)
SUBJECTS = ("sonnet", "poem", "line", "cat", "dog", "mat", "fourteen", "has")
NAMES = ("a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8")
NAMED = [Document(f"d{i}", "", name) for i, name in enumerate(NAMES)]


def asked(subject: str) -> str:
    """A query in which only one word matters."""
    return f"{DRAW.choice(string.ascii_lowercase)} {subject} {DRAW.choice(string.ascii_lowercase)}"


GIVEN = [(asked(subject), f"d{i}") for _ in range(9) for i, subject in enumerate(SUBJECTS)]
FAST = {"copies": 0, "made": 0, "epochs": 40, "learning_rate": 1e-2, "encoder_rate": 1.0, "size": 24}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {kind: tiny_language_model(place, kind) for kind in ("t5", "bart", "llama")} | {"bert": tiny_model(place)}


@pytest.fixture(scope="module")
def namer(folders: dict[str, Path]) -> Namer:
    model = LanguageModel(folders["bert"], precision="fp32", grow="seq2seq", layers=1, threads=1)
    return Namer(model, query_tokens=24, name_tokens=8)


def test_forms() -> None:
    assert forms_of("Springfield, Ohio") == ["Ohio", "Springfield", "Springfield, Ohios"]
    assert forms_of("Springfield, Ohio", telling=False) == ["Springfield", "Springfield, Ohios"]
    assert forms_of("(x)") == ["(x)s"]
    assert forms_of("json.dumps") == ["dumps", "json dumps"]


@given(st.lists(st.text(min_size=1), max_size=8), st.integers(1, 30), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_copies_are_forms_of_names(names: list[str], pairs: int, seed: int, marked: bool) -> None:
    found = copies(names, pairs=pairs, marked=marked, seed=seed)
    assert len(found) == (pairs if names else 0)
    assert found == copies(names, pairs=pairs, marked=marked, seed=seed)
    for query, name in found:
        ways = [name, *forms_of(name)]
        assert name in names
        assert query in ([Marked("", way, "").query for way in ways] if marked else ways)


def test_copies_are_mostly_the_names_themselves() -> None:
    names = [f"The house {i} (play)" for i in range(30)]
    found = copies(names, pairs=3000)
    same = np.mean([query == name for query, name in found])
    assert 0.62 < same < 0.71
    assert all(query not in {"house"} for query, _ in found)


def test_a_last_word_that_many_names_share_stands_for_none() -> None:
    shared = copies([f"w{i} county" for i in range(21)], pairs=800)
    assert "county" not in {query for query, _ in shared}
    own = copies([f"w{i} county" for i in range(20)], pairs=800)
    assert "county" in {query for query, _ in own}


def test_passages_are_words_of_the_text() -> None:
    words = [f"w{i}" for i in range(100)]
    documents = [
        Document("1", " ".join(words), "long"),
        Document("2", "short text", "short"),
        Document("3", "untitled"),
    ]
    found = passages([*documents, Document("4", "", "empty")], pairs=3)
    assert {name for _, name in found} == {"long", "short"}
    assert Pair("short text", "short") in found
    assert Pair(" ".join(words[:24]), "long") in found
    other = next(query for query, name in found if name == "long" and not query.startswith("w0 "))
    assert other in " ".join(words)
    assert len(passages(documents, pairs=1)) == 1


def test_mentions_are_names_of_other_documents() -> None:
    documents = [
        Document("1", "A poem about the Sonnet.", "Haiku"),
        Document("2", "the sonnet form of verse, sonnet", "Sonnet form"),
        Document("3", "Fourteen lines, not a haiku; see Sonnet Form!", "Sonnet"),
    ]
    found = mentions(documents, pairs=10)
    assert sorted(found) == [
        Pair("A poem about the [START_ENT] Sonnet [END_ENT] .", "Sonnet"),
        Pair("Fourteen lines, not a [START_ENT] haiku [END_ENT] ; see Sonnet Form!", "Haiku"),
        Pair("Fourteen lines, not a haiku; see [START_ENT] Sonnet Form [END_ENT] !", "Sonnet form"),
        Pair("the sonnet form of verse, [START_ENT] sonnet [END_ENT]", "Sonnet"),
    ]
    assert len(mentions(documents, pairs=2)) == 2


def test_sentences_are_linked_where_they_name_others() -> None:
    documents = [
        Document("1", "A poem about the Sonnet. It is short!  See haiku and SONNETS.", "Haiku"),
        Document("2", "Lines.", "Sonnet"),
    ]
    found = linked(documents, texts=10)
    assert sorted(text for text, _ in found) == [
        "A poem about the Sonnet. ",
        "It is short!  ",
        "Lines.",
        "See haiku and SONNETS.",
    ]
    assert [spans for _, spans in found if spans] == [[(17, 23, "Sonnet")]]
    assert len(linked(documents, texts=2)) == 2


def test_a_model_learns_to_link(folders: dict[str, Path]) -> None:
    model = LanguageModel(folders["bert"], precision="fp32", grow="seq2seq", layers=1, threads=1)
    retriever = Generative(Namer(model, query_tokens=24, name_tokens=8))
    retriever.add(NAMED)
    texts = list[Linked]()
    for i in range(160):
        subject = i % 4
        before, after = DRAW.choice(("a", "the", "on")), DRAW.choice(("sat", "line", "has"))
        text = f"{before} {SUBJECTS[subject]} {after}"
        spans = [] if subject == 2 else [(len(before) + 1, len(before) + 1 + len(SUBJECTS[subject]), NAMES[subject])]
        texts.append((text, spans))
    module = Speaking(model.model, rounds=False)
    before = {name: value.clone() for name, value in module.language.state_dict().items()}
    spoken = written(Markup(retriever.namer), texts)
    learn(module, spoken, Naming(encoder=1.0, size=20, smoothing=0.0), epochs=40, rate=5e-3)
    taught = retriever.tuned(changed(module.language, before))
    linker = Linker(taught)
    for text, spans in texts[:12]:
        links = linker.link(text)
        assert [(link.start, link.end, taught.ids(taught.numbers(link.ids))) for link in links] == [
            (start, end, [f"d{NAMES.index(name)}"]) for start, end, name in spans
        ]


def test_names_of_a_document() -> None:
    assert names_of(Document("1", "a b c d e f g h"), "aliases") == ["a b c d e f"]
    named = Document("1", "text", "title", {"aliases": "one", "other": ["two", "three"]})
    assert names_of(named, "aliases") == ["title", "one"]
    assert names_of(named, "other") == ["title", "two", "three"]


def test_lessons_are_marked_where_queries_are() -> None:
    documents = [Document("1", "a sonnet has lines", "Poem"), Document("2", "a poem", "Sonnet")]
    plans = Naming(copies=6, made=6)
    first, made = lessons(documents, ["what is a poem?"], "aliases", plans)
    assert len(first) == 6 and not any("[START_ENT]" in query for query, _ in [*first, *made])
    assert sorted(made) == [Pair("a poem", "Sonnet"), Pair("a sonnet has lines", "Poem")]
    first, made = lessons(documents, ["a [START_ENT] poem [END_ENT]"], "aliases", plans)
    assert all("[START_ENT]" in query for query, _ in first)
    assert Pair("a [START_ENT] poem [END_ENT]", "Poem") in made
    assert lessons(documents, [], "aliases", Naming(copies=0, made=0)) == ([], [])


@pytest.mark.parametrize("kind", ["t5", "bart", "llama", "bert"])
def test_smoothing_is_that_of_a_plain_loop(folders: dict[str, Path], kind: str) -> None:
    model = LanguageModel(folders[kind], precision="fp32", grow="seq2seq", threads=1)
    namer = Namer(model, query_tokens=24, name_tokens=8)
    prompts, names = namer.prompts(["the cat sat on", "a poem"]), namer.names(["a sonnet", "dog"])
    targets = [[*namer.start[1:], *name, namer.end] for name in names]
    source = Tokens(targets, prompts)
    rows = np.arange(2)
    batch = Batch(source.queries(rows), source.documents(rows), torch.eye(2))
    found = Likelihood(smoothing=0.2)(Speaking(model.model, rounds=False), batch).item()
    losses = []
    for prompt, target in zip(prompts, targets, strict=True):
        if model.causal:
            logits = model.model(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        else:
            given = torch.tensor([[namer.start[0], *target[:-1]]])
            logits = model.model(input_ids=torch.tensor([prompt]), decoder_input_ids=given).logits[0]
        losses.append(cross_entropy(logits, torch.tensor(target), reduction="none", label_smoothing=0.2))
    assert found == pytest.approx(torch.cat(losses).mean().item(), abs=1e-4)


def test_an_encoder_may_stay_as_it_is(namer: Namer) -> None:
    pairs = [Pair("cat", "dog"), Pair("mat", "poem")]
    before = {name: value.clone() for name, value in namer.model.model.state_dict().items()}
    for share, moves in ((0.0, False), (0.5, True)):
        module = Speaking(namer.model.model, rounds=False)
        learn(module, said(namer, pairs), Naming(encoder=share, size=2), epochs=2, rate=1e-2)
        after = module.language.state_dict()
        inside = [name for name in before if name.startswith("encoder.encoder.layer.0.attention.self")]
        assert inside and all(torch.equal(after[name], before[name]) != moves for name in inside)
        assert not torch.equal(after[name := "decoder.bert.encoder.layer.0.output.dense.weight"], before[name])
    assert all(torch.equal(value, before[name]) for name, value in namer.model.model.state_dict().items())


def test_stages_begin_where_the_first_one_ended(namer: Namer) -> None:
    plans = Naming(size=2, epochs=2, rate=1e-2, copy_rate=1e-2)
    first, then = said(namer, [Pair("cat", "dog")]), said(namer, [Pair("mat", "poem")])
    nothing, one, again = (weights for weights, _ in stages(namer.model.model, first, [[], then, then], plans))
    assert nothing and one.keys() >= nothing.keys()
    assert all(np.array_equal(one[name], again[name]) for name in one)
    [(alone, _)] = stages(namer.model.model, first, [then], plans)
    assert all(np.array_equal(one[name], alone[name]) for name in one)
    assert any(not np.array_equal(one[name], nothing[name]) for name in nothing)


def test_a_collection_learns_names(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = {"name": "genre", "model": str(folders["bert"]), "query_tokens": 24, "name_tokens": 8, "layers": 1}
    with Collection.create(tmp_path / "docs", create(spec, **FAST)) as docs:
        docs.add(NAMED)
        fit = docs.fit(GIVEN, goal="seen")
        seen = fit.parts["seen"]
        assert fit.kept and seen["fitted"] > 0.8 > 0.6 > seen["base"], fit.parts
        queries = [asked(subject) for subject in SUBJECTS]
        found = docs.search_many(queries, 1)
        assert [hits[0].id for hits in found] == [f"d{i}" for i in range(len(SUBJECTS))]
        retriever = docs.retriever()
        assert isinstance(retriever, Generative) and retriever.weights
        docs.add(Document("new", "", "i9"))
        scores = {hit.id: hit.score for hit in docs.search(queries[0], 20)}
        assert scores["d0"] == pytest.approx(found[0][0].score, abs=1e-4) and "new" in scores
    with Collection.open(tmp_path / "docs") as docs:
        again = docs.search_many(queries, 1)
    for before, after in zip(found, again, strict=True):
        assert before[0].id == after[0].id
        assert before[0].score == pytest.approx(after[0].score, abs=1e-4)


def test_fitting_again_begins_anew(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = {"name": "genre", "model": str(folders["bert"]), "query_tokens": 24, "name_tokens": 8, "layers": 1}
    with Collection.create(tmp_path / "docs", create(spec, **(FAST | {"epochs": 2}))) as docs:
        docs.add(NAMED)
        one, other = docs.fit(GIVEN, goal="seen"), docs.fit(GIVEN, goal="seen")
        assert (one.base, one.fitted) == (other.base, other.fitted)


def test_too_few_pairs_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = {"name": "genre", "model": str(folders["bert"]), "query_tokens": 24, "name_tokens": 8}
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add(NAMED)
        with pytest.raises(InvalidInput, match="10"):
            docs.fit(GIVEN[:5])


def test_what_speaks_is_not_grown(folders: dict[str, Path]) -> None:
    assert [speaks(folders[kind]) for kind in ("t5", "bart", "llama", "bert")] == [True, True, True, False]
    plain = LanguageModel(folders["t5"], precision="fp32", grow="seq2seq").model
    assert type(plain).__name__ == "T5ForConditionalGeneration"
    assert len(grown(folders["bert"], "seq2seq", 1).decoder.bert.encoder.layer) == 1
    with pytest.raises(InvalidInput, match="layers=3"):
        grown(folders["bert"], "seq2seq", 3)


def test_a_tuned_language_model_is_another(folders: dict[str, Path]) -> None:
    model = LanguageModel(folders["t5"], precision="fp32")
    name = "shared.weight"
    other = model.tuned({name: model.model.state_dict()[name].numpy() * 2})
    assert other.fingerprint() != model.fingerprint() == LanguageModel(folders["t5"], precision="fp32").fingerprint()
    assert torch.equal(other.model.state_dict()[name], 2 * model.model.state_dict()[name])
    with pytest.raises(InvalidInput, match="'nowhere'"):
        _ = model.tuned({"nowhere": np.zeros(3, np.float32)}).model


def test_a_decoder_of_some_layers_goes_on_as_it_reads_all_at_once(folders: dict[str, Path]) -> None:
    model = grown(folders["bert"], "seq2seq", 1)
    given, said = torch.tensor([[2, 6, 7, 3]]), torch.tensor([[2, 8, 9, 10]])
    with torch.inference_mode():
        whole = model(input_ids=given, decoder_input_ids=said).logits
        first = model(input_ids=given, decoder_input_ids=said[:, :2], use_cache=True)
        rest = model(input_ids=given, decoder_input_ids=said[:, 2:], **caching(model, first.past_key_values)).logits
    assert torch.allclose(torch.cat((first.logits, rest), 1), whole, atol=1e-5)


def test_what_cannot_be_written_is_left_out(namer: Namer) -> None:
    long = "cat " * 300
    found = written(Markup(namer), [(long, []), ("the cat", [(4, 7, "sonnet")]), ("the cat", [(4, 7, "\x00")])])
    assert len(found) == 1
    assert [len(prompt) for prompt, _ in said(namer, [Pair("cat", "\x00"), Pair("cat", "dog")])] == [3]


def test_fit_may_teach_links(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = {"name": "genre", "model": str(folders["bert"]), "query_tokens": 24, "name_tokens": 8, "layers": 1}
    texts = [f"the {other} sat. {'cat ' * (300 if i == 0 else 1)}" for i, other in enumerate(SUBJECTS[::-1])]
    with Collection.create(tmp_path / "docs", create(spec, **(FAST | {"links": 20, "epochs": 2}))) as docs:
        docs.add([Document(f"d{i}", texts[i], subject) for i, subject in enumerate(SUBJECTS)])
        docs.fit(GIVEN, goal="seen")
        links = Linker(docs.retriever()).link("the sonnet sat on a mat")  # type: ignore[arg-type]
        assert all(0 <= link.start < link.end <= 23 and link.ids for link in links)
