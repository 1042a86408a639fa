"""ComfyUI's ``workflow``, what the browser shows, as the graph that the back end would have run.

Done here is what the frontend does before it sends a prompt: links pass through reroutes, bypassed nodes,
primitives, Set/Get pairs and the borders of subgraphs; muted nodes are left out; and the values of widgets,
which a workflow keeps as a plain list, get the names of their inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .comfy_graph import MAX_NODES, Graph, Link, Node, words
from .comfy_strings import SHOWN
from .found import BROKEN, MetadataError

MAX_DEPTH = 30
MAX_HOPS = 1000

_MUTED, _BYPASSED = 2, 4
_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT = "-10", "-20"
_REROUTES = {"Reroute", "Reroute (rgthree)"}
_VIRTUAL = {*_REROUTES, "PrimitiveNode", "SetNode", "GetNode", "Note", "MarkdownNote"}
_AFTER_SEED = {"fixed", "increment", "decrement", "randomize"}

# Workflows saved before frontend 1.16 do not name their widgets; these are core's, in its order.
_WIDGETS = {
    "CLIPTextEncode": "text",
    "CLIPTextEncodeControlnet": "text",
    "CLIPTextEncodeFlux": "clip_l t5xxl guidance",
    "CLIPTextEncodeHiDream": "clip_l clip_g t5xxl llama",
    "CLIPTextEncodeHunyuanDiT": "bert mt5xl",
    "CLIPTextEncodeLumina2": "system_prompt user_prompt",
    "CLIPTextEncodePixArtAlpha": "width height text",
    "CLIPTextEncodeSD3": "clip_l clip_g t5xxl empty_padding",
    "CLIPTextEncodeSDXL": "width height crop_w crop_h target_width target_height text_g text_l",
    "CLIPTextEncodeSDXLRefiner": "ascore width height text",
    "CheckpointLoaderSimple": "ckpt_name",
    "ConditioningAverage": "conditioning_to_strength",
    "KSampler": "seed steps cfg sampler_name scheduler denoise",
    "KSamplerAdvanced": "add_noise noise_seed steps cfg sampler_name scheduler start_at_step",
    "PrimitiveNode": "value",
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "SaveImage": "filename_prefix",
    "UNETLoader": "unet_name weight_dtype",
    "StringConcatenate": "string_a string_b delimiter",
}


@dataclass(frozen=True, slots=True)
class _Value:
    """What a widget holds, found at the end of a link."""

    value: Any


@dataclass(slots=True)
class _Level:
    """The whole workflow, or the inside of one subgraph node.

    Attributes:
        path: "" or the ids of the subgraph nodes around it, "12:3:".
        nodes: {id: node}.
        links: {id: (origin's id, its slot, target's id, its slot, type)}.
        definition, parent, instance: the subgraph, the level its node stands in, and that node.
        inner: {id of a subgraph node in it: its inside}.
        ends: {slot of the subgraph's output: id of the link that feeds it}.
        starts: {slot of the subgraph's input: id of a link it feeds}.
        setters: {name: SetNode}.
        promoted: {slot of the subgraph's input: value its node shows for it}, once it is asked for.
    """

    path: str
    nodes: dict[str, dict]
    links: dict[int | str, tuple[str, int, str, int, Any]]
    definition: dict = field(default_factory=dict)
    parent: _Level | None = None
    instance: dict = field(default_factory=dict)
    inner: dict[str, _Level] = field(default_factory=dict)
    ends: dict[int, int | str] = field(default_factory=dict)
    starts: dict[int, int | str] = field(default_factory=dict)
    setters: dict[str, dict] = field(default_factory=dict)
    promoted: dict[int, Any] | None = None


def from_workflow(content: dict) -> Graph:
    """The graph that this workflow would run. Raises MetadataError: no nodes, or subgraphs without an end."""
    levels = _levels(content)
    graph: Graph = {}
    for level in levels:
        for key, node in level.nodes.items():
            if key not in level.inner and _runs(node) and node.get("type") not in _VIRTUAL:
                graph[level.path + key] = _node(level, level.path + key, node)
    if not graph:
        raise MetadataError(BROKEN, "ComfyUI's workflow: no nodes in it")
    return graph


def _levels(content: dict) -> list[_Level]:
    definitions = content.get("definitions")
    subgraphs = _dicts(definitions.get("subgraphs")) if isinstance(definitions, dict) else []
    known = {item["id"]: item for item in subgraphs if isinstance(item.get("id"), str)}
    levels = [_level(content)]
    count = 0
    for level in levels:  # grows while it is walked through
        count += len(level.nodes)
        if count > MAX_NODES or level.path.count(":") > MAX_DEPTH:
            raise MetadataError(BROKEN, "ComfyUI's workflow: subgraphs inside each other without an end")
        for key, node in level.nodes.items():
            kind = node["type"]
            if kind in known and _runs(node):
                inside = _level(known[kind], f"{level.path}{key}:")
                inside.definition, inside.parent, inside.instance = known[kind], level, node
                level.inner[key] = inside
                levels.append(inside)
    return levels


def _level(content: dict, path: str = "") -> _Level:
    nodes = {}
    for node in _dicts(content.get("nodes")):
        if isinstance(node.get("type"), str):
            nodes[str(node.get("id"))] = node
    links = {}
    for link in content.get("links") if isinstance(content.get("links"), list) else []:
        if isinstance(link, dict):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            link = [link.get(name) for name in names]
        if isinstance(link, list) and len(link) >= 6 and isinstance(link[0], (int, str)):
            links[link[0]] = (str(link[1]), _slot(link[2]), str(link[3]), _slot(link[4]), link[5])
    level = _Level(path, nodes, links)
    for key, (origin, slot, target, end, _) in links.items():
        if target == _SUBGRAPH_OUTPUT:
            level.ends[end] = key
        if origin == _SUBGRAPH_INPUT:
            level.starts.setdefault(slot, key)
    for node in nodes.values():
        if node.get("type") == "SetNode" and (name := _variable(node)):
            level.setters[name] = node
    return level


def _node(level: _Level, key: str, node: dict) -> Node:
    made = Node(key, node["type"], _widgets(node))
    made.outputs = tuple(str(output.get("name", "")) for output in _dicts(node.get("outputs")))
    shown = _shown(node)
    if shown is not None:
        made.inputs[SHOWN] = shown
    for slot in _dicts(node.get("inputs")):
        name = str(slot.get("name", ""))
        source = _source(level, slot.get("link"))
        if isinstance(source, Link):
            made.inputs[name] = source
            made.types[name] = str(slot.get("type"))
        elif isinstance(source, _Value):
            made.inputs[name] = source.value
    return made


def _source(level: _Level, link_id: Any) -> Link | _Value | None:
    """What feeds an input in the end: a node that runs, a widget, or nothing."""
    for _ in range(MAX_HOPS):
        link = level.links.get(link_id) if isinstance(link_id, (int, str)) else None
        if link is None:
            return None
        origin, slot, *_, kind = link
        if origin == _SUBGRAPH_INPUT and level.parent is not None:
            outer = _outer_input(level, slot)
            if outer.get("link") is None:
                return _promoted(level, slot)
            level, link_id = level.parent, outer["link"]
            continue
        node = level.nodes.get(origin)
        if node is None or node.get("mode") == _MUTED:
            return None
        if origin in level.inner:
            level, link_id = level.inner[origin], level.inner[origin].ends.get(slot)
        elif node.get("mode") == _BYPASSED:
            link_id = _past(node, slot, kind)
        elif node.get("type") == "PrimitiveNode":
            values = node.get("widgets_values")
            return _Value(values[0]) if isinstance(values, list) and values else None
        elif node.get("type") == "GetNode":
            level, link_id = _set_elsewhere(level, node)
        elif node.get("type") in _REROUTES:
            link_id = next((one.get("link") for one in _dicts(node.get("inputs"))), None)
        else:
            return Link(level.path + origin, slot)
    return None  # a circle


def _outer_input(level: _Level, slot: int) -> dict:
    """The subgraph node's input that its definition has at ``slot``; the node may list fewer of them."""
    defined = _dicts(level.definition.get("inputs"))
    name = defined[slot].get("name") if 0 <= slot < len(defined) else None
    return next((one for one in _dicts(level.instance.get("inputs")) if one.get("name") == name), {})


def _promoted(level: _Level, slot: int) -> _Value | None:
    """The value that the subgraph node itself shows for a widget inside it."""
    if level.promoted is None:
        values = level.instance.get("widgets_values")
        inputs = _dicts(level.definition.get("inputs"))
        slots = [index for index in range(len(inputs)) if _feeds_widget(level, index)]
        fits = isinstance(values, list) and len(values) == len(slots)
        level.promoted = dict(zip(slots, values, strict=True)) if fits else {}
    return _Value(level.promoted[slot]) if slot in level.promoted else None


def _feeds_widget(level: _Level, slot: int) -> bool:
    key = level.starts.get(slot)
    target = level.links[key][2] if key is not None else ""
    inputs = _dicts(level.nodes.get(target, {}).get("inputs"))
    return any(one.get("link") == key and one.get("widget") for one in inputs)


def _past(node: dict, slot: int, kind: Any) -> Any:
    """The link that takes a bypassed node's place: of its input in the same place if the type fits, else of
    the first that fits.
    """
    inputs = _dicts(node.get("inputs"))
    at_slot = inputs[slot : slot + 1] if slot >= 0 else []
    fitting = [one for one in [*at_slot, *inputs] if one.get("type") == kind or kind == "*"]
    return fitting[0].get("link") if fitting else None


def _set_elsewhere(level: _Level, node: dict) -> tuple[_Level, Any]:
    """KJNodes' GetNode stands for the input of the SetNode with its name, here or further out."""
    name, outer = _variable(node), level
    while outer is not None:
        if name in outer.setters:
            return outer, next((one.get("link") for one in _dicts(outer.setters[name].get("inputs"))), None)
        outer = outer.parent
    return level, None


def _variable(node: dict) -> str:
    values = node.get("widgets_values")
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _widgets(node: dict) -> dict[str, Any]:
    """{input: value} of a node's widgets."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list):
        return {}
    names = [str(one.get("name", "")) for one in _dicts(node.get("inputs")) if one.get("widget")]
    known = _WIDGETS.get(node["type"], "").split()
    # A seed has a second widget, for what happens to it after a run, that is no input.
    values = [
        value
        for before, value in zip([None, *values], values, strict=False)
        if not _follows_seed(before, value)
    ]
    if len(names) < len(values):  # saved of old: only widgets made into inputs are named
        names = known
    if not names and any(one.get("type") == "CLIP" for one in _dicts(node.get("inputs"))):
        # An encoder that is not known: its only text can only be the prompt.
        texts = [value for value in values if isinstance(value, str)]
        return {"text": texts[0]} if len(texts) == 1 else {}
    return dict(zip(names, values, strict=False))


def _shown(node: dict) -> str | None:
    """The text that a node has written into the workflow when it ran: a list where the browser has a text."""
    values = node.get("widgets_values")
    values = values[0] if isinstance(values, list) and len(values) == 1 else None
    if words(node["type"]) & {"show", "display"} and isinstance(values, list) and len(values) == 1:
        return values[0] if isinstance(values[0], str) else None
    return None


def _follows_seed(before: Any, value: Any) -> bool:
    return isinstance(before, int) and isinstance(value, str) and value in _AFTER_SEED


def _slot(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _runs(node: dict) -> bool:
    return node.get("mode") not in (_MUTED, _BYPASSED)


def _dicts(value: Any) -> list[dict]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
