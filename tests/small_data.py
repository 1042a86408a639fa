"""What a tiny training run reads, made by the test: base models, images with prompts, knowledge vectors."""

from __future__ import annotations

import gc
import random
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sur_core.bundle import new_adapter
from sur_core.diffusers_backend import DiffusersBackend, open_backend
from sur_core.feed import Feed
from sur_core.knowledge import KnowledgeSource, append_vector, create_rows, to_metadata
from sur_core.training_config import TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from tests.surd_files import encoded, picture, row, write_folder
from tests.tiny_models import WORDS, make_tiny

PREDICTIONS = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}
LLM_WIDTH = 20
torch.set_num_threads(1)  # tensors so small are slower with more, most of all on a busy machine
_MODELS = tempfile.TemporaryDirectory(prefix="tiny-models-")


@cache
def tiny_model(family: str = "sd1", seed: int = 0) -> Path:
    """A base model's folder, made once for all tests; it must not be changed."""
    folder = Path(_MODELS.name) / f"{family}-{seed}"
    make_tiny(folder, family, prediction_type=PREDICTIONS[family], seed=seed)
    gc.freeze()  # backends collect garbage whenever they release a part; what imports made is none
    return folder


def tiny_backend(family: str = "sd1", **options) -> DiffusersBackend:
    return open_backend(tiny_model(family), **options)


def trainable(widths: dict[str, int], moved: bool = True, seed: int = 0, **architecture):
    """A small adapter in training; ``moved`` takes g away from its zero start, as training does."""
    shape = {"heads": 4, "feedforward": 24, **architecture}
    adapter = new_adapter(dict(widths), seed=seed, **shape).train().requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    for tower in adapter.towers.values():
        for weight in tower.g.parameters() if moved else ():
            weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[0] ** 0.5
    return adapter


def some_rows(count: int, repeated: int = 0) -> list[dict]:
    """Rows of a data set; the first ``repeated`` share one simple prompt."""
    drawn, words = random.Random(0), WORDS.split()
    rows = []
    for number in range(count):
        simple = " ".join(drawn.choices(words, k=5)) if number >= repeated else "a red cat"
        rows.append(row(f"{number}.png", simple, f"{simple}, {' '.join(drawn.choices(words, k=8))}"))
    return rows


def write_data(folder: Path, count: int = 12, repeated: int = 0) -> Path:
    """Images of several shapes with prompts, in the authors' layout."""
    rows = some_rows(count, repeated)
    # Every second image has an odd number of columns cut off, so that its mirrored crop lies elsewhere.
    sizes = [(65 + 2 * n, 64) if n % 2 else (70 + n, 64 + 9 * n % 31) for n in range(count)]
    images = {f"{n}.png": encoded(picture(n, size)) for n, size in enumerate(sizes)}
    return write_folder(folder, rows, images)


def write_vectors(path: Path, prompts: list[str], width: int = LLM_WIDTH) -> Path:
    """A random knowledge vector for each prompt."""
    prompts = list(dict.fromkeys(prompts))
    described = KnowledgeSource("tiny-llm", 2, 4, width, "skip")
    metadata = to_metadata(described, dtype="fp32")
    vectors = np.random.default_rng(0).standard_normal((len(prompts), width), dtype=np.float32)
    with create_rows(path, prompts, width, "fp32", metadata) as file:
        for prompt, vector in zip(prompts, vectors, strict=True):
            append_vector(file, prompt, vector, 5, prompt)
        file.flush()
    return path


def small_run(folder: Path, family: str = "sd1", count: int = 12, repeated: int = 0, **settings):
    """The settings of a run whose data and vectors are written to ``folder`` where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        write_data(folder / "data", count, repeated)
        prompts = [entry["text"] for entry in some_rows(count, repeated)]
        write_vectors(folder / "vectors.safetensors", prompts)
    return TrainingConfig(
        **{
            "pretrained_model_name_or_path": str(tiny_model(family)),
            "data": str(folder / "data"),
            "vectors": str(folder / "vectors.safetensors"),
            "output_dir": str(folder / "run"),
            "cache_dir": str(folder / "cache"),
            "validation_share": 0.0,
            "train_batch_size": 3,
            "heads": 4,
            "feedforward": 24,
            "dataloader_num_workers": 2,
            "device": "cpu",
            **settings,
        }
    )


def open_run(config: TrainingConfig, backend=None, process: tuple[int, int] = (0, 1)):
    """(data, backend) with caches built and opened, as ``fit`` has them."""
    data, backend = open_training_data(config), backend or open_backend(config.pretrained_model_name_or_path)
    builder = CacheBuilder(config, data, backend, process)
    builder.build(latents=bool(config.full_steps))
    builder.open(latents=bool(config.full_steps))
    return data, backend


def open_feed(config: TrainingConfig, process: tuple[int, int] = (0, 1)) -> Feed:
    data, backend = open_run(config)
    return Feed(config, data, backend, process=process)
