"""The errors Ragistry raises on purpose.

Every message says what was given, what is needed and what to do. Catch `RagistryError` to catch them all.
"""

from __future__ import annotations


class RagistryError(Exception):
    """Parent of every error raised on purpose."""


class InvalidInput(RagistryError, ValueError):
    """An argument, document, query, vector or filter that cannot be used as given."""


class UnknownName(RagistryError, LookupError):
    """A retriever, field, measure or document id that is not known; the message lists what is."""


class MissingExtra(RagistryError, ImportError):
    """A package that is not installed; the message gives the `pip install` line."""


class ModelNotFound(RagistryError, LookupError):
    """A model that is neither installed, nor a local folder, nor reachable on the hub."""


class ServiceError(RagistryError):
    """A service on the network that cannot be reached, refuses a key, or answers what cannot be used."""


class FingerprintMismatch(RagistryError):
    """Vectors made by one encoder met another encoder."""


class StorageError(RagistryError, OSError):
    """A directory that cannot be read or written: missing, read-only, full, or not a collection."""


class Corrupt(StorageError):
    """Stored data that fails its checksum, is cut short, or has a format this version does not read."""


class Locked(StorageError):
    """Another process is writing to the collection."""
