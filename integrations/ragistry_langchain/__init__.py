"""Ragistry in LangChain."""
