"""Links against all markings of a text, each scored by the model as it would be taught, one at a time."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Document
from ragistry.errors import InvalidInput
from ragistry.retrievers import linking, marking
from ragistry.retrievers.constrained import ConstrainedSearch
from ragistry.retrievers.generative import Generative
from ragistry.retrievers.linking import Link, Linker, disambiguate
from ragistry.retrievers.markup import Markup, NamedSpan, marked, unmarked
from ragistry.retrievers.namer import Namer
from ragistry.retrievers.trie import Trie
from ragistry.scorers.language_model import LanguageModel
from ragistry.types import Among, Query, Ranking

from ..tiny import tiny_language_model, tiny_model

KINDS = ("bart", "t5", "llama", "gpt2", "seq2seq", "causal")
NAMES = {"a": "poem", "b": "the dog", "c": "poem line", "d": "poem"}
ALPHAS = (0.0, 0.5, 1.0)
CLOSE = 2e-4
every_model = pytest.mark.parametrize(
    "kind", [kind if kind in {"bart", "llama"} else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
few_models = pytest.mark.parametrize("kind", ["bart", "llama"])


class Named:
    """A retriever by names: documents of one name each."""

    def __init__(self, model: LanguageModel, names: Mapping[str, str]) -> None:
        self.namer = Namer(model, query_tokens=20, name_tokens=6)
        self.names, self.titles = Trie(self.namer.end), list[str]()
        self.asked: list[tuple[list[str], Any]] = []
        self.add(names)

    def add(self, names: Mapping[str, str]) -> None:
        ids = self.namer.names(list(names.values()))
        self.names = self.names.fork()
        self.names.add(ids, range(len(self.titles), len(self.titles) + len(names)))
        self.titles = [*self.titles, *names]

    def ids(self, numbers: Sequence[int]) -> list[str]:
        return [self.titles[number] for number in numbers]

    def numbers(self, ids: Sequence[str]) -> list[int]:
        return [self.titles.index(one) for one in ids if one in self.titles]

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        self.asked.append((list(queries), among))
        names = self.names if among is None else self.names.among(self.numbers(list(among)))
        search = ConstrainedSearch(self.namer.model.model, start=self.namer.start)
        found = search.search(self.namer.prompts(queries), names, k)
        pairs = [{one: h.score for h in own for one in self.ids(h.numbers)} for own in found]
        return [Ranking.of(list(own), list(own.values()), k) for own in pairs]

    def fork(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    place = tmp_path_factory.mktemp("models")
    tiny = {kind: LanguageModel(tiny_language_model(place, kind), precision="fp32") for kind in KINDS[:4]}
    folder = tiny_model(place)
    return tiny | {
        "seq2seq": LanguageModel(folder, precision="fp32", grow="seq2seq"),
        "causal": LanguageModel(folder, precision="fp32", grow="causal"),
    }


def changed(model: LanguageModel) -> LanguageModel:
    """A copy whose weights can be changed."""
    twin = model.tuned({})
    twin._loaded()
    twin._model = deepcopy(model.model)
    return twin


def words(text: str) -> list[tuple[int, int]]:
    """Where words, signs, and all runs of them begin and end, unless they begin with a sign."""
    parts = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    spans = [(one[0], other[1]) for i, one in enumerate(parts) for other in parts[i:]]
    return [span for span in spans if text[span[0]].isalnum()]


def markings(spans: Sequence[tuple[int, int]], names: Any) -> Iterator[list[NamedSpan]]:
    """All ways to mark mentions that lie apart, with names."""
    yield []
    for start, end in spans:
        later = [span for span in spans if span[0] >= end]
        for rest in markings(later, names):
            for name in names((start, end)):
                yield [(start, end, name), *rest]


@torch.no_grad()
def gains(markup: Markup, text: str, links: Sequence[NamedSpan]) -> np.ndarray[Any, Any]:
    """The log-probability of each token of what the model should write."""
    model, source, target = markup.namer.model.model, markup.source(text), markup.target(text, links)
    if model.config.is_encoder_decoder:
        begun = torch.tensor([[*markup.namer.start, *target[:-1]]])
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=begun, use_cache=False).logits[0]
        logits = logits[len(markup.namer.start) - 1 :]
    else:
        logits = model(input_ids=torch.tensor([source + target[:-1]]), use_cache=False).logits[0, len(source) - 1 :]
    found: np.ndarray[Any, Any] = torch.log_softmax(logits.double(), -1)[range(len(target)), target].numpy()
    return found


def best(
    markup: Markup, text: str, spans: Sequence[tuple[int, int]], names: Any, alphas: Sequence[float]
) -> list[list[NamedSpan]]:
    """The best of all markings, for each length penalty."""
    found, chosen = [(gains(markup, text, links), links) for links in markings(spans, names)], []
    for alpha in alphas:
        scores = [(float(own.sum()) / len(own) ** alpha, links) for own, links in found]
        first, second, *_ = sorted(scores, key=lambda pair: -pair[0])
        assert first[0] - second[0] > CLOSE
        chosen.append(first[1])
    return chosen


def same(found: list[Link], text: str, links: Sequence[NamedSpan], retriever: Named) -> None:
    """Check links, and their scores, against what is expected."""
    markup = Markup(retriever.namer)
    spans, own, more = markup.read(text)[1], gains(markup, text, links), 0
    assert [(link.start, link.end) for link in found] == [(start, end) for start, end, _ in links]
    for link, (start, end, name) in zip(found, links, strict=True):
        inner = [i for i, (a, b) in enumerate(spans) if a < end and b > start and text[a:b].strip()]
        opened, mention = inner[0] + more, inner[-1] + 1 - inner[0]
        named = opened + len(markup.opening) + mention + len(markup.between)
        over = named + len(markup.names([name])[0]) + len(markup.closing)
        more += over - opened - mention
        assert link.mention == text[start:end]
        assert link.ids == tuple(one for one in retriever.titles if NAMES[one] == name)
        assert abs(link.score - own[named:over].sum()) < CLOSE
        assert abs(link.mention_score - own[opened:named].sum()) < CLOSE


def tilted(retriever: Named, tokens: Sequence[int], more: float = 6.0, sharp: float = 1.0) -> Named:
    """The same under a model to which some tokens are more probable, and which is surer of itself."""
    twin = retriever.fork()
    twin.namer = Namer(changed(retriever.namer.model), query_tokens=20, name_tokens=6)

    def tilt(*given: Any) -> torch.Tensor:
        logits: torch.Tensor = sharp * given[-1]
        logits[..., list(tokens)] += more
        return logits

    twin.namer.model.model.get_output_embeddings().register_forward_hook(tilt)
    return twin


def eager(model: LanguageModel, more: float = 40.0) -> Named:
    """One that finds markings more probable than none: after tokens of texts and names it wants markup."""
    retriever, seen = tilted(Named(model, NAMES), []), threading.local()
    markup, inner = Markup(retriever.namer), retriever.namer.model.model
    marks = [*markup.opening[-1:], *markup.between, *markup.closing[-1:]]
    wanted = torch.zeros(model.vocabulary).index_fill(0, torch.tensor(marks), more)

    def remember(_: Any, __: Any, named: dict[str, Any]) -> None:
        seen.ids = named.get("decoder_input_ids", named.get("input_ids"))

    def tilt(*given: Any) -> torch.Tensor:
        logits: torch.Tensor = given[-1]
        plain = ~torch.isin(seen.ids[:, -logits.shape[-2] :], torch.tensor([*marks, *retriever.namer.start]))
        return logits + plain[..., None] * wanted

    inner.register_forward_pre_hook(remember, with_kwargs=True)
    inner.get_output_embeddings().register_forward_hook(tilt)
    return retriever


@every_model
def test_many_beams_find_the_best_of_all_markings(models: dict[str, LanguageModel], kind: str) -> None:
    counts = set()
    for retriever in (Named(models[kind], NAMES), eager(models[kind])):
        markup = Markup(retriever.namer)
        for text in ("the cat", "a (poem)!", "sat on poem"):
            expected = best(markup, text, words(text), lambda _: dict.fromkeys(NAMES.values()), ALPHAS)
            for alpha, links in zip(ALPHAS, expected, strict=True):
                same(Linker(retriever, beams=4000, length_penalty=alpha).link(text), text, links, retriever)
                counts.add((alpha, len(links)))
    assert all(len([count for one, count in counts if one == alpha]) > 1 for alpha in ALPHAS)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_beams_are_enough_for_names_that_begin_badly(models: dict[str, LanguageModel], kind: str) -> None:
    retriever, text, letters = eager(models[kind]), "cat", "bdefghijklmnopqrstuv"
    names = [f"{one} {other}" for one in letters for other in letters[::10]]
    retriever.names, retriever.titles = Trie(retriever.namer.end), []
    retriever.add({name: name for name in names})
    markup = Markup(retriever.namer)
    own = {name: float(gains(markup, text, [(0, 3, name)]).mean()) for name in names}
    found = Linker(retriever, beams=19, length_penalty=1.0).link(text)  # fewer than letters
    assert [link.ids for link in found] == [(max(own, key=lambda name: own[name]),)]


@every_model
def test_nothing_but_candidates(models: dict[str, LanguageModel], kind: str) -> None:
    retriever, text = eager(models[kind]), "the  Cat,\u00a0sat: cat"
    candidates = {"the CAT": ["b", "a"], "cat": ["c", "lost"], ", sat": ["b"], "ca": ["a"], "sat": [], "cat sat": ["a"]}
    known = {mention.lower(): ids for mention, ids in candidates.items()}

    def names(span: tuple[int, int]) -> list[str]:
        ids = known.get(" ".join(text[slice(*span)].lower().split()), [])
        return [NAMES[one] for one in ids if one in NAMES]

    parts = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    spans = [(one[0], other[1]) for i, one in enumerate(parts) for other in parts[i:]]
    expected = best(Markup(retriever.namer), text, spans, names, [1.0])[0]
    found = Linker(retriever, beams=500, candidates=candidates, length_penalty=1.0).link(text)
    assert [(link.start, link.end) for link in found] == [(start, end) for start, end, _ in expected]
    for link, (start, end, name) in zip(found, expected, strict=True):
        allowed = known[" ".join(text[start:end].lower().split())]
        assert link.ids == tuple(one for one in NAMES if one in allowed and NAMES[one] == name)
    assert len(found) > 0
    nothing: list[dict[str, list[str]]] = [{}, {"dog": ["a"]}, {"cat": ["lost"]}, {"cat": []}, {"": ["a"], " ": ["b"]}]
    for none in nothing:
        assert Linker(retriever, candidates=none).link(text) == []


@every_model
def test_few_beams_give_links_that_are_allowed_with_their_exact_scores(
    models: dict[str, LanguageModel], kind: str
) -> None:
    retriever = eager(models[kind])

    @settings(deadline=None, max_examples=12)
    @given(st.text(alphabet="the cat{}[]\\.\u00e9\U0001f642", max_size=14), st.integers(1, 4), st.integers(1, 6))
    def check(text: str, beams: int, most: int) -> None:
        found, done = Linker(retriever, beams=beams, mention_tokens=most).link(text), 0
        for link in found:
            assert done <= link.start < link.end <= len(text)
            assert text[link.start : link.end] == link.mention == link.mention.strip()
            for place in (link.start, link.end):
                assert not re.fullmatch(r"\w\w", text[max(0, place - 1) : place + 1])
            assert link.ids in {("a", "d"), ("b",), ("c",)}
            pieces = Markup(retriever.namer).read(link.mention)[0]
            assert len(pieces) <= most + 1  # with a space before it there may be one more
            done = link.end
        if len(Markup(retriever.namer).read(text)[0]) <= 24:  # else it is linked in parts
            same(found, text, [(link.start, link.end, NAMES[link.ids[0]]) for link in found], retriever)
        shown = [(link.start, link.end, link.ids[0]) for link in found]
        assert unmarked(marked(text, shown)) == (text, shown)

    check()


@few_models
def test_what_was_taught_is_found(models: dict[str, LanguageModel], kind: str) -> None:
    retriever = Named(models[kind], NAMES)
    retriever.namer = Namer(changed(models[kind]), query_tokens=20, name_tokens=6)
    markup, model = Markup(retriever.namer), retriever.namer.model.model
    taught: dict[str, list[NamedSpan]] = {
        "the dog sat on a poem.": [(0, 7, "the dog"), (17, 21, "poem line")],
        "a cat {sat} on the mat": [(7, 10, "poem")],
        "on the line": [],
    }
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            for text, links in taught.items():
                source, target = markup.source(text), markup.target(text, links)
                if model.config.is_encoder_decoder:
                    begun = torch.tensor([[*retriever.namer.start, *target[:-1]]])
                    logits = model(input_ids=torch.tensor([source]), decoder_input_ids=begun).logits[0]
                else:
                    logits = model(input_ids=torch.tensor([source + target[:-1]])).logits[0]
                loss = torch.nn.functional.cross_entropy(logits[-len(target) :], torch.tensor(target))
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
    for text, links in taught.items():
        found = Linker(retriever).link(text)
        same(found, text, links, retriever)
        assert all(link.score > math.log(0.5) and link.mention_score > math.log(0.5) for link in found)
    both = " ".join(taught)
    apart = Linker(retriever, chunk_tokens=len(markup.read("the dog sat on a poem.")[0])).link(both)
    assert [link.mention for link in apart[:2]] == ["the dog", "poem."[:-1]]


@pytest.mark.parametrize("kind", ["bart", "llama", "causal"])
def test_parts_of_a_long_text_are_linked_apart(
    models: dict[str, LanguageModel], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever, sentences = eager(models[kind]), ["The cat sat.", "A poem has a line!", "On the mat?", "Dogs on a mat."]
    counts = sorted(len(Markup(retriever.namer).read(sentence)[0]) for sentence in sentences)
    assert sum(counts[:2]) > counts[-1]
    linker, text, expected = Linker(retriever, chunk_tokens=counts[-1]), "", list[Link]()
    for sentence in sentences:
        expected += [
            link._replace(start=link.start + len(text), end=link.end + len(text)) for link in linker.link(sentence)
        ]
        text += f"{sentence} "
    for side in (8, 1):
        monkeypatch.setattr(linking, "SIDE", side)
        found = linker.link(text)
        assert [link[:4] for link in found] == [link[:4] for link in expected]
        assert np.allclose([link[4:] for link in found], [link[4:] for link in expected], atol=CLOSE)
    assert len(expected) > 1


@pytest.mark.parametrize("kind", ["bart", "llama", "seq2seq"])
def test_a_text_longer_than_the_model_and_one_long_word(models: dict[str, LanguageModel], kind: str) -> None:
    markup = Markup(Namer(models[kind], query_tokens=20, name_tokens=6))
    retriever = tilted(Named(models[kind], NAMES), [*markup.opening, *markup.between, *markup.closing], 30.0)
    for text in ("the cat sat " * 30, "catsat" * 15, "." * 120, "a(" * 60):
        for setting in ({"beams": 2}, {"beams": 1, "length_penalty": 1.0}):
            found = Linker(retriever, **setting).link(text)  # type: ignore[arg-type]
            assert all(one.end <= other.start for one, other in itertools.pairwise(found))
            assert bool(found) == (text[:3] in ("the", "a(a"))


def test_what_cannot_be_else_is_read_in_one_pass(
    models: dict[str, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("bart", "gpt2"):
        retriever, passes = eager(models[kind]), list[int]()
        linker = Linker(retriever, candidates={"poem": ["a", "b"]})
        text = "the cat on the mat sat on a mat, poem, the dog sat on the mat"
        hook = retriever.namer.model.model.register_forward_pre_hook(lambda *_, seen=passes: seen.append(1))
        found = linker.link(text)
        assert len(passes) < 0.6 * len(Markup(retriever.namer).read(text)[0])
        for most in (1, 3 * retriever.namer.model.vocabulary, 9 * retriever.namer.model.vocabulary):
            monkeypatch.setattr(marking, "LOGITS", most)
            again = linker.link(text)
            assert [link[:4] for link in again] == [link[:4] for link in found]
            assert np.allclose([link[4:] for link in again], [link[4:] for link in found], atol=CLOSE)
        passes.clear()
        assert linker.link("the cat on the mat") == []
        assert passes == []
        hook.remove()
        assert found[0].mention == "poem"


@few_models
def test_markings_of_probability_zero_are_never_returned(models: dict[str, LanguageModel], kind: str) -> None:
    text, markup = "the cat sat", Markup(Namer(models[kind], query_tokens=20, name_tokens=6))
    assert len(Linker(eager(models[kind]), beams=50, length_penalty=1.0).link(text)) > 0
    for impossible in (markup.closing, markup.between, [markup.namer.end], markup.read("cat")[0]):
        assert (
            Linker(tilted(eager(models[kind]), impossible[-1:], -math.inf), beams=50, length_penalty=1.0).link(text)
            == []
        )
    poem = markup.names(["poem"])[0][:1]
    found = Linker(tilted(eager(models[kind]), poem, -math.inf), beams=50, length_penalty=1.0).link(text)
    assert found
    assert {link.ids for link in found} == {("b",)}
    with pytest.raises(InvalidInput, match="NaN"):
        Linker(tilted(eager(models[kind]), [5], math.nan)).link(text)


@every_model
def test_nothing_to_link(models: dict[str, LanguageModel], kind: str) -> None:
    retriever = eager(models[kind])
    for text in ("", " ", "\n\t", ".", "?!", "\u200d"):
        assert Linker(retriever).link(text) == []
    assert Linker(Named(models[kind], {})).link("the cat") == []


@few_models
def test_names_that_are_added_are_found_and_change_no_running_call(models: dict[str, LanguageModel], kind: str) -> None:
    retriever = eager(models[kind])
    retriever.names, retriever.titles = Trie(retriever.namer.end), []
    retriever.add({"b": NAMES["b"]})
    linker, text = Linker(retriever, beams=8, length_penalty=1.0), "the cat sat"
    before = linker.link(text)
    assert {link.ids for link in before} == {("b",)}
    calls = list[int]()

    def add(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            retriever.names, retriever.titles = Trie(retriever.namer.end), []
            retriever.add({one: NAMES[one] for one in ("d", "b", "c", "a")})

    hook = retriever.namer.model.model.register_forward_pre_hook(add)
    during = linker.link(text)
    hook.remove()
    assert during == before
    after = linker.link(text)
    assert after != before
    assert after == Linker(retriever, beams=8, length_penalty=1.0).link(text)
    assert {link.ids for link in after} <= {("b",), ("c",), ("d", "a")}
    retriever.names = retriever.names.fork()
    retriever.names.remove([0, 2, 3])
    assert linker.link(text) == before


@pytest.mark.parametrize("kind", ["bart", "llama", "seq2seq"])
def test_threads(models: dict[str, LanguageModel], kind: str) -> None:
    retriever = eager(models[kind])
    texts = ["the cat", "a poem sat on the mat. A dog!", "", "poem (line) {sat}", "cat cat cat"] * 2
    linkers = [Linker(retriever), Linker(retriever, candidates={"cat": ["a", "b"], "poem": ["c"]})]
    expected = [[linker.link(text) for text in texts] for linker in linkers]
    fresh = [Linker(retriever), Linker(retriever, candidates={"cat": ["a", "b"], "poem": ["c"]})]
    with ThreadPoolExecutor(6) as pool:
        work = [[pool.submit(linker.link, text) for text in texts] for linker in fresh]
        assert [[future.result() for future in own] for own in work] == expected


def test_brackets_in_a_text_stay_as_they_are(models: dict[str, LanguageModel]) -> None:
    for kind, text, read in (
        ("bart", "{cat} [SEP] \\ [a]", "(cat) (SEP) \\ (a)"),
        ("llama", "{cat} [a] cat}", "(cat) (a) cat)"),
    ):
        linker = Linker(eager(models[kind]), beams=8, length_penalty=1.0)
        found, plain = linker.link(text), linker.link(read)
        assert found
        assert [link[:2] + link[3:] for link in found] == [link[:2] + link[3:] for link in plain]
        assert [link.mention for link in found] == [text[link.start : link.end] for link in found]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beams": 0}, "beams=0"),
        ({"beams": 1.5}, "beams=1.5"),
        ({"mention_tokens": 0}, "mention_tokens=0"),
        ({"chunk_tokens": -1}, "chunk_tokens=-1"),
        ({"length_penalty": -1.0}, "length_penalty=-1"),
        ({"length_penalty": math.nan}, "length_penalty=nan"),
        ({"candidates": ["cat"]}, "candidates are list"),
        ({"candidates": {"cat": "a"}}, "candidates of 'cat'"),
        ({"candidates": {"cat": [1]}}, "candidates of 'cat'"),
        ({"candidates": {1: ["a"]}}, "candidates of 1"),
    ],
)
def test_what_cannot_be_used_is_refused(
    models: dict[str, LanguageModel], setting: dict[str, Any], message: str
) -> None:
    retriever = Named(models["bart"], NAMES)
    with pytest.raises(InvalidInput, match=message):
        Linker(retriever, **setting).link("cat")


def test_texts_and_models_that_cannot_be_used_are_refused(models: dict[str, LanguageModel]) -> None:
    retriever = Named(models["bart"], NAMES)
    for text in (None, b"cat", "a\ud800"):
        with pytest.raises(InvalidInput):
            Linker(retriever).link(text)  # type: ignore[arg-type]
    long = Named(models["llama"], {})
    long.namer = Namer(models["llama"], query_tokens=10, name_tokens=86)
    long.add({"a": "z" * 86})
    with pytest.raises(InvalidInput, match="lower name_tokens"):
        Linker(long).link("cat")
    training = Named(changed(models["bart"]), NAMES)
    training.namer.model.model.train()
    with pytest.raises(InvalidInput, match="training mode"):
        Linker(training).link("cat")


@few_models
def test_given_mentions_are_asked_for_one_by_one(models: dict[str, LanguageModel], kind: str) -> None:
    retriever, text = Named(models[kind], NAMES), "a cat (the cat) [START_ENT] sat on mat"
    spans = [(0, 1), (2, 5), (7, 14), (11, 14), (16, 27), (2, 5)]
    found = disambiguate(retriever, text, spans, k=4)
    asked = [
        "[START_ENT] a [END_ENT] cat (the cat) (START_ENT) sat on mat",
        "a [START_ENT] cat [END_ENT] (the cat) (START_ENT) sat on mat",
        "a cat ( [START_ENT] the cat [END_ENT] ) (START_ENT) sat on mat",
        "a cat (the [START_ENT] cat [END_ENT] ) (START_ENT) sat on mat",
        "a cat (the cat) [START_ENT] (START_ENT) [END_ENT] sat on mat",
        "a [START_ENT] cat [END_ENT] (the cat) (START_ENT) sat on mat",
    ]
    assert retriever.asked == [(asked, None)]
    assert [ranking.ids for ranking in found] == [retriever.search([query], 4)[0].ids for query in asked]
    assert found[1] == found[5]

    retriever.asked.clear()
    candidates = {"Cat": ["c", "b"], "the  cat": ["b", "c", "x"], "A": ["a"], "mat": []}
    own = disambiguate(retriever, text, spans, k=4, candidates=candidates)
    assert [set(ranking.ids) for ranking in own] == [{"a"}, {"b", "c"}, {"b", "c"}, {"b", "c"}, set(), {"b", "c"}]
    assert len(retriever.asked) == 4
    assert own[1] == own[5]
    assert [len(ranking) for ranking in disambiguate(retriever, text, spans)] == [1] * 6
    assert disambiguate(retriever, text, []) == []
    for span in ((3, 3), (5, 2), (-1, 2), (0, len(text) + 1), (0, None)):
        with pytest.raises(InvalidInput, match="a mention from"):
            disambiguate(retriever, text, [(0, 1), span])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="a str is needed"):
        disambiguate(retriever, None, [])  # type: ignore[arg-type]


@few_models
def test_a_long_text_around_a_mention_changes_nothing_but_what_is_read(
    models: dict[str, LanguageModel], kind: str
) -> None:
    retriever, near = Named(models[kind], NAMES), "the cat sat on the mat " * 100
    text = f"{near}poem {near}"
    far = "dog " * 20_000 + text + "dog " * 20_000
    for one, start in ((text, len(near)), (far, 80_000 + len(near))):
        assert disambiguate(retriever, one, [(start, start + 4)], 4) == disambiguate(
            retriever, text, [(len(near), len(near) + 4)], 4
        )
    assert len(retriever.asked[-2][0][0]) < 4000


@few_models
def test_with_a_retriever_of_documents(models: dict[str, LanguageModel], kind: str) -> None:
    retriever = Generative(Namer(eager(models[kind]).namer.model, query_tokens=20, name_tokens=6))
    retriever.add([Document(one, "", title=name) for one, name in NAMES.items()])
    text = "the cat sat on a poem"
    expected = Linker(eager(models[kind]), length_penalty=1.0).link(text)
    assert Linker(retriever, length_penalty=1.0).link(text) == expected
    candidates = {"cat": ["b", "c"], "poem": ["a"]}
    found = Linker(retriever, candidates=candidates, length_penalty=1.0).link(text)
    assert found
    assert all(set(link.ids) <= set(candidates[link.mention]) for link in found)
    rankings = disambiguate(retriever, text, [(4, 7), (17, 21)], 5, candidates)
    assert [set(ranking.ids) for ranking in rankings] == [{"b", "c"}, {"a"}]
    retriever.remove(["b", "c"])
    assert {link.ids for link in Linker(retriever, length_penalty=1.0).link(text)} == {("a", "d")}
