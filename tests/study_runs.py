"""Small studies: two models of random weights, some methods, an adapter, a judge and measures."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from sur_core.evaluation import Verdict, write_prompts
from sur_core.evaluation.study_config import load_study
from sur_core.evaluation.study_run import run_study
from tests.evaluation_quality_models import random_svr
from tests.evaluation_runs import PROMPTS, ChannelJudge, adapter_file, clip_folder
from tests.method_models import table
from tests.small_data import tiny_model

KINDS = ("none", "controlnet-canny", "sag")
MODELS = {"DM (1.5)": 0, "DM (cartoon)": 1}
FILES = ("study.json", "study.csv", "study.md")
JUDGE = "tests.study_runs:make_judge"


class CoinJudge(ChannelJudge):
    """Marks that are as good as drawn by lot, so that arms differ; of equal pictures they are equal."""

    name = "coin"

    def mark(self, pixels: np.ndarray, prompt) -> Verdict:
        return Verdict(bool(zlib.crc32(pixels.tobytes()) % 2), "heads or tails")


def make_judge() -> CoinJudge:
    return CoinJudge()


class KnownJudge(ChannelJudge):
    """Says what its marks depend on, as the judges of this library do, and writes down what it was asked."""

    name, note, about = "known", "not comparable with anything", {"model": "channel", "identity": "1"}

    def __init__(self):
        self.asked = 0

    def mark(self, pixels: np.ndarray, prompt) -> Verdict:
        self.asked += 1
        LOG.append(prompt.id)
        return super().mark(pixels, prompt)


LOG: list[str] = []


def make_known_judge() -> KnownJudge:
    return KnownJudge()


def document(folder: Path, **changes) -> dict:
    """What the file of a small study says; its prompts and measures' files are written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_prompts(folder / "prompts.jsonl", PROMPTS)
    model, ranges = random_svr(folder / "svr")
    return {
        "output_dir": "study",
        "prompts": "prompts.jsonl",
        "drawing": {
            "seeds": [3, 5],
            "steps": 2,
            "guidance_scale": 5.0,
            "batch_size": 4,
            "resamples": 200,
            "device": "cpu",
        },
        "judge": JUDGE,
        "models": [{"name": name, "path": str(tiny_model("sd1", seed))} for name, seed in MODELS.items()],
        "methods": [table(kind) for kind in KINDS],
        "adapters": [{"name": "SUR", "path": str(adapter_file()), "etas": [0.0, 0.5]}],
        "quality": {"clip": str(clip_folder()), "brisque": {"model": str(model), "ranges": str(ranges)}},
        **changes,
    }


def write_study_file(folder: Path, **changes) -> Path:
    path = folder / "study.toml"
    path.write_text(to_toml(document(folder, **changes)), "utf-8")
    return path


def to_toml(content: dict) -> str:
    lines, tables = [], []
    for name, value in content.items():
        if isinstance(value, dict):
            tables += [f"[{name}]", *(f"{key} = {_value(entry)}" for key, entry in value.items())]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                tables += [f"[[{name}]]", *(f"{key} = {_value(part)}" for key, part in entry.items())]
        elif value is not None:
            lines.append(f"{name} = {_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _value(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def study(folder: Path, **changes):
    """Run a small study in a folder; ``changes`` to its file."""
    options = {name: changes.pop(name) for name in ("report", "processes", "command") if name in changes}
    return run_study(load_study(write_study_file(folder, **changes)), **options)
