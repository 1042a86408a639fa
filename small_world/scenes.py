"""What can be said and seen in SURD-Shapes: meanings, and scenes that show them.

A meaning is what a prompt says ("three red balls"); a scene is a meaning at given places. Three types mirror
the paper's: Counting, Color (binding), Action.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import permutations, product

from .dice import Dice

SIZE = 64  # pixels, both ways
TYPES = ("counting", "color", "action")
KINDS = ("ball", "box", "cone", "ring", "star")
POSES = ("bowing", "jumping", "lying", "running", "sitting", "waving")
COLORS = {
    "black": (38, 38, 42),
    "blue": (40, 88, 224),
    "green": (38, 160, 66),
    "orange": (246, 138, 24),
    "pink": (248, 148, 198),
    "purple": (134, 54, 190),
    "red": (216, 34, 38),
    "yellow": (248, 216, 40),
}
COUNTS = (1, 2, 3, 4, 5, 6)

# Centres in pixels. Two arrangements a number, as on dice and in rows: what is learnt is a number, not spots.
ARRANGEMENTS = {
    1: (((32, 32),), ((32, 32),)),
    2: (((20, 32), (44, 32)), ((21, 21), (43, 43))),
    3: (((13, 32), (32, 32), (51, 32)), ((32, 19), (20, 43), (44, 43))),
    4: (((20, 20), (44, 20), (20, 44), (44, 44)), ((32, 13), (13, 32), (51, 32), (32, 51))),
    5: (
        ((15, 15), (49, 15), (32, 32), (15, 49), (49, 49)),
        ((13, 21), (32, 21), (51, 21), (21, 44), (43, 44)),
    ),
    6: (
        ((13, 21), (32, 21), (51, 21), (13, 43), (32, 43), (51, 43)),
        ((21, 13), (21, 32), (21, 51), (43, 13), (43, 32), (43, 51)),
    ),
}


@dataclass(frozen=True)
class Counting:
    """``count`` objects of one kind and color."""

    count: int
    kind: str
    color: str
    type = "counting"


@dataclass(frozen=True)
class Color:
    """Two objects of different kinds and colors; each has its own color. The first is mentioned first."""

    kind: str
    color: str
    other_kind: str
    other_color: str
    type = "color"


@dataclass(frozen=True)
class Action:
    """A figure of one color in a pose."""

    pose: str
    color: str
    type = "action"


Meaning = Counting | Color | Action


@dataclass(frozen=True)
class Scene:
    """A meaning at given places.

    Attributes:
        meaning: what the picture shows.
        places: centres of the objects in pixels, in the meaning's order; for an action the figure's shift.
        mirrored: for an action: the figure looks the other way.
        background: index of the background.
    """

    meaning: Meaning
    places: tuple[tuple[int, int], ...]
    mirrored: bool
    background: int


def meanings(type: str) -> list[Meaning]:
    """All meanings of a type, in a fixed order: 240 of counting, 1120 of color, 48 of action."""
    if type == "counting":
        return [Counting(*values) for values in product(COUNTS, KINDS, COLORS)]
    if type == "color":
        return [
            Color(first, color, second, other)
            for first, second in permutations(KINDS, 2)
            for color, other in product(COLORS, COLORS)
            if color != other
        ]
    if type == "action":
        return [Action(*values) for values in product(POSES, COLORS)]
    raise ValueError(f"type must be one of {', '.join(TYPES)}; found {type!r}")


def canonical(meaning: Meaning) -> Meaning:
    """One meaning for all that look alike: of two objects, which is mentioned first cannot be seen."""
    if isinstance(meaning, Color) and meaning.kind > meaning.other_kind:
        return Color(meaning.other_kind, meaning.other_color, meaning.kind, meaning.color)
    return meaning


def is_held_out(meaning: Meaning) -> bool:
    """Whether no training triplet has this combination: every fifth, every fourth action.

    Chosen along diagonals, so that every count, kind, color and pose is seen in training, in other company.
    """
    meaning, colors, kinds = canonical(meaning), list(COLORS), KINDS
    if isinstance(meaning, Counting):
        place = meaning.count + 2 * kinds.index(meaning.kind) + 3 * colors.index(meaning.color)
        return place % 5 == 0
    if isinstance(meaning, Color):
        place = colors.index(meaning.color) + 2 * colors.index(meaning.other_color)
        return (place + kinds.index(meaning.kind) + kinds.index(meaning.other_kind)) % 5 == 0
    return (POSES.index(meaning.pose) + colors.index(meaning.color)) % 4 == 0


def place(meaning: Meaning, dice: Dice, backgrounds: int = 3) -> Scene:
    """A scene of ``meaning`` at places of chance."""
    background = dice.below(backgrounds)
    if isinstance(meaning, Action):
        reach = 3 if meaning.pose in ("lying", "running") else 7
        shift = (dice.between(-reach, reach), 0)
        return Scene(meaning, (shift,), dice.chance(0.5), background)
    if isinstance(meaning, Counting):
        centres = dice.pick(ARRANGEMENTS[meaning.count])
        reach = 4 if meaning.count > 1 else 12
    else:
        centres = dice.pick((((18, 32), (46, 32)), ((46, 32), (18, 32))))
        reach = 4
    edge = 11 if isinstance(meaning, Counting) else 15
    shift = [_shift([centre[axis] for centre in centres], reach, edge, dice) for axis in (0, 1)]
    wobble = 1 if len(centres) > 1 else 0
    places = [
        tuple(c + s + dice.between(-wobble, wobble) for c, s in zip(centre, shift, strict=True))
        for centre in centres
    ]
    return Scene(meaning, tuple(places), False, background)


def _shift(centres: list[int], reach: int, edge: int, dice: Dice) -> int:
    """How far all objects move along an axis: together, so that they keep apart, and within the picture."""
    low, high = max(-reach, edge - min(centres)), min(reach, SIZE - 1 - edge - max(centres))
    return dice.between(low, high)


def to_truth(meaning: Meaning) -> dict:
    """The meaning as JSON: its type and its fields."""
    return {"type": meaning.type, **asdict(meaning)}


def from_truth(truth: dict) -> Meaning:
    """Inverse of :func:`to_truth`. Raises ``ValueError`` in words."""
    classes = {"counting": Counting, "color": Color, "action": Action}
    values = dict(truth)
    kind = values.pop("type", None)
    try:
        return classes[kind](**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no meaning of SURD-Shapes: {truth!r} ({error})") from None
