"""API keys: shown once, kept as a sha256, checked in constant time.

A secret reads `fw_<id>_<random><check>`: 8 hexadecimal characters that name the key in lists and logs, 32 random
bytes in 43 characters of base64url, and a CRC-32 in 6 more, so that a mistyped or cut key is refused without a
look-up and a scanner can tell a leaked key from noise. sha256 without salt or stretching is right for 256 random
bits; a password hash would cost every request its tens of milliseconds for nothing.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, or_, select, update

from model_store.columns import moment
from model_store.database import Database
from model_store.errors import Invalid, NotFound
from model_store.tables import api_keys

SCOPES = ("predict", "read", "register", "compile", "admin", "metrics")
"""What a key may do; `predict:NAME` allows predictions of one model only."""

_SECRET = re.compile(r"fw_([0-9a-f]{8})_[A-Za-z0-9_-]{49}\Z")
_CHECK_LENGTH = 6
_LAST_USED_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Everything about a key but its secret."""

    id: str
    scopes: tuple[str, ...]
    note: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    """To the hour: keeping it exact would make every request a write."""


class Keys:
    _database: Database

    def create_key(self, scopes: Sequence[str], note: str = "", expires_at: float | None = None) -> tuple[ApiKey, str]:
        """A new key and its secret, which cannot be had again. Raises Invalid for a scope that does not exist."""
        for scope in scopes:
            _check_scope(scope)
        id, secret = _new_secret()  # noqa: A001 - the entity's own word
        with self._database.change() as connection:
            row = connection.execute(
                insert(api_keys)
                .values(
                    id=id,
                    sha256=_hash(secret),
                    scopes=tuple(dict.fromkeys(scopes)),
                    note=note,
                    created_at=moment(),
                    expires_at=expires_at,
                )
                .returning(*_FACTS)
            ).one()
        return ApiKey(**row._mapping), secret

    def keys(self) -> tuple[ApiKey, ...]:
        """Oldest first, expired ones too."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_FACTS).order_by(api_keys.c.created_at, api_keys.c.id))
            return tuple(ApiKey(**row._mapping) for row in rows)

    def revoke_key(self, id: str) -> None:  # noqa: A002 - the entity's own word
        """Raises NotFound. The sequence rises, so that whoever remembers keys learns it."""
        with self._database.change() as connection:
            if connection.execute(delete(api_keys).where(api_keys.c.id == id)).rowcount == 0:
                raise NotFound(f"no key {id!r}")

    def find_key(self, secret: str) -> ApiKey | None:
        """The key of this secret; None for one that is malformed, unknown, wrong or expired."""
        match = _SECRET.match(secret)
        if match is None or secret[-_CHECK_LENGTH:] != _check(secret[:-_CHECK_LENGTH]):
            return None
        alive = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > moment())
        with self._database.read() as connection:
            now = self._database.now(connection)
            row = connection.execute(
                select(*_FACTS, api_keys.c.sha256).where(api_keys.c.id == match[1], alive)
            ).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, _hash(secret)):
            return None
        facts = {column.name: row._mapping[column.name] for column in _FACTS}
        if row.last_used_at is None or row.last_used_at < now - _LAST_USED_EVERY_S:
            with self._database.write() as connection:
                connection.execute(update(api_keys).where(api_keys.c.id == row.id).values(last_used_at=now))
            facts["last_used_at"] = now
        return ApiKey(**facts)


_FACTS = tuple(column for column in api_keys.c if column.name != "sha256")


def _new_secret() -> tuple[str, str]:
    id = secrets.token_hex(4)  # noqa: A001
    body = f"fw_{id}_{secrets.token_urlsafe(32)}"
    return id, body + _check(body)


def _check(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_scope(scope: str) -> None:
    kind, _, model = scope.partition(":")
    if kind in SCOPES and (not model or kind == "predict") and not scope.endswith(":"):
        return
    close = difflib.get_close_matches(kind, SCOPES, n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close and close[0] != scope else f"scopes: {', '.join(SCOPES)}, predict:NAME"
    )
    raise Invalid(f"no scope {scope!r}; {hint}")
