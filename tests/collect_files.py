"""Picture files with prompts, and what collecting them gives."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sur_core.surd_build.collect import CollectSettings, Summary, collect
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.samples import COLLECT, SELECT
from sur_core.surd_build.select import SelectSettings

CHOICE = {"min_side", "near_distance", "drop_ratings", "drop_nsfw", "clean_prompts"}


def smooth(seed: int = 0, size: tuple[int, int] = (300, 280)) -> Image.Image:
    """Large shapes, different for each seed, so that perceptual hashes are far apart."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def infotext(prompt: str) -> str:
    return (
        f"{prompt}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
    )


def png(image: Image.Image, prompt: str | None = None, **texts: str) -> bytes:
    info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    if prompt is not None:
        info.add_itxt("parameters", infotext(prompt))
    for name, text in texts.items():
        info.add_text(name, text)
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def write_png(path: Path, seed: int = 0, prompt: str | None = "a cat, oil painting", **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(smooth(seed, more.pop("size", (300, 280))), prompt, **more))
    return path


def write_pictures(folder: Path, count: int, start: int = 0) -> Path:
    for seed in range(start, start + count):
        write_png(folder / f"{seed % 3}" / f"{seed:03}.png", seed, f"picture {seed}, fine art")
    return folder


def collected(work: Path, *sources: Path, workers: int = 1, **settings) -> tuple[Manifest, Summary]:
    """The manifest read anew, as the next step finds it."""
    choice = SelectSettings(**{name: settings.pop(name) for name in CHOICE & settings.keys()})
    summary = collect(Manifest(work), sources, CollectSettings(select=choice, **settings), workers=workers)
    return Manifest(work), summary


def samples(manifest: Manifest) -> dict[str, dict]:
    return {key: record for key, record in manifest.records(SELECT).items() if not record.get("gone")}


def kept(manifest: Manifest) -> list[str]:
    return sorted(key for key, record in samples(manifest).items() if "dropped" not in record)


def kinds(manifest: Manifest) -> dict[str, str]:
    """{key: kind of the reason} of what was left out."""
    return {
        key: record["dropped"].partition(":")[0]
        for key, record in samples(manifest).items()
        if "dropped" in record
    }


@contextmanager
def locked(path: Path, rights: int = 0) -> Iterator[None]:
    """With other rights for a while; the test is skipped where rights stop nobody, as with root."""
    before = path.stat().st_mode
    path.chmod(rights)
    try:
        if os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
            pytest.skip("this user may read everything")
        yield
    finally:
        path.chmod(before)


def facts(manifest: Manifest, key: str) -> dict:
    return manifest.records(COLLECT)[key]
