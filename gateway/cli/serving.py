"""`serve`, `worker` and `config`: the commands that run things, and the settings they run by."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import USAGE, Json, document, fail, table
from gateway.settings import Settings, settings_from

Data = Annotated[Path | None, typer.Option("--data", help="Data folder (default: FORGEWAY_DATA or forgeway-data).")]
DatabaseUrl = Annotated[str | None, typer.Option("--database-url", help="Catalog elsewhere, e.g. PostgreSQL.")]

config = typer.Typer(help="The settings in force.", no_args_is_help=True)


def _flag_type(annotation: Any) -> Any:
    """The type of a flag for a setting's type: the first plain one in a union, `Annotated` unwrapped."""
    for known in (int, float, Path, str):
        if annotation is known or known in getattr(annotation, "__args__", ()):
            return known
    return str


def every_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting, so that settings, flags and their help cannot drift apart."""
    parameters = []
    for name, field in Settings.model_fields.items():
        annotation = bool if field.annotation is bool else _flag_type(field.annotation)
        flag = f"--{name.replace('_', '-')}"
        declared = f"{flag}/--no-{flag[2:]}" if annotation is bool else flag
        option = typer.Option(declared, help=f"{field.description} [default: {field.default}]", show_default=False)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[annotation | None, option],
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@every_setting
def serve(**flags: Any) -> None:
    """Run the gateway: HTTP and gRPC on the same models, the runners and a compile worker.

    Prints one line with the URL, and where gRPC listens, when it is ready.
    Every flag is also a FORGEWAY_* variable and a key of forgeway.toml.
    """
    from gateway.app import run

    raise typer.Exit(run(effective(flags)))


def worker(data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Compile what is registered, apart from a gateway (which has a worker of its own unless --no-compile)."""
    settings = effective({"data": data, "database_url": database_url})
    command = [sys.executable, "-m", "compilers.worker", "--data", str(settings.data)]
    sys.stdout.flush()
    os.execve(sys.executable, command, os.environ | settings.catalog_environment())


@config.command("show")
def show_config(
    as_json: Json = False,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Show every setting in force here; passwords are masked."""
    from gateway.settings import origins

    settings = effective({})
    values = settings.masked()
    where = origins(settings)
    if as_json:
        facts = {name: {"value": value, "origin": where[name]} if origin else value for name, value in values.items()}
        document(facts)
        return
    columns = ["setting", "value", *(["from"] if origin else []), "meaning"]
    rows = [
        [name, value, *([where[name]] if origin else []), Settings.model_fields[name].description]
        for name, value in values.items()
    ]
    table(None, columns, rows)


def effective(flags: dict[str, Any]) -> Settings:
    from pydantic import ValidationError

    try:
        return settings_from(flags)
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise fail(f"settings: {faults}", USAGE) from None
