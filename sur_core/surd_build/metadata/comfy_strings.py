"""Strings in a ComfyUI graph: what an encoder's text is, through string nodes and primitives."""

from __future__ import annotations

import re
from typing import Any

from .comfy_graph import Graph, Link, Node, Unresolved, words
from .comfy_switch import chosen
from .found import BROKEN, MAX_PROMPT, MetadataError

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
_GENERIC = ("string", "value")  # what comes to them by a link may be anything, a conditioning too
_PART = re.compile(r"(?:text|string|str|prompt|input)_?[a-z0-9]{1,2}", re.IGNORECASE)
_DELIMITERS = ("delimiter", "separator")

# A node whose class has no other words, and that has one input, gives out the text it is given. Anything else
# may make another of it: a language model, a style, a translation.
_HOLDS = {
    "primitive", "string", "text", "texts", "textbox", "prompt", "positive", "negative", "multiline", "multi",
    "line", "literal", "constant", "value", "node", "box", "input", "simple", "easy", "show", "display",
    "preview", "view", "any", "anything", "reroute", "note", "area", "field", "cr", "df", "tt", "ttn", "n",
    "o", "jw", "jjk", "jps", "kep", "layer", "utility",
}  # fmt: skip
_SHOWS = {"show", "display", "preview", "view"}
_NOT_THE_TEXT = {"speak_and_recognation", "strip_newlines"}
_CONSTANT = {
    "primitive", "int", "integer", "float", "boolean", "bool", "number", "seed", "constant", "literal",
    "value", "node", "simple", "easy", "impact", "logic", "cr", "input", "toggle", "reroute", "layer",
    "utility",
}  # fmt: skip
SHOWN = "text that was shown"
"""Name given to the text that a node showed in the very run that made the picture."""

_FILLED_IN, _TO_FILL_IN = (
    "populated_text",
    ("wildcard_text", "text", "prompt", "string", "template", "wildcard"),
)
_WILD_SYNTAX = re.compile(r"[{}]|__\S.*?__|\$\$|^\s*#", re.MULTILINE)


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
            kinds = str if group and group[0] in _GENERIC else (str, Link)
            values = [self._value(node, value) for value in values if isinstance(value, kinds)]
            if any(value.strip() for value in values):
                if _is_wild(node):
                    values = [_filled_in(node, value) for value in values]
                return list(dict.fromkeys(value for value in values if value.strip()))
            if values:
                found = []
        return found

    def has_text(self, node: Node) -> bool:
        """Whether a node that gives no conditioning is one that gives a text, be it not in the graph."""
        names = [name for group in _TEXT_INPUTS for name in group if name not in _GENERIC]
        names += [name.format("positive") for name in _SIDE_INPUTS]
        texts = [node.inputs[name] for name in names if name in node.inputs]
        texts += [node.inputs[name] for name in _GENERIC if isinstance(node.inputs.get(name), str)]
        known = node.type.startswith(("String", "Regex", "CaseConverter")) or _joins(node)
        return known or any(isinstance(text, (str, Link)) for text in texts)

    def text(self, link: Link) -> str:
        """The text that a link brings. Raises Unresolved: it is not in the graph."""
        return self._value(Node(link.node, "", {}), link)

    def constant(self, value: Any) -> Any:
        """A value, or that of the primitive node it is linked to; None if it is computed."""
        for _ in range(MAX_DEPTH):
            if not isinstance(value, Link):
                return value
            node = self.graph.get(value.node)
            if node is None or len(node.inputs) != 1 or not words(node.type) <= _CONSTANT:
                return None
            value = next(iter(node.inputs.values()))
        return None

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
            text = self._held(node)
        _check_length(len(text))
        return text

    def _held(self, node: Node) -> str:
        """The text of a node that makes none: the one typed into it, or one it passes on."""
        if SHOWN in node.inputs:
            return self._input(node, SHOWN)
        name = chosen(node, self.constant)
        if name is not None:
            return self._input(node, name)
        if _is_wild(node):
            texts = [self._input(node, name) for name in (_FILLED_IN, *_TO_FILL_IN) if name in node.inputs]
            return _filled_in(node, next((text for text in texts if text.strip()), ""))
        kind = words(node.type)
        inputs = {name: value for name, value in node.inputs.items() if name not in _NOT_THE_TEXT}
        if kind & _SHOWS and node.links():  # its own text is what it showed the time before
            inputs = node.links()
        if not kind or not kind <= _HOLDS or len(inputs) != 1:
            raise Unresolved(node, "makes a text that is not in the graph")
        (name,) = inputs
        if not isinstance(inputs[name], (str, Link)):
            raise Unresolved(node, "holds no text")
        return self._input(node, name)

    def _computed(self, node: Node) -> str | None:
        """What core's string nodes do; None for nodes of other kinds.

        Regular expressions are not run: a picture could hold one that takes for ever.
        """
        if _computes(node):
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
        if _joins(node):
            return self._concatenated(node)
        return None

    def _concatenated(self, node: Node) -> str:
        names = [name for name in node.inputs if _PART.fullmatch(name)]
        if not names or set(node.links()) - {*names, *_DELIMITERS}:
            raise Unresolved(node, "joins texts, and which is not known of it")
        parts = [self._input(node, name) for name in names]
        if node.type != "StringConcatenate":  # others leave out what is empty
            parts = [part for part in parts if part]
        delimiter = next((self._input(node, name) for name in _DELIMITERS if name in node.inputs), "")
        _check_length(sum(map(len, parts)) + len(delimiter) * len(parts))
        return delimiter.join(parts)

    def _input(self, node: Node, name: str) -> str:
        value = node.inputs.get(name, "")
        return self._value(node, value) if isinstance(value, (str, Link)) else str(value)


def _computes(node: Node) -> bool:
    return node.type.startswith(
        ("Regex", "StringSubstring", "StringLength", "StringCompare", "StringContains")
    )


def _joins(node: Node) -> bool:
    kind = node.type.lower()
    return "conditioning" not in kind and ("concat" in kind or "join" in kind)


def _is_wild(node: Node) -> bool:
    """Whether a node fills in wildcards and chooses between alternatives."""
    kind = node.type.lower()
    return (
        _FILLED_IN in node.inputs
        or "wildcard" in kind
        or "dynamicprompt" in kind
        or node.type.startswith("DP")
    )


def _filled_in(node: Node, text: str) -> str:
    """A text in which there is nothing left to choose."""
    if _WILD_SYNTAX.search(text):
        raise Unresolved(node, "fills in a text; what came out is not in the graph")
    return text


def _check_length(length: int) -> None:
    """Before a text is made: a few nodes could make one that fills the memory."""
    if length > MAX_PROMPT:
        raise MetadataError(BROKEN, f"ComfyUI's graph: a text of more than {MAX_PROMPT:,} characters")
