"""Samples as the page lists them: filtered, sorted, searched, and handed out in windows."""

from __future__ import annotations

import re
import secrets
import threading
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..manifest import Manifest, SurdBuildError
from ..reviews import Decision
from ..samples import CAPTION, SELECT, BuildSample, left_out, read_samples
from .book import Book

SAMPLE_ID = re.compile(r"[0-9a-f]{20}(-\d{1,6})?")
LISTS_KEPT = 16
"""More than one, as several tabs may be open; an older one is made again when it is asked for."""
EXCERPT = 160
FACTS = (
    "width",
    "height",
    "format",
    "bytes",
    "metadata",
    "negative",
    "parameters",
    "license",
    "origin",
    "rating",
    "nsfw",
)


class UnknownList(LookupError):
    """The list was made by an earlier server, or long ago; make it again."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to list. Raises ValueError: no such filter or order."""

    filter: str = "all"
    sort: str = "name"
    descending: bool = False
    search: str = ""

    def __post_init__(self) -> None:
        for kind, value, known in (("filter", self.filter, FILTERS), ("order", self.sort, ORDERS)):
            if value not in known:
                raise ValueError(f"there is no {kind} {value!r}; known are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class State:
    """How things stand with a sample.

    Attributes:
        decision: everybody's, put together.
        left_out: why captioner or rule leave it out, "" if they do not.
        is_in: whether it is in the data set, all said and done.
    """

    decision: Decision | None
    left_out: str
    is_in: bool

    @property
    def verdict(self) -> str:
        return self.decision.verdict if self.decision else ""

    @property
    def edited(self) -> bool:
        return self.decision is not None and bool(self.decision.simple or self.decision.complex)

    @property
    def disputed(self) -> bool:
        return self.decision is not None and bool(self.decision.disagree)

    def text(self, name: str, found: str) -> str:
        """The prompt "simple" or "complex" as it is now, ``found`` as it was before people."""
        return (self.decision and getattr(self.decision, name)) or found


FILTERS: dict[str, Callable[[State], bool]] = {
    "all": lambda state: True,
    "undecided": lambda state: not state.verdict,
    "kept": lambda state: state.verdict == "keep",
    "dropped": lambda state: state.verdict == "drop",
    "rule": lambda state: bool(state.left_out),
    "edited": lambda state: state.edited,
    "disagree": lambda state: state.disputed,
}
"""By name; "rule" is what captioner or rule leave out, whatever people said after it."""


def _margin(sample: BuildSample) -> float | None:
    simple, complex = sample.scores.get("simple_score"), sample.scores.get("complex_score")
    return None if simple is None or complex is None else simple - complex


ORDERS: dict[str, Callable[[BuildSample], object]] = {
    "name": lambda sample: 0,
    "simple": lambda sample: sample.scores.get("simple_score"),
    "complex": lambda sample: sample.scores.get("complex_score"),
    "margin": _margin,
    "length": lambda sample: len(sample.complex),
}
"""By name; what has no score comes last in either direction."""


class Gallery:
    """The samples there are to decide about, with everybody's decisions. For threads.

    What ``select`` has left out is no sample and is not shown.
    """

    def __init__(self, manifest: Manifest, book: Book) -> None:
        """Raises SurdBuildError: there is no sample, or the manifest is damaged."""
        samples = read_samples(manifest, {})
        self._samples = [sample for sample in samples if sample.dropped[:1] != (SELECT,)]
        self._places = {sample.id: place for place, sample in enumerate(self._samples)}
        if not self._samples:
            raise SurdBuildError(f"{manifest.folder}: there is no sample to review; run collect first")
        if strange := next((id for id in self._places if not SAMPLE_ID.fullmatch(id)), None):
            raise SurdBuildError(f"{manifest.path}: {strange!r} is no sample's id; collect again")
        self._manifest, self._book = manifest, book
        decided = book.decided()
        self._states = [
            self._state(sample, book.decision(sample.id) if sample.id in decided else None)
            for sample in self._samples
        ]
        self._counts = Counter()
        for state in self._states:
            self._count(state, 1)
        self._lists: OrderedDict[str, array] = OrderedDict()
        self._guard = threading.RLock()

    def sample(self, id: str) -> BuildSample:
        """Raises KeyError."""
        return self._samples[self._places[id]]

    def counts(self) -> dict[str, int]:
        """How many samples each filter shows; under "in", how many are in the data set as things stand."""
        with self._guard:
            return {name: self._counts[name] for name in (*FILTERS, "in")}

    def act(self, id: str, action: str, mark: str, simple: str = "", complex: str = "") -> None:
        """A decision, on the disk when this returns. Raises KeyError, UnknownUndo, OSError."""
        self.sample(id)
        with self._guard:
            self._book.act(id, action, mark, simple, complex)
            self._update(id)

    def refresh(self) -> None:
        """Take in what others have decided meanwhile. Raises SurdBuildError, OSError."""
        with self._guard:
            for id in self._book.refresh() & self._places.keys():
                self._update(id)

    def open_list(self, wish: Wish, at: str = "") -> dict:
        """Make a list; it stays as it is while decisions are made, so that no row moves under a hand.

        Args:
            wish: what to list, in which order.
            at: a sample to find in it; the first undecided one if empty or not in it.

        Returns:
            {"list": its name, "total": rows, "index": where to begin, "found": whether ``at`` is there}
        """
        with self._guard:
            places = self._matching(wish)
            name = secrets.token_hex(8)
            self._lists[name] = array("I", places)
            while len(self._lists) > LISTS_KEPT:
                self._lists.popitem(last=False)
            rows = {place: row for row, place in enumerate(places)}
            index = rows.get(self._places.get(at, -1))
            undecided = (row for row, place in enumerate(places) if not self._states[place].verdict)
            begin = next(undecided, 0) if index is None else index
            return {"list": name, "total": len(places), "index": begin, "found": index is not None}

    def window(self, name: str, start: int, count: int) -> list[dict]:
        """Rows of a list. Raises UnknownList."""
        with self._guard:
            if name not in self._lists:
                raise UnknownList(name)
            self._lists.move_to_end(name)
            return [self._row(place) for place in self._lists[name][start : start + count]]

    def detail(self, id: str) -> dict:
        """All the page shows of a sample. Raises KeyError."""
        place = self._places[id]
        sample, state = self._samples[place], self._states[place]
        found = {"simple": sample.simple, "complex": sample.complex}
        decision = state.decision
        return {
            **self._row(place),
            **{name: state.text(name, text) for name, text in found.items()},
            "found": found,
            "by": decision.by if decision else "",
            "at": decision.at if decision else "",
            "disagree": list(decision.disagree) if decision else [],
            "mine": self._book.own_verdict(id),
            "left_out": state.left_out,
            "in": state.is_in,
            "scores": {key: value for key, value in sample.scores.items() if isinstance(value, int | float)},
            "facts": {key: sample.facts[key] for key in FACTS if sample.facts.get(key) not in (None, "", {})},
        }

    def _row(self, place: int) -> dict:
        sample, state = self._samples[place], self._states[place]
        return {
            "id": sample.id,
            "name": sample.name,
            "text": (state.text("simple", sample.simple) or sample.complex)[:EXCERPT],
            "verdict": state.verdict,
            "ruled_out": bool(state.left_out),
            "edited": state.edited,
            "disputed": state.disputed,
            "margin": _margin(sample),
        }

    def _matching(self, wish: Wish) -> list[int]:
        keep, words = FILTERS[wish.filter], wish.search.casefold().split()
        places = [
            place
            for place, (sample, state) in enumerate(zip(self._samples, self._states, strict=True))
            if keep(state) and (not words or _has(sample, state, words))
        ]
        values = {place: ORDERS[wish.sort](self._samples[place]) for place in places}
        known = [place for place in places if values[place] is not None]
        # Places are in the order of names, which samples with the same value keep.
        if wish.sort != "name":
            known.sort(key=values.__getitem__, reverse=wish.descending)
        elif wish.descending:
            known.reverse()
        return known + [place for place in places if values[place] is None]

    def _update(self, id: str) -> None:
        place = self._places[id]
        self._count(self._states[place], -1)
        self._states[place] = self._state(self._samples[place], self._book.decision(id))
        self._count(self._states[place], 1)

    def _state(self, sample: BuildSample, decision: Decision | None) -> State:
        select = self._manifest.record(SELECT, sample.name)
        caption = self._manifest.record(CAPTION, sample.id) or {}
        without_verdict = replace(decision, verdict="") if decision else None
        step_and_reason = left_out(self._manifest, select, caption, without_verdict)
        is_in = not left_out(self._manifest, select, caption, decision)
        return State(decision, step_and_reason[1] if step_and_reason else "", is_in)

    def _count(self, state: State, by: int) -> None:
        for name, shows in FILTERS.items():
            self._counts[name] += by * shows(state)
        self._counts["in"] += by * state.is_in


def _has(sample: BuildSample, state: State, words: list[str]) -> bool:
    texts = (sample.name, state.text("simple", sample.simple), state.text("complex", sample.complex))
    text = "\n".join(texts).casefold()
    return all(word in text for word in words)
