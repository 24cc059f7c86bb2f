"""`keys`: made, listed and revoked in the catalog itself, so whoever may read the data folder may hand out keys."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.output import Json, document, say, table
from gateway.cli.serving import Data, DatabaseUrl
from gateway.cli.storing import opened_store

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)

Scopes = Annotated[
    list[str], typer.Option("--scope", help="predict, predict:MODEL, read, register, compile, metrics or admin.")
]


@app.command("create")
def create(
    scope: Scopes = ["admin"],  # noqa: B006 - typer copies it
    note: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it expires (default: never).", min=0)] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a key. Its secret is printed once, alone on stdout, and kept nowhere."""
    expires_at = None if days is None else time.time() + days * 86_400
    with opened_store(data, database_url) as store:
        key, secret = store.catalog.create_key(scope, note, expires_at)
    if as_json:
        document({"id": key.id, "scopes": key.scopes, "note": key.note, "expires_at": expires_at, "secret": secret})
        return
    say(f"key {key.id} ({', '.join(key.scopes)}): the secret is shown this once")
    print(secret)


@app.command("list")
def list_keys(data: Data = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """List keys; never their secrets."""
    with opened_store(data, database_url) as store:
        keys = store.catalog.keys()
    if as_json:
        fields = ("id", "scopes", "note", "created_at", "expires_at", "last_used_at")
        document({"keys": [{field: getattr(key, field) for field in fields} for key in keys]})
        return
    rows = [
        (key.id, ", ".join(key.scopes), key.note, _day(key.created_at), _day(key.expires_at), _day(key.last_used_at))
        for key in keys
    ]
    table(None, ["id", "scopes", "note", "created", "expires", "last used"], rows)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id, as `keys list` shows it.")],
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key; running gateways refuse it within a second."""
    with opened_store(data, database_url) as store:
        store.catalog.revoke_key(key_id)
        left = store.catalog.keys()
    say(f"key {key_id} is revoked")
    if not left:
        say("no key is left: a gateway on loopback is open to this machine after its next start (see --require-keys)")


def _day(moment: float | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
