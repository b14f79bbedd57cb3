"""Ragistry in DSPy."""
