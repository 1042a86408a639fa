"""Makes a blind marking sheet: a page on which people say of each picture whether it shows what was asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import Evaluation, Picture
from .choice import Choice, Seen, look_at, open_results, read_pixels, size_remark
from .hiding import Hiding, encoded
from .key import SHEET, Key, SheetItem, write_key
from .page import PageOptions, check_place, pictures_folder, write_page

YES, NO, UNSURE = MARKS = ("yes", "no", "unsure")
ANSWERS = "sur sheet answers"
QUESTION = "Does the picture show what the prompt says?"
QUESTIONS = {
    "action": "Is the action of the prompt really being done in the picture?",
    "color": "Has everything that the prompt gives a color got that color, and is it there?",
    "counting": "Is everything that the prompt counts there in exactly that number?",
}
"""By the type's name in small letters."""
INTRO = (
    "You will see one picture after the other, each with the prompt it was drawn for. Say whether the "
    "picture shows what is asked, and nothing else: beauty and small flaws do not count.",
    "Y is yes, N is no, M is unsure. U takes the last answer back. You may stop at any time; the page goes "
    "on where you were.",
)
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        page: for people; ``folder`` goes with it, if there is one.
        key: which arm drew what; it stays where it is.
        items: how many are asked.
        format: of the pictures.
        remarks: what to know about them, in words.
    """

    page: Path
    folder: Path | None
    key: Path
    study: str
    items: int
    format: str
    remarks: tuple[str, ...]


def make_sheet(
    results: str | os.PathLike,
    page: str | os.PathLike,
    choice: Choice | None = None,
    options: PageOptions | None = None,
    report: Report | None = None,
) -> Made:
    """Make the page, and its key in ``results/sheets``.

    Every picture is shown with the prompt's simple text, whatever its arm drew from. What several arms drew
    alike, pixel by pixel, is asked once and counts for all of them.

    Args:
        results: folder that an evaluation has filled.
        page: HTML file to write; outside of the results.
        report: called with (what, done, total).

    Raises:
        ValueError, OSError: bad input in words: no results there, a name that is none of theirs, a picture is
            missing or damaged, the page is there already.
    """
    results, page = Path(results), Path(page)
    choice, options, report = choice or Choice(), options or PageOptions(), report or (lambda *_: None)
    found = open_results(results)
    check_place(page, results)
    pictures = choice.pictures_of(found)
    seen = look_at(found, pictures, report)
    hiding = Hiding(options.seed)
    items = _items(found, pictures, seen, hiding)
    format, inside = options.settled(sum(w * h for w, h in (seen[item.path].size for item in items)))
    data = _data(found, items, options)
    data["study"] = hiding.study(repr(data), *(item.pixels for item in items))
    key = Key(
        SHEET,
        data["study"],
        hiding.secret,
        data["title"],
        tuple(data["questions"]),
        choice.arms_of(found),
        items,
    )
    remarks = _remarks(items, size_remark(pictures, seen))
    return write_both(key, results, page, data, _files(found, items, format, report), format, inside, remarks)


def write_both(
    key: Key,
    results: Path,
    page: Path,
    data: dict,
    files,
    format: str,
    inside: bool,
    remarks: tuple[str, ...],
) -> Made:
    """Write key and page. ``files``: as :func:`.page.write_page` takes them."""
    key_path = write_key(key, results)  # first: a page without its key would be worth nothing
    write_page(page, data, files, format, inside)
    folder = None if inside else pictures_folder(page)
    return Made(page, folder, key_path, key.study, len(key.items), format, remarks)


def _remarks(items: Sequence[SheetItem], size: str) -> tuple[str, ...]:
    alike = sum(len(item.arms) - 1 for item in items)
    remarks = [size] if size else []
    remarks += [f"{alike} pictures are the same as another arm's, and are asked once"] if alike else []
    return tuple(remarks)


def _items(
    found: Evaluation, pictures: Sequence[Picture], seen: dict[str, Seen], hiding: Hiding
) -> tuple[SheetItem, ...]:
    """What is asked, in the order of the page."""
    alike: dict[tuple, list[Picture]] = {}
    places = {prompt.id: place for place, prompt in enumerate(found.prompts)}
    for picture in pictures:
        cell = places[picture.prompt_id], picture.seed, seen[picture.path].digest
        alike.setdefault(cell, []).append(picture)
    groups = hiding.shuffled([alike[cell] for cell in sorted(alike)], "order")
    return tuple(
        SheetItem(
            id=hiding.name(f"item {place}"),
            prompt_id=group[0].prompt_id,
            type=group[0].type,
            seed=group[0].seed,
            path=group[0].path,
            pixels=seen[group[0].path].digest,
            arms=tuple(picture.arm for picture in group),
        )
        for place, group in enumerate(groups)
    )


def _data(found: Evaluation, items: Sequence[SheetItem], options: PageOptions) -> dict:
    """What the page is told."""
    prompts = {prompt.id: prompt.prompt for prompt in found.prompts}
    asked = {item.type: options.question or QUESTIONS.get(item.type.lower(), QUESTION) for item in items}
    questions = sorted(set(asked.values()))
    keys = {YES: ("Yes", ["y", "1"]), NO: ("No", ["n", "2"]), UNSURE: ("Unsure", ["m", "3"])}
    return {
        "kind": SHEET,
        "answers": ANSWERS,
        "file": "answers",
        "title": options.title or "Which pictures are right?",
        "intro": [*INTRO, f"There are {len(items):,} pictures."],
        "questions": questions,
        "choices": [{"value": value, "label": keys[value][0], "keys": keys[value][1]} for value in MARKS],
        "items": [
            {
                "id": item.id,
                "pictures": [item.id],
                "prompt": prompts[item.prompt_id],
                "question": questions.index(asked[item.type]),
            }
            for item in items
        ],
    }


def _files(found: Evaluation, items: Sequence[SheetItem], format: str, report: Report):
    """(name, content), one at a time, in the order of the page: so are the files' times."""
    for done, item in enumerate(items, start=1):
        yield item.id, encoded(read_pixels(found, item.path), format)
        report("writing the page", done, len(items))
