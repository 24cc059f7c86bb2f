"""Column types of the catalog: they turn rows into entity fields and back, so that a row reads as `Entity(**row)`.

JSON is kept as text written by msgspec, typed by the entity it holds: the same bytes on SQLite and PostgreSQL, and
text is what both can store without caring for its content (a NUL inside JSON is escaped; JSONB would refuse it).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Double, Integer, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class NotKept(DontWrapMixin, ValueError):
    """A value that would not read back from JSON as it was."""


class Json(TypeDecorator[Any]):
    """A field of type `of` (a dataclass, a mapping, a tuple, ...) as JSON text.

    What is written is read back first: msgspec turns NaN and infinity into null, and one row that cannot be read
    again would take every listing down with it. Such a value is refused with NotKept instead.
    """

    impl = Text
    cache_ok = True

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of
        self._decode = msgspec.json.Decoder(of).decode

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = msgspec.json.encode(value)
        try:
            self._decode(text)
        except msgspec.ValidationError as exc:
            raise NotKept(f"cannot keep this {type(value).__name__}: {exc} (NaN and infinity have no JSON)") from exc
        return text.decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self._decode(value)


class Words(TypeDecorator[str]):
    """Text from outside, such as a name in a URL or the last words of a crashed child.

    What PostgreSQL cannot hold (NUL, lone surrogates) is replaced: never a reason to lose a row, and a look-up by such
    a name finds nothing instead of failing.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "�").encode("utf-8", "replace").decode()


class Name(TypeDecorator[Any]):
    """A StrEnum by its value."""

    impl = String
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(self.of(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self.of(value)


class Number(TypeDecorator[str]):
    """Ids that are decimal strings outside ("12") and integers inside, so that they sort and count."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: str | int | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)


def is_number(text: str) -> bool:
    """True when `text` can be an id kept in a `Number` column: canonical decimal, within 32 bits."""
    return text.isascii() and text.isdecimal() and len(text) <= 9 and text[0] != "0"


class moment(FunctionElement[float]):
    """The database's clock as POSIX seconds, to at least a millisecond. Leases compare with this and nothing else."""

    type = Double()
    inherit_cache = True


@compiles(moment, "sqlite")
def _moment_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # unixepoch('subsec') came with SQLite 3.42; Python 3.11 on Debian 12 has 3.40.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(moment, "postgresql")
def _moment_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # Not now(): that is the start of the transaction, and a transaction may have waited for a lock since.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
