"""Reads the files that people have saved from a page, and finds the key they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .key import FOLDERS, KEY, PREFERENCE, SHEET

VERSION = 1
_KINDS = {
    SHEET: ("sur sheet answers", "answers to a marking sheet", "evaluate sheet merge"),
    PREFERENCE: ("sur preference answers", "answers to a preference study", "evaluate preference merge"),
}
_DEPTHS = ("", "*/", "*/*/", "*/*/*/")  # a cell of a study lies three below


_IN_A_STUDY = ("", "cells/*/")


class AnswersError(ValueError):
    """Files of answers cannot be used. The message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Answers:
    """What one person has saved.

    Attributes:
        marker: the name they gave. ``session``: one beginning of theirs, in one browser.
        revision: grows with every answer and undo; of two files of a session, the higher one is newer.
        items: how many the page asks.
        answers: {item's id: value}.
    """

    path: Path
    study: str
    marker: str
    session: str
    revision: int
    items: int
    answers: Mapping[str, str]


def read_answers(
    paths: Sequence[str | os.PathLike], kind: str, values: Collection[str]
) -> tuple[list[Answers], list[str]]:
    """One for each person, in the order of their names; and in words what of the files was left out.

    Of several files that a person saved one after the other, the newest counts.

    Args:
        kind: of the page: ``key.SHEET`` or ``key.PREFERENCE``.
        values: what an answer may be.

    Raises:
        AnswersError: no files; a file is damaged or no such file; files of different pages; two beginnings
            under one name, or one beginning under two names.
        OSError: a file cannot be read.
    """
    if not paths:
        raise AnswersError("no files of answers; give the files that people have saved from the page")
    found = [_read(Path(path), kind, values) for path in paths]
    first = found[0]
    for one in found:
        if one.study != first.study:
            raise AnswersError(
                f"{one.path}: answers another page than {first.path} (study {one.study}, not {first.study}); "
                "merge the files of each page by themselves"
            )
    newest: dict[str, Answers] = {}
    notes = []
    for one in sorted(found, key=lambda one: one.revision):
        older = newest.get(one.marker.casefold())
        if older and older.session != one.session:
            raise AnswersError(
                f"{one.path} and {older.path}: both are by {one.marker!r}, who has begun twice. If they are "
                'two people, change "marker" in one of the files; if one person answered twice, leave one out'
            )
        if older:
            notes.append(f"{older.path}: left out, as {one.path} is the same person's newer or equal file")
        newest[one.marker.casefold()] = one
    _check_copies(list(newest.values()))
    people = sorted(newest.values(), key=lambda one: one.marker.casefold())
    notes += [f"{one.path}: has no answers in it" for one in people if not one.answers]
    return [one for one in people if one.answers], notes


def check_items(found: Sequence[Answers], ids: Collection[str], key: Path) -> None:
    """AnswersError: answers to what the key does not know, or nothing at all is answered."""
    if not found:
        raise AnswersError(f"none of the files has an answer in it; there is nothing to merge with {key}")
    for one in found:
        if strange := [id for id in one.answers if id not in ids]:
            raise AnswersError(
                f"{one.path}: answers {len(strange)} items that {key} does not have, such as {strange[0]!r}. "
                "The file or the key has been changed by hand; ask for the file anew"
            )


def find_key(paths: Sequence[str | os.PathLike], kind: str, results: str | os.PathLike | None = None) -> Path:
    """The key that the files' page was made with.

    Args:
        results: the results folder it lies in; otherwise it is looked for in the working folder and up to
            three folders below.

    Raises:
        AnswersError: there is none, or several; and what :func:`read_answers` raises.
    """
    if not paths:
        raise AnswersError("no files of answers; give the files that people have saved from the page")
    path = Path(paths[0])
    study = _read(path, kind, None).study
    place = Path(FOLDERS[kind]) / study / KEY
    if results is not None:
        found = [path for depth in _IN_A_STUDY for path in Path(results).glob(f"{depth}{place.as_posix()}")]
        key = found[0] if found else Path(results) / place
        if not found:
            raise AnswersError(
                f"{path}: answers a page that was not made from {results} (there is no {key}). Give the "
                "results folder the page was made from with --results"
            )
        return key
    keys = [key for depth in _DEPTHS for key in sorted(Path().glob(f"{depth}{place.as_posix()}"))]
    if len(keys) != 1:
        seen = f"found {len(keys)}: {', '.join(map(str, keys))}" if keys else "found none"
        raise AnswersError(
            f"{path}: looked for the key of its page, {place}, in this folder and three below, and {seen}. "
            "Give the results folder the page was made from with --results"
        )
    return keys[0]


def _read(path: Path, kind: str, values: Collection[str] | None) -> Answers:
    """``values``: of answers; ``None`` does not look at them."""
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected one that a page has saved") from None
    except IsADirectoryError:
        raise AnswersError(f"{path}: is a folder; expected files that a page has saved") from None
    except (ValueError, RecursionError) as error:
        raise AnswersError(
            f"{path}: damaged, not JSON ({error}). Ask for it anew: the answers are still in the browser"
        ) from error
    _check_kind(path, found, kind)
    wrong = _wrong(found, values)
    if wrong:
        raise AnswersError(f"{path}: damaged: {wrong}. Ask for the file anew; it must not be changed by hand")
    names = ("study", "marker", "session", "revision", "items", "answers")
    return Answers(path, *(found[name] for name in names))


def _check_kind(path: Path, found: Any, kind: str) -> None:
    expected, words, _ = _KINDS[kind]
    said = found.get("kind") if isinstance(found, dict) else None
    if said == expected:
        if found.get("version") != VERSION:
            raise AnswersError(
                f"{path}: version {found.get('version')!r} of {words}; expected {VERSION}, which the page of "
                "this release saves"
            )
        return
    for other, other_words, command in _KINDS.values():
        if said == other:
            raise AnswersError(f"{path}: holds {other_words}, not {words}; merge it with {command}")
    raise AnswersError(f"{path}: expected {words} as the page saves them, found something else")


def _wrong(found: dict, values: Collection[str] | None) -> str:
    """What is wrong with a file of the right kind; "" if nothing is."""
    for name in ("study", "marker", "session"):
        if not isinstance(found.get(name), str) or not found[name].strip():
            return f"{name} should be a text, found {found.get(name)!r}"
    for name in ("revision", "items"):
        if not isinstance(found.get(name), int) or isinstance(found[name], bool) or found[name] < 0:
            return f"{name} should be a whole number, found {found.get(name)!r}"
    answers = found.get("answers")
    if not isinstance(answers, dict):
        return f"answers should be an object, found {type(answers).__name__}"
    for id, value in answers.items() if values is not None else ():
        if value not in values:
            return f"the answer to {id} is {value!r}, expected one of {', '.join(values)}"
    return ""


def _check_copies(found: Sequence[Answers]) -> None:
    sessions: dict[str, Answers] = {}
    for one in found:
        other = sessions.setdefault(one.session, one)
        if other is not one:
            raise AnswersError(
                f"{one.path} and {other.path}: the same answers under two names, {one.marker!r} and "
                f"{other.marker!r}; leave one of them out"
            )
