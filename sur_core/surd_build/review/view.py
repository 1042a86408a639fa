"""Samples as the page lists them: filtered, sorted, searched, and handed out in windows."""

from __future__ import annotations

import os
import re
import secrets
import threading
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..manifest import MANIFEST_NAME, Manifest, SurdBuildError
from ..reviews import TEXTS, Decision, fingerprints
from ..samples import SELECT, BuildSample, as_decided, left_out, read_samples
from .book import Book

SAMPLE_ID = re.compile(r"[0-9a-f]{20}(-[0-9a-f]{1,8})?")
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
        sample: as people leave it.
        left_out: why captioner or rule leave it out, "" if they do not.
    """

    sample: BuildSample
    left_out: str

    @property
    def decision(self) -> Decision | None:
        return self.sample.decision

    @property
    def is_in(self) -> bool:
        """Whether it is in the data set, all said and done."""
        return not self.sample.dropped

    @property
    def verdict(self) -> str:
        return self.decision.verdict if self.decision else ""

    @property
    def edited(self) -> bool:
        return self.decision is not None and bool(self.decision.simple or self.decision.complex)

    @property
    def disputed(self) -> bool:
        return self.decision is not None and bool(self.decision.disagree)

    @property
    def lapsed(self) -> bool:
        return self.decision is not None and bool(self.decision.lapsed)


FILTERS: dict[str, Callable[[State], bool]] = {
    "all": lambda state: True,
    "undecided": lambda state: not state.verdict,
    "kept": lambda state: state.verdict == "keep",
    "dropped": lambda state: state.verdict == "drop",
    "rule": lambda state: bool(state.left_out),
    "edited": lambda state: state.edited,
    "disagree": lambda state: state.disputed,
    "changed": lambda state: state.lapsed,
}
"""By name; "rule" is what captioner or rule leave out, whatever people said after it; "changed" is what was
decided of other prompts than there are now.
"""


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

    def __init__(self, folder: Path, book: Book) -> None:
        """Raises SurdBuildError: there is no sample, or the manifest is damaged; OSError."""
        self._folder, self._book = Path(folder), book
        self._guard = threading.RLock()
        self._load()

    def _load(self) -> None:
        stamp = self._stamp()
        manifest = Manifest(self._folder)
        found = [sample for sample in read_samples(manifest, {}) if sample.dropped[:1] != (SELECT,)]
        if not found:
            raise SurdBuildError(f"{manifest.folder}: there is no sample to review; run collect first")
        if strange := next((one.id for one in found if not SAMPLE_ID.fullmatch(one.id)), None):
            raise SurdBuildError(f"{manifest.path}: {strange!r} is no sample's id; collect again")
        self._manifest, self._read, self._found = manifest, stamp, found
        self._places = {sample.id: place for place, sample in enumerate(found)}
        decided = self._book.decided()
        self._states = [self._state(sample, sample.id in decided) for sample in found]
        self._counts = Counter()
        for state in self._states:
            self._count(state, 1)
        self._lists: OrderedDict[str, array] = OrderedDict()

    def _stamp(self) -> tuple[int, int, int]:
        status = os.stat(self._folder / MANIFEST_NAME)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def sample(self, id: str) -> BuildSample:
        """A sample without people's words. Raises KeyError."""
        with self._guard:
            return self._found[self._places[id]]

    def counts(self) -> dict[str, int]:
        """How many samples each filter shows; under "in", how many are in the data set as things stand."""
        with self._guard:
            return {name: self._counts[name] for name in (*FILTERS, "in")}

    def act(
        self,
        id: str,
        action: str,
        mark: str,
        simple: str = "",
        complex: str = "",
        was: Mapping[str, str] | None = None,
    ) -> bool:
        """A decision, on the disk when this returns.

        Args:
            was: :func:`..reviews.fingerprints` of the prompts that were looked at; of those there are if
                ``None``.

        Returns:
            whether it is about the prompts that there are. If they have changed since they were shown, it is
            written down as what it is, a word about others, which has lapsed.

        Raises:
            KeyError, UnknownUndo, SurdBuildError, OSError.
        """
        with self._guard:
            self._reload()
            now = _fingerprints(self.sample(id))
            self._book.act(id, action, mark, simple, complex, now if was is None else was)
            self._update(id)
            return was is None or was == now

    def refresh(self) -> None:
        """Take in what others have decided and steps have found meanwhile. Raises SurdBuildError, OSError."""
        with self._guard:
            self._reload()
            for id in self._book.refresh() & self._places.keys():
                self._update(id)

    def _reload(self) -> None:
        if self._stamp() != self._read:
            self._load()

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
            return [_row(self._states[place]) for place in self._lists[name][start : start + count]]

    def detail(self, id: str) -> dict:
        """All the page shows of a sample. Raises KeyError."""
        with self._guard:
            place = self._places[id]
            found, state = self._found[place], self._states[place]
            mine = self._book.own_verdict(id, _fingerprints(found))
        sample, decision = state.sample, state.decision
        return {
            **_row(state),
            **{name: getattr(sample, name) for name in TEXTS},
            "found": {name: getattr(found, name) for name in TEXTS},
            "was": _fingerprints(found),
            "by": decision.by if decision else "",
            "at": decision.at if decision else "",
            "disagree": list(decision.disagree) if decision else [],
            "lapsed": [asdict(word) for word in decision.lapsed] if decision else [],
            "mine": mine,
            "left_out": state.left_out,
            "in": state.is_in,
            "scores": {key: value for key, value in sample.scores.items() if isinstance(value, int | float)},
            "facts": {key: sample.facts[key] for key in FACTS if sample.facts.get(key) not in (None, "", {})},
        }

    def _matching(self, wish: Wish) -> list[int]:
        keep, words = FILTERS[wish.filter], wish.search.casefold().split()
        places = [
            place
            for place, state in enumerate(self._states)
            if keep(state) and (not words or _has(state.sample, words))
        ]
        values = {place: ORDERS[wish.sort](self._states[place].sample) for place in places}
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
        self._states[place] = self._state(self._found[place], True)
        self._count(self._states[place], 1)

    def _state(self, found: BuildSample, decided: bool) -> State:
        decision = self._book.decision(found.id, _fingerprints(found)) if decided else None
        sample = as_decided(self._manifest, found, decision) if decision else found
        without_verdict = replace(decision, verdict="") if decision else None
        step_and_reason = left_out(self._manifest, replace(sample, decision=without_verdict))
        return State(sample, step_and_reason[1] if step_and_reason else "")

    def _count(self, state: State, by: int) -> None:
        for name, shows in FILTERS.items():
            self._counts[name] += by * shows(state)
        self._counts["in"] += by * state.is_in


def _fingerprints(found: BuildSample) -> dict[str, str]:
    return fingerprints(found.simple, found.complex)


def _row(state: State) -> dict:
    sample = state.sample
    return {
        "id": sample.id,
        "name": sample.name,
        "text": (sample.simple or sample.complex)[:EXCERPT],
        "verdict": state.verdict,
        "ruled_out": bool(state.left_out),
        "edited": state.edited,
        "disputed": state.disputed,
        "changed": state.lapsed,
        "margin": _margin(sample),
    }


def _has(sample: BuildSample, words: list[str]) -> bool:
    text = "\n".join((sample.name, sample.simple, sample.complex)).casefold()
    return all(word in text for word in words)
