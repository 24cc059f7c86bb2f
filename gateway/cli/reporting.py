"""`report`: the proof card of a version, as a page or as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import Json, Key, Url, document, say
from gateway.cli.registry import Name, Version, client_at, newest


def report(
    name: Name,
    version: Version = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: stdout; on a terminal NAME-VERSION.html).")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Write the proof card: what was tried, measured and chosen, why, and how to repeat it; one HTML page, or JSON."""
    import orjson

    with client_at(url, key) as client:
        number = version or newest(client, name)
        if as_json:
            facts = client.report(name, number)
            if out is None:
                document(facts)
                return
            content = orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n"
        else:
            content = client.report_page(name, number).encode()
    if out is None and not as_json:
        if not sys.stdout.isatty():
            sys.stdout.buffer.write(content)
            return
        out = Path(f"{name}-{number}.html")
    assert out is not None
    out.write_bytes(content)
    say(f"{name} version {number}: the proof card is in {out}")
