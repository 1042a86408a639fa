"""Small SURD data sets that tests write for themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from sur_core.surd_rows import Quarantined


def picture(seed: int = 0, size: tuple[int, int] = (12, 8)) -> Image.Image:
    """Noise of its own for each seed; size is (width, height)."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def row(name: str, simple: object = "a cat", complex: object = "a cat, fur, oil painting", **more) -> dict:
    return {"file_name": name, "text": simple, "prompt": complex, **more}


def write_lines(path: Path, rows: list) -> Path:
    """JSON lines; a row given as bytes or text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for entry in rows:
        text = entry if isinstance(entry, str | bytes) else json.dumps(entry)
        lines.append(text if isinstance(text, bytes) else text.encode())
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def write_folder(folder: Path, rows: list, images: dict[str, bytes] | None = None) -> Path:
    """The authors' layout; without ``images`` every row of the form {"file_name": ...} gets its own PNG."""
    write_lines(folder / "metadata.jsonl", rows)
    if images is None:
        names = [entry["file_name"] for entry in rows if isinstance(entry, dict)]
        images = {name: encoded(picture(seed)) for seed, name in enumerate(dict.fromkeys(names))}
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_parquet(path: Path, count: int = 3, start: int = 0, **columns) -> Path:
    """Rows with embedded images that all have the same name, as the hub stores them."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    numbers = range(start, start + count)
    table = {
        "image": [{"bytes": encoded(picture(n)), "path": "same.png"} for n in numbers],
        "text": [f"s{n}" for n in numbers],
        "prompt": [f"c{n}" for n in numbers],
        **columns,
    }
    kinds = {"image": ImageFeature()}
    features = Features({name: kinds.get(name, Value("string")) for name in table})
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(table, features=features).to_parquet(path)
    return path


def pairs(surd) -> list[tuple[str, str, str]]:
    return [(sample.name, sample.simple, sample.complex) for sample in surd]


def only_bad(surd) -> Quarantined:
    (entry,) = surd.quarantined
    return entry
