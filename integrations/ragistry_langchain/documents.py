"""What LangChain and Ragistry call a document, turned into one another; and filters joined."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from langchain_core.documents import Document

import ragistry
from ragistry.borrowed import Borrowed
from ragistry.errors import InvalidInput
from ragistry.filters import matches
from ragistry.protocols import Searchable
from ragistry.tools import joined
from ragistry.types import Hit

_PLAIN = (str, int, float, bool, type(None))  # which nobody can change, and copying takes longer than all the rest


def given(found: Hit | ragistry.Document, score_key: str | None = None) -> Document:
    """A document as LangChain has it, sharing nothing with what it was made of: chains write into metadata.

    Args:
        found: A hit, or a document.
        score_key: The key of the metadata that a hit's score is put under, in place of what is there.

    Example:
        >>> given(Hit("1", 0.5, "Fourteen lines.", title="Sonnet", metadata={"year": 1609}))
        Document(id='1', metadata={'year': 1609, 'title': 'Sonnet'}, page_content='Fourteen lines.')
    """
    metadata = {key: value if isinstance(value, _PLAIN) else deepcopy(value) for key, value in found.metadata.items()}
    if found.title:
        metadata.setdefault("title", found.title)
    if score_key is not None and isinstance(found, Hit):
        metadata[score_key] = found.score
    return Document(found.text, id=found.id, metadata=metadata)


def taken(document: Document, id: str) -> ragistry.Document:
    """A document of LangChain's as Ragistry has it, under an id; it has no title, so its `page_content` is all that counts.

    Raises:
        InvalidInput: If the id is empty, or it or the text is not text that UTF-8 can hold.

    Example:
        >>> taken(Document("Fourteen lines."), "1").full_text
        'Fourteen lines.'
    """
    return ragistry.Document(id, document.page_content, metadata=dict(document.metadata))


def held(collection: Searchable, *filters: Any) -> Any:
    """One filter that says what all of these say; those that are empty or `None` say nothing.

    Raises:
        InvalidInput: If one is no filter, or two are given for a borrowed store, which has a language of its own.

    Example:
        >>> held(..., {"lang": "en"}, None, {"year": {"gte": 2020}})
        {'and': [{'lang': 'en'}, {'year': {'gte': 2020}}]}
    """
    some = [checked(collection, found) for found in filters if found]
    if len(some) > 1 and isinstance(collection, Borrowed):
        raise InvalidInput(
            f"{len(some)} filters were given for a borrowed store; only the store knows how to join them: give one that "
            "says all"
        )
    return some[0] if len(some) == 1 else joined(*some)


def checked(collection: Searchable, where: Any) -> Any:
    """A filter, refused if it is none; that of a borrowed store is the store's to check.

    Raises:
        InvalidInput: If it is no filter; the message says what is wrong with it.

    Example:
        >>> checked(..., {"year": {"gte": None}})
        Traceback (most recent call last):
        ragistry.errors.InvalidInput: `gte` for the field 'year' needs a number or text; given None
    """
    if where and not isinstance(collection, Borrowed):
        matches(where, {})
    return where
