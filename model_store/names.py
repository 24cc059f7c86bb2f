"""Names people give: models and aliases. They appear in URLs, labels and logs, never in a path."""

from __future__ import annotations

import re

from model_store.errors import InvalidName

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_RESERVED = {"stats", "ready", "infer", "versions", "config", "index"}
"""Words that follow a model's place in V2 paths: `/v2/models/stats` would be ambiguous."""


def valid_name(name: str) -> str:
    """The name itself. Raises InvalidName with what is wrong with it."""
    if not _NAME.match(name):
        raise InvalidName(f"{_shown(name)} is no name for a model: {_fault(name)}")
    if name.lower() in _RESERVED:
        raise InvalidName(
            f"{name!r} is a word of the prediction protocol and no name for a model; {name}-model would do"
        )
    return name


def valid_alias(alias: str) -> str:
    """The alias itself. Aliases share the place of version numbers in URLs, so they are never all digits."""
    if not _NAME.match(alias):
        raise InvalidName(f"{_shown(alias)} is no alias: {_fault(alias)}")
    if alias.isdigit():
        raise InvalidName(f"{alias!r} is no alias: it reads as a version number; v{alias} would do")
    return alias


def _fault(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > 128:
        return f"it has {len(name)} characters, at most 128 are allowed"
    if not re.match(r"[A-Za-z0-9]", name):
        return "it must begin with a letter or a digit (A-Z, a-z, 0-9)"
    odd = sorted({char for char in name if not re.match(r"[A-Za-z0-9._-]", char)})
    return f"{', '.join(repr(char) for char in odd[:5])} is not allowed; use letters, digits, '.', '_' and '-'"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "...")
