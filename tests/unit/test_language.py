"""Language models that are taught what documents are asked: the loss, what it reads, growing, training, and the recipes."""

from __future__ import annotations

import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Collection, Document, create
from ragistry.encoders.backbones import Backbone
from ragistry.encoders.causal import Causal
from ragistry.encoders.stack import Stack
from ragistry.encoders.steps.pooling import Normalise, Pooling
from ragistry.errors import InvalidInput, ModelNotFound
from ragistry.scorers.growing import grow, grown
from ragistry.scorers.language_model import LanguageModel
from ragistry.scorers.likelihood import layers_of
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.training.language import Corrupted, Schooling, chunks, hidden, schooled, speaker, spoken, text_pairs
from ragistry.training.live import Tokens
from ragistry.training.losses import Batch, Sum
from ragistry.training.losses.likelihood import Likelihood
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.speaking import Speaking
from ragistry.training.trainer import Point

from ..tiny import tiny_language_model, tiny_model

KINDS = ("llama", "gpt2", "t5")
DRAW = random.Random(5)
LETTERS = string.ascii_lowercase + string.digits


def word() -> str:
    return "".join(DRAW.sample(LETTERS, 3))


SUBJECTS = ["the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a"]
DOCUMENTS = [Document(f"d{i:02}", f"{word()} {word()}") for i in range(len(SUBJECTS))]
PAIRS = [
    (f"{DRAW.choice(LETTERS)} {subject} {DRAW.choice(LETTERS)}", document.id)
    for _ in range(9)
    for subject, document in zip(SUBJECTS, DOCUMENTS, strict=True)
]
"""Queries whose words are not in the documents, so that what answers them is to be learnt."""
POEMS = [Document("1", "a sonnet has fourteen lines"), Document("2", "the cat sat"), Document("3", "poem, line; dog")]
ASKED = ["the sonnet", "cat", "has a dog"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Language models: tiny ones, and those grown from `base`."""
    place = tmp_path_factory.mktemp("models")
    found = {kind: tiny_language_model(place, kind) for kind in KINDS}
    return found | {"causal": grow(place / "causal", base), "seq2seq": grow(place / "seq2seq", base, kind="seq2seq")}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, LanguageModel]:
    return {kind: LanguageModel(folder, precision="fp32", threads=1) for kind, folder in folders.items()}


def scorer_of(model: LanguageModel, **settings: Any) -> QueryLikelihood:
    return QueryLikelihood(model, **({"query_tokens": 12, "document_tokens": 40} | settings))


def batch_of(scorer: QueryLikelihood, documents: list[Document] = POEMS, padding: int = 0) -> Batch:
    """Each query with the document of its place, what is no token of theirs filled with any."""
    source = Tokens([scorer.target(query) for query in ASKED], scorer.prefixes(documents))
    rows = np.arange(len(ASKED))
    queries, held = source.queries(rows), source.documents(rows)
    for features in (queries, held):
        features["input_ids"] = torch.where(features["attention_mask"] > 0, features["input_ids"], padding)
    return Batch(queries, held, torch.eye(len(ASKED)))


def by_hand(scorer: QueryLikelihood, documents: list[Document] = POEMS) -> float:
    """The loss as a sum over what the scorer says of each query's tokens."""
    found = []
    for query, document in zip(ASKED, documents, strict=True):
        found += scorer.model.log_likelihoods(scorer.read([document]), scorer.target(query))[0].tolist()
    return -sum(found) / len(found)


def stack_over(folder: Path, **settings: Any) -> Stack:
    settings = {"max_length": 32, "precision": "fp32"} | settings
    return Stack(Causal(folder), [Pooling("last"), Normalise()], **settings)


# The loss


@pytest.mark.parametrize("stop", [False, True], ids=["all", "stop"])
@pytest.mark.parametrize("kind", [*KINDS, "causal"])
def test_the_loss_counts_the_tokens_of_queries_and_no_others(models: Any, kind: str, stop: bool) -> None:
    if stop and kind == "t5":
        pytest.skip("an encoder-decoder cannot be stopped")
    scorer = scorer_of(models[kind], attention="stop" if stop else "full", ends=True)
    module, loss = Speaking(scorer.model.model, rounds=False).eval(), Likelihood(stop)
    for padding in (0, 1, 7):
        assert loss(module, batch_of(scorer, padding=padding)).item() == pytest.approx(by_hand(scorer), rel=1e-4)
    # Of a document with words hidden nothing counts but what queries see of it.
    others = [Document(poem.id, hidden(poem.text, 0.5, np.random.default_rng(1))) for poem in POEMS]
    value = loss(module, batch_of(scorer, others)).item()
    assert value == pytest.approx(by_hand(scorer, others), rel=1e-4)
    assert value != pytest.approx(by_hand(scorer), rel=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "causal", "seq2seq"])
