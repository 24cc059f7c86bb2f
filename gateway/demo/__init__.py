"""`forgeway demo`: a real model through the whole product, with the proof printed."""

from __future__ import annotations


def run() -> int:
    """Run the demo; its exit code."""
    from gateway.demo.walk import run as walk

    return walk()
