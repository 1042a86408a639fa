"""Where nodes stand and how wires run: columns with gaps, and lanes above them for wires that go far."""

from __future__ import annotations

from typing import NamedTuple

from .workflow import Node, Wire, Workflow

COLUMN_GAP = 70
ROW_GAP = 55  # the lower node's title stands in it
LANE_GAP = 24
_APART = 9  # of wires that go up or down in the same gap
TITLE = 30


class Place(NamedTuple):
    """Left, top, width and height of a node without its title."""

    x: float
    y: float
    width: float
    height: float


class Lane(NamedTuple):
    """A corner of a wire. ``parent`` is the corner before it, ``None`` for the first after the node."""

    number: int
    x: float
    y: float
    parent: int | None
    wires: tuple[int, ...]


def places(workflow: Workflow, heights: dict[int, float]) -> dict[int, Place]:
    """Where each node stands, by number.

    Args:
        heights: that the frontend gives each node, by number.
    """
    found, x = {}, 0.0
    for column, width in enumerate(workflow.widths):
        y = 0.0
        for node in (node for node in workflow.nodes if node.column == column):
            if node.beside:
                y = max(y, found[node.beside.number].y)
            height = max(node.room, heights.get(node.number, 0))
            found[node.number] = Place(x, y, width, height)
            y += height + ROW_GAP
        x += width + COLUMN_GAP
    return found


def lanes(workflow: Workflow, where: dict[int, Place]) -> list[Lane]:
    """Corners for wires that would run behind a column: up behind their node, along a lane, down before the
    column they go to. Wires of one output share a lane.
    """
    far: dict[Wire, list[tuple[int, Node]]] = {}
    for number, (wire, target, _) in enumerate(workflow.wires(), 1):
        if target.column > wire.node.column + 1:
            far.setdefault(wire, []).append((number, target))
    points, top = [], -TITLE - ROW_GAP / 2
    # Those that go furthest run outermost.
    nearest_first = sorted(
        far.items(), key=lambda item: max(goal.column for _, goal in item[1]) - item[0].node.column
    )
    for lane, (wire, goals) in enumerate(nearest_first):
        y, parent, aside = top - lane * LANE_GAP, None, lane % 4 * _APART
        goals.sort(key=lambda goal: where[goal[1].number].x)
        source = where[wire.node.number]
        stops = sorted({where[target.number].x - 20 - aside for _, target in goals})
        for x in [source.x + source.width + 12 + aside, *stops]:
            through = tuple(number for number, target in goals if where[target.number].x - 20 - aside >= x)
            points.append(Lane(len(points) + 1, x, y, parent, through))
            parent = len(points)
    return points
