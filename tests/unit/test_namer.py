"""How queries and names become tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput
from ragistry.retrievers.namer import MARKERS, SPARE, Marked, Namer
from ragistry.scorers.language_model import LanguageModel

from ..tiny import tiny_language_model, tiny_model

START, END = MARKERS
quick = settings(deadline=None, max_examples=30)
texts = st.text(st.sampled_from("the cat\u6771 7"), max_size=60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    """One of each kind; "spare" is an encoder-decoder whose vocabulary has tokens to spare, "forced" begins with another."""
    place = tmp_path_factory.mktemp("models")
    folders = {kind: tiny_language_model(place, kind) for kind in ("bart", "t5", "llama", "gpt2")}
    folders["grown"] = tiny_model(place)
    folders["spare"] = tiny_language_model(place, "bart", seed=1)
    path = folders["spare"] / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    for word, new in (("!", SPARE[0]), ('"', SPARE[1])):
        words[new] = words.pop(word)
    path.write_text(json.dumps(content), encoding="utf-8")
    folders["forced"] = tiny_language_model(place, "bart", seed=2)
    settings = {"decoder_start_token_id": 3, "forced_bos_token_id": 2, "eos_token_id": 3}
    (folders["forced"] / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {kind: LanguageModel(folder, precision="fp32", grow="seq2seq") for kind, folder in folders.items()}


def plain(model: LanguageModel, text: str) -> list[int]:
    """Its tokens without special ones, as transformers has them."""
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(model.name).encode(text, add_special_tokens=False)) if text else []


def around(prompts: Sequence[int], mention: Sequence[int]) -> tuple[list[int], list[int]]:
    """What stands on either side of a mention."""
    at = next(i for i in range(len(prompts)) if list(prompts[i : i + len(mention)]) == list(mention))
    return list(prompts[:at]), list(prompts[at + len(mention) :])


@given(texts, st.text(st.sampled_from("ab c"), min_size=1).filter(str.strip), texts)
def test_a_marked_query_is_read_back(left: str, mention: str, right: str) -> None:
    marked = Marked(left.strip(), mention.strip(), right.strip())
    assert Marked.of(marked.query) == marked


@pytest.mark.parametrize("query", ["", "cat", START, f"a {START} b", f"a {END} b {START} c", f"{END}{START}"])
def test_a_query_without_a_whole_mark_is_plain(query: str) -> None:
    assert Marked.of(query) is None


def test_only_the_first_mention_is_one() -> None:
    found = Marked.of(f"a {START} b {END} c {START} d {END}")
    assert found == Marked("a", "b", f"c {START} d {END}")


@pytest.mark.parametrize(
    ("kind", "start", "before", "after"),
    [
        ("bart", [3], [2], [3]),
        ("forced", [3, 2], [2], [3]),
        ("t5", [0], [2], [3]),
        ("grown", [2], [2], [3]),
        ("llama", [], [], [1]),
        ("gpt2", [], [], [0]),
    ],
)
def test_special_tokens(
    kind: str, start: list[int], before: list[int], after: list[int], models: dict[str, LanguageModel]
) -> None:
    namer = Namer(models[kind], query_tokens=12, name_tokens=5)
    assert namer.start == start
    assert namer.end == after[0]
    cat = plain(models[kind], "the cat")
    assert namer.prompts(["the cat", ""]) == [[*before, *cat, *after], [*before, *after]]
    assert namer.names(["the cat", "", " \n", "\0"]) == [cat, [], [], []]
    for special in ("[CLS]", "[SEP]", "[SEP] [CLS]") if before else ("</s>",):
        assert namer.names([special, f"{special} the cat {special}"])[0] == []


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_names_are_cut_and_control_characters_are_spaces(kind: str, models: dict[str, LanguageModel]) -> None:
    namer = Namer(models[kind], query_tokens=12, name_tokens=5)
    long = "the cat the cat the cat the cat"
    assert namer.names([long, "cat\0\x1b dog", "\x85cat\n\tdog\x7f"]) == [
        plain(models[kind], long)[:5],
        plain(models[kind], "cat dog")[:5],
        plain(models[kind], "cat dog")[:5],
    ]


@pytest.mark.parametrize("kind", ["bart", "t5", "llama", "grown"])
@pytest.mark.parametrize("prompt", ["{query}", "the {query}", "{query} cat =", " the cat : {query} line"])
def test_a_prompt_reads_as_the_whole_text(kind: str, prompt: str, models: dict[str, LanguageModel]) -> None:
    model = models[kind]
    before, after = model.around
    namer = Namer(model, prompt=prompt, query_tokens=40, name_tokens=8)
    end = [namer.end] if model.causal else []
    for query in ("dog", "the  poem 7"):
        whole = plain(model, prompt.strip().replace("{query}", query))
        assert namer.prompts([query, f" {query}"]) == [[*before, *whole, *after, *end]] * 2
    cut = namer.prompts(["dog " * 100, "x 7 " * 100_000])
    assert [len(ids) for ids in cut] == [40, 40]
    tail = plain(model, prompt)[-1:] if prompt.endswith(("=", "line")) and not model.spaced else []
    assert cut[0][40 - len(after) - len(end) - len(tail) :] == [*tail, *after, *end]


@pytest.mark.parametrize("prompt", ["", "query", "{Query}", "{query} {query}"])
def test_a_prompt_holds_the_query_once(prompt: str, models: dict[str, LanguageModel]) -> None:
    with pytest.raises(InvalidInput, match=r"\{query\}"):
        Namer(models["bart"], prompt=prompt)


@pytest.mark.parametrize(("kind", "least"), [("bart", 3), ("llama", 2)])
def test_a_prompt_leaves_room_for_the_query(kind: str, least: int, models: dict[str, LanguageModel]) -> None:
    assert len(Namer(models[kind], query_tokens=least, name_tokens=5).prompts(["cat cat"])[0]) == least
    for query_tokens, prompt in (
        (least - 1, "{query}"),
        (least + 1, "dog 7 {query} dog"),
        (20, "dog " * 30 + "{query}"),
    ):
        with pytest.raises(InvalidInput, match=f"query_tokens={query_tokens} leaves nothing"):
            Namer(models[kind], prompt=prompt, query_tokens=query_tokens, name_tokens=5).prompts(["cat"])
    for query_tokens, name_tokens in ((0, 5), (5, 0)):
        with pytest.raises(InvalidInput, match="1 or more"):
            Namer(models[kind], query_tokens=query_tokens, name_tokens=name_tokens)


def test_a_mention_is_marked_by_spare_tokens(models: dict[str, LanguageModel]) -> None:
    model = models["spare"]
    start, end = model.place(SPARE[0]), model.place(SPARE[1])
    namer = Namer(model, query_tokens=12, name_tokens=5)
    the, cat, dog = (plain(model, word)[0] for word in ("the", "cat", "dog"))
    assert namer.prompts([f"the {START} cat {END} dog"]) == [[2, the, start, cat, end, dog, 3]]
    left, right = around(namer.prompts([f"{'the ' * 50}{START} cat {END}{' dog' * 50}"])[0], [start, cat, end])  # type: ignore[list-item]
    assert (left, right) == ([2, *[the] * 4], [*[dog] * 3, 3]), "half on either side"
    left, right = around(namer.prompts([f"the {START} cat {END}{' dog' * 50}"])[0], [start, cat, end])  # type: ignore[list-item]
    assert (left, right) == ([2, the], [*[dog] * 6, 3]), "more where the other side is short"
    left, right = around(namer.prompts([f"{'the ' * 50}{START} cat {END} dog"])[0], [start, cat, end])  # type: ignore[list-item]
    assert (left, right) == ([2, *[the] * 6], [dog, 3])
    assert namer.prompts([f"the {START}{' cat' * 50} {END} dog"]) == [[2, start, *[cat] * 8, end, 3]]


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_a_mention_is_marked_by_text_elsewhere(kind: str, models: dict[str, LanguageModel]) -> None:
    model = models[kind]
    before, after = model.around
    namer = Namer(model, query_tokens=90, name_tokens=5)
    end = [namer.end] if model.causal else []
    for query in (f"the cat {START} the {END} poem", f"{START} the {END} poem", f"poem {START} the {END}"):
        assert namer.prompts([query]) == [[*before, *plain(model, query), *after, *end]]
    asking = Namer(model, prompt="poem : {query} =", query_tokens=90, name_tokens=5)
    query = f"the cat {START} the {END} poem"
    assert asking.prompts([query]) == [[*before, *plain(model, f"poem : {query} ="), *after, *end]]


@pytest.mark.parametrize("left", ["\u6771\u4eac" * 5000, "cat " * 5000, "x" * 5000, "\u6771 " + "\u4eac" * 5000])
def test_far_text_is_passed_over(left: str, models: dict[str, LanguageModel]) -> None:
    model = models["spare"]
    mark = [model.place(SPARE[0]), *plain(model, "cat"), model.place(SPARE[1])]
    found = Namer(model, query_tokens=12, name_tokens=5).prompts([f"{left} {START} cat {END}"])[0]
    assert len(around(found, mark)[0]) > 1, "something of the left side is read"  # type: ignore[arg-type]


@quick
@given(texts, st.text(st.sampled_from("the cat"), min_size=1).filter(str.strip), texts, st.integers(6, 30))
def test_a_marked_query_is_as_long_as_it_may_be(
    models: dict[str, LanguageModel], left: str, mention: str, right: str, query_tokens: int
) -> None:
    model, marked = models["spare"], Marked(left.strip(), mention.strip(), right.strip())
    found = Namer(model, query_tokens=query_tokens, name_tokens=5).prompts([marked.query])[0]
    whole = sum(len(plain(model, part)) for part in marked) + 4
    assert len(found) == min(query_tokens, whole)
    start, end = model.place(SPARE[0]), model.place(SPARE[1])
    assert found.index(start) < found.index(end)  # type: ignore[arg-type]


def test_fingerprints(models: dict[str, LanguageModel], tmp_path: Path) -> None:
    def of(kind: str, query_tokens: int = 40, name_tokens: int = 5) -> str:
        return Namer(models[kind], query_tokens=query_tokens, name_tokens=name_tokens).fingerprint()

    assert of("bart") == of("bart", query_tokens=20) != of("bart", name_tokens=6)
    assert len({of("bart"), of("spare"), of("llama"), of("gpt2")}) == 4
    other = LanguageModel(tiny_language_model(tmp_path, "bart", seed=9), precision="fp32")
    assert Namer(other, query_tokens=40, name_tokens=5).fingerprint() == of("bart"), "weights do not count"
    path = Path(other.name) / "tokenizer.json"
    cuts = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"truncation": cuts}), encoding="utf-8")
    again = LanguageModel(other.name, precision="fp32")
    assert Namer(again, query_tokens=40, name_tokens=5).fingerprint() == of("bart"), "nor how a tokenizer would cut"
    namer = Namer(models["bart"], query_tokens=40, name_tokens=5)
    namer.names(["the cat"])  # which sets how a shared tokenizer cuts
    assert namer.fingerprint() == namer.tuned({}).fingerprint() == of("bart")


def test_a_tuned_namer_is_another(models: dict[str, LanguageModel]) -> None:
    namer = Namer(models["t5"], query_tokens=40, name_tokens=5)
    twin = namer.tuned({})
    assert twin.model is not namer.model
    assert twin.prompts(["the cat"]) == namer.prompts(["the cat"])
    assert (twin.start, twin.end) == (namer.start, namer.end)


@pytest.mark.parametrize("kind", ["bart", "t5", "llama", "gpt2", "grown", "spare"])
def test_a_mention_may_be_read_before_all_of_the_text(kind: str, models: dict[str, LanguageModel]) -> None:
    query = Marked("the dog", "cat sat", "on a mat").query
    once = Namer(models[kind], query_tokens=60, mention_first=False)
    twice = Namer(models[kind], query_tokens=60, mention_first=True)
    [before], [after] = once.prompts([query]), twice.prompts([query])
    head = len(models[kind].around[0])
    mention = plain(models[kind], "cat sat")
    assert after[:head] == before[:head] and after[head : head + len(mention)] == mention
    space = " " if models[kind].spaced else ""  # what follows is no longer the beginning of a text
    rest = Namer(models[kind], prompt=f"cat sat{space}{{query}}", query_tokens=60, mention_first=False)
    assert after == rest.prompts([query])[0]
    assert twice.prompts(["the dog sat"]) == once.prompts(["the dog sat"])
    assert len(Namer(models[kind], query_tokens=20, mention_first=True).prompts([f"{'the dog ' * 90}{query}"])[0]) <= 20


def test_a_mention_is_read_first_where_a_model_was_grown(models: dict[str, LanguageModel]) -> None:
    query = Marked("the dog", "cat", "sat").query
    for kind, model in models.items():
        own, first = (Namer(model, query_tokens=60, mention_first=value).prompts([query]) for value in (None, True))
        assert (own == first) == (kind == "grown")
