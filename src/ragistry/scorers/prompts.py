"""What a language model is told about a document before it is asked how likely a query is to follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import InvalidInput

PLACE = "{document}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words around a document, and what ends them.

    Args:
        before: Put before the document's title and text.
        after: Put after them. It is never cut: long documents are.
        ending: Whether the token that ends a text comes last, as in a model trained to say all it knows in that one.
    """

    before: str = ""
    after: str = ""
    ending: bool = False


PROMPTS: Mapping[str, Prompt] = MappingProxyType(
    {
        "plain": Prompt(ending=True),
        "upr": Prompt("Passage: ", ". Please write a question based on this passage."),
        "llm-qlm": Prompt(
            "Generate a question that is the most relevant to the given document.\nThe document: ",
            "\nHere is a generated relevant question:",
        ),
        "llm-ql": Prompt(
            "Instruct: Given a retrieved passage, summarize the passage.\nPassage: ", "\nSummarization:", ending=True
        ),
    }
)
"""By name: nothing but the document; UPR's (arXiv:2204.07496); that of Zhuang et al., "Open-source LLMs are strong zero-shot
query likelihood models" (arXiv:2310.13243); LLM-QL's (arXiv:2504.05216)."""


def prompt_of(given: str) -> Prompt:
    """A prompt by name, or from a text that holds `{document}` once.

    Raises:
        InvalidInput: If it is neither.

    Example:
        >>> prompt_of("Read this: {document} What is asked?").after
        ' What is asked?'
    """
    if given in PROMPTS:
        return PROMPTS[given]
    if given.count(PLACE) != 1:
        raise InvalidInput(
            f"the prompt {given!r:.200} is not known and does not hold {PLACE} once; use one of {', '.join(PROMPTS)}, or a "
            f"text with {PLACE} where the document belongs"
        )
    before, _, after = given.partition(PLACE)
    return Prompt(before, after)
