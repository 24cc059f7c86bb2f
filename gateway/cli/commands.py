"""All commands under one name, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 API key missing or not enough, 5 refused by the gate.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import asking, keys, registry, reporting, serving, upkeep
from gateway.cli.output import failures


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with failures():
            return super().invoke(ctx)


app = typer.Typer(
    name="forgeway",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve models through the fastest variant that is proven right.",
    epilog="FORGEWAY_URL and FORGEWAY_API_KEY say which gateway to ask and with which key.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        print(f"forgeway {installed('forgeway')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


app.command("serve")(serving.serve)
app.command("register")(registry.register)
app.command("models")(registry.models)
app.command("show")(registry.show)
app.command("report")(reporting.report)
app.command("predict")(asking.predict)
app.command("compile")(registry.compile_again)
app.command("jobs")(registry.jobs)
app.command("targets")(registry.targets)
app.command("alias")(registry.alias)
app.command("delete")(registry.delete)
app.command("bench")(asking.bench)
app.command("worker")(serving.worker)
app.command("doctor")(upkeep.doctor)
app.command("fsck")(upkeep.check)
app.command("demo")(upkeep.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(serving.config, name="config")


def main() -> None:
    app()
