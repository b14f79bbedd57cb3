"""Ragistry in the Model Context Protocol."""
