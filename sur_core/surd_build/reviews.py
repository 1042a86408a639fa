"""People's decisions: one append-only log for each reviewer, read together.

``review/<reviewer>.jsonl`` begins with a header; every further line is one action. Each action has a mark of
its own, and an undo names the mark it takes back. A log is therefore a set: an action that was sent twice, or
merged twice, counts once, and copies of a log can be put together again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .manifest import SurdBuildError, hash_of, to_line

REVIEW_FOLDER = "review"
VERDICTS = ("keep", "drop")
ACTIONS = (*VERDICTS, "edit", "undo")
TEXTS = ("simple", "complex")

_FORMAT = {"format": "surd-review", "version": 1}
_NAME = re.compile(r"\w(?:[\w .-]{0,38}\w)?")
_MARK = re.compile(r"[A-Za-z0-9-]{8,64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_WINDOWS_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass(frozen=True, slots=True, order=True)
class Word:
    """What a reviewer has said of a sample.

    Attributes:
        at: when, ISO 8601 in UTC.
        by: the reviewer.
        what: "verdict", "simple" or "complex".
        value: "keep", "drop", or the new text.
    """

    at: str
    by: str
    what: str
    value: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What people have decided about a sample.

    Verdict and texts count each by themselves: mending a typing error does not lift an earlier "drop". A
    decision is about what was looked at: a "keep" counts while both prompts are, before people, as they were
    then; an edit while the prompt that it replaces is. A "drop" always counts, as leaving out is the careful
    choice.

    Attributes:
        verdict: "keep", "drop", or "" if no verdict counts.
        simple, complex: edited prompts, "" where unchanged.
        by: the reviewer whose word counts: the newest verdict's, else the newest edit's; "" if none does.
        at: when, ISO 8601 in UTC.
        disagree: other reviewers who decided otherwise.
        lapsed: what was said of other prompts than there are now, and nothing has come in its place since.
    """

    verdict: str
    simple: str
    complex: str
    by: str
    at: str
    disagree: tuple[str, ...] = ()
    lapsed: tuple[Word, ...] = ()


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
        simple_was, complex_was: of "keep" and "edit", the :func:`fingerprints` of the prompts, as they were
            before people, of which it was said; "" in logs of old, which count for any prompts.
    """

    mark: str
    id: str
    action: str
    at: str
    simple: str = ""
    complex: str = ""
    of: str = ""
    simple_was: str = ""
    complex_was: str = ""

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


Said = Mapping[str, Sequence[Action]]
"""{reviewer: actions about one sample}."""


def read_said(folder: Path) -> dict[str, dict[str, list[Action]]]:
    """{sample id: what each reviewer has done about it} of all logs in ``folder/review``.

    Several files of one reviewer, as programs that keep folders alike leave them, are read as one log.

    Raises:
        SurdBuildError: a log is damaged.
        OSError: it cannot be read.
    """
    said: dict[str, dict[str, list[Action]]] = {}
    for path in log_paths(folder):
        log = read_log(path)
        for action in log.actions:
            said.setdefault(action.id, {}).setdefault(log.reviewer, []).append(action)
    return said


def fingerprints(simple: str, complex: str) -> dict[str, str]:
    """{"simple" | "complex": hash} of a sample's prompts as they are before people."""
    return {"simple": hash_of(simple), "complex": hash_of(complex)}


def is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None


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


def standing(actions: Iterable[Action]) -> list[Action]:
    """One reviewer's actions that are not undone, each once, oldest first."""
    once = {action.mark: action for action in actions}
    undone = {action.of for action in once.values() if action.action == "undo"}
    kept = [action for action in once.values() if action.action != "undo" and action.mark not in undone]
    return sorted(kept, key=lambda action: (action.at, action.mark))


def decide(said: Said, now: Mapping[str, str] | None = None) -> Decision | None:
    """What several reviewers' actions about a sample come to: of each kind, the newest that counts.

    Args:
        said: of :func:`read_said`.
        now: :func:`fingerprints` of the sample's prompts; without, all counts as if no prompt had changed.

    Returns:
        None if nobody has said anything, or all was undone.
    """
    counting, others = [], []
    for reviewer, actions in said.items():
        for what, found in _by_kind(standing(actions)).items():
            current = [action for action in found if _is_about(action, what, now)]
            last = (current or found)[-1]
            value = last.action if what == "verdict" else getattr(last, what)
            (counting if current else others).append(Word(last.at, reviewer, what, value))
    newest = {word.what: word for word in sorted(counting)}
    lapsed = tuple(word for word in sorted(others) if not _is_settled(word, newest))
    if not newest and not lapsed:
        return None
    counts = newest.get("verdict") or max(newest.values(), default=Word("", "", "", ""))
    otherwise = {word.by for word in counting if word.value != newest[word.what].value} - {counts.by}
    values = {what: newest[what].value if what in newest else "" for what in ("verdict", *TEXTS)}
    return Decision(**values, by=counts.by, at=counts.at, disagree=tuple(sorted(otherwise)), lapsed=lapsed)


def _by_kind(actions: Sequence[Action]) -> dict[str, list[Action]]:
    """One reviewer's standing actions by what they are about. A verdict withdraws earlier other ones."""
    found: dict[str, list[Action]] = {}
    for action in actions:
        if action.action in VERDICTS:
            same = [one for one in found.get("verdict", ()) if one.action == action.action]
            found["verdict"] = [*same, action]
        for text in TEXTS:
            if getattr(action, text):
                found.setdefault(text, []).append(action)
    return found


def _is_about(action: Action, what: str, now: Mapping[str, str] | None) -> bool:
    """Whether an action counts for the prompts of ``now``."""
    if now is None or action.action == "drop":
        return True
    texts = TEXTS if what == "verdict" else (what,)
    return all(getattr(action, f"{text}_was") in ("", now[text]) for text in texts)


def _is_settled(word: Word, newest: Mapping[str, Word]) -> bool:
    """Whether, since a word that has lapsed, something that counts was said which leaves it without use."""
    return any(word.at < newest[what].at for what in ("verdict", word.what) if what in newest)


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
            and _is_known(action)
        ):
            return action
    raise SurdBuildError(
        f"{path}: line {number} is no action of a review (found {line[:80]!r}). Something else has changed "
        "the file; restore it from a copy, or delete that line"
    )


def _is_known(action: Action) -> bool:
    """Whether what the action was said of is well written, or not written at all."""
    was = (action.simple_was, action.complex_was)
    return was == ("", "") or (action.action in ("keep", "edit") and all(map(is_fingerprint, was)))


def _parse(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
