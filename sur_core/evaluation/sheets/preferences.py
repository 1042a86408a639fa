"""People's preferences joined with the key: who is preferred, by pair of arms, type and person."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...atomic import atomic_write
from ..statistics import ALL, Interval, SignificanceTest, percentile_interval, resample_means
from .agreement import Kappa, agreements
from .answers import check_items, read_answers
from .intervals import binomial, wilson
from .key import PREFERENCE, PairItem, read_key
from .preference import ASKS, CHOICES, LEFT, NONE, QUESTIONS, RIGHT

VERSION = 1
PREFERENCES_FILE = "preferences.json"
FIRST, SECOND = "first", "second"
"""Which arm of a pair was chosen."""


@dataclass(frozen=True)
class ShownPair:
    """Two pictures and what people chose: ``answers`` are {person: "left", "right" or "none"}."""

    item: PairItem
    pair: tuple[str, str]
    answers: Mapping[str, str]

    def choice(self, person: str) -> str:
        """``"first"`` or ``"second"`` arm of the pair, or ``"none"``."""
        side = self.answers[person]
        if side == NONE:
            return NONE
        return FIRST if (self.item.left if side == LEFT else self.item.right) == self.pair[0] else SECOND


@dataclass(frozen=True)
class Votes:
    """Answers about one pair of arms.

    Attributes:
        type: of prompts, or ``"all"``; ``person``: whose, or ``"all"``.
        first, second: how often that arm was chosen; ``none``: no preference.
        interval: Wilson's, of ``share``.
        test: exact binomial test that both are chosen as often.
        net: of ``net_share`` by bootstrap over prompts; where ``person`` is ``"all"``.
    """

    pair: tuple[str, str]
    type: str
    person: str
    first: int
    second: int
    none: int
    interval: Interval
    test: SignificanceTest
    net: Interval

    @property
    def share(self) -> float | None:
        """Of answers with a preference, how many chose the second arm; ``None`` without any."""
        decided = self.first + self.second
        return self.second / decided if decided else None

    @property
    def net_share(self) -> float:
        """Of all answers, how many more chose the second arm than the first: -1..1."""
        return (self.second - self.first) / (self.first + self.second + self.none)


@dataclass(frozen=True)
class Preferences:
    """All that people chose.

    Attributes:
        people: the names given, in order.
        shown: in the order of the page.
        notes: what of the files was left out, in words.
        ask: what was asked, whatever the words: one of :data:`.preference.ASKS`, or "" where a page asked in
            words of its own before this was kept.
    """

    study: str
    title: str
    question: str
    pairs: tuple[tuple[str, str], ...]
    people: tuple[str, ...]
    shown: tuple[ShownPair, ...]
    notes: tuple[str, ...] = ()
    ask: str = ""

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted({shown.item.type for shown in self.shown}))

    def votes(self, pair: tuple[str, str], type: str = ALL, person: str = ALL) -> Votes | None:
        """``None`` if there are no answers."""
        people = self.people if person == ALL else (person,)
        shown = [s for s in self.shown if s.pair == pair and type in (ALL, s.item.type)]
        given = [(s, s.choice(name)) for s in shown for name in people if name in s.answers]
        if not given:
            return None
        counts = Counter(choice for _, choice in given)
        first, second, none = counts[FIRST], counts[SECOND], counts[NONE]
        net = _net(given) if person == ALL else Interval(note="not told of one person")
        tests = wilson(second, first), binomial(second, first), net
        return Votes(pair, type, person, first, second, none, *tests)

    def sides(self, person: str) -> tuple[int, int, SignificanceTest]:
        """How often a person chose left and right, and a binomial test that both are as likely."""
        counts = Counter(shown.answers.get(person) for shown in self.shown)
        return counts[LEFT], counts[RIGHT], binomial(counts[LEFT], counts[RIGHT])

    def agreements(self) -> tuple[tuple[Kappa, ...], Kappa | None]:
        """Every two people's kappa over first, second and none, and Fleiss' for more than two."""
        by_person = {
            name: {s.item.id: s.choice(name) for s in self.shown if name in s.answers} for name in self.people
        }
        return agreements(by_person)


def merge_preferences(key: str | os.PathLike, files: Sequence[str | os.PathLike]) -> Preferences:
    """Join people's files with the key.

    Raises:
        AnswersError, ValueError, OSError: bad input in words; see :func:`.answers.read_answers`.
    """
    key = Path(key)
    answers, notes = read_answers(files, PREFERENCE, CHOICES)
    found = read_key(key, PREFERENCE)
    if answers and answers[0].study != found.study:
        raise ValueError(f"{answers[0].path}: answers another page than that of {key}; give its own key")
    check_items(answers, {item.id for item in found.items}, key)
    pairs = {frozenset(pair): pair for pair in found.pairs}
    shown = tuple(
        ShownPair(
            item,
            pairs[frozenset((item.left, item.right))],
            {one.marker: one.answers[item.id] for one in answers if item.id in one.answers},
        )
        for item in found.items
    )
    people = tuple(one.marker for one in answers)
    question, ask = found.questions[0], _ask(found.questions[0], found.ask, key)
    return Preferences(found.study, found.title, question, found.pairs, people, shown, tuple(notes), ask)


def write_preferences(found: Preferences, folder: Path) -> Path:
    """Write ``preferences.json`` atomic; its path. The same answers give the same bytes."""
    about = asdict(replace(found, shown=()))
    about.pop("shown")
    content = {
        "kind": "sur preferences",
        "version": VERSION,
        **about,
        "votes": [_told(votes) for votes in all_votes(found)],
        "shown": [
            {
                **asdict(shown.item),
                "pair": shown.pair,
                "answers": dict(shown.answers),
                "choices": {name: shown.choice(name) for name in shown.answers},
            }
            for shown in found.shown
        ],
    }
    path = Path(folder) / PREFERENCES_FILE
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return path


def read_preferences(path: str | os.PathLike) -> Preferences:
    """What :func:`write_preferences` wrote. ``path``: of the file or its folder. OSError, ValueError."""
    path = Path(path)
    path = path / PREFERENCES_FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; 'evaluate preference merge' writes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); merge the answers again") from error
    if not isinstance(found, dict) or (found.get("kind"), found.get("version")) != (
        "sur preferences",
        VERSION,
    ):
        raise ValueError(f"{path}: expected merged preferences, version {VERSION}; merge the answers again")
    try:
        pairs = tuple(tuple(pair) for pair in found["pairs"])
        people, notes = tuple(found["people"]), tuple(found["notes"])
        shown = tuple(map(_shown, found["shown"]))
        study, title, question = (found[name] for name in ("study", "title", "question"))
        ask = _ask(question, found.get("ask", ""), path)
        return Preferences(study, title, question, pairs, people, shown, notes, ask)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged ({reason}); merge the answers again") from error


def _ask(question: str, ask: str, path: Path) -> str:
    """What was asked. ``ask``: as a file has it; "" if older than that. ValueError: it is neither of them."""
    if ask not in ("", *ASKS):
        raise ValueError(f"{path}: damaged: ask is {ask!r}; expected {' or '.join(ASKS)}")
    return ask or next((known for known in ASKS if QUESTIONS[known] == question), "")


def _shown(entry: dict) -> ShownPair:
    fields = {name: value for name, value in entry.items() if name not in ("pair", "answers", "choices")}
    return ShownPair(PairItem(**fields), tuple(entry["pair"]), entry["answers"])


def all_votes(found: Preferences) -> list[Votes]:
    """Those of all people by pair and type, then each person's by pair."""
    wanted = [(pair, type, ALL) for pair in found.pairs for type in (*found.types, ALL)]
    wanted += [(pair, ALL, name) for name in found.people for pair in found.pairs]
    return [votes for votes in (found.votes(*one) for one in wanted) if votes is not None]


def _told(votes: Votes) -> dict:
    return {**asdict(votes), "share": votes.share, "net_share": votes.net_share}


def _net(given: Sequence[tuple[ShownPair, str]]) -> Interval:
    """Interval of the net share; a drawn prompt brings all answers about it."""
    worth = {FIRST: -1.0, SECOND: 1.0, NONE: 0.0}
    means = resample_means(
        np.array([[worth[choice] for _, choice in given]]),
        [shown.item.prompt_id for shown, _ in given],
        [shown.item.type for shown, _ in given],
    )
    if means is None:
        return Interval(note="needs two prompts or more of each type")
    return percentile_interval(means[:, 0])
