"""The command `forgeway`. Commands import what they need when they run, so that `--help` is quick."""

from gateway.cli.commands import main

__all__ = ["main"]
