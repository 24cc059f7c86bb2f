"""Elements as values: the standard library's element tree does the escaping, so that no text of a model can become
markup. `E("td", "text", class_="number")` is an element; `document` is the whole page as bytes.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

Content = Element | str | int | float | None

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff￾￿]")
"""What HTML allows in no form, and surrogates that no encoding has."""


def E(tag: str, *content: Content, **attributes: Content) -> Element:
    """An element. In attribute names `_` is `-`, and one at the end is dropped; what is None is left out."""
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), clean(value))
    return add(element, *content)


def add(element: Element, *content: Content) -> Element:
    """The element with more in it."""
    for item in content:
        if isinstance(item, Element):
            element.append(item)
        elif item is not None:
            text = clean(item)
            last = element[-1] if len(element) else None
            if last is None:
                element.text = (element.text or "") + text
            else:
                last.tail = (last.tail or "") + text
    return element


def clean(value: str | int | float | Element) -> str:
    """As text that every browser reads; what cannot be shown shows as a replacement character."""
    return _CONTROL.sub(
        "�", value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def document(root: Element) -> bytes:
    written: bytes = tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + written + b"\n"