def test_products_in_bfloat16_give_nearly_the_same_loss_and_weights_stay_float32(models: Any, kind: str) -> None:
    scorer = scorer_of(models[kind])
    module, exact = (Speaking(scorer.model.model, rounds=rounds).eval() for rounds in (True, False))
    found, expected = (Likelihood()(one, batch_of(scorer)) for one in (module, exact))
    found.backward()  # type: ignore[no-untyped-call]
    assert 0 < abs(found.item() - expected.item()) < 0.02 * abs(expected.item())
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in module.parameters() if weight.grad is not None} == {torch.float32}


def test_where_queries_see_nothing_of_a_document_it_changes_nothing(models: Any) -> None:
    scorer = scorer_of(models["seq2seq"])
    module, loss = Speaking(scorer.model.model, rounds=False).eval(), Likelihood()
    found = [loss(module, batch_of(scorer, documents)).item() for documents in (POEMS, POEMS[::-1])]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_each_query_counts_with_its_best_document_and_those_without_not_at_all(models: Any) -> None:
    scorer = scorer_of(models["llama"])
    module, loss, batch = Speaking(scorer.model.model, rounds=False).eval(), Likelihood(), batch_of(scorer)
    two = Batch(batch.queries, batch.documents, torch.tensor([[1.0, 2, 0], [0, 0, 0], [0, 0, 1]]))
    found = [
        scorer.model.log_likelihoods(scorer.read([POEMS[document]]), scorer.target(ASKED[query]))[0]
        for query, document in ((0, 1), (2, 2))
    ]
    assert loss(module, two).item() == pytest.approx(-np.concatenate(found).mean(), rel=1e-4)
    none = loss(module, Batch(batch.queries, batch.documents, torch.zeros(3, 3)))
    none.backward()
    assert none.item() == 0


@pytest.mark.parametrize("kind", [*KINDS, "causal"])
def test_gradients_reach_every_layer_and_no_word_embedding(models: Any, kind: str) -> None:
    scorer = scorer_of(models[kind])
    module = Speaking(scorer.model.model, rounds=False)
    Likelihood()(module, batch_of(scorer)).backward()
    words = module.language.get_input_embeddings().weight
    assert words.grad is None
    assert not words.requires_grad
    reached = {name for name, weight in module.named_parameters() if weight.grad is not None and weight.grad.any()}
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad and "pooler" not in name}
    matrices = {name for name in trained if name.endswith("weight") and "k_proj" not in name}
    assert matrices <= reached
    # What was given is a model apart.
    assert all(weight.grad is None for weight in models[kind].model.parameters())


def test_with_weight_0_it_is_nearness_alone(folders: Any) -> None:
    module = spoken(stack_over(folders["llama"])).eval()
    batch, near = batch_of(scorer_of(LanguageModel(folders["llama"], precision="fp32"))), InfoNCE(0.1)
    value = near(module, batch)
    assert Sum([(0, Likelihood()), (1, near)])(module, batch).item() == value.item()
    assert Sum([(1, Likelihood()), (1, near)])(module, batch).item() > value.item() + 0.1


# What it reads


