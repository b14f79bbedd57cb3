"""Ragistry in LlamaIndex."""
