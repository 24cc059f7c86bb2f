"""What a client would rather read, by its `Accept` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

_TEXT, _JSON = ("text/html", "text/*", "*/*"), ("application/json", "application/*", "*/*")


def wants_json(accept: str) -> bool:
    """Whether JSON is liked better than a page; a client that likes both alike, or says nothing, gets the page."""
    ranges = dict(_range(part) for part in accept.lower().split(",") if part.strip())
    return _quality(ranges, _JSON) > _quality(ranges, _TEXT)


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(ranges: dict[str, float], names: tuple[str, ...]) -> float:
    """By the most precise range that names it."""
    return next((ranges[name] for name in names if name in ranges), 0.0)