@given(st.text(), st.floats(0, 1), st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_words_are_hidden_one_by_one(text: str, share: float, seed: int) -> None:
    found = hidden(text, share, np.random.default_rng(seed))
    assert found == hidden(text, share, np.random.default_rng(seed))
    assert hidden(text, 0.0, np.random.default_rng(seed)) == text
    assert set(hidden(text, 1.0, np.random.default_rng(seed)).split()) <= {"_"}
    words = text.split()
    # Other characters are white space to `str.split` than to `re`, so that words are compared where these agree.
    if text.isascii() and not set(text) & set("\x1c\x1d\x1e\x1f"):
        assert len(found.split()) == len(words)
        assert all(new in ("_", old) for new, old in zip(found.split(), words, strict=True))
        assert [c for c in found if c.isspace()] == [c for c in text if c.isspace()]


def test_about_the_share_of_words_is_hidden() -> None:
    found = hidden("word " * 4000, 0.45, np.random.default_rng(0)).split()
    assert found.count("_") / 4000 == pytest.approx(0.45, abs=0.03)


def test_words_are_hidden_in_training_batches_only_and_others_each_time() -> None:
    def tokenise(texts: Any) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    texts, rows = ["a b c d e f g h", "i j k l m n o p q r"], np.array([1, 0])
    source = Corrupted([[1], [2, 3]], texts, tokenise, 0.5, seed=0)
    drawn = [source.documents(rows) for _ in range(3)]
    plain = Tokens.documents(source, rows)
    assert torch.equal(plain["input_ids"], Tokens([], tokenise(texts)).documents(rows)["input_ids"])
    for found in drawn:
        assert torch.equal(found["attention_mask"], plain["attention_mask"])  # "_" is one token here, as a letter is
        other = found["input_ids"] != plain["input_ids"]
        assert other.any()
        assert (found["input_ids"][other] == ord("_")).all()
    assert not torch.equal(drawn[0]["input_ids"], drawn[1]["input_ids"])
    again = Corrupted([[1], [2, 3]], texts, tokenise, 0.5, seed=0)
    assert all(torch.equal(again.documents(rows)["input_ids"], found["input_ids"]) for found in drawn)
    assert source.queries(rows)["input_ids"].tolist() == [[2, 3], [1, 0]]
    none = Corrupted([[1], [2, 3]], texts, tokenise, 0.0, seed=0)
    assert torch.equal(none.documents(rows)["input_ids"], plain["input_ids"])


def test_titles_and_first_sentences_in_turn() -> None:
    documents = [
        Document(f"{i}", f"The {a} begins here. Its other {a} sentence ends.", title=f"Of {a}s")
        for i, a in enumerate(["cat", "dog", "sonnet", "poem"])
    ]
    pairs = text_pairs(documents, pairs=100)
    assert len(pairs) == 8
    assert [query.startswith("The") for query, _ in pairs] == [True, False] * 4
    assert all(query not in text for query, text in pairs)
    assert {query for query, _ in pairs} >= {"Of cats", "The cat begins here."}
    assert dict(pairs)["The dog begins here."].endswith("Its other dog sentence ends.")
    assert pairs[:3] == text_pairs(documents, pairs=100)[:3]
    assert len(text_pairs(documents, pairs=3)) == 3
    assert text_pairs([Document("a", "cat"), Document("b", "dog")], pairs=5) == []
    assert text_pairs([], pairs=5) == []


def test_chunks_are_all_the_words_once() -> None:
    documents = [Document("1", "a b c", title="t"), Document("2", ""), Document("3", "d")]
    assert chunks(documents, words=3) == [("t a b", ""), ("c", ""), ("d", "")]
    with pytest.raises(InvalidInput, match="words=0"):
        chunks(documents, words=0)


# Growing


def test_a_causal_model_grows_from_the_base_s_layers(models: Any, base: Path) -> None:
    before, after = (
        Backbone(base).load(torch.float32).model.state_dict(),
        layers_of(models["causal"].model).state_dict(),
    )
    shared = {name for name in before if "pooler" not in name}
    assert shared <= set(after)
    assert all(torch.equal(before[name], after[name]) for name in shared)
    one, two = models["causal"].read([[2, 7, 9], [2, 7, 9, 11, 12]])
    assert torch.allclose(one.states, two.states[..., :3, :], atol=1e-5)
    # The output layer is the word embeddings, after a map that starts as nothing but a change of scale.
    head = models["causal"].model.get_output_embeddings().weight
    assert torch.equal(head, models["causal"].model.get_input_embeddings().weight)


def test_an_encoder_decoder_grows_with_the_base_for_encoder(models: Any, base: Path) -> None:
    model, tokens = models["seq2seq"], [2, 7, 9, 11, 3]
    embedding = Backbone(base).load(torch.float32).embed([tokens])["embedding"]
    with torch.inference_mode():
        assert torch.equal(model.model.get_encoder()(input_ids=torch.tensor([tokens])).last_hidden_state, embedding)
    one, two = (model.log_likelihoods(model.read([ids]), [8, 9, 3]) for ids in (tokens, [2, 30, 3]))
    assert np.allclose(one, two, atol=1e-6)


def test_fewer_layers_are_the_last_and_others_evenly(base: Path, tmp_path: Path) -> None:
    whole = grown(base)
    thin = LanguageModel(grow(tmp_path / "thin", base, layers=1), precision="fp32")
    assert thin.read([[1, 2]])[0].states.shape[0] == 1
    assert torch.equal(
        thin.model.bert.encoder.layer[0].output.dense.weight, whole.bert.encoder.layer[1].output.dense.weight
    )
    two = LanguageModel(grow(tmp_path / "two", base, kind="seq2seq", layers=1), precision="fp32")
    sizes = [len(part.base_model.encoder.layer) for part in (two.model.encoder, two.model.decoder)]
    assert sizes == [2, 1]
    assert np.isfinite(two.log_likelihoods(two.read([[1, 2]]), [3, 4])).all()


def test_what_cannot_grow_is_refused(base: Path, folders: Any, tmp_path: Path) -> None:
    wrong: Any = "prefix"
    with pytest.raises(InvalidInput, match="use one of causal, seq2seq"):
        grow(tmp_path / "x", base, kind=wrong)
    for layers in (0, 3):
        with pytest.raises(InvalidInput, match=f"layers={layers}; the model has 2"):
            grow(tmp_path / "x", base, layers=layers)
    with pytest.raises(InvalidInput, match="cannot be left out"):
        grow(tmp_path / "x", folders["llama"], layers=1)
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        grow(tmp_path / "x", folders["t5"])
    with pytest.raises(ModelNotFound):
        grow(tmp_path / "x", tmp_path / "nothing")
    assert not (tmp_path / "x").exists()


# The backbone


@pytest.mark.parametrize("kind", ["base", "llama", "gpt2"])
def test_what_comes_later_changes_no_embedding(base: Path, folders: Any, kind: str) -> None:
    loaded = Causal(folders.get(kind, base)).load(torch.float32)
    tokens = [2, 7, 9, 11, 12, 3]
    whole = loaded.embed([tokens])["embedding"][0]
    for length in range(1, 6):
        padded = loaded.embed([tokens[:length], tokens])["embedding"][0, :length]
        assert torch.allclose(loaded.embed([tokens[:length]])["embedding"][0], whole[:length], atol=1e-4)
        assert torch.allclose(padded, whole[:length], atol=1e-4)
    both = Backbone(folders.get(kind, base)).load(torch.float32).embed([tokens])["embedding"][0]
    assert torch.allclose(both, whole, atol=1e-4) == (kind != "base")


@pytest.mark.parametrize("kind", ["base", "llama", "gpt2"])
def test_texts_end_with_the_end_token_once(base: Path, folders: Any, kind: str) -> None:
    backbone = Causal(folders.get(kind, base))
    found = backbone.load(torch.float32, 8)
    end = LanguageModel(folders.get(kind, base)).end if kind != "base" else found.tokenizer.token_to_id("[SEP]")
    for text in ("", "cat", "the cat sat on the mat " * 5):
        [ids] = found.tokenise([text])
        assert ids[-1] == end
        assert ids.count(end) == 1
        assert len(ids) <= 8
    assert backbone.layout().pooling == "last"
    assert backbone.fingerprint() != Backbone(backbone.name).fingerprint()
    stack = stack_over(folders.get(kind, base))
    tokens = stack.tokens(["the cat"], "query")[0]
    last = stack.loaded().embed([tokens])["embedding"][0, -1].detach()
    assert np.allclose(stack.encode(["the cat"], "query")[0], last / last.norm(), atol=1e-5)


def test_models_that_cannot_be_read_from_left_to_right_are_refused(base: Path, tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    folder = tmp_path / "distil"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32)).save_pretrained(folder)
    with pytest.raises(InvalidInput, match="reads in both directions"):
        Causal(folder).load(torch.float32)


