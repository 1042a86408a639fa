"""Nodes of a ComfyUI graph that pass on one of their inputs, and which one that is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from .comfy_graph import Link, Node, Unresolved

_SELECTORS = (
    "select", "selected", "selection", "selector", "switch", "index", "input", "boolean", "boolean_value",
    "boolean_number", "bool", "if_condition", "evaluate",
)  # fmt: skip
_TRUTHS = ("cond", "condition")
"""Selectors only beside a true and a false input: conditionings have such names too."""

_SWITCH = re.compile(r"switch|select|choose|if ?else|branch|random|multiplex", re.IGNORECASE)
_FIRST = re.compile(r"(?:Any|Context) Switch.*\(rgthree\)")
"""rgthree's switches have no selector: the first input that there is counts."""

_NUMBERED = re.compile(r"(.*?)_?(\d{1,3})")
_TRUTH = re.compile(r"(.*?)_?(true|false|tt_value|ff_value)")
_LETTER = re.compile(r"(.+)_([ab])")
_CONDITIONINGS = ("cond", "positive", "negative")
_Key = tuple[str, int]


def chosen(
    node: Node, constant: Callable[[Any], Any], side: str = "", ignored: tuple[str, ...] = ()
) -> str | None:
    """Name of the input that a switch passes on; None if the node is no switch.

    A selector is known by its name, and so are the inputs it selects from: "input2" or "cond0" by a number,
    "on_true" or "ff_value" by a truth, "text_a" by true. Their numbers are the selector's, whether they begin
    at 0 or 1.

    Args:
        constant: gives the value of an input that may be linked to a primitive, None if it is computed.
        side: "positive" or "negative", where a switch has a pair of each input.
        ignored: how names of inputs begin that are not selected from.

    Raises:
        Unresolved: the graph does not tell which input it is, or the input is not there.
    """
    if _FIRST.fullmatch(node.type):
        return next((name for name in node.links() if name.lower().startswith(("any_", "ctx_"))), None)
    selector = _selector(node)
    inputs = _inputs(node, selector, side, ignored)
    if not inputs or (selector is None and not _SWITCH.search(node.type)):
        return None
    value = constant(node.inputs[selector]) if selector is not None else None
    if len({node.inputs[name] for name in inputs.values()}) == 1 and (value is None or len(inputs) > 1):
        return next(iter(inputs.values()))
    name = _selected(node, selector, value, inputs)
    if name is None:
        raise Unresolved(node, "passes on one of its inputs; which one is not in the graph")
    return name


def _selector(node: Node) -> str | None:
    names = {name.lower(): name for name in node.inputs}
    return next((names[one] for one in (*_SELECTORS, *_TRUTHS) if one in names), None)


def _option(name: str) -> tuple[str, _Key] | None:
    """The kind of inputs that one belongs to, and what selects it."""
    name = name.lower()
    if match := _NUMBERED.fullmatch(name):
        return match[1], ("number", int(match[2]))
    if match := _TRUTH.fullmatch(name):
        return match[1], ("truth", match[2] in ("true", "tt_value"))
    if match := _LETTER.fullmatch(name):
        return match[1], ("truth", match[2] == "a")
    return None


def _inputs(node: Node, selector: str | None, side: str, ignored: tuple[str, ...]) -> dict[_Key, str]:
    """{what selects it: name} of the inputs that are selected from; {} if there are none such."""
    kinds: dict[str, dict[_Key, str]] = {}
    for name, value in node.inputs.items():
        option = _option(name)
        if option and name != selector and isinstance(value, (Link, str)) and not _begins(name, ignored):
            stem, key = option
            kinds.setdefault(stem, {})[key] = name
    links = node.links()
    linked = {stem: inputs for stem, inputs in kinds.items() if links.keys() & set(inputs.values())}
    kinds = linked or kinds
    if len(kinds) > 1 and side:
        kinds = {stem: inputs for stem, inputs in kinds.items() if stem.startswith(side)}
    if len(kinds) != 1:
        return {}
    inputs = next(iter(kinds.values()))
    others = links.keys() - {selector, *inputs.values()}
    if any(_begins(name, _CONDITIONINGS) and _option(name) is None for name in others):
        return {}
    if selector and selector.lower() in _TRUTHS and not any(kind == "truth" for kind, _ in inputs):
        return {}
    return inputs


def _begins(name: str, words: tuple[str, ...]) -> bool:
    return name.lower().startswith(words)


def _selected(node: Node, selector: str | None, value: Any, inputs: dict[_Key, str]) -> str | None:
    if isinstance(value, str):
        return value if value in inputs.values() else None
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value != int(value):
        return None
    numbered = {number for kind, number in inputs if kind == "number"}
    if not numbered:
        return inputs.get(("truth", bool(value))) if value in (0, 1) else None
    if isinstance(value, bool):
        return None
    if selector.lower() == "index" and 0 not in numbered and not node.type.startswith("easy "):
        return None  # an index that begins at 0 beside names that begin at 1, or the first input not linked
    return inputs.get(("number", int(value)))
