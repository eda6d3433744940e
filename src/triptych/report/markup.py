"""HTML and SVG that escapes by default: text is text unless it is already `Html`."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})


class Html(str):
    """Markup that is safe to insert as it stands."""

    __slots__ = ()


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """One element.  Children are escaped unless they are `Html`; None is left out; iterables are flattened.

    Attribute names: `class_` for class, `data_name` for data-name.  False and None leave an attribute out.
    """
    head = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{head}>")
    return Html(f"<{tag}{head}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Html:
    """Escape and concatenate."""
    return Html("".join(_text(child) for child in children))


def _text(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    if isinstance(child, str | int | float):
        return html.escape(str(child))
    return join(child)


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-").replace("viewbox", "viewBox")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
