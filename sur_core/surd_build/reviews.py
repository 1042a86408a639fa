"""People's decisions: one append-only log for each reviewer, read together.

``review/<reviewer>.jsonl`` begins with a header; every further line is one action. Each action has a mark of
its own, and an undo names the mark it takes back. A log is therefore a set: an action that was sent twice, or
merged twice, counts once, and copies of a log can be put together again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .manifest import SurdBuildError, to_line

REVIEW_FOLDER = "review"
VERDICTS = ("keep", "drop")
ACTIONS = (*VERDICTS, "edit", "undo")
TEXTS = ("simple", "complex")

_FORMAT = {"format": "surd-review", "version": 1}
_NAME = re.compile(r"\w(?:[\w .-]{0,38}\w)?")
_MARK = re.compile(r"[A-Za-z0-9-]{8,64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_WINDOWS_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass(frozen=True, slots=True)
class Decision:
    """What people have decided about a sample.

    Verdict and texts count each by themselves: mending a typing error does not lift an earlier "drop".

    Attributes:
        verdict: "keep", "drop", or "" if only texts were edited.
        simple, complex: edited prompts, "" where unchanged.
        by: the reviewer whose word counts: the newest verdict's, else the newest edit's.
        at: when, ISO 8601 in UTC.
        disagree: other reviewers who decided otherwise.
    """

    verdict: str
    simple: str
    complex: str
    by: str
    at: str
    disagree: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a log.

    Attributes:
        mark: its name, unique in all logs.
        id: the sample's.
        action: one of :data:`ACTIONS`.
        at: when, ISO 8601 in UTC with microseconds; strictly later than the log's line before.
        simple, complex: of an edit, the new texts, "" where untouched.
        of: of an undo, the mark of what it takes back.
    """

    mark: str
    id: str
    action: str
    at: str
    simple: str = ""
    complex: str = ""
    of: str = ""

    def line(self) -> bytes:
        values = ((name, getattr(self, name)) for name in self.__slots__)
        return to_line({name: value for name, value in values if value})


@dataclass(frozen=True)
class Log:
    """A reviewer's log as read.

    Attributes:
        reviewer: whose it is.
        name: of the log itself, to tell two people of one name apart.
        actions: all whole lines, in order.
        whole: bytes up to the end of the last whole line; more than that is what a crash has torn.
    """

    reviewer: str
    name: str
    actions: tuple[Action, ...]
    whole: int


Opinion = Mapping[str, tuple[str, str]]
"""{"verdict" | "simple" | "complex": (at, value)}: what one reviewer thinks of one sample."""


def read_decisions(folder: Path) -> dict[str, Decision]:
    """{sample id: decision} of all logs in ``folder/review``.

    Raises:
        SurdBuildError: a log is damaged.
        OSError: it cannot be read.
    """
    opinions: dict[str, dict[str, Opinion]] = {}
    for path in log_paths(folder):
        log = read_log(path)
        for id, opinion in opinions_of(log.actions).items():
            opinions.setdefault(id, {})[log.reviewer] = opinion
    return {id: decision for id, said in opinions.items() if (decision := combine(said))}


def log_path(folder: Path, reviewer: str) -> Path:
    return Path(folder) / REVIEW_FOLDER / f"{reviewer}.jsonl"


def log_paths(folder: Path) -> list[Path]:
    return sorted((Path(folder) / REVIEW_FOLDER).glob("*.jsonl"))


def header_line(reviewer: str, name: str) -> bytes:
    return to_line({**_FORMAT, "reviewer": reviewer, "log": name})


def check_reviewer(name: str) -> str:
    """Raises SurdBuildError: the name cannot be a file's name everywhere."""
    if not _NAME.fullmatch(name) or _WINDOWS_DEVICE.fullmatch(name):
        raise SurdBuildError(
            f"--reviewer {name!r}: a log is named after its reviewer, so the name must be 1 to 40 letters, "
            "digits, spaces, dots, hyphens or underscores, begin and end in a letter, digit or underscore"
        )
    return name


