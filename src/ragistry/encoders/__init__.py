"""Encoders: they turn queries and documents into vectors of one kind."""
