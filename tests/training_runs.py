"""Small training runs for tests: a tiny base model, pictures, prompts, vectors, and flags of the command."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from small_world.dataset import write_surd
from small_world.places import Models
from sur_core.knowledge import import_authors_vectors
from sur_core.surd import open_surd
from tests.tiny_models import WORDS, make_tiny
from train.__main__ import main

KNOWLEDGE_WIDTH = 24


def make_pictures(folder: Path, count: int, seed: int = 0, edges: tuple[int, int] = (64, 90)) -> Path:
    """A SURD folder in the authors' layout; pictures' edges are drawn from ``edges``."""
    draw, words, rows = random.Random(seed), WORDS.split(), []
    folder.mkdir(parents=True)
    for number in range(count):
        size = draw.randrange(*edges), draw.randrange(*edges)
        colors = np.random.default_rng([seed, number]).integers(0, 256, (2, 2, 3), np.uint8)
        Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
        rows.append({"file_name": f"{number:03}.png", **_prompts(draw, words, number)})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def _prompts(draw: random.Random, words: list[str], number: int) -> dict[str, str]:
    simple = f"{number} " + " ".join(draw.choices(words, k=4))
    return {"text": simple, "prompt": f"{simple}, " + " ".join(draw.choices(words, k=8))}


def write_vectors(path: Path, data: Path, width: int = KNOWLEDGE_WIDTH, seed: int = 0) -> Path:
    """Random vectors for the simple prompts of ``data``, in place of a language model's."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [sample.simple for sample in open_surd(data)]
    torch.save({p: torch.randn(width, generator=generator) for p in prompts}, path.with_suffix(".pt"))
    import_authors_vectors(path.with_suffix(".pt"), path, "random", 3)
    return path


def make_run(folder: Path, family: str = "sd1", pictures: int = 24, **model) -> dict:
    """Everything a run needs, and the settings that name it; every further setting can be changed."""
    make_tiny(folder / "model", family, **model)
    data = make_pictures(folder / "data", pictures)
    return {
        "pretrained_model_name_or_path": folder / "model",
        "data": data,
        "vectors": write_vectors(folder / "vectors.safetensors", data),
        "output_dir": folder / "run",
        "device": "cpu",
        "feedforward": 48,
        "heads": 4,
        "train_batch_size": 4,
        "validation_share": 0.15,
        "learning_rate": 1e-3,
        "dataloader_num_workers": 2,
    }


def make_small_world_run(folder: Path, rows: int) -> dict:
    """As :func:`make_run`, where words mean something: the small world's base model, pictures, prompts, and
    what its language model makes of them.
    """
    data, vectors, models = write_surd(folder / "data", rows), folder / "vectors.safetensors", Models()
    models.check()
    assert main(["vectors", str(data), str(vectors), "--llm", str(models.llm)]) == 0
    return {
        "pretrained_model_name_or_path": models.base,
        "data": data,
        "vectors": vectors,
        "output_dir": folder / "run",
        "device": "cpu",
        "feedforward": 128,
        "heads": 4,
        "train_batch_size": 8,
        "validation_share": 0.15,
        "learning_rate": 2e-3,
        "dataloader_num_workers": 1,
    }


def flags(**settings) -> list[str]:
    """Settings as the command line takes them."""
    found = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            found.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, (list, tuple)):
            found += [flag, *map(str, value)]
        else:
            found += [flag, str(value)]
    return found
