"""Adapter files: what is written is read back, whole or not at all, with all that the passport says."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sur_core import AdapterFileError, Passport, load_adapter, new_adapter, read_passport, save_adapter
from sur_core import atomic as atomic_module
from tests.helpers import embeddings, parameters_equal, random_adapter

ROOT = Path(__file__).resolve().parents[1]
FULL = {
    "base_model": "a/model",
    "eta": 0.25,
    "llm_name": "some/llm",
    "llm_layer": 39,
    "llm_width": 5120,
    "w0_seed": 12,
    "lambda_llm": 1e-5,
    "lambda_cp": 1e-5,
    "temperature": 1.0,
    "kl_direction": "paper",
    "cp_loss": "kl",
    "steps": 5000,
    "dataset_name": "SURD",
    "dataset_size": 26121,
    "dataset_hash": "abc",
    "created": "2026-01-02T03:04:05+00:00",
    "title": "Märchen",
    "parents": ({"name": "a", "weight": 0.5},),
    "extra": {"ss_author": "me", "sur.future_field": "kept"},
}


@pytest.fixture
def saved(tmp_path):
    adapter = random_adapter("sd1", passport=FULL)
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    return adapter, tmp_path / "adapter.safetensors"


def with_metadata(path: Path, copy: Path, more: dict) -> Path:
    with safe_open(path, framework="pt") as file:
        save_file(load_file(path), copy, metadata={**file.metadata(), **more})
    return copy


def small(**passport):
    return random_adapter("sd1", depth=1, feedforward=64, passport=passport)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_round_trip(tmp_path, family):
    adapter = random_adapter(family, passport=FULL, depth=1, heads=4, feedforward=96, token_mixing="none")
    save_adapter(adapter, tmp_path / "x" / "a.safetensors")
    loaded = load_adapter(tmp_path / "x" / "a.safetensors")
    assert parameters_equal(adapter, loaded)
    assert loaded.passport == adapter.passport == read_passport(tmp_path / "x" / "a.safetensors")
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_the_file_is_plain_safetensors_with_a_complete_passport(saved):
    _, path = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    for name in ("format_version", "config", "base_family", "base_width", *FULL.keys() - {"extra"}):
        assert metadata[f"sur.{name}"], name
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/sur-adapter"
    assert metadata["modelspec.sai_model_spec"] == "1.0.0" and metadata["modelspec.title"] == "Märchen"
    assert set(load_file(path)) == {f"clip_l.{key}" for key in saved[0].towers["clip_l"].state_dict()}


def test_the_same_adapter_gives_the_same_file(tmp_path):
    """Its hash stands in infotexts and on the card."""
    adapter = random_adapter("sdxl", depth=1, feedforward=8, passport={"created": "2026-01-01", "eta": 0.3})
    for number in range(8):  # safetensors would write its metadata in an order of its own each time
        save_adapter(adapter, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_saving_writes_a_date_and_leaves_the_adapter_alone(tmp_path):
    adapter = small()
    save_adapter(adapter, tmp_path / "a.safetensors", title="new name")
    assert adapter.passport == small().passport
    assert read_passport(tmp_path / "a.safetensors").created.startswith("20")
    assert read_passport(tmp_path / "a.safetensors").title == "new name"


def test_half_precision_files_load_as_float32(saved, tmp_path):
    tensors = {key: value.half() for key, value in load_file(saved[1]).items()}
    with safe_open(saved[1], framework="pt") as file:
        save_file(tensors, tmp_path / "half.safetensors", metadata=file.metadata())
    loaded = load_adapter(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_an_adapter_loaded_in_inference_mode_can_still_be_trained(saved):
    with torch.inference_mode():
        adapter = load_adapter(saved[1])
    adapter.train().requires_grad_(True)
    adapter.towers["clip_l"](embeddings(1, 77, 768)).c_llm.sum().backward()
    assert adapter.towers["clip_l"].g.weight.grad is not None


def test_an_adapter_in_use_does_not_follow_its_file(saved):
    adapter = load_adapter(saved[1])
    with open(saved[1], "r+b") as file:  # in place, as a copy tool may do
        file.seek(10_000)
        file.write(bytes(saved[1].stat().st_size - 10_000))
    assert parameters_equal(adapter, saved[0])


def test_only_safetensors_is_written(tmp_path):
    for name in ("a.pt", "a", "a.ckpt"):
        with pytest.raises(AdapterFileError, match="safetensors"):
            save_adapter(small(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    adapter = small()
    with torch.no_grad():
        adapter.towers["clip_l"].h2.bias[0] = float("nan")
    with pytest.raises(AdapterFileError, match="NaN"):
        save_adapter(adapter, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.safetensors"
    save_adapter(small(title="old"), path)
    before = path.read_bytes()

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "write":
        monkeypatch.setattr("sur_core.checkpoint.to_safetensors", full)
    else:
        monkeypatch.setattr(atomic_module.os, moment, full)
    with pytest.raises(OSError, match="a.safetensors"):
        save_adapter(small(title="new"), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


SAVE_WITHOUT_RIGHTS = """
import os, sys
sys.path.insert(0, sys.argv[2])
from sur_core import new_adapter, save_adapter
adapter = new_adapter("sd1", depth=1, feedforward=64)
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    save_adapter(adapter, sys.argv[1])
except PermissionError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users")
def test_a_read_only_folder_is_an_error_that_names_the_file(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    path = folder / "a.safetensors"
    child = subprocess.run(
        [sys.executable, "-c", SAVE_WITHOUT_RIGHTS, path, ROOT], capture_output=True, text=True
    )
    assert str(path) in child.stdout, child.stdout + child.stderr
    assert not list(folder.iterdir())


def test_killed_while_saving_the_file_is_always_whole(tmp_path):
    path = tmp_path / "a.safetensors"
    save_adapter(small(title="0"), path)
    loop = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from sur_core import *\n"
        "adapter = new_adapter('sd1', depth=1, feedforward=64)\n"
        "for n in range(1, 10**6):\n"
        "    save_adapter(adapter, sys.argv[1], title=str(n))\n"
        "    print(n, flush=True)\n"
    )
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-c", loop, path, ROOT], stdout=subprocess.PIPE)
        process.stdout.readline()  # saving has begun and goes on
        time.sleep(0.011 * attempt)
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.communicate()
        assert load_adapter(path).passport.widths == {"clip_l": 768}
    assert load_adapter(path).passport.title != "0", "nothing was saved; this test shows nothing"


