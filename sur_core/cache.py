"""What the frozen encoders say about a data set, computed once and kept on disk.

A row is found by a key made of everything it depends on: the encoder's files, the settings, and the content
of the image or prompt. A changed image, model or setting therefore has other keys, and what was kept for the
old one is never used. Building can be stopped at any moment and goes on where it was.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .backend import Backend
from .images import FittedImage, fit_image, to_pixels
from .row_store import KEY_BYTES, Field, RowFolder, row_key
from .surd import Surd

_TYPES = {"fp16": "F16", "fp32": "F32"}
_FLUSH_ROWS = 64
_DIGESTS_FILE = "files.sqlite"
Progress = Callable[[str, int, int], Any]
"""Called with (what is being done, how much of it is done, how much there is)."""


class CacheError(ValueError):
    """Something cannot be cached: a value too large for the type, not enough disk, or another writer."""


@dataclass(frozen=True)
class CacheSettings:
    """What cached latents and embeddings depend on besides model and data.

    Attributes:
        resolution, crop: as :func:`sur_core.images.fit_image` takes them.
        flip: keep the mirrored image's latents too.
        dtype: ``"fp16"`` or ``"fp32"``, type on disk.
        vae_dtype: type the VAE computes in.
        clip_skip: text encoder layer from the end.
        text_dtype: type the text encoders compute in.
    """

    resolution: int
    crop: str = "center"
    flip: bool = True
    dtype: str = "fp16"
    vae_dtype: str = "fp32"
    clip_skip: int = 1
    text_dtype: str = "fp32"


class TextCache:
    """Embeddings of prompts: a field for each text encoder [77, D], ``mask`` [77], SDXL's ``pooled`` [P]."""

    def __init__(self, folder: Path, backend: Backend, settings: CacheSettings, writer: str = ""):
        self._backend, self._settings = backend, settings
        self._source = backend.fingerprint("text")
        kind = _TYPES[settings.dtype]
        fields = {name: Field(kind, (77, width)) for name, width in backend.widths.items()}
        fields["mask"] = Field("U8", (77,))
        if "clip_g" in backend.widths:  # SDXL's pooled embedding is clip_g's, projected to the same width
            fields["pooled"] = Field(kind, (backend.widths["clip_g"],))
        form = "-".join(f"{name}{width}" for name, width in backend.widths.items())
        self.rows = RowFolder(Path(folder) / f"text-{form}-{settings.dtype}", fields, writer)

    def key(self, prompt: str) -> bytes:
        s = self._settings
        return row_key("text 1", self._source, s.clip_skip, s.text_dtype, s.dtype, prompt)

    def keys(self, prompts: Iterable[str]) -> np.ndarray:
        """uint8 [N, 16]; of all prompts without keeping their text."""
        joined = b"".join(self.key(prompt) for prompt in prompts)
        return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)

    def build(self, prompts: list[str], batch_size: int, progress: Progress | None = None) -> None:
        """Encode and keep ``prompts``, none of which is kept yet. Errors as :meth:`LatentCache.build`."""
        for start in range(0, len(prompts), batch_size):
            some = prompts[start : start + batch_size]
            self.rows.make_room(len(some))
            for prompt, row in zip(some, self.encode(some), strict=True):
                _check_finite(row, f"the prompt {prompt[:60]!r}", self._settings.dtype)
                self.rows.append(self.key(prompt), row)
            flush_now_and_then(self.rows, start, len(prompts), batch_size)
            if progress:
                progress("prompts", min(start + batch_size, len(prompts)), len(prompts))

    def encode(self, prompts: list[str]) -> Iterator[dict[str, np.ndarray]]:
        """Rows as they are kept, straight from the text encoders."""
        encoded = self._backend.encode_text(prompts)
        kind = self.rows.fields
        tensors = {**encoded.hidden, "mask": encoded.mask}
        if "pooled" in kind:
            tensors["pooled"] = encoded.pooled
        arrays = {name: _array(tensor, kind[name]) for name, tensor in tensors.items()}
        for number in range(len(prompts)):
            yield {name: array[number] for name, array in arrays.items()}