# Training


@pytest.mark.parametrize(
    ("kind", "attention"),
    [("llama", "stop"), ("gpt2", "full"), ("causal", "stop"), ("t5", "full"), ("seq2seq", "full")],
)
def test_a_taught_speaker_finds_queries_likelier(models: Any, tmp_path: Path, kind: str, attention: Any) -> None:
    scorer = scorer_of(models[kind], attention=attention, ends=True)
    before = by_hand(scorer)
    was = {name: value.clone() for name, value in models[kind].model.state_dict().items()}
    pairs = [(query, poem.full_text) for query, poem in zip(ASKED, POEMS, strict=True)]
    seen: list[Point] = []
    how = Schooling(likelihood_epochs=8, likelihood_rate=3e-3, corruption=0.2)
    folder = speaker(scorer, tmp_path / "taught", pairs, how, progress=seen.append)
    assert folder == tmp_path / "taught"
    losses = [point.loss for point in seen if point.loss is not None]
    assert losses[-1] < losses[0]
    taught = LanguageModel(folder, precision="fp32", threads=1)
    after = scorer_of(taught, attention=attention, ends=True)
    assert by_hand(after) < before - 0.1
    assert taught.fingerprint() != models[kind].fingerprint()
    # The model it began with stays as it was, and so does the encoder of one that has one, bit for bit.
    now = taught.model.state_dict()
    assert all(torch.equal(value, was[name]) for name, value in models[kind].model.state_dict().items())
    same = {name for name in was if name in now and torch.equal(was[name], now[name])}
    encoder = {name for name in was if name.startswith("encoder.")}
    assert same >= encoder
    assert len(same) < len(was)
    assert bool(encoder) == (not taught.causal)


