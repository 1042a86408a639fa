"""A ComfyUI workflow written in Python, in the form the server runs and in the form the frontend opens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

OURS = ("SUR", "LLMDiff")


class Wire(NamedTuple):
    """From an output of a node."""

    node: Node
    output: int


@dataclass(eq=False)
class Node:
    """One node of a :class:`Workflow`.

    Attributes:
        number: its id, from 1.
        type: its class.
        column: the column it stands in, from the left.
        inputs: values and wires by input name; for a note, its text.
        title: shown instead of the class's own.
        room: at least this high, in the frontend's units; 0 leaves it to the frontend.
        beside: a node of an earlier column that this one stands beside, not above.
    """

    number: int
    type: str
    column: int
    inputs: dict
    title: str = ""
    room: int = 0
    beside: Node | None = None

    def __getitem__(self, output: int) -> Wire:
        return Wire(self, output)

    @property
    def is_note(self) -> bool:
        return self.type == "Note"


@dataclass
class Workflow:
    """Nodes in columns.

    Attributes:
        name: of the file, without its ending.
        widths: of the columns, in the frontend's units.
    """

    name: str
    widths: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)

    def add(self, type: str, column: int, title: str = "", room: int = 0, **inputs) -> Node:
        node = Node(len(self.nodes) + 1, type, column, inputs, title, room)
        self.nodes.append(node)
        return node

    def note(self, column: int, text: str, room: int) -> Node:
        """What a user should do, step by step."""
        return self.add("Note", column, "What to do", room, text=text)

    def api(self) -> dict:
        """``{id: {"class_type", "inputs"}}``, as the server runs it and ``graphToPrompt`` gives it."""

        def value(given):
            return [str(given.node.number), given.output] if isinstance(given, Wire) else given

        return {
            str(node.number): {
                "class_type": node.type,
                "inputs": {name: value(given) for name, given in node.inputs.items()},
            }
            for node in self.nodes
            if not node.is_note
        }

    def wires(self) -> list[tuple[Wire, Node, str]]:
        """All wires: where from, where to, into which input. Their ids are their places here, from 1."""
        return [
            (given, node, name)
            for node in self.nodes
            for name, given in node.inputs.items()
            if isinstance(given, Wire)
        ]
