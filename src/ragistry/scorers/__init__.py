"""Scorers: how well documents answer a query, read together."""
