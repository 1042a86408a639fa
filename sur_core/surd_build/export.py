"""Step 6 of making a SURD: the data set itself, in the authors' layout, as parquet, or both."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..images import CROPS, ImageError, decode_image, fit_image
from .data_card import data_card
from .export_folder import HIDDEN, ExportFolder, check_target, content_mark
from .export_parquet import Shard, plan_shards, write_shard
from .export_rows import ExportRow, export_rows, used_columns
from .manifest import Manifest, SurdBuildError, hash_of
from .steps import Progress, alone_in

LAYOUTS = ("authors", "parquet", "both")
FORMATS = ("png", "jpg", "webp", "original")
TABLE, CARD = "metadata.jsonl", "README.md"
QUALITY = 95
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
_BYTES_PER_PIXEL = {".png": 1.5, ".jpg": 0.7, ".webp": 0.4}
_BATCH_PER_WORKER = 8


@dataclass(frozen=True)
class ExportSettings:
    """How the data set is written.

    Attributes:
        resolution: side of the square images in pixels (the paper's are 512); 0 keeps each one's size.
        crop: how they become square, see :func:`sur_core.images.fit_image`.
        layout: one of :data:`LAYOUTS`.
        image_format: one of :data:`FORMATS`; "original" is each file's own of PNG, JPEG and WebP, else PNG.
            JPEG and WebP are written at quality 95.
    """

    resolution: int = 512
    crop: str = "center"
    layout: str = "authors"
    image_format: str = "png"

    def __post_init__(self) -> None:
        for name, known in (("crop", CROPS), ("layout", LAYOUTS), ("image_format", FORMATS)):
            if getattr(self, name) not in known:
                raise SurdBuildError(
                    f"{name} must be one of {', '.join(known)}, found {getattr(self, name)!r}"
                )
        if self.resolution < 0:
            raise SurdBuildError(f"resolution must be a number of pixels, or 0; found {self.resolution}")

    def suffix(self, row: ExportRow) -> str:
        return _SUFFIXES.get(row.kind, ".png") if self.image_format == "original" else f".{self.image_format}"


@dataclass
class Exported:
    """What an export has done.

    Attributes:
        rows: of the data set; others: {why a sample is not in it: count}.
        made, kept, removed: files.
        finished: ``False`` if it was stopped.
        notes: what the user should know.
    """

    rows: int
    others: Counter[str]
    made: int = 0
    kept: int = 0
    removed: int = 0
    finished: bool = False
    notes: list[str] = field(default_factory=list)


def export(
    manifest: Manifest,
    folder: Path,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 - frozen
    *,
    workers: int = 1,
    progress: Progress | None = None,
    stopped: Callable[[], Any] = lambda: False,
) -> Exported:
    """Write the data set into ``folder``: only what is not there yet, and remove what an earlier export made
    and this one does not want. Nothing of the original files but their pixels is written.

    Raises:
        SurdBuildError: nothing to export, the folder holds other files, too little space, or an image has
            changed since it was collected.
        OSError: something cannot be read or written.
        What was done before an error is kept.
    """
    rows, others = export_rows(manifest)
    result = Exported(len(rows), others)
    if unjudged := sum(row.extras.get("simple_score") is None for row in rows):
        result.notes.append(
            f"{unjudged:,} of {len(rows):,} samples have prompts that CLIP has not judged: changed since "
            "'python -m train surd clean', or never cleaned"
        )
    check_target(manifest, folder)
    with alone_in(folder / HIDDEN), ExportFolder(folder) as target:
        work = _Export(target, settings, rows, max(1, workers), progress or (lambda *_: None), stopped)
        _check_same_pictures(target, work)
        result.finished = work.run() and not stopped()
        if result.finished:
            card = data_card(manifest, folder.resolve().name, settings, rows, others)
            work.finish(card, result.notes)
        result.made, result.kept, result.removed = target.made, target.kept, target.removed
    return result


class _Export:
    """The files of one export. ``wanted``: {name: what its content depends on}."""

    def __init__(self, target, settings, rows, workers, progress, stopped) -> None:
        self.target, self.settings, self.rows, self.workers = target, settings, rows, workers
        self.progress, self.stopped = progress, stopped
        self.columns = used_columns(rows)
        self.in_files = settings.layout != "parquet"
        self.images = {f"images/{row.id[:2]}/{row.id}{settings.suffix(row)}": row for row in rows}
        self.marks = {name: self._mark(row) for name, row in self.images.items()}
        self.shards: list[Shard] = []
        if settings.layout != "authors":
            total = sum(map(self._estimate, rows))
            self.shards = plan_shards(self.images, self.marks, self.columns, total)

    def _mark(self, row: ExportRow) -> str:
        s = self.settings
        return hash_of(row.sha256, s.resolution, s.crop if s.resolution else "", s.suffix(row), QUALITY)

    def _estimate(self, row: ExportRow) -> int:
        if not self.settings.resolution:
            return row.bytes
        return int(self.settings.resolution**2 * _BYTES_PER_PIXEL[self.settings.suffix(row)])

    def run(self) -> bool:
        """Write images and shards; ``False`` if it was stopped."""
        wanted = self.marks if self.in_files else {}
        shards = {shard.name: shard for shard in self.shards}
        todo = self.target.claim(dict(wanted))
        late = self.target.claim({shard.name: shard.mark for shard in self.shards})
        needed = sum(self._estimate(self.images[name]) for name in todo)
        needed += sum(self._estimate(row) for name in late for row in shards[name].images.values())
        self.target.check_space(needed)
        if not self._write_images(todo):
            return False
        for number, name in enumerate(late):
            if self.stopped():
                return False
            size = self.target.write(name, lambda file, shard=shards[name]: self._write_shard(file, shard))
            self.target.done([(name, shards[name].mark, size)])
            self.progress("parquet", number + 1, len(late))
        return True

    def _write_images(self, todo: Sequence[str]) -> bool:
        problems, size = [], self.workers * _BATCH_PER_WORKER
        with self._pool() as run:
            for start in range(0, len(todo), size):
                if self.stopped():
                    return False
                written = []
                for name, found in zip(
                    todo[start:], run(self._write_image, todo[start : start + size]), strict=False
                ):
                    if isinstance(found, str):
                        problems.append(found)
                    else:
                        written.append((name, self.marks[name], found))
                self.target.done(written)
                self.progress("images", min(start + size, len(todo)), len(todo))
        _refuse(problems)
        return True

    def _write_image(self, name: str) -> int | str:
        """The file's size; or what is wrong with the picture."""
        try:
            content = encoded_image(self.images[name], self.settings)
        except (ImageError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
            return str(error)
        return self.target.write(name, content)

    def _write_shard(self, file, shard: Shard) -> None:
        with self._pool() as run:
            write_shard(file, shard, self.columns, lambda names: run(self._content, names))

    def _content(self, name: str) -> bytes:
        if self.in_files:
            return (self.target.folder / name).read_bytes()
        return encoded_image(self.images[name], self.settings)

    @contextmanager
    def _pool(self) -> Iterator[Callable]:
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield lambda work, items: list(pool.map(work, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def finish(self, card: str, notes: list[str]) -> None:
        """Table and card, and away with what is no longer wanted."""
        wanted = {shard.name for shard in self.shards}
        small = {CARD: card.encode("utf-8")}
        if self.in_files:
            wanted |= self.images.keys()
            small[TABLE] = b"".join(map(self._line, self.images))
        marks = {name: content_mark(content) for name, content in small.items()}
        if self.target.was_edited(CARD):
            notes.append(
                f"{CARD} was changed by hand and is left as it is; delete it to have it written anew"
            )
            del marks[CARD]
        for name in self.target.claim(marks):
            size = self.target.write(name, small[name])
            self.target.done([(name, marks[name], size)])
        self.target.keep_only(wanted | small.keys())

    def _line(self, name: str) -> bytes:
        return (
            json.dumps(table_row(name, self.images[name], self.columns), ensure_ascii=False).encode() + b"\n"
        )


def table_row(name: str, row: ExportRow, columns: Sequence[str]) -> dict:
    """A row of the table, in the authors' names of columns."""
    values = {"file_name": name, "text": row.simple, "prompt": row.complex, "id": row.id}
    return values | {column: row.extras[column] for column in columns}


def encoded_image(row: ExportRow, settings: ExportSettings) -> bytes:
    """The picture as it goes into the data set; no metadata of the original comes along.

    Raises:
        ImageError: it is damaged, or has changed since it was collected.
        OSError: it cannot be read.
    """
    from PIL import Image

    data = row.image.read_bytes()
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise ImageError(f"{row.image}: the file has changed since it was collected")
    image = decode_image(data, str(row.image))
    if settings.resolution:
        image = Image.fromarray(fit_image(image, settings.resolution, settings.crop).pixels)
    bare = Image.frombytes(
        "RGB", image.size, image.tobytes()
    )  # what a file says besides its pixels stays behind
    content = io.BytesIO()
    match settings.suffix(row):
        case ".jpg":
            bare.save(content, "JPEG", quality=QUALITY, subsampling=0)
        case ".webp":
            bare.save(content, "WEBP", quality=QUALITY)
        case _:
            bare.save(content, "PNG")
    return content.getvalue()


def _check_same_pictures(target: ExportFolder, work: _Export) -> None:
    """Refuse to replace another data set: one that shares no picture with this one."""
    before = {Path(name).stem for name in target.names if name.startswith("images/")}
    if before and not before & {row.id for row in work.rows}:
        raise SurdBuildError(
            f"{target.folder}: holds an export of other pictures, which would all be removed. Choose an "
            "empty folder, or delete this one yourself"
        )


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        raise SurdBuildError(
            f"{len(problems)} pictures cannot be exported: {shown}. Collect again, which finds what has "
            "changed; then the same export goes on, and what was done is kept"
        )
