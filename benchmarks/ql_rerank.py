"""What it costs to ask a language model how likely a query is to follow a document, and what keeping documents saves.

Run it with `python benchmarks/ql_rerank.py [minilm gpt2]`. Weights and words are random: they decide scores, not costs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import interleaved, median_ratio, report

from ragistry.models import native_bf16
from ragistry.scorers.language_model import LanguageModel, Prefix
from ragistry.scorers.likelihood import stop_mask
from ragistry.scorers.prefixes import Prefixes
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.types import Document, Floats

DOCUMENT_TOKENS, QUERY_TOKENS, ROUNDS = 128, 10, 5
PLAIN = 10
"""Documents that the plain loop scores in a round: it takes as long for each."""
DOCUMENTS = {"minilm": 100, "gpt2": 20}
MODELS = {"minilm": "6 layers x 384, vocabulary 30522", "gpt2": "GPT-2: 12 layers x 768, vocabulary 50257"}


def main() -> None:
    """Print a table for each model and write the results."""
    for name in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder))


def measure(name: str, folder: Path) -> None:
    """One table."""
    size = save(name, folder / "model")
    draw = np.random.default_rng(0)
    documents = [Document(str(i), words(draw, size, DOCUMENT_TOKENS)) for i in range(DOCUMENTS[name])]
    queries = [words(draw, size, QUERY_TOKENS) for _ in range(50)]
    asked: dict[str, Callable[[], object]] = {}
    kept: dict[str, float] = {}
    off: dict[str, float] = {}
    wanted: dict[str, Floats] = {}
    for precision in ("fp32", "bf16") if native_bf16() else ("fp32",):
        model = LanguageModel(folder / "model", precision=precision)
        # One query after the other, the same ones for every way.
        turn = {way: cycle(queries) for way in ("plain", "uncached", "memory", "disk", "stop memory", "stop disk")}
        scorer = QueryLikelihood(model)
        asked[f"plain loop, {precision}"] = lambda s=scorer, turn=turn: plain(s, next(turn["plain"]), documents[:PLAIN])
        asked[f"uncached, {precision}"] = lambda s=scorer, turn=turn: s.score(next(turn["uncached"]), documents)
        off[f"plain loop, {precision}"] = apart(wanted, "full", plain(scorer, queries[0], documents[:PLAIN]))
        off[f"uncached, {precision}"] = apart(wanted, "full", scorer.score(queries[0], documents))
        for attention, prefix in (("full", ""), ("stop", "stop ")):
            scorer = QueryLikelihood(model, attention=attention)
            read, way = scorer.read(documents), f"{prefix}memory"
            asked[f"{way}, {precision}"] = lambda s=scorer, read=read, asking=turn[way]: follow(s, next(asking), read)
            kept[f"{way}, {precision}"] = read[0].bytes
            if attention not in wanted:
                wanted[attention] = plain(scorer, queries[0], documents[:PLAIN])
            off[f"{way}, {precision}"] = apart(wanted, attention, follow(scorer, queries[0], read))
            place, way = folder / f"{attention}-{precision}", f"{prefix}disk"
            disk = QueryLikelihood(model, attention=attention, kept=Prefixes(place, megabytes=10_000))
            disk.score(queries[0], documents)
            asked[f"{way}, {precision}"] = lambda s=disk, asking=turn[way]: s.score(next(asking), documents)
            kept[f"{way}, {precision}"] = statistics.mean(file.stat().st_size for file in place.iterdir())
            off[f"{way}, {precision}"] = apart(wanted, attention, disk.score(queries[0], documents))
    for ask in asked.values():
        ask()
    seconds = interleaved(asked, ROUNDS)
    pairs = {way: PLAIN if way.startswith("plain") else len(documents) for way in seconds}
    each = {way: [1e3 * one / pairs[way] for one in found] for way, found in seconds.items()}
    rows = [
        {
            "documents": way,
            "ms a pair": f"{statistics.median(found):.2f}",
            "times cheaper": f"{median_ratio(each, 'plain loop, fp32', way):.1f}",
            "kept a document": f"{kept[way] / 1e3:.0f} kB" if way in kept else "",
            "largest difference": f"{off[way]:.1e}",
        }
        for way, found in each.items()
    ]
    notes = (
        f"Medians of {ROUNDS} rounds in turn: documents of {DOCUMENT_TOKENS} tokens, a new query of {QUERY_TOKENS}, "
        f"{len(documents)} documents a query ({PLAIN} in the plain loop), {torch.get_num_threads()} thread(s). 'memory': "
        "read before; 'disk': kept in fp16. Differences are of mean log-probabilities, from the plain loop in fp32, with "
        "the same mask where attention is stopped."
    )
    report(f"ql_rerank_{name}", rows, title=f"Query likelihood, {MODELS[name]}", notes=notes)


def save(name: str, folder: Path) -> int:
    """A model with random weights and a word for each token; how many words."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    if name == "minilm":
        sizes: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
        model: Any = hf.BertLMHeadModel(hf.BertConfig(**sizes, is_decoder=True, initializer_range=0.1))
    else:
        model = hf.GPT2LMHeadModel(hf.GPT2Config(initializer_range=0.1, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    size = int(model.config.vocab_size)
    vocabulary = {"<end>": 0, "<begin>": 1} | {f"w{number}": number for number in range(2, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<end>", "<begin>"])
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<begin>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    return size


def words(draw: np.random.Generator, size: int, number: int) -> str:
    """A text of so many tokens."""
    return " ".join(f"w{token}" for token in draw.integers(2, size, number))


@torch.inference_mode()
def plain(scorer: QueryLikelihood, query: str, documents: list[Document]) -> Floats:
    """transformers, one pair at a time, with all logits."""
    model, found = scorer.model.model, []
    target = scorer.target(query)
    for prefix in scorer.prefixes(documents):
        ids, e = torch.tensor([prefix + target]), len(prefix) - 1
        mask = stop_mask(torch.tensor([e]), ids.shape[1], model.dtype) if scorer.attention == "stop" else None
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, e:-1].float()
        found.append(logits.log_softmax(-1)[range(len(target)), target].mean().item())
    return np.array(found, np.float32)


def follow(scorer: QueryLikelihood, query: str, read: list[Prefix]) -> Floats:
    """Scores from documents read before."""
    return np.asarray(scorer.model.log_likelihoods(read, scorer.target(query)).mean(axis=1), np.float32)


def apart(wanted: dict[str, Floats], attention: str, found: Floats) -> float:
    """The largest difference from the plain loop's scores, of which the first that come are kept."""
    return float(np.abs(found[:PLAIN] - wanted.setdefault(attention, found)).max())


if __name__ == "__main__":
    main()
