"""A :class:`Workflow` as the JSON that the frontend opens."""

from __future__ import annotations

import uuid

from .layout import Lane, Place, lanes, places
from .workflow import OURS, Node, Wire, Workflow

_SOCKETS = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")
_NAMESPACE = uuid.UUID("7d2f4d1a-54a5-4a2c-9c55-6a7c1f0f5a11")


def frontend_form(workflow: Workflow, info: dict[str, dict], heights: dict[int, float]) -> dict:
    """The workflow's JSON.

    Args:
        info: ``/object_info`` of every class in it.
        heights: that the frontend gives each node, by number.

    Raises:
        ValueError: an input that the class does not have, or none for one that it needs.
    """
    where = places(workflow, heights)
    wires = {(id(target), name): number for number, (_, target, name) in enumerate(workflow.wires(), 1)}
    nodes = [
        _node(node, order, info, where[node.number], wires, workflow)
        for order, node in enumerate(workflow.nodes)
    ]
    corners = lanes(workflow, where)
    return {
        "id": str(uuid.uuid5(_NAMESPACE, workflow.name)),
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(wires),
        "nodes": nodes,
        "links": [_link(number, *wire, info) for number, wire in enumerate(workflow.wires(), 1)],
        "groups": [],
        "config": {},
        "extra": _corners(corners),
        "version": 0.4,
    }


def _inputs(node: Node, info: dict[str, dict]) -> dict[str, list]:
    """All inputs of a node's class: ``{name: [kind, options]}``, in its order."""
    if node.is_note:
        return {}
    given = info[node.type]["input"]
    inputs = {**given.get("required", {}), **given.get("optional", {})}
    if unknown := node.inputs.keys() - inputs.keys():
        raise ValueError(f"{node.type} has no input {sorted(unknown)}; it has {sorted(inputs)}")
    if lacking := given.get("required", {}).keys() - node.inputs.keys():
        raise ValueError(f"node {node.number}, {node.type}, needs {sorted(lacking)}")
    return {name: [*spec, {}][:2] for name, spec in inputs.items()}


def _kind(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _is_widget(spec: list) -> bool:
    return _kind(spec) in _SOCKETS and not spec[1].get("forceInput")


def _node(node: Node, order: int, info: dict, place: Place, wires: dict, workflow: Workflow) -> dict:
    inputs = _inputs(node, info)
    ours = node.type.startswith(OURS)
    result = {
        "id": node.number,
        "type": node.type,
        "pos": [round(place.x), round(place.y)],
        "size": [round(place.width), round(place.height)],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [_slot(name, inputs[name], wires.get((id(node), name))) for name in _slots(inputs)],
        "outputs": _outputs(node, info, workflow),
    }
    if node.title:
        result["title"] = node.title
    result["properties"] = (
        {}
        if node.is_note
        else {"cnr_id": "sur-adapter" if ours else "comfy-core", "Node name for S&R": node.type}
    )
    values = [node.inputs["text"]] if node.is_note else _values(node, inputs)
    if values:
        result["widgets_values"] = values
    return result


def _slots(inputs: dict[str, list]) -> list[str]:
    """Names of the inputs in the order of a node's slots: the frontend puts widgets last."""
    return sorted(inputs, key=lambda name: _is_widget(inputs[name]))


def _slot(name: str, spec: list, link: int | None) -> dict:
    slot = {"name": name, "type": _kind(spec)}
    return slot | ({"widget": {"name": name}} if _is_widget(spec) else {}) | {"link": link}


def _outputs(node: Node, info: dict, workflow: Workflow) -> list[dict]:
    if node.is_note:
        return []
    about = info[node.type]
    leaving: dict[int, list[int]] = {}
    for number, (wire, _, _) in enumerate(workflow.wires(), 1):
        if wire.node is node:
            leaving.setdefault(wire.output, []).append(number)
    named = zip(about["output_name"], about["output"], strict=True)
    return [
        {"name": name, "type": kind, "links": leaving.get(place)} for place, (name, kind) in enumerate(named)
    ]


def _values(node: Node, inputs: dict[str, list]) -> list:
    """Values of the widgets, in their order. A wired widget keeps its default."""
    values = []
    for name, spec in inputs.items():
        if not _is_widget(spec):
            continue
        given = node.inputs.get(name)
        wired = name not in node.inputs or isinstance(given, Wire)
        values.append(_default(spec) if wired else given)
        # Two widgets of the frontend's own, which no class declares.
        if spec[1].get("control_after_generate"):
            values.append("fixed")
        if spec[1].get("image_upload"):
            values.append("image")
    return values


def _default(spec: list):
    if "default" in spec[1]:
        return spec[1]["default"]
    choices = spec[0] if isinstance(spec[0], list) else spec[1].get("options")
    return choices[0] if choices else ""


def _link(number: int, wire: Wire, target: Node, name: str, info: dict) -> list:
    slot = _slots(_inputs(target, info)).index(name)
    kind = info[wire.node.type]["output"][wire.output]
    return [number, wire.node.number, wire.output, target.number, slot, kind]


def _corners(points: list[Lane]) -> dict:
    if not points:
        return {}
    last = {number: point.number for point in points for number in point.wires}
    reroutes = []
    for point in points:
        parent = {} if point.parent is None else {"parentId": point.parent}
        pos = [round(point.x), round(point.y)]
        reroutes.append({"id": point.number, **parent, "pos": pos, "linkIds": list(point.wires)})
    return {
        "linkExtensions": [{"id": number, "parentId": parent} for number, parent in sorted(last.items())],
        "reroutes": reroutes,
    }
