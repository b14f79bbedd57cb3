"""Indexes: they hold vectors of one kind and answer which ids are nearest."""
