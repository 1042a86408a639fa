"""Training does what it is for: each loss falls when the adapter is trained on it.

With random models of every family, and in the small world, where prompts have a meaning.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from small_world.dataset import test_prompts
from sur_core import adapt, load_adapter
from sur_core.diffusers_backend import open_backend
from sur_core.surd import open_surd
from tests.training_runs import flags, make_run, make_small_world_run
from train.__main__ import main


@pytest.fixture(scope="module", params=["sd1", "sdxl", "small world"])
def world(request, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "small world":
        settings = make_small_world_run(folder, rows=8)
    else:
        settings = make_run(folder, request.param, pictures=8)
    settings |= {"eta": 1.0, "validation_share": 0.0, "dropout": 0.0, "train_batch_size": 8}
    return settings | {"validation_steps": 0, "logging_steps": 1, "learning_rate": 3e-3}


def column(folder: Path, name: str) -> list[float]:
    with open(folder / "log.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def validated(folder: Path) -> tuple[float, float]:
    """Eq. 8 on the rows held out, at the end of a run: with the adapter, and without."""
    with open(folder / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return float(last["validation_simple"]), float(last["validation_simple_without_adapter"])


def distances(settings: dict, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """How far simple prompts are from their complex ones, as the base model encodes them, and as adapted."""
    backend = open_backend(str(settings["pretrained_model_name_or_path"]))
    simple, complex = (
        torch.cat(list(backend.encode_text(list(prompts)).hidden.values()), -1)
        for prompts in zip(*pairs, strict=True)
    )
    adapted = adapt(load_adapter(Path(settings["output_dir"]) / "adapter.safetensors"), simple, 1.0)
    return (simple - complex).square().mean().item(), (adapted - complex).square().mean().item()


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
    pairs = [(sample.simple, sample.complex) for sample in open_surd(world["data"])]
    before, after = distances(settings, pairs)
    assert after < 0.8 * before, (before, after)


@pytest.mark.parametrize("world", ["sd1", "sdxl"], indirect=True)
def test_the_diffusion_loss_falls_below_that_of_the_model_alone(world, tmp_path):
    settings = {**world, "output_dir": tmp_path / "run", "lambda_llm": 0, "lambda_cp": 0}
    settings |= {"validation_share": 0.3, "validation_steps": 60, "random_flip": False}
    assert main(["fit", *flags(**settings, align_steps=0, full_steps=60)]) == 0
    with_adapter, without = validated(tmp_path / "run")
    assert with_adapter < without


def test_sentences_never_seen_come_nearer_to_what_they_mean(tmp_path):
    """In the small world it is words that are learnt, not rows: other combinations, other sentence forms.
    And in pictures of other rows the noise is then told better from plain prompts than by the base alone.
    """
    settings = make_small_world_run(tmp_path, rows=400) | {"eta": 1.0, "dropout": 0.0}
    settings |= {"lambda_llm": 0, "query_in_value": True, "cp_loss": "kl"}
    align = {"lambda_cp": 1, "align_steps": 300, "full_steps": 0}
    assert main(["fit", *flags(**settings, **align)]) == 0
    prompts = test_prompts(20)
    before, after = distances(settings, [(prompt.prompt, prompt.complex) for prompt in prompts])
    assert after < 0.6 * before, (before, after)
    settings |= {"init_from": tmp_path / "run/adapter.safetensors", "output_dir": tmp_path / "full"}
    settings |= {"learning_rate": 1e-3, "random_flip": False, "validation_steps": 200}
    assert main(["fit", *flags(**settings, lambda_cp=0.01, align_steps=0, full_steps=200)]) == 0
    with_adapter, without = validated(tmp_path / "full")
    assert with_adapter < 0.97 * without, (with_adapter, without)
