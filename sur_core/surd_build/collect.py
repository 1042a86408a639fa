"""Step 1: read the pictures, their prompts and what else they say; decide which can become samples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..plain_png import QUICK_THREADS
from ..surd_quarantine import write_quarantine
from .manifest import Manifest, SurdBuildError, hash_of
from .read_file import VERSION, Reading, read_picture
from .samples import COLLECT, SELECT
from .select import SelectSettings, select
from .sources import Found, Source, look, name_sources
from .steps import Outcome, Progress, Task, run_step

BATCH_PER_WORKER = 64
SKIPPED_FOLDER = "skipped"
UNREADABLE = "unreadable file"
_AGAIN = "|again"


@dataclass(frozen=True)
class CollectSettings:
    """How pictures are collected.

    Attributes:
        name: of the one source given; a known one has moved there.
        images: where a table's images lie.
        sidecar: look for prompts in text files beside the pictures.
        select: which of them become samples.
    """

    name: str = ""
    images: Path | None = None
    sidecar: bool = True
    select: SelectSettings = field(default_factory=SelectSettings)


@dataclass(frozen=True)
class Summary:
    """What collecting has done, and what there is now.

    Attributes:
        outcome: of the reading; ``not outcome.finished``: stopped, and nothing below ``found`` is meant.
        found: what is there of the sources looked at.
        gone: files that were there before.
        kept: samples, of all sources.
        dropped: {kind of reason: samples}, of all sources.
        metadata: {kind of metadata: files with a prompt}, of all sources.
    """

    outcome: Outcome
    found: list[Found]
    gone: int = 0
    kept: int = 0
    dropped: Counter = field(default_factory=Counter)
    metadata: Counter = field(default_factory=Counter)

    def to_text(self) -> str:
        lines = []
        for found in self.found:
            lines.append(f"{found.source.name}: {len(found.files):,} pictures in {found.source.place}")
            if found.missing:
                words = f"not there now ({found.missing}); left as it was. If it has moved: --as"
                lines[-1] = f"{found.source.name}: {words} {found.source.name}"
            kinds = Counter(entry.kind for entry in found.skipped)
            lines += [f"  skipped, {kind}: {count:,}" for kind, count in _by_count(kinds)]
            if found.others:
                others = ", ".join(
                    f"{n:,} {suffix or 'without ending'}" for suffix, n in _by_count(found.others)
                )
                lines.append(f"  other files: {others}")
        if self.gone:
            lines.append(f"no longer there: {self.gone:,}")
        if self.outcome.finished:
            lines.append("prompts from: " + (_listed(self.metadata) or "nowhere"))
            lines.append(f"samples: {self.kept:,}; left out: {self.dropped.total():,}")
            lines += [f"  {kind}: {count:,}" for kind, count in _by_count(self.dropped)]
        return "\n".join(lines)


def collect(
    manifest: Manifest,
    sources: Sequence[str | Path],
    settings: CollectSettings = CollectSettings(),  # noqa: B008 - frozen
    *,
    workers: int = 0,
    progress: Progress | None = None,
    stopped: Callable[[], Any] = lambda: False,
) -> Summary:
    """Read what is new or changed in ``sources`` and bring the choice of samples up to date.

    What each source has besides pictures that can be read is written to ``skipped/<source>.jsonl``.

    Args:
        manifest: of the work folder.
        sources: folders and tables; none: those collected before.
        settings: of reading and choosing.
        workers: threads that read; 0: one for each core.
        progress, stopped: see :func:`.steps.run_step`.

    Raises:
        SurdBuildError: a source is not there, or is no source.
        OSError: the work folder cannot be written; what was done before is kept.
    """
    chosen = name_sources(manifest, sources, settings.name, settings.images)
    found = [look(source, manifest.folder, must=bool(sources)) for source in chosen]
    manifest.add(source.record() for source in chosen)
    for entry in found:
        _write_skipped(manifest.folder, entry)
    tasks = [task for entry in found for task in _tasks(manifest, entry, settings.sidecar)]
    reading = {"version": VERSION, "sidecar": settings.sidecar}
    workers = workers or _cores()
    size = BATCH_PER_WORKER * workers
    with readers(workers) as work:
        outcome = run_step(
            manifest, COLLECT, reading, tasks, work, batch_size=size, progress=progress, stopped=stopped
        )
    if not outcome.finished:
        return Summary(outcome, found)
    gone = _mark_gone(manifest, found, hash_of(reading))
    select(manifest, settings.select)
    return _summary(manifest, outcome, found, gone)


@contextmanager
def readers(workers: int) -> Iterator[Callable[[list[Task]], list[dict]]]:
    """The work of a batch, on threads: decoding, hashing and files leave Python's lock to the others, and
    processes would each load torch. Raises SurdBuildError: a library is missing.
    """
    _load_libraries()
    read = partial(read_picture, quick=workers <= QUICK_THREADS)
    if workers == 1:
        yield lambda batch: [read(task.payload) for task in batch]
        return
    with ThreadPoolExecutor(workers, "surd-collect") as pool:
        yield lambda batch: list(pool.map(read, [task.payload for task in batch]))


def _load_libraries() -> None:
    """Before there are threads: Pillow would tell some of them that it knows no WebP while others load it."""
    try:
        import imagehash  # noqa: F401
        import scipy.fftpack  # noqa: F401
        from PIL import Image
    except ImportError as error:
        raise SurdBuildError(
            f"{error.name} is not installed; pip install -r requirements-train.txt"
        ) from error
    Image.init()


def _tasks(manifest: Manifest, found: Found, sidecar: bool) -> Iterator[Task]:
    for file, values in found.files:
        key = _key(found.source, file.path)
        path = found.source.folder / file.path
        said = f"|{hash_of(values)}" if values else ""
        of = _stamp(manifest.record(COLLECT, key), path, file.stamp + said)
        yield Task(key, of, Reading(str(path), sidecar and found.source.table is None, values))


def _stamp(before: Mapping | None, path: Path, stamp: str) -> str:
    """The stamp, marked where a file can be read that could not; a change of rights leaves its time alone."""
    of = (before or {}).get("of", "")
    if of.replace(_AGAIN, "") != stamp:
        return stamp
    if before.get("problem", "").startswith(UNREADABLE) and os.access(path, os.R_OK):
        return of + _AGAIN
    return of


def _mark_gone(manifest: Manifest, found: list[Found], mark: str) -> int:
    """Files of the sources looked at that are not there any more; those in folders nobody could read stay."""
    records = []
    for entry in found:
        if entry.missing:
            continue
        start = _key(entry.source, "")
        there = {_key(entry.source, file.path) for file, _ in entry.files}
        unread = tuple(start + folder for folder in entry.unread)
        records += [
            {"step": COLLECT, "key": key, "settings": mark, "of": "gone", "gone": True}
            for key, record in manifest.records(COLLECT).items()
            if key.startswith(start) and key not in there and not (unread and key.startswith(unread))
        ]
    return manifest.add(records)


def _key(source: Source, path: str) -> str:
    return f"{source.name}/{path}"


def _write_skipped(work: Path, found: Found) -> None:
    path = work / SKIPPED_FOLDER / f"{found.source.name}.jsonl"
    if found.skipped:
        write_quarantine(path, found.skipped)
    elif not found.missing:
        path.unlink(missing_ok=True)


def _summary(manifest: Manifest, outcome: Outcome, found: list[Found], gone: int) -> Summary:
    samples = [record for record in manifest.records(SELECT).values() if not record.get("gone")]
    reasons = [record["dropped"] for record in samples if "dropped" in record]
    files = [record for record in manifest.records(COLLECT).values() if not record.get("gone")]
    return Summary(
        outcome,
        found,
        gone,
        kept=len(samples) - len(reasons),
        dropped=Counter(reason.partition(":")[0] for reason in reasons),
        metadata=Counter(record["metadata"] for record in files if record["prompt"]),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _by_count(counts: Counter) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _listed(counts: Counter) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in _by_count(counts))
