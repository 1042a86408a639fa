"""A run's memory does not grow with its data set: rows stay on disk."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sur_core.cache import LatentCache, TextCache
from sur_core.diffusers_backend import open_backend
from sur_core.knowledge import KnowledgeSource, append_vector, create_rows, to_metadata
from sur_core.training_config import TrainingConfig
from sur_core.training_data import cache_settings
from tests.tiny_models import make_tiny
from tests.training_runs import KNOWLEDGE_WIDTH, flags

ROOT = Path(__file__).resolve().parents[1]
MEASURE = """
import resource, sys
import psutil
from train.__main__ import main
code = main(sys.argv[1:])
print("resident", psutil.Process().memory_info().rss)
from pathlib import Path
from sur_core.row_store import RowFile
for path in Path(sys.argv[-1]).rglob("*.safetensors"):
    with RowFile.open(path) as rows:
        for row in range(rows.count):
            rows.read(row)
print("after_reading_all", psutil.Process().memory_info().rss)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def synthetic_run(folder: Path, model: Path, count: int) -> dict:
    """A data set of ``count`` samples whose caches hold invented rows: no encoder has to run."""
    data, settings = (
        folder / "data",
        {"pretrained_model_name_or_path": str(model), "data": str(folder / "data")},
    )
    settings |= {"output_dir": str(folder / "run"), "vectors": str(folder / "vectors.safetensors")}
    data.mkdir(parents=True)
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    with open(data / "metadata.jsonl", "w") as rows:
        for n in range(count):
            (data / f"{n}.png").write_bytes(file.getvalue() + n.to_bytes(4, "little"))
            row = {
                "file_name": f"{n}.png",
                "text": f"picture number {n} of a cat",
                "prompt": f"{n}, " + "x" * 250,
            }
            rows.write(json.dumps(row) + "\n")
    fill_caches(TrainingConfig(**settings), count, file.getvalue())
    prompts = [f"picture number {n} of a cat" for n in range(count)]
    metadata = to_metadata(KnowledgeSource("none", 1, 1, KNOWLEDGE_WIDTH, "skip"), dtype="fp16")
    with create_rows(Path(settings["vectors"]), prompts, KNOWLEDGE_WIDTH, "fp16", metadata) as vectors:
        for n, prompt in enumerate(prompts):
            append_vector(vectors, prompt, np.full(KNOWLEDGE_WIDTH, n % 7, np.float32), 5, prompt)
        vectors.flush()
    return settings


def fill_caches(config: TrainingConfig, count: int, file: bytes) -> None:
    backend = open_backend(config.pretrained_model_name_or_path)
    settings = cache_settings(config, backend)
    texts = TextCache(config.cache_folder, backend, settings, "p0")
    latents = LatentCache(config.cache_folder, backend, settings, "p0")
    draw = np.random.default_rng(0)
    for cache in (texts, latents):
        row = {
            name: draw.random(field.shape).astype(field.numpy)
            if field.dtype != "U8"
            else np.ones(77, np.uint8)
            for name, field in cache.rows.fields.items()
        }
        for n in range(count):
            if cache is texts:
                keys = [cache.key(f"picture number {n} of a cat"), cache.key(f"{n}, " + "x" * 250)]
            else:
                content = file + n.to_bytes(4, "little")
                keys = [cache.key(blake2b(content, digest_size=16).digest())]
            for key in keys:
                cache.rows.append(key, row)
        cache.rows.flush()
        cache.rows.close()


def measure(settings: dict) -> dict[str, int]:
    run = {
        "full_steps": 400,
        "train_batch_size": 8,
        "heads": 4,
        "feedforward": 32,
        "checkpointing_steps": 400,
    }
    run |= {"device": "cpu", "validation_steps": 200, "logging_steps": 50}
    cache = Path(settings["output_dir"]).parent / "sur_cache"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "fit", *flags(**settings, **run, cache_dir=cache)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "to cache: 0 prompts" in done.stdout and "images:" not in done.stderr, "nothing was to encode"
    return {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()[-3:]}


def test_sixty_thousand_samples_take_hardly_more_memory_than_a_thousand(tmp_path):
    pytest.importorskip("psutil", reason="psutil measures the resident set")
    model = make_tiny(tmp_path / "model")
    few = measure(synthetic_run(tmp_path / "few", model, 1_000))
    many = measure(synthetic_run(tmp_path / "many", model, 60_000))
    growth = {name: (many[name] - few[name]) / 1e6 for name in few}
    print(f"resident set grew by {growth['resident']:.0f} MB, its peak by {growth['peak']:.0f} MB")
    assert growth["resident"] < 100, growth
    # Hundreds of megabytes of rows, each read once: pages of a mapped file would have stayed.
    read = sum(path.stat().st_blocks * 512 for path in (tmp_path / "many/sur_cache").rglob("*.safetensors"))
    assert read > 500e6 and growth["after_reading_all"] < 100, (read, growth)
