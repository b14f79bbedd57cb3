"""Ragistry in DSPy: a module for programs, a retrieval model for `dspy.Retrieve`, and a tool for agents.

Importing this imports dspy, which takes seconds; neither asks anything of the network.
"""

from __future__ import annotations

from .retrieval import RagistryRetriever, as_dspy_rm
from .tools import as_dspy_tool

__all__ = ["RagistryRetriever", "as_dspy_rm", "as_dspy_tool"]