class LatentCache:
    """Mean and standard deviation of every image's latents, so that sampling stays the VAE's own.

    Fields: ``mean``, ``std`` [C, h, w], with flips also ``mean_flipped``, ``std_flipped``; ``sizes`` int32
    [6]: the original height and width, top and left of the crop, and the same of the mirrored crop.
    """

    def __init__(self, folder: Path, backend: Backend, settings: CacheSettings, writer: str = ""):
        self._backend, self._settings = backend, settings
        self._source = backend.fingerprint("vae")
        edge = settings.resolution // backend.vae_factor
        shape = (backend.latent_channels, edge, edge)
        names = ["mean", "std"] + ["mean_flipped", "std_flipped"] * settings.flip
        fields = {name: Field(_TYPES[settings.dtype], shape) for name in names}
        fields["sizes"] = Field("I32", (6,))
        form = "x".join(str(size) for size in shape) + "-flips" * settings.flip
        self.rows = RowFolder(Path(folder) / f"latents-{form}-{settings.dtype}", fields, writer)

    def key(self, digest: bytes) -> bytes:
        """``digest``: hash of the image file's content."""
        s = self._settings
        return row_key("latents 1", self._source, s.resolution, s.crop, s.flip, s.dtype, s.vae_dtype, digest)

    def build(
        self,
        surd: Surd,
        samples: np.ndarray,
        keys: np.ndarray,
        batch_size: int,
        workers: int = 4,
        progress: Progress | None = None,
    ) -> None:
        """Encode and keep the images of ``samples``, whose keys [N, 16] are not kept yet.

        Raises:
            ImageError: an image cannot be read; it is named.
            CacheError: a value is too large for the type on disk.
            OSError: the disk is full or fails; what was kept so far stays.
        """
        fitted = read_ahead(lambda i: self.fit(surd, int(i)), samples, workers)
        for start in range(0, len(samples), batch_size):
            images = list(itertools.islice(fitted, batch_size))
            self.rows.make_room(len(images))
            for number, row in enumerate(self.encode(images)):
                sample = int(samples[start + number])
                _check_finite(row, f"the image {surd[sample].name}", self._settings.dtype)
                self.rows.append(keys[start + number].tobytes(), row)
            flush_now_and_then(self.rows, start, len(samples), batch_size)
            if progress:
                progress("images", min(start + batch_size, len(samples)), len(samples))

    def fit(self, surd: Surd, sample: int) -> FittedImage:
        """The image as the VAE is to see it. Raises ``ImageError``, ``OSError``."""
        return fit_image(surd.read_image(sample), self._settings.resolution, self._settings.crop)

    def encode(self, images: list[FittedImage]) -> Iterator[dict[str, np.ndarray]]:
        """Rows as they are kept, straight from the VAE."""
        kind = self.rows.fields
        arrays = {}
        for suffix, flip in (("", False), ("_flipped", True)):
            if "mean" + suffix in kind:
                pixels = torch.stack([to_pixels(image.pixels, flip) for image in images])
                latents = self._backend.encode_image(pixels)
                arrays["mean" + suffix] = _array(latents.mean, kind["mean"])
                arrays["std" + suffix] = _array(latents.std, kind["std"])
        for number, image in enumerate(images):
            sizes = (*image.original_size, *image.crop_top_left, *image.flipped_crop_top_left)
            yield {
                **{name: array[number] for name, array in arrays.items()},
                "sizes": np.array(sizes, np.int32),
            }


class FileDigests:
    """Hash of every image file's content, remembered by path, size and time of change."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=60)
        with self._database:
            self._database.execute("CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, digest BLOB)")

    def known(self, surd: Surd, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 [N, 16], bool [N]: which of them are known). Reads no image file."""
        digests, known = np.zeros((len(samples), KEY_BYTES), np.uint8), np.zeros(len(samples), bool)
        for place, sample in enumerate(samples):
            found = self._database.execute(
                "SELECT digest FROM files WHERE stamp = ?", (surd.image_stamp(int(sample)),)
            ).fetchone()
            if found:
                digests[place], known[place] = np.frombuffer(found[0], np.uint8), True
        return digests, known

    def of(
        self, surd: Surd, samples: np.ndarray, workers: int = 4, progress: Progress | None = None
    ) -> np.ndarray:
        """uint8 [N, 16]; files not seen before are read."""
        digests, known = self.known(surd, samples)
        unknown, fresh = np.flatnonzero(~known), []
        read = read_ahead(lambda place: _digest(surd, int(samples[place])), unknown, workers)
        for count, (place, (stamp, digest)) in enumerate(zip(unknown, read, strict=True), 1):
            digests[place] = np.frombuffer(digest, np.uint8)
            fresh.append((stamp, digest))
            if len(fresh) == 256 or count == len(unknown):
                with self._database:  # a short transaction: other processes write here too
                    self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", fresh)
                fresh.clear()
            if progress:
                progress("files", count, len(unknown))
        return digests

    def close(self) -> None:
        self._database.close()