def test_without_pairs_or_epochs_a_speaker_is_what_it_was(models: Any, tmp_path: Path) -> None:
    scorer = scorer_of(models["gpt2"])
    for pairs, epochs in (([], 1), ([("cat", "a cat")], 0)):
        folder = speaker(scorer, tmp_path / f"{epochs}", pairs, Schooling(likelihood_epochs=epochs))
        assert by_hand(scorer_of(LanguageModel(folder, precision="fp32"))) == pytest.approx(by_hand(scorer), rel=1e-6)


@pytest.mark.parametrize("kind", ["base", "llama"])
def test_as_a_module_it_gives_the_stack_s_vectors(base: Path, folders: Any, kind: str) -> None:
    stack = stack_over(folders.get(kind, base))
    module = spoken(stack).eval()
    module.rounds = False
    texts = ["the cat", "a sonnet has fourteen lines", ""]
    with torch.no_grad():
        found = module(Tokens(stack.tokens(texts, "query"), []).queries(np.arange(3)), "query")["vector"].numpy()
    assert np.allclose(found, stack.encode(texts, "query"), atol=1e-5)
    assert module.weights(stack.loaded().model.state_dict()) == {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_are_kept_are_those_that_were_trained(base: Path, precision: str) -> None:
    from scipy.sparse import csr_array

    judged = csr_array(np.eye(3, dtype=np.float32))
    long = [Document(poem.id, f"{poem.text} " * 9) for poem in POEMS]
    # A query and a document as long as the model reads are too long for it together.
    settings = Schooling(epochs=1, likelihood_epochs=1, made=0, length=128, size=2)
    stack = stack_over(base, precision=precision)
    weights, history = schooled(stack, [f"{query} " * 30 for query in ASKED], long, judged, settings)
    assert weights
    assert history.points
    assert not any("word_embeddings" in name for name in weights)
    nothing, _ = schooled(stack, ASKED, POEMS, judged, Schooling(epochs=0, likelihood_epochs=0))
    assert nothing == {}


# The recipes


def rankings(docs: Collection) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in docs.search(query, k=5)] for query, _ in PAIRS[::9]]


FIELDS = {"precision": "fp32", "epochs": 8, "learning_rate": 3e-3, "made": 0, "size": 16, "max_length": 32}


@pytest.fixture
def filled(folders: Any, tmp_path: Path) -> Callable[..., Collection]:
    def make(**fields: Any) -> Collection:
        docs = Collection.create(tmp_path / "docs", create("llm-ql", model=str(folders["llama"]), **(FIELDS | fields)))
        docs.add(DOCUMENTS)
        return docs

    return make


def vectors(docs: Collection, ids: list[str]) -> Any:
    retriever: Any = docs.retriever()
    return retriever.index.vectors(ids)


