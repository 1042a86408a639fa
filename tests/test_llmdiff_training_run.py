"""Whole LLMDiff runs by the real command: they learn, go on to the bit after a stop, tell what is wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sur_core import new_adapter, save_adapter
from sur_core.llmdiff import (
    LayerShape,
    LLMDiffConfig,
    load_llmdiff,
    new_llmdiff_adapter,
    objective,
    save_llmdiff,
)
from sur_core.llmdiff.checkpoint import read_llmdiff_passport
from sur_core.llmdiff.training import LLMDiffSystem
from sur_core.training_config import TrainingConfig
from sur_core.training_data import open_training_data
from tests.llmdiff_models import WIDTH, write_llm
from tests.llmdiff_runs import llmdiff_settings, open_base, tiny_llm
from tests.small_data import small_run, tiny_model
from tests.test_training_resume import (
    ENVIRONMENT,
    ROOT,
    TWO_PROCESSES,
    assert_close,
    assert_same_run,
    python,
    wait_for_steps,
)
from tests.training_runs import flags
from train.__main__ import main


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    settings = llmdiff_settings(
        tmp_path_factory.mktemp("world"), count=16, full_steps=18, validation_share=0.2
    )
    settings |= {"checkpointing_steps": 3, "logging_steps": 4, "validation_steps": 5, "ema_decay": 0.9}
    settings |= {"lr_scheduler": "cosine", "lr_warmup_steps": 3, "llmdiff_prompt": "both"}
    return settings | {"prompt_dropout": 0.2}


@pytest.fixture(scope="module")
def uninterrupted(world) -> Path:
    folder = Path(world["output_dir"]).with_name("whole")
    done = python("train", "fit", *flags(**{**world, "output_dir": folder}))
    assert done.returncode == 0, done.stderr
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with open(Path(folder) / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- going on -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_and_still_the_same_to_the_bit(world, uninterrupted, tmp_path):
    settings = {**world, "output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    harness = ("tests.kill_harness", 12, 5, tmp_path, "--")
    done = python(*harness, "fit", *flags(**settings), timeout=500, KILL_SECONDS="1")
    log = (tmp_path / "killed.log").read_text()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["code"] == 0, log
    assert report["random"] + report["writing"] == 12 and report["writing"] >= 5, report
    assert "going on after step" in log
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_signal_saves_and_the_same_command_goes_on(world, uninterrupted, tmp_path):
    arguments = flags(**{**world, "output_dir": tmp_path / "run", "checkpointing_steps": 1000})
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "fit", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_steps(tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert load_llmdiff(tmp_path / "run/adapter.safetensors")
    again = python("train", "fit", *arguments)
    assert again.returncode == 0 and "going on after step" in again.stdout, again.stderr
    assert_same_run(tmp_path / "run", uninterrupted)


def test_two_processes_with_half_the_batch_give_the_same_result(world, tmp_path):
    settings = {**world, "full_steps": 6, "train_batch_size": 4, "cache_dtype": "fp32"}
    two = {**settings, "train_batch_size": 2, "output_dir": tmp_path / "two", "cache_dir": tmp_path / "cache"}
    done = python(*TWO_PROCESSES, "-m", "train", "fit", *flags(**two))
    assert done.returncode == 0, done.stderr
    assert main(["fit", *flags(**{**settings, "output_dir": tmp_path / "one"})]) == 0
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_dropout": 0.3}, "prompt_dropout was 0.2, now is 0.3"),
        ({"llmdiff_clip": "keep"}, "llmdiff_clip was 'drop', now is 'keep'"),
        ({"learn_block_weights": False}, "learn_block_weights was True"),
        ({"llm": "other"}, "the language model changed"),
        ({"llm_dtype": "bf16"}, "llm_dtype was 'auto'"),
    ],
)
def test_a_changed_setting_or_language_model_is_refused_in_words(
    world, uninterrupted, tmp_path, change, words, capsys
):
    if change == {"llm": "other"}:
        change = {"llm": write_llm(tmp_path / "llm", rms_norm_eps=1e-4)}
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    before = (folder / "state.safetensors").read_bytes()
    assert main(["fit", *flags(**{**world, "output_dir": folder, **change})]) == 1
    assert words in capsys.readouterr().err
    assert (folder / "state.safetensors").read_bytes() == before


def test_restart_begins_anew_and_a_moved_language_model_is_the_same(world, uninterrupted, tmp_path, capsys):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    moved = shutil.copytree(tiny_llm(), tmp_path / "elsewhere")
    settings = {**world, "output_dir": folder, "llm": moved}
    assert main(["fit", *flags(**settings)]) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert main(["fit", "--restart", *flags(**{**settings, "full_steps": 2})]) == 0
    assert read_llmdiff_passport(folder / "adapter.safetensors").steps == 2


# --- what comes out -----------------------------------------------------------------------------------------


def test_the_log_the_passport_and_the_best_adapter(world, uninterrupted):
    found = rows(uninterrupted)
    assert [int(row["step"]) for row in found] == [4, 5, 8, 10, 12, 15, 16, 18]
    for row in found:
        assert row["loss"] == row["simple"] and float(row["llm"]) == float(row["cp"]) == 0
    validated = [row for row in found if row["validation_loss"]]
    assert [int(row["step"]) for row in validated] == [5, 10, 15, 18]
    assert len({row["validation_simple_without_adapter"] for row in validated}) == 1
    best = min(validated, key=lambda row: float(row["validation_loss"]))
    assert read_llmdiff_passport(uninterrupted / "adapter-best.safetensors").steps == int(best["step"])
    passport = read_llmdiff_passport(uninterrupted / "adapter.safetensors")
    assert (passport.steps, passport.dataset_size, passport.dataset_name) == (18, 16, "data")
    assert passport.llm_name == Path(world["llm"]).name and len(passport.llm_identity) == 32
    assert passport.base_model == tiny_model().name and passport.created
    assert passport.extra["llmdiff_training.prompt_dropout"] == "0.2"
    assert passport.extra["llmdiff_training.llm_dtype"] == "fp32"
    state = load_file(uninterrupted / "state.safetensors")
    saved = load_llmdiff(uninterrupted / "adapter.safetensors").state_dict()
    assert all(torch.equal(saved[name], state[f"ema.{name}"]) for name in saved), "the running mean is saved"
    first = _first(world)
    moved = {name for name in saved if not torch.equal(state[f"adapter.{name}"], first[name])}
    assert moved == set(saved), "everything has learnt"


def _first(world) -> dict[str, torch.Tensor]:
    config = TrainingConfig(**world)
    return LLMDiffSystem().first_adapter(config, open_training_data(config), open_base(config)).state_dict()


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("sd1", {}),
        ("sd2", {}),
        ("sdxl", {}),
        ("sd1", {"learn_block_weights": False, "llmdiff_clip": "keep", "llmdiff_normalize": "rms"}),
    ],
)
def test_the_loss_falls_and_below_that_of_the_base_model(tmp_path, family, settings):
    """That of samples learnt by heart, and with fixed noise that of samples held out."""
    settings = llmdiff_settings(tmp_path, family, count=8, train_batch_size=4, **settings)
    settings |= {"validation_share": 0.3, "validation_steps": 10, "logging_steps": 10, "learning_rate": 3e-3}
    assert main(["fit", *flags(**settings, full_steps=60, random_flip=False)]) == 0
    found = rows(tmp_path / "run")
    trained = [float(row["loss"]) for row in found]
    assert sum(trained[3:]) / 3 < 0.95 * trained[0], trained
    held_out = [float(row["validation_simple"]) for row in found]
    assert held_out[-1] < held_out[0], held_out
    assert held_out[-1] < 0.95 * float(found[-1]["validation_simple_without_adapter"])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_sample_pictures_differ_by_the_adapter_alone(tmp_path, family, scale):
    settings = llmdiff_settings(tmp_path, family, count=4, full_steps=8, learning_rate=0.02)
    settings |= {"sample_prompts": ["a red cat", "two birds near the old house"], "sample_inference_steps": 3}
    settings |= {"sample_guidance_scale": scale, "validation_steps": 0}
    assert main(["fit", *flags(**settings)]) == 0
    sheet = np.asarray(Image.open(tmp_path / "run/samples/step-000008.png")).astype(int)
    width, top = sheet.shape[1] // 2, 44
    for place in range(2):
        left, right = (sheet[top + place * 86 :][:64, x : x + 64] for x in (0, width))
        assert left.std() > 10 and np.abs(left - right).mean() > 1
    first = sheet[top:][:64, :64]
    again = {**settings, "output_dir": tmp_path / "again", "learning_rate": 1e-20}
    assert main(["fit", *flags(**again)]) == 0
    other = np.asarray(Image.open(tmp_path / "again/samples/step-000008.png")).astype(int)
    assert (other[top:][:64, :64] == first).all(), "without the adapter it is the base model's picture"


def test_gradient_checkpointing_gives_the_same_adapter(tmp_path):
    settings = llmdiff_settings(tmp_path, count=6, full_steps=4)
    assert main(["fit", *flags(**settings)]) == 0
    saving = {**settings, "gradient_checkpointing": True, "output_dir": tmp_path / "saving"}
    assert main(["fit", *flags(**saving)]) == 0
    plain, saved = (load_file(tmp_path / name / "adapter.safetensors") for name in ("run", "saving"))
    for name, weight in plain.items():
        torch.testing.assert_close(saved[name], weight, rtol=1e-4, atol=1e-6)


def test_training_goes_on_from_a_given_adapter(world, uninterrupted, tmp_path):
    started = uninterrupted / "adapter.safetensors"
    second = {**world, "output_dir": tmp_path / "run", "init_from": started, "ema_decay": 0, "full_steps": 1}
    # A learning rate this small changes nothing that float32 can hold.
    assert main(["fit", *flags(**{**second, "learning_rate": 1e-20, "adam_weight_decay": 0})]) == 0
    before, after = load_file(started), load_file(tmp_path / "run/adapter.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    passport = read_llmdiff_passport(tmp_path / "run/adapter.safetensors")
    assert passport.extra["llmdiff_training.init_from"] == "adapter.safetensors" and passport.steps == 1


def test_info_prints_adapters_of_both_kinds(uninterrupted, tmp_path, capsys):
    save_adapter(new_adapter("sd1"), tmp_path / "sur.safetensors")
    assert main(["info", str(uninterrupted / "adapter.safetensors"), str(tmp_path / "sur.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "reads: llama (3 blocks, 32 wide)" in said and "SD 1.x" in said


def test_the_plan_says_what_a_run_will_take_before_anything_is_written(world, tmp_path, capsys):
    folder = Path(world["data"]).parent
    settings = llmdiff_settings(folder) | {"output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    assert main(["fit", "--dry-run", *flags(**settings)]) == 0
    said = capsys.readouterr().out
    assert "language model: llama, 3 blocks, 32 wide" in said and "leaves memory before the UNet" in said
    assert "to cache: up to 17 encodings" in said and "stage full: 5,000 steps" in said
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


# --- words --------------------------------------------------------------------------------------------------


def refusal(capsys, settings: dict) -> str:
    capsys.readouterr()
    assert main(["fit", *flags(**settings)]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and not (Path(settings["output_dir"]) / "state.safetensors").exists()
    return said[said.rindex("error: ") :]


@pytest.fixture
def settings(world, tmp_path) -> dict:
    folder = Path(world["data"]).parent
    return llmdiff_settings(folder) | {"output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"llm": ""}, "llm is not set"),
        ({"align_steps": 3}, "LLMDiff has no stage align"),
        ({"eta": 0.3}, "eta means nothing with system = 'llmdiff'"),
        ({"lambda_cp": 0.5, "depth": 3}, "depth, lambda_cp mean nothing with system = 'llmdiff'"),
        ({"vectors": "v.safetensors"}, "vectors means nothing"),
        ({"llm_max_tokens": 8}, "llm_max_tokens is 8. Shorten the prompt or raise llm_max_tokens"),
        ({"llm": "/nowhere/llm"}, "/nowhere/llm: no such folder"),
        ({"system": "sur"}, "llm means nothing with system = 'sur'. Set system to 'llmdiff'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, capsys, change, words):
    assert words in refusal(capsys, settings | change)


def test_losses_of_sur_may_be_turned_off(settings):
    assert main(["fit", "--dry-run", *flags(**settings, lambda_llm=0, lambda_cp=0)]) == 0


def test_a_language_model_that_is_none_is_refused(settings, tmp_path, capsys):
    from transformers import BertConfig, BertModel

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(**size)).save_pretrained(tmp_path / "bert")
    assert "expected a decoder-only language model" in refusal(capsys, settings | {"llm": tmp_path / "bert"})
    bare = shutil.copytree(tiny_llm(), tmp_path / "bare")
    for path in bare.glob("token*"):
        path.unlink()
    assert "found no tokenizer beside the model" in refusal(capsys, settings | {"llm": bare})
    lost = shutil.copytree(tiny_llm(), tmp_path / "lost")
    for path in lost.glob("*.safetensors"):
        path.unlink()
    assert "could not read its weights" in refusal(capsys, settings | {"llm": lost})


def test_an_adapter_to_start_from_must_fit(settings, uninterrupted, tmp_path, capsys):
    start = settings | {"init_from": tmp_path / "given.safetensors"}

    def given(width=WIDTH, blocks=3, context=32, layers=None, g=1.0, **more):
        layers = layers or load_llmdiff(uninterrupted / "adapter.safetensors").config.layers
        config = LLMDiffConfig(width, blocks, context, layers, **more)
        adapter = new_llmdiff_adapter(config, llm_name="llama")
        adapter.block_weights.data.fill_(g)
        save_llmdiff(adapter, tmp_path / "given.safetensors")

    given(context=768)
    assert "given.safetensors: made for a UNet (4 cross-attention layers, 768 wide)" in refusal(capsys, start)
    given(layers=(LayerShape(16, 2, 8),))
    assert "made for a UNet (1 cross-attention layers" in refusal(capsys, start)
    given(width=64)
    assert "it reads llama (3 blocks, 64 wide), found llama (3 blocks, 32 wide)" in refusal(capsys, start)
    given(clip="keep")
    assert "llmdiff_clip = 'keep', the settings say 'drop'" in refusal(capsys, start)
    given(g=0.5)
    assert "its block weights g are not 1" in refusal(capsys, start | {"learn_block_weights": False})
    save_adapter(new_adapter("sd1"), tmp_path / "given.safetensors")
    assert "a SUR adapter" in refusal(capsys, start)


def test_a_sur_run_cannot_start_from_an_llmdiff_adapter(uninterrupted, tmp_path, capsys):
    config = small_run(tmp_path, count=3, init_from=str(uninterrupted / "adapter.safetensors"))
    given = {name: getattr(config, name) for name in ("pretrained_model_name_or_path", "data", "vectors")}
    said = refusal(capsys, {**given, "output_dir": tmp_path / "run", "init_from": config.init_from})
    assert "adapter.safetensors" in said and "LLMDiff" in said


def test_a_broken_sample_is_named(settings, capsys, monkeypatch):
    plain = objective.noise_error

    def poisoned(hidden, batch, backend, gamma):
        error = plain(hidden, batch, backend, gamma)
        hit = torch.tensor([number == 5 for number in batch.samples], device=error.device)
        return error if error.is_meta else torch.where(hit, torch.full_like(error, math.nan), error)

    monkeypatch.setattr(objective, "noise_error", poisoned)
    assert "NaN or infinite loss of 5.png" in refusal(capsys, settings)
