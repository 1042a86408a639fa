"""Scores of many pictures: some in memory at a time, and none computed twice, also over several runs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from ...training_errors import is_out_of_memory
from ..image_text import picture_digest
from .measure import Measure, QualityError

Load = Callable[[], np.ndarray]
_CHUNK = 64
_AT_ONCE = 500
_WAIT_SECONDS = 60


class ScoreCache:
    """Scores by what decides them, in one SQLite file, which several processes may use at once.

    Args:
        path: made on first use, with its folder.

    Raises:
        ValueError: not such a file, or damaged.
        OSError: it cannot be opened or written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as base:
            base.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value REAL) WITHOUT ROWID")

    def known(self, keys: Sequence[str]) -> dict[str, float]:
        """The scores that are there of these keys; NaN for what is known to be undefined."""
        found: dict[str, float] = {}
        with self._open() as base:
            for start in range(0, len(keys), _AT_ONCE):
                part = list(keys[start : start + _AT_ONCE])
                marks = ",".join("?" * len(part))
                rows = base.execute(f"SELECT key, value FROM scores WHERE key IN ({marks})", part)
                found.update((key, np.nan if value is None else value) for key, value in rows)
        return found

    def add(self, scores: Mapping[str, float]) -> None:
        """Keep all of these or, if the disk is full or the process killed, none."""
        # SQLite keeps a double exactly, and NaN as NULL.
        rows = [(key, float(value)) for key, value in scores.items()]
        with self._open() as base:
            base.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_SECONDS)) as base, base:
                yield base
        except sqlite3.OperationalError as error:  # locked, full, read-only
            raise OSError(f"{self.path}: the scores could not be read or written ({error})") from error
        except sqlite3.DatabaseError as error:
            raise QualityError(
                f"{self.path}: damaged or no file of scores ({error}). Delete it; it will be made again"
            ) from error


def score_pictures(
    measure: Measure,
    loads: Sequence[Load],
    texts: Sequence[str],
    cache: ScoreCache | None = None,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
    pause: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """A measure's score of every picture.

    Args:
        loads: each gives a picture, uint8 [H, W, 3] [N].
        texts: what each was meant to show [N].
        cache: what is in it is not computed; what is computed goes into it, chunk by chunk.
        report, pause: called after each chunk, with (words, done, total) and with nothing.

    Returns:
        float64 [N], NaN where the measure is not defined. Equal pictures with equal texts get one score.

    Raises:
        QualityError (a ValueError): lengths that differ, or a device without the memory.
    """
    if len(loads) != len(texts):
        raise QualityError(f"{measure.name}: {len(loads)} pictures but {len(texts)} texts; give one for each")
    scores = np.empty(len(loads))
    for start in range(0, len(loads), _CHUNK):
        stop = min(start + _CHUNK, len(loads))
        pictures = [load() for load in loads[start:stop]]
        scores[start:stop] = _of_chunk(measure, pictures, texts[start:stop], cache)
        report(measure.name, stop, len(loads))
        pause()
    return scores


def _of_chunk(measure, pictures: list[np.ndarray], texts: Sequence[str], cache: ScoreCache | None):
    keys = [_key(measure, picture, text) for picture, text in zip(pictures, texts, strict=True)]
    found = cache.known(keys) if cache else {}
    new = {key: at for at, key in enumerate(keys) if key not in found}
    if new:
        at = list(new.values())
        try:
            values = measure.score([pictures[place] for place in at], [texts[place] for place in at])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise QualityError(
                f"{measure.name}: not enough memory for these pictures. Lower quality.batch_size, or set "
                "quality.device to 'cpu'"
            ) from error
        fresh = dict(zip(new, values.tolist(), strict=True))
        if cache:
            cache.add(fresh)
        found |= fresh
    return [found[key] for key in keys]


def _key(measure: Measure, picture: np.ndarray, text: str) -> str:
    text = text if measure.reads_text else ""
    conditions = getattr(measure, "conditions", "")
    parts = "\0".join((measure.fingerprint, conditions, picture_digest(picture), text))
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
