"""Makes a user preference study: a page on which people choose between two pictures of a prompt and seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import Evaluation, Picture
from .choice import Choice, Seen, look_at, open_results, read_pixels, size_remark
from .hiding import Hiding, encoded
from .key import PREFERENCE, Key, PairItem
from .page import PageOptions, check_place
from .sheet import Made, Report, write_both

LEFT, RIGHT, NONE = CHOICES = ("left", "right", "none")
ANSWERS = "sur preference answers"
QUALITY, PROMPT = ASKS = ("quality", "prompt")
"""What may be asked: which picture is of better quality, as the paper asks (B.4), or which one shows better
what the prompt says, which is then shown."""
QUESTIONS = {
    QUALITY: "Which picture is of better quality?",
    PROMPT: "Which picture shows better what the prompt says?",
}
INTRO = (
    "You will see pairs of pictures. Choose the one that answers the question better. Which side a picture "
    "is on is chance, anew for every pair.",
    "A or ← is the first, B or → is the second, N or ↓ is no preference. U takes the last answer back. You "
    "may stop at any time; the page goes on where you were.",
)


@dataclass(frozen=True)
class Cell:
    """A prompt and seed that both arms of a pair have drawn, differently."""

    pair: tuple[str, str]
    pictures: tuple[Picture, Picture]


def make_preference(
    results: str | os.PathLike,
    page: str | os.PathLike,
    pairs: Sequence[tuple[str, str]] = (),
    ask: str = QUALITY,
    reuse: bool = False,
    choice: Choice | None = None,
    options: PageOptions | None = None,
    report: Report | None = None,
) -> Made:
    """Make the page, and its key in ``results/preferences``.

    With several pairs of arms, an arm that is in all of them would be known by its pictures, which come
    again and again. So every prompt and seed is dealt to one pair of arms only, unless ``reuse``.

    Args:
        results, page: as ``make_sheet``, and so are choice, options and report.
        pairs: of arms; otherwise the baseline (the first chosen arm) with each other one.
        ask: ``"quality"`` or ``"prompt"``.

    Raises:
        ValueError, OSError: bad input in words, as ``make_sheet``; arms without common pictures, or whose
            pictures are all the same; too few prompts and seeds for so many pairs of arms.
    """
    results, page, report = Path(results), Path(page), report or (lambda *_: None)
    choice, options = choice or Choice(), options or PageOptions()
    if ask not in ASKS:
        raise ValueError(f"ask is {ask!r}; expected {' or '.join(ASKS)}")
    found = open_results(results)
    check_place(page, results)
    pairs = _pairs(found, pairs, choice)
    shown = [p for p in choice.pictures_of(found) if any(p.arm in pair for pair in pairs)]
    seen, hiding = look_at(found, shown, report), Hiding(options.seed)
    cells, alike = _cells(found, pairs, shown, seen)
    cells = cells if reuse or len(pairs) == 1 else _dealt(cells, pairs, hiding)
    items = _items(found, cells, seen, hiding)
    paths = [path for item in items for path in (item.left_path, item.right_path)]
    format, inside = options.settled(sum(w * h for w, h in (seen[path].size for path in paths)))
    data = _data(found, items, options, ask)
    data["study"] = hiding.study(repr(data), *(seen[path].digest for path in paths))
    arms, questions = tuple(dict.fromkeys(arm for pair in pairs for arm in pair)), tuple(data["questions"])
    key = Key(PREFERENCE, data["study"], hiding.secret, data["title"], questions, arms, items, pairs, ask)
    files = _files(found, items, data, format, report)
    remarks = _remarks(alike, pairs, cells, reuse, size_remark(shown, seen))
    return write_both(key, results, page, data, files, format, inside, remarks)


def _pairs(
    found: Evaluation, pairs: Sequence[tuple[str, str]], choice: Choice
) -> tuple[tuple[str, str], ...]:
    arms = choice.arms_of(found)
    if not pairs:
        if len(arms) < 2:
            raise ValueError(
                f"{found.settings.output_dir}: there is one arm only, {arms[0]!r}; a preference needs two"
            )
        return tuple((arms[0], other) for other in arms[1:])
    for pair in pairs:
        Choice(arms=tuple(pair)).arms_of(found)
        if pair[0] == pair[1]:
            raise ValueError(f"the pair {pair[0]!r}, {pair[1]!r} is one arm twice; give two different ones")
    once = {frozenset(pair): tuple(pair) for pair in pairs}
    if len(once) < len(pairs):
        raise ValueError("a pair of arms is given twice; give each once")
    return tuple(once.values())


def _cells(
    found: Evaluation, pairs, pictures: Sequence[Picture], seen: dict[str, Seen]
) -> tuple[list[Cell], int]:
    """Every prompt and seed for every pair of arms, and how many are left out as both drew the same."""
    by_place = {(p.arm, p.prompt_id, p.seed): p for p in pictures}
    cells, alike = [], 0
    for pair in pairs:
        firsts = [p for p in pictures if p.arm == pair[0]]
        both = [(p, by_place.get((pair[1], p.prompt_id, p.seed))) for p in firsts]
        both = [(first, second) for first, second in both if second is not None]
        if not both:
            raise ValueError(
                f"{found.settings.output_dir}: the arms {pair[0]!r} and {pair[1]!r} have no prompt and seed "
                "in common, so there is nothing to choose between. Choose other arms, or evaluate both on "
                "the same prompts and seeds"
            )
        differ = [both for both in both if len({seen[picture.path].digest for picture in both}) == 2]
        if not differ:
            raise ValueError(
                f"{found.settings.output_dir}: the arms {pair[0]!r} and {pair[1]!r} drew the same pictures, "
                "pixel by pixel; there is nothing to choose between"
            )
        alike += len(both) - len(differ)
        cells += [Cell(pair, pictures) for pictures in differ]
    return cells, alike


def _dealt(cells: Sequence[Cell], pairs, hiding: Hiding) -> list[Cell]:
    """Each prompt and seed for one pair of arms, in turn through the prompts of a type, then its seeds."""
    by_place: dict[tuple, dict] = {}
    for cell in cells:
        picture = cell.pictures[0]
        by_place.setdefault((picture.type, picture.seed, picture.prompt_id), {})[cell.pair] = cell
    dealt, counts = [], dict.fromkeys(pairs, 0)
    places = hiding.shuffled(sorted(by_place), "dealing")
    for place in sorted(places, key=lambda place: place[:2]):  # stable: prompts stay shuffled
        had = by_place[place]
        pair = min((pair for pair in pairs if pair in had), key=counts.__getitem__)
        counts[pair] += 1
        dealt.append(had[pair])
    if short := [pair for pair in pairs if not counts[pair]]:
        raise ValueError(
            f"{len(by_place)} prompts and seeds cannot be dealt to {len(pairs)} pairs of arms: "
            f"{' and '.join(map(repr, short[0]))} get none. Choose fewer pairs, or reuse pictures, by which "
            "people may tell an arm"
        )
    return dealt


def _items(
    found: Evaluation, cells: Sequence[Cell], seen: dict[str, Seen], hiding: Hiding
) -> tuple[PairItem, ...]:
    """In the order of the page. The order before the shuffle, and which is tossed for, know no arm."""
    places = {prompt.id: place for place, prompt in enumerate(found.prompts)}

    def known(cell: Cell) -> tuple:
        digests = sorted(seen[picture.path].digest for picture in cell.pictures)
        return places[cell.pictures[0].prompt_id], cell.pictures[0].seed, digests

    order = hiding.shuffled(sorted(cells, key=known), "order")
    items = []
    for place, (cell, turned) in enumerate(zip(order, hiding.coins(len(order)), strict=True)):
        left, right = sorted(cell.pictures, key=lambda p: seen[p.path].digest, reverse=turned)
        items.append(
            PairItem(
                id=hiding.name(f"item {place}"),
                prompt_id=left.prompt_id,
                type=left.type,
                seed=left.seed,
                left=left.arm,
                right=right.arm,
                left_path=left.path,
                right_path=right.path,
                left_pixels=seen[left.path].digest,
                right_pixels=seen[right.path].digest,
            )
        )
    return tuple(items)


def _data(found: Evaluation, items: Sequence[PairItem], options: PageOptions, ask: str) -> dict:
    """What the page is told. A picture has a name for each time it is shown."""
    prompts = {prompt.id: prompt.prompt for prompt in found.prompts}
    choices = {LEFT: ("A", ["a", "arrowleft"]), NONE: ("No preference", ["n", "arrowdown"])}
    choices[RIGHT] = ("B", ["b", "arrowright"])
    return {
        "kind": PREFERENCE,
        "answers": ANSWERS,
        "file": "preferences",
        "title": options.title or "Which picture is better?",
        "intro": [*INTRO, f"There are {len(items):,} pairs."],
        "questions": [options.question or QUESTIONS[ask]],
        "choices": [
            {"value": value, "label": label, "keys": keys} for value, (label, keys) in choices.items()
        ],
        "items": [
            {
                "id": item.id,
                "pictures": [f"{item.id}-a", f"{item.id}-b"],
                "prompt": prompts[item.prompt_id] if ask == PROMPT else "",
                "question": 0,
            }
            for item in items
        ],
    }


def _files(found: Evaluation, items: Sequence[PairItem], data: dict, format: str, report: Report):
    """(name, content), one at a time, in the order of the page: so are the files' times."""
    for done, (item, told) in enumerate(zip(items, data["items"], strict=True), start=1):
        for name, path in zip(told["pictures"], (item.left_path, item.right_path), strict=True):
            yield name, encoded(read_pixels(found, path), format)
        report("writing the page", done, len(items))


def _remarks(alike: int, pairs, cells: Sequence[Cell], reuse: bool, size: str) -> tuple[str, ...]:
    remarks = [size] if size else []
    if alike:
        remarks.append(f"{alike} pairs are left out, whose arms drew the same picture")
    if len(pairs) > 1 and reuse:
        remarks.append(
            "pictures are shown more than once; people may tell the arm that comes again and again"
        )
    elif len(pairs) > 1:
        counts = "; ".join(f"{a} / {b}: {sum(c.pair == (a, b) for c in cells)}" for a, b in pairs)
        remarks.append(f"no picture is shown twice, so each prompt and seed went to one pair ({counts})")
    return tuple(remarks)