def image_digests(folder: Path, surd: Surd, samples: np.ndarray, workers: int, progress=None) -> np.ndarray:
    """:meth:`FileDigests.of` with the memory kept in a cache folder."""
    with _open_digests(folder) as digests:
        return digests.of(surd, samples, workers, progress)


def known_digests(folder: Path, surd: Surd, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:meth:`FileDigests.known` with the memory kept in a cache folder. Writes nothing."""
    if not (Path(folder) / _DIGESTS_FILE).exists():
        return np.zeros((len(samples), KEY_BYTES), np.uint8), np.zeros(len(samples), bool)
    with _open_digests(folder) as digests:
        return digests.known(surd, samples)


@contextmanager
def _open_digests(folder: Path) -> Iterator[FileDigests]:
    path = Path(folder) / _DIGESTS_FILE
    try:
        with closing(FileDigests(path)) as digests:
            yield digests
    except sqlite3.Error as error:
        raise CacheError(
            f"{path}: the hashes of image files could not be read or kept ({error}). Free some space if the "
            "disk is full; otherwise delete this file, it is made again"
        ) from error


def read_ahead(read: Callable, items: Iterable, workers: int) -> Iterator:
    """``map(read, items)`` by threads that are a few items ahead; errors arrive in order."""
    if workers < 1:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(workers, "reader") as pool:
        waiting, rest = [], iter(items)
        try:
            for item in itertools.islice(rest, 2 * workers):
                waiting.append(pool.submit(read, item))
            while waiting:
                yield waiting.pop(0).result()
                for item in itertools.islice(rest, 1):
                    waiting.append(pool.submit(read, item))
        finally:
            for future in waiting:
                future.cancel()


def writing_lock(folder: Path, writer: str):
    """Held (``with``) while a cache is written; two programs under one writer's name would mix their rows.

    Raises:
        CacheError: another program holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".writing-{writer}.lock")
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        raise CacheError(
            f"{folder}: another program is writing to this cache. Wait for it, or set another cache_dir"
        ) from None


def check_space(folder: Path, needed: int, or_else: str = "turn cache_latents or random_flip off") -> None:
    """Refuse to begin what the disk cannot hold, with a :class:`CacheError` that ends in ``or_else``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"{folder}: the cache needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB left. Free "
            f"some, set cache_dir to another disk, or {or_else}"
        )


def _digest(surd: Surd, sample: int) -> tuple[str, bytes]:
    stamp = surd.image_stamp(sample)  # before reading: a file changed meanwhile gets another stamp
    return stamp, blake2b(surd.image_bytes(sample), digest_size=KEY_BYTES).digest()


def flush_now_and_then(rows: RowFolder, start: int, total: int, batch_size: int) -> None:
    """After the batch that began at ``start``: make rows durable every some rows, and at the end."""
    every = max(1, _FLUSH_ROWS // batch_size) * batch_size
    if start + batch_size >= total or (start + batch_size) % every == 0:
        rows.flush()


def _array(tensor: torch.Tensor, field: Field) -> np.ndarray:
    with np.errstate(over="ignore"):  # told in words by _check_finite
        return np.ascontiguousarray(tensor.detach().float().cpu().numpy().astype(field.numpy))


def _check_finite(row: dict[str, np.ndarray], what: str, dtype: str) -> None:
    for name, array in row.items():
        if not np.isfinite(array).all():
            advice = "set cache_dtype = 'fp32'; if that does not help, the" if dtype == "fp16" else "The"
            raise CacheError(
                f"{what}: its {name} holds values that are NaN or too large for {dtype}. {advice} model or "
                "its vae_dtype is at fault (SDXL's VAE overflows in fp16)"
            )