def read_log(path: Path) -> Log:
    """A log, without what a crash has torn at its end.

    Raises:
        SurdBuildError: it is no log, or a line of it is damaged.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    whole = content.rfind(b"\n") + 1
    first, *lines = content[:whole].split(b"\n")[:-1] or [b""]
    header = _parse(first)
    if not isinstance(header, dict) or {**header, **_FORMAT} != header or not _names(header):
        raise SurdBuildError(
            f"{path}: no review log of this program: its first line should say "
            f"{json.dumps(_FORMAT)[1:-1]}, the reviewer and the log's name"
        )
    actions = tuple(_action(path, number, line) for number, line in enumerate(lines, start=2))
    return Log(header["reviewer"], header["log"], actions, whole)


def opinions_of(actions: Iterable[Action]) -> dict[str, Opinion]:
    """{sample id: opinion} of one reviewer; samples about which everything was undone are left out."""
    by_id: dict[str, list[Action]] = {}
    for action in actions:
        by_id.setdefault(action.id, []).append(action)
    return {id: opinion for id, own in by_id.items() if (opinion := opinion_of(own))}


def standing(actions: Iterable[Action]) -> list[Action]:
    """One reviewer's actions that are not undone, oldest first."""
    actions = list(actions)
    undone = {action.of for action in actions if action.action == "undo"}
    kept = [action for action in actions if action.action != "undo" and action.mark not in undone]
    return sorted(kept, key=lambda action: (action.at, action.mark))


def opinion_of(actions: Iterable[Action]) -> Opinion:
    """What one reviewer's actions about one sample come to."""
    said = {}
    for action in standing(actions):
        if action.action in VERDICTS:
            said["verdict"] = (action.at, action.action)
        said |= {text: (action.at, value) for text in TEXTS if (value := getattr(action, text))}
    return said


def combine(opinions: Mapping[str, Opinion]) -> Decision | None:
    """Several reviewers' opinions of one sample: for verdict and texts, each by itself, the newest counts."""
    newest: dict[str, tuple[str, str, str]] = {}
    for reviewer, opinion in opinions.items():
        for what, (at, value) in opinion.items():
            newest[what] = max(newest.get(what, ("", "", "")), (at, reviewer, value))
    if not newest:
        return None
    at, by, _ = newest.get("verdict") or max(newest.values())
    disagree = [
        reviewer
        for reviewer, opinion in sorted(opinions.items())
        if reviewer != by and any(value != newest[what][2] for what, (_, value) in opinion.items())
    ]
    values = {what: newest[what][2] if what in newest else "" for what in ("verdict", *TEXTS)}
    return Decision(**values, by=by, at=at, disagree=tuple(disagree))


def is_mark(value: object) -> bool:
    return isinstance(value, str) and _MARK.fullmatch(value) is not None


def _names(header: Mapping) -> bool:
    reviewer = header.get("reviewer")
    return isinstance(reviewer, str) and bool(_NAME.fullmatch(reviewer)) and is_mark(header.get("log"))


def _action(path: Path, number: int, line: bytes) -> Action:
    record = _parse(line)
    known = isinstance(record, dict) and record.keys() <= set(Action.__slots__)
    if known and all(isinstance(value, str) for value in record.values()):
        action = Action(**{name: record.get(name, "") for name in Action.__slots__})
        undoes = action.action == "undo"
        if (
            is_mark(action.mark)
            and action.id
            and action.action in ACTIONS
            and _TIME.fullmatch(action.at)
            and is_mark(action.of) == undoes
            and bool(action.simple or action.complex) == (action.action == "edit")
        ):
            return action
    raise SurdBuildError(
        f"{path}: line {number} is no action of a review (found {line[:80]!r}). Something else has changed "
        "the file; restore it from a copy, or delete that line"
    )


def _parse(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
