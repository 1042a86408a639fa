"""What people said of a study's cells: marks and preferences that were merged into their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sheets.against_judge import AgainstPeople, against_people
from .sheets.key import FOLDERS, PREFERENCE, SHEET
from .sheets.marks import MARKS_FILE, Marks, read_marks
from .sheets.preference import QUALITY
from .sheets.preferences import PREFERENCES_FILE, Preferences, ShownPair, Votes, all_votes, read_preferences
from .sheets.standing import Drawn, marks_standing, preferences_standing
from .statistics import ALL

_UNKNOWN = (
    "none of its answers is in User Preference, as its key does not say what was asked for, and the question "
    'is in other words than the usual ones; write "ask": "quality" (or "prompt") into its key.json and merge '
    "the answers again"
)


@dataclass(frozen=True)
class CellPeople:
    """What people said of one model under one method.

    Attributes:
        marks: of each marking sheet.
        judges: for each sheet how far the judge agrees with it.
        preferences: of each preference study.
        notes: what is not counted, in words. Answers about pictures that are no longer the cell's are in none
            of the others.
    """

    model: str
    method: str
    marks: tuple[Marks, ...] = ()
    judges: tuple[AgainstPeople, ...] = ()
    preferences: tuple[Preferences, ...] = ()
    notes: tuple[str, ...] = ()

    def votes(self, baseline: str, arm: str) -> Votes | None:
        """All answers to which picture is of better quality, of the baseline's (first) and an arm's; ``None``
        without. Studies that ask which picture shows the prompt better are not counted.
        """
        pair = (baseline, arm)
        counted = [found for found in self.preferences if found.ask == QUALITY]
        shown = tuple(
            ShownPair(one.item, pair, one.answers)
            for found in counted
            for one in found.shown
            if set(one.pair) == set(pair)
        )
        people = tuple(dict.fromkeys(name for found in counted for name in found.people))
        return Preferences("", "", "", (pair,), people, shown).votes(pair) if shown else None


def people_in(folder: Path) -> tuple[tuple[Marks, ...], tuple[Preferences, ...]]:
    """Merged marks and preferences in a results folder. ValueError, OSError: one is damaged, by name."""
    marks = sorted(folder.glob(f"{FOLDERS[SHEET]}/*/{MARKS_FILE}"))
    preferences = sorted(folder.glob(f"{FOLDERS[PREFERENCE]}/*/{PREFERENCES_FILE}"))
    return tuple(map(read_marks, marks)), tuple(map(read_preferences, preferences))


def people_of(study: Path, cells: Sequence) -> tuple[CellPeople, ...]:
    """Of the :class:`.study.Cell` objects of a study whose results are written; only where people said
    something. Errors as :func:`people_in`.
    """
    found = (_people_of(study / cell.folder, cell) for cell in cells)
    return tuple(one for one in found if one.marks or one.preferences or one.notes)


def _people_of(folder: Path, cell) -> CellPeople:
    all_marks, all_preferences = people_in(folder)
    drawn = Drawn(cell.evaluation)
    marks = [marks_standing(one, drawn) for one in all_marks]
    preferences = [preferences_standing(one, drawn) for one in all_preferences]
    notes = [f"sheet {one.study}: {words}" for one, words in marks if words]
    notes += [f"preference study {one.study}: {words}" for one, words in preferences if words]
    notes += [f"preference study {one.study}: {_UNKNOWN}" for one, _ in preferences if not one.ask]
    return CellPeople(
        cell.model,
        cell.method,
        tuple(one for one, _ in marks if one.people),
        tuple(filter(None, (against_people(one, cell.evaluation) for one, _ in marks))),
        tuple(one for one, _ in preferences if one.people),
        tuple(notes),
    )


def people_to_json(found: CellPeople) -> dict[str, Any]:
    """For study.json; the merged files themselves stay in the cells."""
    preferences = [
        {
            "question": one.question,
            "ask": one.ask,
            "people": list(one.people),
            "votes": [
                {
                    **{name: getattr(votes, name) for name in ("type", "person", "first", "second", "none")},
                    "pair": list(votes.pair),
                    "share": votes.share,
                    "p": votes.test.p,
                }
                for votes in all_votes(one)
            ],
        }
        for one in found.preferences
    ]
    marks = [{"people": list(one.people), "arms": _arms_to_json(one)} for one in found.marks]
    return {
        "model": found.model,
        "method": found.method,
        "marks": marks,
        "judge": list(map(str, found.judges)),
        "preferences": preferences,
        "left_out": list(found.notes),
    }


def _arms_to_json(marks: Marks) -> list[dict[str, Any]]:
    there = {(arm, type) for one in marks.pictures for arm in one.item.arms for type in (one.item.type, ALL)}
    found = (marks.arm(*place) for place in sorted(there))
    return [
        {name: getattr(one, name) for name in ("arm", "type", "right", "wrong", "undecided", "share")}
        for one in found
    ]