def test_llm_ql_is_taught_and_stays_so(filled: Any, tmp_path: Path) -> None:
    with filled(cache=str(tmp_path / "vectors.sqlite")) as docs:
        untaught = rankings(docs)
        found = docs.fit(PAIRS, goal="seen")
        assert found.kept
        assert found.fitted > found.base + 0.2
        both = "query likelihood, 1 epochs, then nearness, 8 epochs"
        assert list(found.tried) == ["nearness, 8 epochs", both]
        assert found.chosen in found.tried
        taught = rankings(docs)
        assert taught != untaught
        with Collection.open(docs.path) as again:
            assert rankings(again) == taught
            again.check()
            # What is added later is encoded by the taught model.
            again.add([Document("new", "a dog"), Document("twin", DOCUMENTS[3].text)])
            one, other, twin = vectors(again, ["new", "d03", "twin"])
            assert np.array_equal(other, twin)
            retriever: Any = again.retriever()
            assert np.allclose(one, retriever.encoder.encode(["a dog"], "document")[0], atol=1e-5)
            assert not np.allclose(one, retriever.base.encode(["a dog"], "document")[0], atol=1e-2)
            again.remove(["new", "twin"])
            # Fitted anew it is compared with the untaught, and begins with it.
            second = again.fit(PAIRS, goal="seen")
            assert (second.base, second.fitted) == pytest.approx((found.base, found.fitted))
            assert [[id for id, _ in ranking] for ranking in rankings(again)] == [
                [id for id, _ in ranking] for ranking in taught
            ]


def test_llm_ql_that_learns_nothing_is_dense(filled: Any) -> None:
    with filled(epochs=0, likelihood_epochs=0) as docs:
        before = rankings(docs)
        found = docs.fit(PAIRS)
        assert not found.kept
        assert rankings(docs) == before
        retriever: Any = docs.retriever()
        assert not retriever.weights


@pytest.mark.slow
def test_llm_ql_by_lora(filled: Any) -> None:
    with filled(tune="lora", rank=8, learning_rate=1e-2) as docs:
        assert docs.fit(PAIRS, goal="seen").kept
        retriever: Any = docs.retriever()
        assert retriever.weights
        assert all(name.endswith("proj.weight") for name in retriever.weights)
        taught = rankings(docs)
        with Collection.open(docs.path) as again:
            assert rankings(again) == taught


@pytest.mark.parametrize(
    "field",
    [
        {"url": "http://localhost:1"},
        {"dimensions": 8},
        {"requests_per_minute": 5},
        {"pooling": "cls"},
        {"runtime": "onnx"},
        {"runtime": "openvino"},
    ],
)
def test_llm_ql_refuses_what_it_cannot_train_by_name(base: Path, field: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(field))):
        create("llm-ql", model=str(base), **field)


def test_ql_rerank_is_fitted_and_reads_what_the_collection_holds(folders: Any, tmp_path: Path) -> None:
    cache = tmp_path / "read"
    fields = {"model": str(folders["gpt2"]), "prompt": "plain", "precision": "fp32", "query_tokens": 16, "depth": 10}
    with Collection.create(tmp_path / "docs", create("ql-rerank", **fields, cache=str(cache), weight=1.0)) as docs:
        docs.add([Document("x", "cat dog poem"), Document("y", "cat sonnet line"), *DOCUMENTS])
        first = docs.search("cat", k=5)
        assert {hit.id for hit in first} == {"x", "y"}
        files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
        assert len(files) == 2
        # Scores are the model's own, scaled; asked again, or anew, nothing is read that was read before.
        scorer = QueryLikelihood(LanguageModel(folders["gpt2"], precision="fp32"), query_tokens=16)
        said = scorer.score("cat", [Document("x", "cat dog poem"), Document("y", "cat sonnet line")])
        assert first[0].id == "xy"[int(np.argmax(said))]
        with Collection.open(docs.path) as again:
            assert [(hit.id, hit.score) for hit in again.search("cat", k=5)] == [(hit.id, hit.score) for hit in first]
        assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files
        # A document that is replaced is read as it is now.
        worse = first[-1].id
        docs.add([Document(worse, "cat")])
        hits = docs.search("cat", k=5)
        assert {hit.id: hit.text for hit in hits}[worse] == "cat"
        assert len(list(cache.iterdir())) == 3
        now = scorer.score("cat", [Document(hit.id, hit.text) for hit in hits])
        assert list(now) == sorted(now, reverse=True)
        asked = [(document.text.split()[0], document.id) for document in DOCUMENTS]
        found = docs.fit([*asked, ("cat", worse)])
        assert found.candidates == 11
        assert 0 <= found.recipe.weight <= 1
        assert len(list(cache.iterdir())) > 3
