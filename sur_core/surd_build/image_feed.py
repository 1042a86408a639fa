"""Steps that show pictures to a model: those of the next batch are read while it works on this one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..images import ImageError, decode_image
from ..plain_png import QUICK_THREADS
from .steps import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from .samples import BuildSample

_AGAIN = " again"
_MAY_CHANGE = ("unreadable file", "changed file")


@dataclass(frozen=True)
class Unusable:
    """Why a picture that was collected cannot be used now: "kind: detail"."""

    reason: str


@dataclass(frozen=True)
class Batch:
    """Pictures of some tasks.

    Attributes:
        problems: for each task, why its picture cannot be used, or None.
        pictures: what ``pack`` has made of the others, in order; None if there are none.
    """

    problems: list[Unusable | None]
    pictures: Any


class ImageFeed:
    """Used with ``with``; tasks' payloads are samples.

    Args:
        prepare: makes of an RGB picture what the model reads; on several threads.
        pack: puts those of a batch together; on one thread.
        threads: that read, decode and prepare; 0 for as many as there are cores, up to 8.
    """

    def __init__(
        self, prepare: Callable[[Image], Any], pack: Callable[[list], Any], threads: int = 0
    ) -> None:
        self._prepare, self._pack = prepare, pack
        threads = threads or min(8, os.cpu_count() or 1)
        self._quick = threads <= QUICK_THREADS
        self._readers = ThreadPoolExecutor(threads, "reader")
        self._packer = ThreadPoolExecutor(1, "packer")
        self._coming: dict[tuple[str, ...], Future] = {}

    def __enter__(self) -> ImageFeed:
        return self

    def __exit__(self, *_) -> None:
        for pool in (self._readers, self._packer):
            pool.shutdown(cancel_futures=True)

    def ahead(self, tasks: Sequence[Task]) -> None:
        """Begin with a batch that will be taken."""
        if tasks:
            parts = [self._readers.submit(self._read, task.payload) for task in tasks]
            self._coming[_keys(tasks)] = self._packer.submit(self._put_together, parts)

    def take(self, tasks: Sequence[Task]) -> Batch:
        """The pictures of a batch, at once if it was announced."""
        if _keys(tasks) not in self._coming:
            self.ahead(tasks)
        return self._coming.pop(_keys(tasks)).result()

    def _read(self, sample: BuildSample) -> Any:
        image = read_image(sample.path, sample.facts.get("sha256", ""), self._quick)
        return image if isinstance(image, Unusable) else self._prepare(image)

    def _put_together(self, parts: list[Future]) -> Batch:
        found = [part.result() for part in parts]
        problems = [part if isinstance(part, Unusable) else None for part in found]
        usable = [part for part in found if not isinstance(part, Unusable)]
        return Batch(problems, self._pack(usable) if usable else None)


class PictureModel(Protocol):
    """What :class:`ModelWork` asks of a model."""

    def prepare(self, image: Image) -> Any:
        """What can be done for one RGB picture alone; called on several threads."""

    def pack(self, prepared: list) -> Any:
        """Prepared pictures as a batch; called on one thread."""


class ModelWork:
    """``work`` and ``ahead`` of a step; used with ``with``. Loads the model when there is something to do.

    Args:
        load: gives the model.
        compute: (model, packed pictures, their samples) -> values of each.
        failed: values of a sample whose picture cannot be used, from the reason.
        threads: as :class:`ImageFeed`.
    """

    def __init__(
        self,
        load: Callable[[], PictureModel],
        compute: Callable[[Any, Any, list[BuildSample]], Sequence[dict]],
        failed: Callable[[str], dict],
        threads: int = 0,
    ) -> None:
        self._load, self._compute, self._failed, self._threads = load, compute, failed, threads
        self._model: PictureModel | None = None
        self._feed: ImageFeed | None = None

    def __enter__(self) -> ModelWork:
        return self

    def __exit__(self, *error) -> None:
        if self._feed is not None:
            self._feed.__exit__(*error)

    def ahead(self, tasks: Sequence[Task]) -> None:
        if self._feed is None:
            self._model = self._load()
            self._feed = ImageFeed(self._model.prepare, self._model.pack, self._threads)
        self._feed.ahead(tasks)

    def __call__(self, tasks: Sequence[Task]) -> list[dict]:
        batch = self._feed.take(tasks)
        samples = [task.payload for task, problem in zip(tasks, batch.problems, strict=True) if not problem]
        found = iter(self._compute(self._model, batch.pictures, samples) if samples else ())
        return [self._failed(problem.reason) if problem else next(found) for problem in batch.problems]


def read_image(path: Path, sha256: str, quick: bool = False) -> Image | Unusable:
    """A collected picture, upright RGB. One that is no more what was collected would get another's words.

    Args:
        quick: as :func:`..images.decode_image`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return Unusable(f"unreadable file: {error.strerror or error}")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        return Unusable("changed file: it is another one than was collected; collect again")
    try:
        return decode_image(data, path.name, quick)
    except ImageError as error:
        return Unusable(f"unreadable image: {error}")


def image_stamp(of: str, record: Mapping | None, path: Path, problem: str) -> str:
    """What a result depends on: ``of``, or that it is tried again.

    A file that could not be read may come back (a disk that was not there). Its result then counts as not
    done, once; while it stays away, nothing is done or written again.

    Args:
        of: hash of what the result depends on.
        record: the last result, if there is one.
        problem: what the record says was wrong with the picture, "" if nothing.
    """
    last = record["of"] if record is not None else of
    if last not in (of, of + _AGAIN):
        return of
    if problem.startswith(_MAY_CHANGE) and os.access(path, os.R_OK):
        return of if last != of else of + _AGAIN
    return last


def _keys(tasks: Sequence[Task]) -> tuple[str, ...]:
    return tuple(task.key for task in tasks)
