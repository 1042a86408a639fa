"""HTML as a tree, which the standard library escapes when it writes it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, fromstring, tostring

Content = "str | Element | None | Iterable[Content]"


def element(tag: str, *content: Content, **attributes: object) -> Element:
    """An element; of attributes, a trailing underscore is dropped (``class_``) and others become hyphens."""
    names = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    made = Element(tag, names)
    for part in _flat(content):
        if isinstance(part, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + part
            else:
                made.text = (made.text or "") + part
        else:
            made.append(part)
    return made


def _flat(content: Iterable) -> Iterable[str | Element]:
    for part in content:
        if part is None:
            continue
        if isinstance(part, str | Element):
            yield part
        else:
            yield from _flat(part)


def table(head: list, rows: list[list], caption: str, note: str = "") -> Element:
    """A table that scrolls by itself where it is too wide; the first cell of each row is its head."""
    parts = [
        element("caption", caption),
        element("thead", element("tr", [element("th", cell, scope="col") for cell in head])),
        element(
            "tbody",
            [
                element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]])
                for row in rows
            ],
        ),
    ]
    return element("div", wide(element("table", *parts), caption), note and element("p", note, class_="note"))


def wide(content: Element, label: str) -> Element:
    """A box that scrolls sideways, by keyboard too."""
    return element("div", content, class_="wide", role="region", aria_label=label, tabindex=0)


def page(head: Element, body: Element) -> str:
    """A whole document."""
    root = element("html", head, body, lang="en")
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def readable(text: object) -> str:
    """Text as a page can hold it: control characters and broken Unicode become U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in str(text)
    )


def svg_for_page(svg: str, colors: Mapping[str, str]) -> Element:
    """An SVG file, such as matplotlib writes, as an element within HTML: without namespaces, metadata, styles
    and names of its own.

    Args:
        colors: {color in the file: what to have instead, such as "var(--ink)"}.
    """
    used = set(re.findall(r"#([\w.-]+)", svg))
    for stand_in, color in colors.items():
        svg = svg.replace(stand_in, color)
    root = fromstring(svg.encode("utf-8"))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for part in root.iter():
        part.tag = part.tag.rpartition("}")[2]
        part.attrib = {name.rpartition("}")[2]: value for name, value in part.attrib.items()}
        if part.attrib.get("id") not in used:  # every figure has the same ones
            part.attrib.pop("id", None)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    return root
