"""The passage of a document that the command line shows."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ragistry import Analyzer
from ragistry.console import PASSAGE, analyzer_of, passage, printable

ANALYZER = Analyzer()
CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_analyzer_of_a_recipe() -> None:
    nested = {
        "name": "hybrid",
        "members": {"a": {"name": "dense"}, "b": {"stemmer": "german", "stop_words": ["x"], "identifiers": False}},
    }
    found = analyzer_of(nested)
    assert (found.stemmer, found.stop_words, found.identifiers) == ("german", ("x",), False)
    assert analyzer_of({"name": "dense"}).stemmer == "english"


def test_the_passage_is_where_the_most_terms_are() -> None:
    text = f"alpha {'filler ' * 100}alpha beta [gamma] {'filler ' * 100}"
    shown = passage(text, {"alpha", "beta", "gamma"}, ANALYZER)
    assert "alpha beta [gamma]" in shown.plain
    assert shown.plain.startswith("… ") and shown.plain.endswith(" …")
    assert [shown.plain[span.start : span.end] for span in shown.spans] == ["alpha", "beta", "gamma"]
    assert passage("", {"alpha"}, ANALYZER).plain == ""


@given(
    st.text(st.sampled_from("ab B\n\t\x1b[]/_é東京\u202e"), max_size=1500),
    st.sets(st.sampled_from(["a", "b", "ab", "東京", "京"])),
)
def test_passages_are_short_clean_and_marked_rightly(text: str, terms: set[str]) -> None:
    shown = passage(text, terms, ANALYZER)
    assert len(shown.plain) <= PASSAGE + 4
    assert not CONTROLS.search(shown.plain)
    for span in shown.spans:
        assert (
            ANALYZER.terms(shown.plain[span.start : span.end])[-1] in terms
            or set(ANALYZER.terms(shown.plain[span.start : span.end])) & terms
        )
    assert bool(shown.spans) == bool(terms & set(ANALYZER.terms(printable(text))))
