"""One step over many samples: only what is not done yet, in batches, stopped and resumed at will.

Whatever way a step was interrupted, and on however many processes it ran, the manifest ends up with the same
records in the same order: results wait in journals until all are there, and go in sorted by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache import Progress
from ..processes import ALONE, Processes
from .journal import Journal, journal_paths, read_journal
from .manifest import Manifest, SurdBuildError, hash_of


@dataclass(frozen=True)
class Task:
    """A thing to be worked on.

    Attributes:
        key: what the record will be about.
        of: hash or stamp of what the result depends on besides the step's settings.
        payload: whatever the step's work needs.
    """

    key: str
    of: str
    payload: Any = None


_WRITTEN_BY_STEPS = (".", "figures", "skipped")
"""Folders of a work folder that only a step writes, other than the review page, which may run beside it."""


@dataclass(frozen=True)
class Outcome:
    """What a step has done: ``done`` tasks by this process, ``kept`` found done already; whether it is
    ``finished``, that is, in the manifest.
    """

    done: int
    kept: int
    finished: bool


def run_step(
    manifest: Manifest,
    step: str,
    settings: Mapping[str, Any],
    tasks: Sequence[Task],
    work: Callable[[list[Task]], Sequence[dict]],
    *,
    batch_size: int = 1,
    processes: Processes = ALONE,
    progress: Progress | None = None,
    stopped: Callable[[], Any] = lambda: False,
    ahead: Callable[[list[Task]], Any] = lambda tasks: None,
) -> Outcome:
    """Do the tasks that the manifest has no valid record of.

    A record is valid while the settings and the task's ``of`` are the same.

    Args:
        manifest: gets the records when all are there. In other processes than the main one it is read anew.
        step: name of the step.
        settings: what every result depends on.
        tasks: all things the step is about, in any order; keys differ.
        work: gives the values of each task of a batch, in order; JSON can write them.
        batch_size: tasks given to ``work`` at once.
        processes: all must be given the same tasks.
        progress, stopped: asked at the start and after every batch; a stopped step keeps what it has.
        ahead: told each batch before the one in front of it is worked on, to begin reading its files.

    Raises:
        OSError: results cannot be written; those written before stay.
        whatever ``work`` raises; results of earlier batches stay.
    """
    mark = hash_of(settings)
    valid = {task.key: task for task in tasks}
    done = _found_done(manifest, step, mark, valid)
    kept = len(done)
    todo = [valid[key] for key in sorted(valid.keys() - done)]
    mine = todo[processes.rank :: processes.count]
    processes.barrier()  # nobody writes before all have read
    made = 0
    if mine:
        with Journal(manifest.folder, step, mark, (processes.rank, processes.count)) as journal:
            made = _work_off(journal, step, mark, mine, work, batch_size, progress, stopped, ahead)
    processes.barrier()
    finished = _found_done(manifest, step, mark, valid) == valid.keys()
    processes.barrier()  # nobody folds before all have looked
    if finished and processes.is_main:
        _fold(manifest, step, mark, valid, settings)
    processes.barrier()
    return Outcome(made, kept, finished)


def _work_off(journal, step, mark, mine, work, batch_size, progress, stopped, ahead) -> int:
    made = 0
    ahead(mine[:batch_size])  # which may load a model; the bar's clock starts then
    if progress:
        progress(step, 0, len(mine))
    while made < len(mine) and not stopped():
        batch = mine[made : made + batch_size]
        ahead(mine[made + batch_size : made + 2 * batch_size])
        values = work(batch)
        records = zip(batch, values, strict=True)
        journal.append(
            {"step": step, "key": task.key, "settings": mark, "of": task.of, **found}
            for task, found in records
        )
        made += len(batch)
        if progress:
            progress(step, made, len(mine))
    return made


def _found_done(manifest: Manifest, step: str, mark: str, valid: Mapping[str, Task]) -> set[str]:
    done = {key for key, task in valid.items() if _is_valid(manifest.record(step, key), mark, task)}
    for record in _journaled(manifest.folder, step, mark):
        task = valid.get(record["key"])
        if task is not None and record["of"] == task.of:
            done.add(task.key)
    return done


def _is_valid(record: dict | None, mark: str, task: Task) -> bool:
    return record is not None and record.get("settings") == mark and record.get("of") == task.of


def _journaled(folder: Path, step: str, mark: str) -> Iterator[dict]:
    for path in journal_paths(folder, step, mark):
        yield from read_journal(path)


def _fold(manifest: Manifest, step: str, mark: str, valid: Mapping[str, Task], settings: Mapping) -> None:
    """Journals into the manifest. Killed in between, it is done again and adds nothing twice."""
    found = {}
    for record in _journaled(manifest.folder, step, mark):
        task = valid.get(record["key"])
        if task is not None and record["of"] == task.of:
            found[task.key] = record
    if found:
        about = {"step": "settings", "key": f"{step} {mark}", "values": dict(settings)}
        manifest.add([about, *(found[key] for key in sorted(found))])
    for path in journal_paths(manifest.folder, step, mark):
        # What is about other things than now asked for, such as another source, was begun and is kept.
        others = [record for record in read_journal(path) if record["key"] not in valid]
        if all(manifest.record(step, record["key"]) == record for record in others):
            path.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the work folder; two programs would mix their results. Raises SurdBuildError: another one does."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".working.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SurdBuildError(
            f"{folder}: another program is working on this folder. Wait for it, or choose another one"
        ) from None
    try:
        for place in _WRITTEN_BY_STEPS:
            for half in folder.glob(f"{place}/.unfinished-*.tmp"):  # of a step that was killed
                half.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
