"""What commands say: one JSON document or a table on stdout, everything else on stderr.

A reading command with `--json` prints exactly one document, stable in its keys. Tables are for people: they are wide
when stdout is no terminal, and without colour there or under NO_COLOR (rich sees to that).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Url = Annotated[str | None, typer.Option("--url", envvar="FORGEWAY_URL", help="Gateway to ask.")]
Key = Annotated[str | None, typer.Option("--key", envvar="FORGEWAY_API_KEY", help="API key to use.", show_envvar=True)]

FAILURE, USAGE, NOT_FOUND, AUTH, GATE = 1, 2, 3, 4, 5

_WIDE = 200


def people() -> Console:
    """Where tables go."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDE)


def aside() -> Console:
    """Where progress and hints go."""
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=_WIDE)


def document(value: Any) -> None:
    """Print `value` as the one JSON document of this command."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; columns whose name begins with > are aligned right."""
    drawn = Table(title=None if title is None else Text(title), title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))  # Text: "[x]" is no markup here
    people().print(drawn)


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    aside().print(text, markup=False, highlight=False, soft_wrap=True)


def fail(text: str, code: int = FAILURE) -> typer.Exit:
    """Say what went wrong and make the end of the command: `raise fail(...)`."""
    say(f"error: {text}")
    return typer.Exit(code)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn what a command may fail with into words on stderr and an exit code."""
    from gateway.client import ClientError, Forbidden, NotFound, Unauthorized
    from model_store.errors import Invalid, StoreError
    from model_store.errors import NotFound as NothingStored

    try:
        yield
    except (Unauthorized, Forbidden) as exc:
        raise fail(f"{exc} (--key or FORGEWAY_API_KEY; keys are made with `forgeway keys create`)", AUTH) from None
    except (NotFound, NothingStored) as exc:
        raise fail(f"{exc} (`forgeway models` lists what there is)", NOT_FOUND) from None
    except Invalid as exc:
        raise fail(str(exc), USAGE) from None
    except BrokenPipeError:  # `forgeway models | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush fails too
        raise typer.Exit(0) from None
    except (ClientError, StoreError, OSError) as exc:
        raise fail(str(exc)) from None
    except KeyboardInterrupt:
        raise fail("interrupted", 130) from None


def seconds(value: float | None) -> str:
    """A duration as people read it."""
    if value is None:
        return "-"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def size(value: float | None) -> str:
    """Bytes as people read them."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
