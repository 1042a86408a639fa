"""Training does what it is for: each loss falls when the adapter is trained on it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from sur_core import adapt, load_adapter
from sur_core.diffusers_backend import open_backend
from sur_core.surd import open_surd
from tests.training_runs import flags, make_run
from train.__main__ import main


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def world(request, tmp_path_factory) -> dict:
    settings = make_run(tmp_path_factory.mktemp(request.param), request.param, pictures=8)
    settings |= {"eta": 1.0, "validation_share": 0.0, "dropout": 0.0, "train_batch_size": 8}
    return settings | {"validation_steps": 0, "logging_steps": 1, "learning_rate": 3e-3}


def column(folder: Path, name: str) -> list[float]:
    with open(folder / "log.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_the_language_model_is_distilled_into_the_query(world, tmp_path):
    settings = {**world, "output_dir": tmp_path / "run", "lambda_cp": 0, "lambda_llm": 1}
    assert main(["fit", *flags(**settings, align_steps=60, full_steps=0)]) == 0
    losses = column(tmp_path / "run", "llm")
    assert losses[-1] < 0.5 * losses[0]


def test_simple_prompts_come_to_mean_what_complex_ones_do(world, tmp_path):
    """Measured from outside: distance of the embeddings that the finished file gives, without our losses."""
    settings = {**world, "output_dir": tmp_path / "run", "lambda_llm": 0, "lambda_cp": 1, "cp_loss": "mse"}
    settings["learning_rate"] = 6e-3
    assert main(["fit", *flags(**settings, align_steps=140, full_steps=0)]) == 0
    backend = open_backend(world["pretrained_model_name_or_path"])
    samples = list(open_surd(world["data"]))
    simple, complex = (
        torch.cat(list(backend.encode_text(prompts).hidden.values()), -1)
        for prompts in ([s.simple for s in samples], [s.complex for s in samples])
    )
    adapted = adapt(load_adapter(tmp_path / "run" / "adapter.safetensors"), simple, 1.0)
    before, after = (simple - complex).square().mean(), (adapted - complex).square().mean()
    assert after < 0.8 * before, (before, after)


def test_the_diffusion_loss_falls_below_that_of_the_model_alone(world, tmp_path):
    settings = {**world, "output_dir": tmp_path / "run", "lambda_llm": 0, "lambda_cp": 0}
    settings |= {"validation_share": 0.3, "validation_steps": 60, "random_flip": False}
    assert main(["fit", *flags(**settings, align_steps=0, full_steps=60)]) == 0
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["validation_simple"]) < float(last["validation_simple_without_adapter"])
