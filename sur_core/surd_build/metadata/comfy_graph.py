"""A ComfyUI graph as the back end ran it: ComfyUI's own ``prompt`` in the API format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .found import BROKEN, UNRESOLVED, MetadataError

MAX_NODES = 20_000


@dataclass(frozen=True, slots=True)
class Link:
    """An output of a node that feeds an input. The node need not be there."""

    node: str
    slot: int


@dataclass(slots=True)
class Node:
    """A node that ran.

    Attributes:
        id: as in the API format; "12:3" is node 3 inside the subgraph node 12.
        type: its class.
        inputs: {name: Link or plain value}.
        types: {name: type} of its linked inputs, where the format tells; {} in the API format.
        outputs: names of its outputs, where the format tells.
    """

    id: str
    type: str
    inputs: dict[str, Any]
    types: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def links(self) -> dict[str, Link]:
        """Its linked inputs."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}


Graph = dict[str, Node]
"""{id: node}"""


class Unresolved(MetadataError):
    """A text that the graph does not hold."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(UNRESOLVED, f"ComfyUI's graph: node {node.id[:50]} ({node.type[:100]}) {why}")


def words(kind: str) -> set[str]:
    """The words of a node's class, in small letters, without what stands in brackets or behind a "|"."""
    name = re.split(r"[|(\[]", kind[:200])[0]
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def from_api(content: dict) -> Graph:
    """The graph of ComfyUI's ``prompt``. Keys that are no nodes, which some sites add, are passed over.

    Raises:
        MetadataError: there is no node in it, or more than 20,000.
    """
    if isinstance(content.get("prompt"), dict):  # the whole of what was sent to the server
        content = content["prompt"]
    graph = {}
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(value.get("class_type"), str):
            inputs = value.get("inputs")
            inputs = inputs if isinstance(inputs, dict) else {}
            graph[key] = Node(key, value["class_type"], {name: _value(item) for name, item in inputs.items()})
    if len(graph) > MAX_NODES:
        raise MetadataError(BROKEN, f"ComfyUI's prompt: {len(graph):,} nodes; at most {MAX_NODES:,} are read")
    if not graph:
        raise MetadataError(BROKEN, "ComfyUI's prompt: no nodes with a class_type in it")
    return graph


def _value(item: Any) -> Any:
    if isinstance(item, list) and len(item) == 2:
        node, slot = item
        is_slot = isinstance(slot, int) and not isinstance(slot, bool)
        if is_slot and isinstance(node, (str, int)) and not isinstance(node, bool):
            return Link(str(node), slot)
    return item
