"""People's marks joined with the key: verdicts by picture, right pictures by arm, agreement."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...atomic import atomic_write
from ..judges import Verdict
from ..prompt_sets import EvalPrompt
from ..statistics import ALL, Comparison, Interval, compare
from .agreement import Kappa, agreements
from .answers import check_items, read_answers
from .hiding import digest_of
from .intervals import wilson
from .key import SHEET, SheetItem, read_key
from .sheet import MARKS, NO, YES

VERSION = 1
MARKS_FILE = "marks.json"
JUDGE_NAME = "people"


@dataclass(frozen=True)
class MarkedPicture:
    """A picture and what people said: ``marks`` are {person: "yes", "no" or "unsure"}."""

    item: SheetItem
    marks: Mapping[str, str]

    @property
    def right(self) -> bool | None:
        """What more people say of yes and no; ``None`` if it is a draw, or nobody is sure."""
        counts = Counter(self.marks.values())
        return None if counts[YES] == counts[NO] else counts[YES] > counts[NO]

    def verdict(self) -> Verdict | None:
        """``None`` if there is none."""
        if self.right is None:
            return None
        counts = Counter(self.marks.values())
        why = ", ".join(f"{counts[mark]} {mark}" for mark in MARKS if counts[mark])
        return Verdict(self.right, why, {"marks": dict(self.marks)})


@dataclass(frozen=True)
class ArmMarks:
    """How many pictures of an arm people found right, for one type or ``"all"``.

    Attributes:
        undecided: a draw, nobody sure, or not marked; in neither ``right`` nor ``wrong``.
        interval: Wilson's, of ``share``; as if pictures of one prompt were independent.
    """

    arm: str
    type: str
    right: int
    wrong: int
    undecided: int
    interval: Interval

    @property
    def share(self) -> float | None:
        """Of those decided; ``None`` if none is."""
        decided = self.right + self.wrong
        return self.right / decided if decided else None


@dataclass(frozen=True)
class Marks:
    """All that people said about a sheet.

    Attributes:
        arms: the first is the one the others are compared with.
        people: the names given, in order.
        pictures: in the order of the page.
        notes: what of the files was left out, in words.
    """

    study: str
    title: str
    arms: tuple[str, ...]
    people: tuple[str, ...]
    pictures: tuple[MarkedPicture, ...]
    notes: tuple[str, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted({picture.item.type for picture in self.pictures}))

    @cached_property
    def verdicts(self) -> dict[tuple[str, str], Verdict]:
        """{(path in the results, prompt id): verdict} of every picture that has one."""
        found = {(p.item.path, p.item.prompt_id): p.verdict() for p in self.pictures}
        return {place: verdict for place, verdict in found.items() if verdict is not None}

    def judge(self) -> SheetJudge:
        """The people as a judge of the same pictures."""
        return SheetJudge(self)

    def arm(self, arm: str, type: str = ALL) -> ArmMarks:
        """KeyError if nothing of it was shown."""
        found = [p for p in self.pictures if arm in p.item.arms and type in (ALL, p.item.type)]
        if not found:
            raise KeyError(f"no pictures of arm {arm!r}, type {type!r} were shown")
        counts = Counter(picture.right for picture in found)
        return ArmMarks(
            arm, type, counts[True], counts[False], counts[None], wilson(counts[True], counts[False])
        )

    def comparison(self, arm: str, type: str = ALL) -> Comparison | None:
        """An arm with the first one, over prompts and seeds at which both are decided; ``None`` without."""
        ours, base = self._decided(arm, type), self._decided(self.arms[0], type)
        common = [place for place in base if place in ours]
        if not common:
            return None
        prompts, types = [place[0] for place in common], [base[place].item.type for place in common]
        values = ([float(marks[place].right) for place in common] for marks in (ours, base))
        return compare(arm, self.arms[0], *values, prompts, types)

    def agreements(self) -> tuple[tuple[Kappa, ...], Kappa | None]:
        """Every two people's kappa over yes, no and unsure, and Fleiss' for more than two."""
        by_person = {
            name: {p.item.id: p.marks[name] for p in self.pictures if name in p.marks} for name in self.people
        }
        return agreements(by_person)

    def _decided(self, arm: str, type: str) -> dict[tuple[str, int], MarkedPicture]:
        return {
            (p.item.prompt_id, p.item.seed): p
            for p in self.pictures
            if arm in p.item.arms and type in (ALL, p.item.type) and p.right is not None
        }


class SheetJudge:
    """People's marks as a :class:`sur_core.evaluation.Judge`, which knows pictures by their pixels."""

    note = "Marks by people on a blind sheet, merged by majority."

    def __init__(self, marks: Marks):
        self._found = {(p.item.pixels, p.item.prompt_id): p for p in marks.pictures}
        self.name = f"{JUDGE_NAME} ({len(marks.people)})"

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        """ValueError: the picture was not on the sheet, or people have not decided it."""
        found = self._found.get((digest_of(pixels), prompt.id))
        if found is None:
            raise ValueError(
                f"a picture of prompt {prompt.id!r} was not on the marking sheet; make a new sheet"
            )
        verdict = found.verdict()
        if verdict is None:
            raise ValueError(
                f"a picture of prompt {prompt.id!r}, seed {found.item.seed}, is not decided by the marking "
                "sheet: ask one more person, or somebody who was unsure"
            )
        return verdict


