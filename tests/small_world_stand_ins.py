"""Stand-ins for the small world's models, random and tiny, and a whole demo run on them."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from small_world.dataset import test_prompts
from small_world.demo import Demo, DemoSettings
from small_world.places import Models
from sur_core.evaluation import write_prompts
from tests.evaluation_runs import clip_folder
from tests.tiny_models import make_tiny, make_tiny_llm

FIT = {
    "align-steps": 30,
    "full-steps": 4,
    "train-batch-size": 4,
    "feedforward": 32,
    "logging-steps": 1,
    "validation-steps": 10,
    "validation-share": 0.1,
    "device": "cpu",
}
_FILES = tempfile.TemporaryDirectory(prefix="small-world-")


@cache
def stand_in_models() -> Models:
    """The three models, written once; tests only read them."""
    models = Models(Path(_FILES.name) / "models")
    make_tiny(models.base)
    make_tiny_llm(models.llm, layers=2)
    shutil.copytree(clip_folder(), models.clip)
    return models


@cache
def demo_settings() -> DemoSettings:
    """Those of ``finished_demo``."""
    folder = Path(_FILES.name)
    write_prompts(folder / "prompts.jsonl", test_prompts(2))
    return DemoSettings(
        folder / "run",
        stand_in_models(),
        folder / "prompts.jsonl",
        rows=24,
        seeds=2,
        eta_seeds=1,
        steps=2,
        batch_size=12,
        references=1,
        fit=tuple(part for name, value in FIT.items() for part in (f"--{name}", str(value))),
    )


@cache
def finished_demo() -> tuple[Path, list[str]]:
    """The folder of a demo run to its end, and what it said; tests leave the folder as it was."""
    said = []
    assert Demo(demo_settings(), said.append, lambda *_: None).run() == 0
    return demo_settings().output_dir, said
