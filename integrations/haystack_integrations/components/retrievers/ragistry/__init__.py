"""Ragistry in Haystack: a retriever and a writer over one collection, and Haystack's filters in Ragistry's words."""

from __future__ import annotations

from .filters import to_where
from .retriever import RagistryRetriever
from .writer import RagistryWriter

__all__ = ["RagistryRetriever", "RagistryWriter", "to_where"]
