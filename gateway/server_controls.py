"""Trace and log settings of V2: what can be asked and set while the server runs.

Log settings really change what is logged: the level follows the flags. Trace settings are kept and reported, per model
over global ones; nothing is traced by them (times of every stage are in Server-Timing and the metrics), which is why
the server does not list the extension `trace`.

Requests are mappings as JSON or gRPC hand them over: one value or a list of them, None to go back to what holds above.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from gateway.errors import BadRequest, Unsupported
from gateway.logs import LOGGER

TraceSettings = dict[str, list[str] | str]

_TRACE: dict[str, list[str] | str] = {
    "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0", "trace_file": "",
    "trace_mode": "triton",
}  # fmt: skip
_TRACE_LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
_TRACE_LEAST = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}
_LOG_FORMATS = ("default", "ISO8601")
_MOST_MODELS = 1024


class ServerControls:
    """`level` is the least level logged at the start, as in the settings."""

    def __init__(self, level: str) -> None:
        least = logging.getLevelNamesMapping()[level.upper()]
        self._log: dict[str, Any] = {
            "log_file": "",
            "log_info": least <= logging.INFO,
            "log_warning": least <= logging.WARNING,
            "log_error": least <= logging.ERROR,
            "log_verbose_level": int(least <= logging.DEBUG),
            "log_format": "default",
        }
        self._trace = dict(_TRACE)
        self._of_models: dict[str, TraceSettings] = {}

    def set_before(self) -> list[tuple[str, dict[str, Any]]]:
        """What was set so far, as the deeds (gateway/everyone.py) that set it again elsewhere."""
        log = {name: value for name, value in self._log.items() if name != "log_file"}
        models = [("set_trace", {"settings": own, "model": model}) for model, own in self._of_models.items()]
        return [("set_log", {"settings": log}), ("set_trace", {"settings": self._trace}), *models]

    def log_settings(self) -> dict[str, Any]:
        """`log_file`, `log_info`, `log_warning`, `log_error`, `log_verbose_level`, `log_format`."""
        return dict(self._log)

    def set_log(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Change some; all of them, as they are then. Raises BadRequest, Unsupported; then nothing has changed."""
        changed = {name: _log_value(name, value) for name, value in given.items()}
        self._log.update(changed)
        LOGGER.setLevel(self._level())
        return self.log_settings()

    def trace_settings(self, model: str | None = None) -> TraceSettings:
        """The settings that hold for all models, or for one."""
        return {**self._trace, **self._of_models.get(model or "", {})}

    def set_trace(self, given: Mapping[str, Any], model: str | None = None) -> TraceSettings:
        """Change some; all of them, as they are then. Raises BadRequest; then nothing has changed."""
        changed = {name: None if value is None else _trace_value(name, value) for name, value in given.items()}
        unknown = [name for name in changed if name not in _TRACE]
        if unknown:
            raise BadRequest(f"Unknown trace setting '{unknown[0][:60]}'; there are {', '.join(_TRACE)}")
        if model is not None and model not in self._of_models and len(self._of_models) >= _MOST_MODELS:
            raise BadRequest(f"{_MOST_MODELS} models have trace settings of their own already")
        own = self._trace if model is None else self._of_models.setdefault(model, {})
        for name, value in changed.items():
            if value is not None:
                own[name] = value
            elif model is None:
                own[name] = _TRACE[name]
            else:
                own.pop(name, None)
        return self.trace_settings(model)

    def _level(self) -> int:
        if self._log["log_verbose_level"]:
            return logging.DEBUG
        for name, level in (("info", logging.INFO), ("warning", logging.WARNING), ("error", logging.ERROR)):
            if self._log[f"log_{name}"]:
                return level
        return logging.CRITICAL


def _log_value(name: str, value: Any) -> Any:
    if name == "log_file":
        raise Unsupported("log file location can not be updated through network protocol")
    if name in ("log_info", "log_warning", "log_error"):
        if not isinstance(value, bool):
            raise BadRequest(f"log setting '{name}' must be true or false")
    elif name == "log_verbose_level":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise BadRequest(f"log setting '{name}' must be a whole number, 0 or more")
    elif name == "log_format":
        if value not in _LOG_FORMATS:
            raise BadRequest(f"log setting '{name}' must be one of {', '.join(_LOG_FORMATS)}")
    else:
        raise BadRequest(
            f"Unknown log setting '{name[:60]}'; there are log_file, log_info, log_warning, log_error, "
            "log_verbose_level and log_format"
        )
    return value


def _trace_value(name: str, value: Any) -> list[str] | str:
    values = value if isinstance(value, list) else [value]
    kinds = str | int if name in _TRACE_LEAST else str
    if not values or not all(isinstance(item, kinds) and not isinstance(item, bool) for item in values):
        raise BadRequest(f"trace setting '{name[:60]}' must be a text, or a list of them for trace_level")
    texts = [str(item) for item in values]
    if name == "trace_level":
        if any(text not in _TRACE_LEVELS for text in texts):
            raise BadRequest(f"trace setting 'trace_level' holds only {', '.join(_TRACE_LEVELS)}")
        return texts
    if len(texts) > 1:
        raise BadRequest(f"trace setting '{name[:60]}' takes one value, not {len(texts)}")
    if name in _TRACE_LEAST:
        number = texts[0].removeprefix("-")
        if not (number.isdecimal() and number.isascii() and len(number) < 10 and int(texts[0]) >= _TRACE_LEAST[name]):
            raise BadRequest(f"trace setting '{name}' must be a whole number, {_TRACE_LEAST[name]} or more")
    elif name == "trace_mode" and texts[0] != "triton":
        raise BadRequest("trace setting 'trace_mode' must be 'triton'")
    elif len(texts[0]) > 4096:
        raise BadRequest(f"trace setting '{name[:60]}' is too long")
    return texts[0]
