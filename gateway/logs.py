"""Logs: one JSON object a line on stderr, so that a person can read them and a collector need not parse them.

Keys: ts, level, event, and whatever facts belong to the event (request_id, model, version, variant, code, dur_ms,
key_id, ...). A key's secret, a body or a path of this machine is never a fact.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from typing import Any

import orjson

LOGGER = logging.getLogger("forgeway")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What we echo of a client's X-Request-ID: nothing that could forge a second line or a second header."""


def event(level: int, name: str, /, **facts: Any) -> None:
    """Log one event. Facts that are None are left out."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, name, extra={"facts": {key: value for key, value in facts.items() if value is not None}})


def new_request_id() -> str:
    return secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """A record as one line. Records of libraries come through here too, so the whole stream is one format."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if record.name != LOGGER.name:
            facts["logger"] = record.name
        facts.update(getattr(record, "facts", {}))
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(facts, default=str).decode()


def set_up(level: str) -> None:
    """Send everything that is logged in this process to stderr. Called once, by the command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    LOGGER.setLevel(level.upper())
