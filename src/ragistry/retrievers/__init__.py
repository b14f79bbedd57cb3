"""Retrievers: they answer queries with rankings."""
