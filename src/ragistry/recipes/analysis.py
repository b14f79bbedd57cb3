"""The fields that recipes over terms share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..registry import Recipe

if TYPE_CHECKING:
    from ..encoders.terms import Terms


class Analysed(Recipe):
    """A recipe whose retriever turns text into terms."""

    stemmer: Annotated[str | None, Field(description="a Snowball algorithm, or null for none")] = "english"
    stop_words: Annotated[
        str | tuple[str, ...] | None, Field(description='"english", a list of words, or null for none')
    ] = "english"
    identifiers: Annotated[bool, Field(description="find identifiers such as os.path.join whole and by part")] = True

    def terms(self) -> Terms:
        """The encoder these fields describe."""
        from ..encoders.terms import Terms
        from ..text import Analyzer

        return Terms(Analyzer(self.stemmer, self.stop_words, self.identifiers))
