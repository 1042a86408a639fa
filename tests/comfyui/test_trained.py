"""From a data set to a changed picture: the real commands train an adapter that real ComfyUI then uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sur_core import read_passport
from tests.comfyui.test_images import Pictures
from tests.tiny_models import make_tiny, make_tiny_llm
from tests.training_runs import flags, make_pictures

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "train", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a run: check, vectors, cache, fit, each as a user types it, at SD 1.5's text width."""
    folder = tmp_path_factory.mktemp("training")
    model = make_tiny(folder / "model", text_width=768)
    llm = make_tiny_llm(folder / "llm")
    data = make_pictures(folder / "data", 12)
    (data / "broken.png").write_bytes((data / "000.png").read_bytes()[:100])
    with open(data / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "broken.png", "text": "a cat", "prompt": "cat, masterpiece"}\n')

    assert "broken.png" in run("check", data) + (data / "quarantine.jsonl").read_text()
    run("vectors", data, folder / "vectors.safetensors", "--llm", llm, "--layer", -2)
    settings = {
        "pretrained_model_name_or_path": model,
        "data": data,
        "vectors": folder / "vectors.safetensors",
        "output_dir": folder / "run",
        "device": "cpu",
        "train_batch_size": 4,
        "align_steps": 3,
        "full_steps": 6,
        "learning_rate": 3e-3,
        "title": "tiny",
    }
    assert "images: 12 of this data set, 12 in all" in run("cache", *flags(**settings))
    planned = run("fit", "--dry-run", *flags(**settings))
    assert "to cache: 0 images" in planned and not (folder / "run").exists()
    run("fit", *flags(**settings), *flags(sample_prompts=["a red cat"], sample_inference_steps=2))
    return folder / "run"


def test_the_run_leaves_everything_it_promises(trained):
    passport = read_passport(trained / "adapter.safetensors")
    assert (passport.family, passport.steps, passport.title, passport.eta) == ("sd1", 9, "tiny", 0.1)
    assert (passport.base_model, passport.llm_name, passport.llm_layer) == ("model", "llm", 3)
    assert passport.dataset_size == 12 and passport.dataset_hash and passport.w0_seed == 0
    files = "adapter-best.safetensors config.toml log.csv curves.png samples/step-000009.png"
    for name in files.split():
        assert (trained / name).stat().st_size > 0, name


def test_the_trained_file_loads_in_comfyui_and_changes_the_picture(server, trained):
    target = server.base / "models" / "sur_adapters" / "trained.safetensors"
    target.write_bytes((trained / "adapter.safetensors").read_bytes())
    pictures = Pictures(server, "sur_test_sd15.safetensors")
    plain = pictures.encode(pictures.clip)
    pictures.draw("trained_plain", plain)
    for eta in (0.0, 1.0):
        adapter = pictures.adapter("trained.safetensors")
        pictures.draw(f"trained_{eta}", pictures.on_conditioning(plain, adapter, eta))
    drawn = pictures.run()
    assert np.array_equal(drawn["trained_0.0"], drawn["trained_plain"])
    assert not np.array_equal(drawn["trained_1.0"], drawn["trained_plain"])
