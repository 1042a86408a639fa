"""A run that is stopped, in whatever way, ends with the very weights of one that was not."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sur_core import read_passport
from tests.tiny_models import make_tiny
from tests.training_runs import flags, make_run, write_vectors
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
# Threads must be as many in every run: sums of more parts are rounded otherwise.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TIMES = ("seconds", "samples_per_second")


TWO_PROCESSES = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def python(*arguments, timeout: int = 300, **environment) -> subprocess.CompletedProcess:
    """``python -m ARGUMENTS`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    settings = make_run(tmp_path_factory.mktemp("world"))
    settings |= {"align_steps": 8, "full_steps": 16, "checkpointing_steps": 3, "logging_steps": 4}
    settings |= {"validation_steps": 5, "ema_decay": 0.9, "lr_scheduler": "cosine", "lr_warmup_steps": 3}
    return settings


@pytest.fixture(scope="module")
def uninterrupted(world) -> Path:
    settings = {**world, "output_dir": world["output_dir"].with_name("whole")}
    done = python("train", "fit", *flags(**settings))
    assert done.returncode == 0, done.stderr
    return settings["output_dir"]


def assert_same_run(left: Path, right: Path) -> None:
    ours, theirs = load_file(left / "state.safetensors"), load_file(right / "state.safetensors")
    assert ours.keys() == theirs.keys() and any(name.startswith("optimizer.") for name in ours)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for name in ("adapter.safetensors", "adapter-best.safetensors"):
        ours, theirs = load_file(left / name), load_file(right / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert rows_without_times(left) == rows_without_times(right)


def rows_without_times(folder: Path) -> list[dict]:
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_twenty_times_and_still_the_same_to_the_bit(world, uninterrupted):
    folder = world["output_dir"].with_name("killed")
    # Caches of its own, so that their building is among what is killed.
    settings = {**world, "output_dir": folder / "run", "cache_dir": folder / "cache"}
    folder.mkdir()
    harness = ("tests.kill_harness", 20, 7, folder, "--")
    done = python(*harness, "fit", *flags(**settings), timeout=500)
    log = (folder / "killed.log").read_text()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["code"] == 0, log
    assert report["random"] + report["writing"] == 20 and report["writing"] >= 8, report
    assert "going on after step" in log
    assert_same_run(folder / "run", uninterrupted)
    assert not list((folder / "run").glob(".unfinished-*")), "left by a kill inside a save"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_in_words(world, uninterrupted, number):
    folder = world["output_dir"].with_name(f"signal-{int(number)}")
    arguments = flags(**{**world, "output_dir": folder, "checkpointing_steps": 1000})
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "fit", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_steps(folder)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number, output
    assert "the same command goes on" in output and "Traceback" not in output
    assert load_file(folder / "adapter.safetensors")
    again = python("train", "fit", *arguments)
    assert again.returncode == 0 and "going on after step" in again.stdout, again.stderr
    assert_same_run(folder, uninterrupted)


def assert_same_state(left: Path, right: Path) -> None:
    ours, theirs = load_file(left / "state.safetensors"), load_file(right / "state.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def wait_for_steps(folder: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (folder / "log.csv").exists() and len((folder / "log.csv").read_text().splitlines()) > 1:
            return
        time.sleep(0.005)
    raise AssertionError("no step was logged")


@pytest.fixture(scope="module")
def half_done(world, uninterrupted, tmp_path_factory) -> Path:
    """The state of a run at its end, to which every further command must stay true."""
    folder = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(uninterrupted, folder)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eta": 0.2}, "eta was 0.1, now is 0.2"),
        ({"seed": 5}, "seed was 0, now is 5"),
        ({"learning_rate": 0.1}, "learning_rate was 0.001"),
        ({"train_batch_size": 5}, "a step had 4 samples, now has 5"),
        ({"full_steps": 99}, "full_steps was 16, now is 99"),
        ({"validation_share": 0.3}, "validation_share was 0.15"),
        ({"cache_text": False}, "cache_text was True"),
    ],
)
def test_a_changed_setting_is_refused_in_words(world, half_done, change, words, capsys):
    before = (half_done / "state.safetensors").read_bytes()
    assert main(["fit", *flags(**{**world, "output_dir": half_done, **change})]) == 1
    said = capsys.readouterr().err
    assert words in said and "--restart" in said
    assert (half_done / "state.safetensors").read_bytes() == before


def test_changed_data_vectors_and_model_are_refused(world, half_done, tmp_path, capsys):
    vectors = write_vectors(tmp_path / "other.safetensors", world["data"], seed=1)
    model = make_tiny(tmp_path / "model", seed=1)
    data = shutil.copytree(world["data"], tmp_path / "data")
    rows = (data / "metadata.jsonl").read_text().splitlines()
    (data / "metadata.jsonl").write_text("\n".join(rows[:-1]))
    for change, words in (
        ({"vectors": vectors}, "the knowledge vectors changed"),
        ({"pretrained_model_name_or_path": model}, "the UNet changed"),
        ({"data": data}, "the data set changed"),
        ({"data": repainted(world["data"], tmp_path / "red")}, "the content of the images changed"),
    ):
        assert main(["fit", *flags(**{**world, "output_dir": half_done, **change})]) == 1
        assert words in capsys.readouterr().err


def repainted(data: Path, folder: Path) -> Path:
    """The same rows and file names, one picture another."""
    shutil.copytree(data, folder)
    Image.new("RGB", (70, 70), "red").save(folder / "003.png")
    return folder


def test_refusals_come_before_anything_is_encoded(world, half_done, tmp_path, capsys):
    settings = {**world, "output_dir": half_done, "cache_dir": tmp_path / "cache", "seed": 9}
    for more in ([], ["--dry-run"]):
        assert main(["fit", *flags(**settings), *more]) == 1
        assert "seed was 0, now is 9" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_row_is_logged_once_after_a_stop_and_a_kill(world, tmp_path):
    """Stopped after a step whose row was still to come; killed when it was written, before the next save."""
    settings = {
        **world,
        "output_dir": tmp_path / "run",
        "align_steps": 0,
        "full_steps": 4,
        "logging_steps": 1,
    }
    assert main(["fit", *flags(**settings)]) == 0
    whole = rows_without_times(tmp_path / "run")
    path = tmp_path / "run" / "state.safetensors"
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["sur.training"])
    described["counters"]["interrupted"] = True
    described["counters"]["window"] = {
        **dict.fromkeys(("llm", "cp", "simple", "total", "gradient_norm", "seconds"), 1.0),
        "steps": 1,
        "norms": 1,
    }
    save_file(load_file(path), path, {"sur.training": json.dumps(described)})
    assert main(["fit", *flags(**settings)]) == 0
    assert [row["step"] for row in rows_without_times(tmp_path / "run")] == [row["step"] for row in whole]


def test_restart_throws_the_old_run_away(world, half_done, tmp_path, capsys):
    folder = shutil.copytree(half_done, tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    settings = {**world, "output_dir": folder, "align_steps": 2, "full_steps": 1, "seed": 3}
    assert main(["fit", "--restart", *flags(**settings)]) == 0
    assert "going on" not in capsys.readouterr().out
    assert read_passport(folder / "adapter.safetensors").steps == 3
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_left_alone(world, half_done, capsys):
    before = load_file(half_done / "state.safetensors")
    assert main(["fit", *flags(**{**world, "output_dir": half_done})]) == 0
    after = load_file(half_done / "state.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_batch_split_in_another_way_gives_the_same_result_and_says_so(world, tmp_path, capsys):
    settings = {**world, "align_steps": 4, "full_steps": 4, "output_dir": tmp_path / "a"}
    assert main(["fit", *flags(**settings)]) == 0
    split = {"train_batch_size": 1, "gradient_accumulation_steps": 4, "output_dir": tmp_path / "b"}
    assert main(["fit", *flags(**{**settings, **split})]) == 0
    assert_close(tmp_path / "a", tmp_path / "b")
    capsys.readouterr()
    assert main(["fit", *flags(**{**settings, **split, "output_dir": tmp_path / "a"})]) == 0
    assert "split in another way" in capsys.readouterr().out


def test_a_constant_learning_rate_lets_a_run_be_made_longer(world, tmp_path):
    settings = {**world, "align_steps": 2, "full_steps": 6, "lr_scheduler": "constant"}
    assert main(["fit", *flags(**{**settings, "output_dir": tmp_path / "whole"})]) == 0
    settings["output_dir"] = tmp_path / "longer"
    assert main(["fit", *flags(**{**settings, "full_steps": 3})]) == 0
    assert main(["fit", *flags(**settings)]) == 0
    assert_same_state(tmp_path / "longer", tmp_path / "whole")


def test_two_processes_with_half_the_batch_give_the_same_result(world, tmp_path):
    settings = {**world, "align_steps": 4, "full_steps": 6, "train_batch_size": 8, "validation_steps": 5}
    settings |= {"lr_warmup_steps": 0, "cache_dir": tmp_path / "cache"}
    two = {**settings, "train_batch_size": 4, "output_dir": tmp_path / "two"}
    done = python(*TWO_PROCESSES, "-m", "train", "fit", *flags(**two))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("batch: 8 samples a step, 4 at a time") == 1, "only one process speaks"
    one = {**settings, "output_dir": tmp_path / "one"}
    assert main(["fit", *flags(**one)]) == 0
    assert_close(tmp_path / "one", tmp_path / "two")


def assert_close(left: Path, right: Path) -> None:
    ours, theirs = load_file(left / "state.safetensors"), load_file(right / "state.safetensors")
    difference = {name: (ours[name] - theirs[name]).abs().max().item() for name in ours}
    assert ours.keys() == theirs.keys() and max(difference.values()) <= 1e-5, difference
    for row, other in zip(rows_without_times(left), rows_without_times(right), strict=True):
        for name, value in row.items():
            if name != "stage" and value:
                assert float(value) == pytest.approx(float(other[name]), rel=1e-4), name


def test_accelerate_launch_runs_the_same_command(world, uninterrupted, tmp_path):
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    settings = {**world, "output_dir": tmp_path / "run"}
    done = python(*launcher, "-m", "train", "fit", *flags(**settings))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", uninterrupted)


TWO = """
import os, sys
rank = os.environ["RANK"]
sys.argv = [argument.replace("RANK", rank) for argument in sys.argv]
if sys.argv[1] == "poison" and rank == "1":
    import torch
    from sur_core.objective import Objective
    plain = Objective._diffusion
    def diffusion(self, adapted, batch, backend):
        losses = plain(self, adapted, batch, backend)
        if losses.device.type == "meta":
            return losses
        return torch.where(torch.arange(len(losses)) == 0, torch.full_like(losses, float("nan")), losses)
    Objective._diffusion = diffusion
from train.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def two_processes(script: Path, *arguments) -> subprocess.CompletedProcess:
    script.write_text(TWO)
    return python(*TWO_PROCESSES, script, *arguments, PYTHONPATH=str(ROOT))


def test_machines_that_share_no_folder_are_refused(world, half_done, tmp_path):
    shutil.copytree(half_done, tmp_path / "run-0")
    settings = {**world, "train_batch_size": 2, "output_dir": tmp_path / "run-RANK"}
    done = two_processes(tmp_path / "two.py", "plain", "fit", *flags(**settings))
    assert done.returncode != 0
    assert "must be a folder that all machines share" in done.stderr


def test_a_sample_on_another_process_is_named_too(world, tmp_path):
    settings = {**world, "align_steps": 0, "full_steps": 2, "output_dir": tmp_path / "run"}
    done = two_processes(tmp_path / "two.py", "poison", "fit", *flags(**settings))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: step 1")]
    assert errors and all(" loss of 0" in line for line in errors), done.stderr
