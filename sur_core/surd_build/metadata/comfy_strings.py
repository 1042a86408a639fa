"""Strings in a ComfyUI graph: what an encoder's text is, through string nodes and primitives."""

from __future__ import annotations

import re
from typing import Any

from .comfy_graph import Graph, Link, Node
from .found import BROKEN, MAX_PROMPT, UNRESOLVED, MetadataError

MAX_DEPTH = 40

# Names of the inputs that hold a prompt, in groups of those that belong together. Of the groups a node has,
# the first with any text counts.
_TEXT_INPUTS = (
    ("populated_text",),
    ("text",),
    ("text_g", "text_l"),
    ("prompt",),
    ("user_prompt",),
    ("t5xxl", "clip_g", "clip_l", "llama"),
    ("mt5xl", "bert"),
    ("string",),
    ("value",),
    ("wildcard_text",),
)
_SIDE_INPUTS = ("{}", "{}_prompt", "text_{}", "prompt_{}")
_PART = re.compile(r"(?:text|string|str|prompt|input)_?[a-z0-9]{1,2}", re.IGNORECASE)
_DELIMITERS = ("delimiter", "separator")


class Unresolved(MetadataError):
    """A text that the graph does not hold."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(UNRESOLVED, f"ComfyUI's graph: node {node.id[:50]} ({node.type[:100]}) {why}")


class Strings:
    """Finds the strings of inputs by their links."""

    def __init__(self, graph: Graph, remarks: dict[str, None]) -> None:
        self.graph, self.remarks = graph, remarks
        self._open: set[Link] = set()
        self._known: dict[Link, str] = {}

    def of_encoder(self, node: Node, side: str) -> list[str] | None:
        """The texts a text encoder is given, of several for different encoders each; None if it has none.

        Raises:
            Unresolved: a text is made by a node whose result is not in the graph.
        """
        sided = [tuple(name.format(side) for name in _SIDE_INPUTS)]
        groups = [[name for name in group if name in node.inputs] for group in (*sided, *_TEXT_INPUTS)]
        found = None
        for group in groups:
            values = [node.inputs[name] for name in group]
            values = [self._value(node, value) for value in values if isinstance(value, (str, Link))]
            if any(value.strip() for value in values):
                return list(dict.fromkeys(value for value in values if value.strip()))
            if values:
                found = []
        return found

    def number(self, value: Any) -> Any:
        """A value, through the primitive nodes it may come from; None if it comes from elsewhere."""
        for _ in range(MAX_DEPTH):
            if not isinstance(value, Link):
                return value
            node = self.graph.get(value.node)
            if node is None:
                return None
            names = [name for name in ("value", "seed", "noise_seed", "int", "float") if name in node.inputs]
            value = node.inputs[names[0]] if names else None
        return None

    def _value(self, node: Node, value: str | Link) -> str:
        if isinstance(value, str):
            return value
        if value in self._known:
            return self._known[value]
        if value in self._open:
            raise Unresolved(node, "gets its text from itself")
        if len(self._open) > MAX_DEPTH:
            raise Unresolved(node, f"gets its text through more than {MAX_DEPTH} nodes")
        self._open.add(value)
        try:
            self._known[value] = self._made(node, value)
            return self._known[value]
        finally:
            self._open.discard(value)

    def _made(self, user: Node, link: Link) -> str:
        node = self.graph.get(link.node)
        if node is None:
            raise Unresolved(user, f"gets its text from node {link.node[:50]}, which is not there")
        text = self._computed(node)
        if text is None:
            texts = self.of_encoder(node, "positive")
            if texts is None:
                texts = self._passed_through(node)
            text = "\n".join(texts)
        _check_length(len(text))
        return text

    def _computed(self, node: Node) -> str | None:
        """What core's string nodes do; None for nodes of other kinds.

        Regular expressions are not run: a picture could hold one that takes for ever.
        """
        kind = node.type.lower()
        if node.type.startswith(
            ("Regex", "StringSubstring", "StringLength", "StringCompare", "StringContains")
        ):
            raise Unresolved(node, "computes its text; what came out is not in the graph")
        if node.type == "StringReplace":
            text, old, new = (self._input(node, name) for name in ("string", "find", "replace"))
            _check_length(len(text) + text.count(old) * len(new))
            return text.replace(old, new)
        if node.type == "StringTrim":
            trim = {"Left": str.lstrip, "Right": str.rstrip}.get(node.inputs.get("mode"), str.strip)
            return trim(self._input(node, "string"))
        if node.type == "CaseConverter":
            cases = {"UPPERCASE": str.upper, "lowercase": str.lower}
            cases |= {"Capitalize": str.capitalize, "Title Case": str.title}
            return cases.get(node.inputs.get("mode"), str)(self._input(node, "string"))
        if "concat" in kind or "join" in kind:
            return self._concatenated(node)
        return None

    def _concatenated(self, node: Node) -> str:
        names = [name for name in node.inputs if _PART.fullmatch(name)]
        parts = [self._input(node, name) for name in names]
        if node.type != "StringConcatenate":  # others leave out what is empty
            parts = [part for part in parts if part]
        delimiter = next((self._input(node, name) for name in _DELIMITERS if name in node.inputs), "")
        _check_length(sum(map(len, parts)) + len(delimiter) * len(parts))
        return delimiter.join(parts)

    def _input(self, node: Node, name: str) -> str:
        value = node.inputs.get(name, "")
        return self._value(node, value) if isinstance(value, (str, Link)) else str(value)

    def _passed_through(self, node: Node) -> list[str]:
        links = list(node.links().values())
        if len(links) != 1:
            raise Unresolved(node, "makes a text that is not in the graph")
        return [self._value(node, links[0])]


def _check_length(length: int) -> None:
    """Before a text is made: a few nodes could make one that fills the memory."""
    if length > MAX_PROMPT:
        raise MetadataError(BROKEN, f"ComfyUI's graph: a text of more than {MAX_PROMPT:,} characters")
