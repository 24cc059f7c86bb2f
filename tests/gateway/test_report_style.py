"""Colours of the card stand out from what they stand on, by day, by night and on paper (WCAG 2.2: 1.4.3, 1.4.11)."""

import re

import pytest

from gateway.report.style import STYLE

_BLOCKS = re.findall(r":root\s*\{(.*?)\}", STYLE, re.DOTALL)
TEXT = ("ink", "soft", "good", "plain", "unsure", "bad")
GRAPHIC = ("one", "two", "three", "four", "five")


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([a-z]+):\s*#([0-9a-f]{3,6})", block)
    whole = {name: text if len(text) == 6 else "".join(digit * 2 for digit in text) for name, text in found}
    return {name: tuple(int(text[at : at + 2], 16) / 255 for at in (0, 2, 4)) for name, text in whole.items()}


def luminance(colour: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((1, 0, 0), (1, 1, 1)) == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_marks_stand_out(scheme: int) -> None:
    assert len(_BLOCKS) == 3
    found = colours(_BLOCKS[scheme])
    for ground in ("paper", "pane"):
        for name in TEXT:
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
        for name in GRAPHIC:
            assert contrast(found[name], found[ground]) >= 3.0, (name, ground)