def merge_marks(key: str | os.PathLike, files: Sequence[str | os.PathLike]) -> Marks:
    """Join people's files with the key.

    Raises:
        AnswersError, ValueError, OSError: bad input in words; see :func:`.answers.read_answers`.
    """
    key = Path(key)
    answers, notes = read_answers(files, SHEET, MARKS)
    found = read_key(key, SHEET)
    if answers and answers[0].study != found.study:
        raise ValueError(f"{answers[0].path}: answers another page than that of {key}; give its own key")
    check_items(answers, {item.id for item in found.items}, key)
    pictures = tuple(
        MarkedPicture(item, {one.marker: one.answers[item.id] for one in answers if item.id in one.answers})
        for item in found.items
    )
    people = tuple(one.marker for one in answers)
    return Marks(found.study, found.title, found.arms, people, pictures, tuple(notes))


def write_marks(marks: Marks, folder: Path) -> Path:
    """Write ``marks.json`` atomic; its path. The same marks give the same bytes."""
    content = {
        "kind": "sur marks",
        "version": VERSION,
        **{name: value for name, value in asdict(replace(marks, pictures=())).items() if name != "pictures"},
        "pictures": [
            {**asdict(picture.item), "marks": dict(picture.marks), "right": picture.right}
            for picture in marks.pictures
        ],
    }
    path = Path(folder) / MARKS_FILE
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return path


def read_marks(path: str | os.PathLike) -> Marks:
    """What :func:`write_marks` wrote. ``path``: of the file or its folder. Raises OSError, ValueError."""
    path = Path(path)
    path = path / MARKS_FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; 'evaluate sheet merge' writes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); merge the answers again") from error
    if not isinstance(found, dict) or (found.get("kind"), found.get("version")) != ("sur marks", VERSION):
        raise ValueError(f"{path}: expected merged marks, version {VERSION}; merge the answers again")
    try:
        pictures = tuple(_picture(entry) for entry in found["pictures"])
        people, arms, notes = (tuple(found[name]) for name in ("people", "arms", "notes"))
        return Marks(found["study"], found["title"], arms, people, pictures, notes)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged ({reason}); merge the answers again") from error


def _picture(entry: dict) -> MarkedPicture:
    fields = {name: value for name, value in entry.items() if name not in ("marks", "right")}
    return MarkedPicture(SheetItem(**{**fields, "arms": tuple(fields["arms"])}), entry["marks"])
