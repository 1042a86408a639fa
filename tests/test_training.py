"""The loop against the same training written out in plain arithmetic.

Batches and losses come from the feed and the objective, which have tests of their own; what is done with
them (clipping, AdamW, learning rates, stages, the running mean, validation, the log) is repeated here
by hand.
"""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sur_core import load_adapter, new_adapter
from sur_core.diffusers_backend import open_backend
from sur_core.feed import Feed
from sur_core.objective import Objective
from sur_core.training_config import TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from tests.training_runs import flags, make_run
from train.__main__ import main

SETTINGS = {
    "align_steps": 5,
    "full_steps": 6,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-3,
    "align_learning_rate": 5e-3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "adam_weight_decay": 0.3,
    "max_grad_norm": 0.02,
    "ema_decay": 0.6,
    "lambda_llm": 0.01,
    "lambda_cp": 0.3,
    "validation_steps": 2,
    "logging_steps": 1,
    "validation_share": 0.2,
    "cache_dtype": "fp32",
    "seed": 3,
}


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def run(request, tmp_path_factory):
    """Settings of a run that has been made, with the real command."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = make_run(folder, request.param, pictures=15) | SETTINGS
    assert main(["fit", *flags(**settings)]) == 0
    values = {k: str(v) if hasattr(v, "parts") else v for k, v in settings.items()}
    return TrainingConfig.from_values(values)


def by_hand(config: TrainingConfig) -> dict:
    """Train again: final weights, their running mean, a row of numbers for each step, the best validation."""
    data, backend = open_training_data(config), open_backend(config.pretrained_model_name_or_path)
    CacheBuilder(config, data, backend).open()
    shape = {"heads": config.heads, "feedforward": config.feedforward, "dropout": config.dropout}
    adapter = new_adapter(backend.widths, config.seed, **shape).train()
    objective, feed = Objective(config, backend.widths, data.knowledge.width), Feed(config, data, backend)
    weights = dict(adapter.named_parameters())
    first = {n: torch.zeros_like(w) for n, w in weights.items()}
    second, seen = {n: torch.zeros_like(w) for n, w in weights.items()}, dict.fromkeys(weights, 0)
    mean = {n: w.detach().clone() for n, w in weights.items()}
    rows, best, bare = [], None, None
    for step in range(11):
        stage, place, length = ("align", step, 5) if step < 5 else ("full", step - 5, 6)
        if step in (0, 5):
            best = None
        ((_, batches),) = feed.steps(stage, step, step + 1)
        losses = [objective(adapter, batch, backend) for batch in batches]
        columns = [torch.cat(parts).mean() for parts in zip(*losses, strict=True)]
        adapter.zero_grad()
        columns[3].backward()
        gradients = {n: w.grad for n, w in weights.items() if w.grad is not None}
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
        rate = 5e-3 if stage == "align" else 2e-3
        rate *= (place + 1) / 2 if place < 2 else 0.5 * (1 + math.cos(math.pi * (place - 2) / (length - 2)))
        for n, g in gradients.items():
            g, seen[n] = g * min(1.0, 0.02 / (norm + 1e-6)), seen[n] + 1
            first[n] = 0.8 * first[n] + 0.2 * g
            second[n] = 0.95 * second[n] + 0.05 * g * g
            moved = first[n] / (1 - 0.8 ** seen[n])
            moved = moved / ((second[n] / (1 - 0.95 ** seen[n])).sqrt() + 1e-8)
            weights[n].data = weights[n].data * (1 - rate * 0.3) - rate * moved
        share = min(0.6, (1 + step) / (10 + step))
        mean = {n: share * mean[n] + (1 - share) * weights[n].data for n in weights}
        row = dict(zip(("llm", "cp", "simple", "loss"), (float(c.detach()) for c in columns), strict=True))
        row |= {"step": step + 1, "gradient_norm": norm, "learning_rate": rate}
        if (step + 1) % 2 == 0 or step in (4, 10):
            trained = {n: w.data for n, w in weights.items()}
            for n in weights:
                weights[n].data = mean[n]
            with torch.no_grad():
                adapter.eval()
                found = [objective(adapter, b, backend) for b in feed.validation(stage)]
                llm, cp, simple, total = (float(torch.cat(p).mean()) for p in zip(*found, strict=True))
                if stage == "full" and bare is None:
                    alone = [objective(adapter, b, backend, eta=0.0).simple for b in feed.validation(stage)]
                    bare = float(torch.cat(alone).mean())
            adapter.train()
            for n in weights:
                weights[n].data = trained[n]
            row |= {"validation_loss": total, "validation_llm": llm, "validation_cp": cp}
            if stage == "full":
                row |= {"validation_simple": simple, "validation_simple_without_adapter": bare}
            if best is None or total < best[0]:
                best = total, step + 1
        rows.append(row)
    return {"weights": weights, "mean": mean, "rows": rows, "best": best}


@pytest.fixture(scope="module")
def expected(run) -> dict:
    return by_hand(run)


def close(found: float, wanted: float) -> bool:
    return found == pytest.approx(wanted, rel=2e-4, abs=1e-7)


def test_weights_and_their_running_mean(run, expected):
    state = load_file(f"{run.output_dir}/state.safetensors")
    for name, wanted in expected["weights"].items():
        assert torch.allclose(state[f"adapter.{name}"], wanted.data, rtol=1e-3, atol=2e-5), name
        assert torch.allclose(state[f"ema.{name}"], expected["mean"][name], rtol=1e-3, atol=2e-5), name
    saved = load_adapter(f"{run.output_dir}/adapter.safetensors").state_dict()
    assert all(torch.equal(saved[name], state[f"ema.{name}"]) for name in expected["mean"])


def test_every_number_of_the_log(run, expected):
    with open(f"{run.output_dir}/log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    for row, wanted in zip(rows, expected["rows"], strict=True):
        assert row["stage"] == ("align" if int(row["step"]) <= 5 else "full")
        for name, value in wanted.items():
            if name == "simple" and row["stage"] == "align":
                assert row[name] == ""
            else:
                assert close(float(row[name]), value), (row["step"], name, row[name], value)
        if "validation_loss" not in wanted:
            assert row["validation_loss"] == ""
    assert expected["rows"][0]["gradient_norm"] > 0.02, "clipping must be at work"


def test_the_best_adapter_is_that_of_the_smallest_validation_loss(run, expected):
    with safe_open(f"{run.output_dir}/state.safetensors", "pt") as file:
        counters = json.loads(file.metadata()["sur.training"])["counters"]
    loss, step = expected["best"]
    assert close(counters["best"], loss)
    assert load_adapter(f"{run.output_dir}/adapter-best.safetensors").passport.steps == step
