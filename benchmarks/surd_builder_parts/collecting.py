"""How many pictures a core collects in a second, with kornia-rs and without, and how many Pillow decodes."""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sur_core.plain_png import QUICK_THREADS, find_decoder
from sur_core.surd_build.collect import CollectSettings, collect
from sur_core.surd_build.manifest import Manifest

SIDE = 512
SOME = 24
"""Different pictures; more of them would only measure the disk."""

INFOTEXT = (
    "a white cat on a garden wall, masterpiece, (oil painting:1.2), sunlight, <lora:more_details:0.5>, "
    "highly detailed, warm colors, picture {number}\n"
    "Negative prompt: lowres, blurry, watermark\n"
    "Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: {number}, Size: 512x512, Model: some_model"
)


ONE = "collected by one thread, a core-second"
MANY = f"collected by {QUICK_THREADS + 1} threads, a core-second"
ALL = "collected by a thread a core, a second"
ALONE = "decoded by Pillow alone, a core-second"
ROWS = (ONE, MANY, ALL, ALONE)


def natural(seed: int, grain: float = 1.0) -> np.ndarray:
    """Smooth shapes with a fine texture: a 1/f spectrum and grain. A PNG packs it to about 380 KB, as it does
    what a diffusion model has drawn. uint8 [512, 512, 3].
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :])
    frequency[0, 0] = 1.0

    def clouds(slope: float) -> np.ndarray:
        field = np.fft.ifft2(np.fft.fft2(random.standard_normal((SIDE, SIDE))) / frequency**slope).real
        return field / field.std()

    light = clouds(1.6)
    pixels = np.stack([128 + 50 * light + 20 * clouds(1.8) for _ in range(3)], axis=-1)
    pixels += grain * random.standard_normal((SIDE, SIDE, 1))
    pixels += grain / 4 * random.standard_normal((SIDE, SIDE, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def write_pictures(folder: Path, draw: Callable[[int], np.ndarray], count: int, suffix: str) -> Path:
    """``count`` files of few pictures, each with a prompt of its own."""
    from PIL import Image, PngImagePlugin

    folder.mkdir()
    pictures = [Image.fromarray(draw(seed)) for seed in range(min(SOME, count))]
    plain = [io.BytesIO() for _ in pictures]
    for picture, stream in zip(pictures, plain, strict=True):
        picture.save(stream, "JPEG" if suffix == ".jpg" else "PNG", quality=92)
    for number in range(count):
        data = plain[number % len(plain)].getvalue()
        if suffix == ".png":
            chunk = io.BytesIO()
            info = PngImagePlugin.PngInfo()
            info.add_text("parameters", INFOTEXT.format(number=number))
            Image.new("L", (1, 1)).save(chunk, "PNG", pnginfo=info)
            text = chunk.getvalue()[33:]  # behind the header
            data = data[:33] + text[: 12 + int.from_bytes(text[:4], "big")] + data[33:]
        (folder / f"{number:05}{suffix}").write_bytes(data)
    return folder


def decoding(files: list[Path]) -> float:
    """Pictures a core-second that Pillow alone opens and decodes."""
    from PIL import Image

    start = time.process_time()
    for path in files:
        with Image.open(path) as image:
            image.load()
    return len(files) / (time.process_time() - start)


def collecting(folder: Path, work: Path, workers: int) -> tuple[float, float]:
    """The whole step, manifest and choice too: pictures a core-second, pictures a second."""
    manifest = Manifest(work)
    wall, core = time.perf_counter(), time.process_time()
    summary = collect(manifest, [folder], CollectSettings(), workers=workers)
    core, wall = time.process_time() - core, time.perf_counter() - wall
    return summary.outcome.done / core, summary.outcome.done / wall


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """{figure: {"median", "low", "high"}}, low and high being quartiles; prints the table."""
    count, turns = (96, 3) if quick else (384, 7)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        kinds = {
            "PNG as diffusion models draw": write_pictures(folder / "natural", natural, count, ".png"),
            "PNG of pure noise": write_pictures(folder / "noise", noise, count, ".png"),
            "JPEG as diffusion models draw": write_pictures(folder / "jpeg", natural, count, ".jpg"),
        }
        for turn in range(turns + 1):
            for kind, seconds in _turn(kinds, folder, turn):
                if turn:  # the first one warms up
                    rates.setdefault(kind, []).append(seconds)
        size = {kind: _mean_size(path) for kind, path in kinds.items()}
    decoder = "kornia-rs" if find_decoder() else "Pillow; kornia-rs is not installed"
    print(f"collect: {count} files of {SIDE} x {SIDE} in the system's file cache, {os.cpu_count()} cores")
    print(f"  {QUICK_THREADS} threads or fewer decode PNG with {decoder}; more of them with Pillow")
    for kind in kinds:
        print(f"  {kind}, {size[kind] / 1000:.0f} KB")
        for what in ROWS:
            print(f"    {what:42} {quartiles(rates[f'{kind}: {what}'])}")
    first = next(iter(kinds))
    return {"collect_images_per_second_per_core": spread(rates[f"{first}: {ONE}"])}


def _turn(kinds: dict[str, Path], folder: Path, turn: int) -> Iterator[tuple[str, float]]:
    for kind in list(kinds) if turn % 2 else list(kinds)[::-1]:
        files, work = sorted(kinds[kind].iterdir()), folder / f"work-{turn}-{kinds[kind].name}"
        yield f"{kind}: {ONE}", collecting(kinds[kind], work / "one", 1)[0]
        yield f"{kind}: {MANY}", collecting(kinds[kind], work / "many", QUICK_THREADS + 1)[0]
        yield f"{kind}: {ALL}", collecting(kinds[kind], work / "all", 0)[1]
        yield f"{kind}: {ALONE}", decoding(files[: len(files) // 2])


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def quartiles(values: list[float]) -> str:
    found = spread(values)
    return f"median {found['median']:.1f}, quartiles {found['low']:.1f}-{found['high']:.1f}"


def _mean_size(folder: Path) -> float:
    return statistics.mean(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit("run benchmarks/surd_builder.py")