def test_unknown_metadata_survives(saved, tmp_path):
    path = with_metadata(saved[1], tmp_path / "more.safetensors", {"ss_tag": "dog", "sur.future": "yes"})
    save_adapter(load_adapter(path), tmp_path / "again.safetensors")
    with safe_open(tmp_path / "again.safetensors", framework="pt") as file:
        assert file.metadata()["ss_tag"] == "dog" and file.metadata()["sur.future"] == "yes"


def test_eta_of_the_caller_fills_a_gap_only(saved, tmp_path):
    save_adapter(small(), tmp_path / "no_eta.safetensors")
    assert load_adapter(tmp_path / "no_eta.safetensors", eta=0.4).passport.eta == 0.4
    assert load_adapter(saved[1], eta=0.4).passport.eta == 0.25


def test_text_for_people_says_what_is_known():
    text = replace(random_adapter("sdxl").passport, **FULL).to_text()
    for words in ("Märchen", "SDXL, 2048 wide", "a/model", "0.25", "layer 39", "5,000", "26,121", "a x 0.5"):
        assert words in text, words
    assert "None" not in new_adapter("sd1").passport.to_text()


@pytest.mark.parametrize(
    "fields",
    [
        {
            "eta": np.float64(0.1),
            "lambda_llm": np.float32(0.5),
            "steps": np.int64(3),
            "llm_layer": np.int8(-1),
        },
        {"eta": torch.tensor(0.25), "temperature": 1, "w0_seed": True},
        {"parents": [{"name": "a", "weight": np.float32(0.5)}], "extra": {"x": "y"}},
        {"title": "broken \udcff name"},
    ],
)
def test_whatever_is_saved_can_be_loaded(tmp_path, fields):
    save_adapter(small(), tmp_path / "a.safetensors", **fields)
    passport = load_adapter(tmp_path / "a.safetensors").passport
    assert passport == replace(small().passport, created=passport.created, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"lambda_llm": float("nan")},
        {"steps": 5000.5},
        {"steps": "many"},
        {"eta": "strong"},
        {"eta": 1.5},
        {"title": 3},
        {"extra": {"a": 1}},
        {"parents": ({"name": "a"},)},
    ],
)
def test_a_passport_that_could_not_be_read_back_is_not_written(tmp_path, fields):
    save_adapter(small(title="old"), tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ValueError, match=next(iter(fields))):
        save_adapter(small(), tmp_path / "a.safetensors", **fields)
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_long_names_in_any_script_can_be_saved(tmp_path):
    path = tmp_path / ("猫" * 80 + ".safetensors")
    save_adapter(small(), path)
    assert load_adapter(path).passport.widths == {"clip_l": 768}


def test_a_passport_needs_a_tower():
    with pytest.raises(ValueError, match="tower"):
        Passport(towers={})
