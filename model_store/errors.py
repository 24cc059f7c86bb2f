"""What can go wrong in the store. No HTTP in here: the gateway's table turns these into status codes.

StoreError
├── Invalid (ValueError)        outside input is not what it must be; the message says what would be right
│   ├── InvalidName             model or alias name
│   ├── InvalidModel            the uploaded model, or what it unpacks to
│   └── InvalidSamples          the npz of samples
├── NotFound (LookupError)      no such model, version, alias, variant, job or key
├── Conflict                    the change contradicts what exists (an alias still points at the version, ...)
├── LeaseLost                   a worker wrote with a token or lease that is no longer its own
├── BlobMissing                 bytes that a row names are not there: damage, never the caller's fault
└── StoreUnusable               the store cannot be opened here (network file system, newer schema, ...)
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of everything the store raises on purpose."""


class Invalid(StoreError, ValueError):
    """Outside input was refused. Its text is written for the person who sent it: no paths, no tracebacks."""


class InvalidName(Invalid):
    """Not a name a model or an alias may have."""


class InvalidModel(Invalid):
    """Not a model we can take in."""


class InvalidSamples(Invalid):
    """Not samples of the model they came with."""


class NotFound(StoreError, LookupError):
    """Nothing of that name exists."""


class Conflict(StoreError):
    """The change contradicts what exists."""


class LeaseLost(StoreError):
    """Another worker holds the job now, or it was cancelled: whatever this one was about to write is void."""


class BlobMissing(StoreError):
    """The bytes named by a digest are not in the store."""


class StoreUnusable(StoreError):
    """The store cannot be opened; the message says why and what to do."""
