"""Ragistry in Haystack."""
