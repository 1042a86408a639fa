"""The demo on random tiny models: every step runs, its commands can be given, a stop loses nothing."""

import json
import os
import re
import shlex
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest

from small_world.demo import Demo, DemoSettings
from small_world.places import DEMO_CONFIG
from sur_core import load_adapter
from sur_core.training_config import TrainingConfig
from tests.helpers import parameters_equal
from tests.small_world_stand_ins import demo_settings, finished_demo
from train.__main__ import main

STEPS = ["data", "vectors", "cache", "fit", "evaluate", "report"]


@pytest.fixture(scope="module")
def settings():
    return demo_settings()


@pytest.fixture(scope="module")
def finished():
    return finished_demo()


def same_figures(one, other) -> bool:
    """Whether two results.json say the same, and of something. Where pictures lie may differ: that names the
    adapter's file, which holds a date.
    """
    found, expected = (json.loads(path.read_text("utf-8")) for path in (one, other))
    for picture in found["pictures"] + expected["pictures"]:
        del picture["path"]
    names = ("pictures", "accuracies", "comparisons", "clip_scores", "kids")
    return bool(found["pictures"]) and all(found[name] == expected[name] for name in names)


# --- the steps ----------------------------------------------------------------------------------------------


def test_every_step_is_told_with_its_number_and_what_it_makes_lies_in_the_folder(finished, settings):
    folder, said = finished
    told = re.findall(r"^\[(\d)/6\] (\w+):", "\n".join(said), re.MULTILINE)
    assert told == [(str(number), name) for number, name in enumerate(STEPS, 1)]
    assert str(folder / "report.html") in said[-1] and re.search(r"done in \d+ min \d+ s", said[-1])
    for name in ("report.html", "results.json", "results.csv", "tables.md", "eta/results.json"):
        assert (folder / name).stat().st_size > 0
    adapter = load_adapter(folder / "adapter.safetensors")
    assert parameters_equal(adapter, load_adapter(folder / "fit" / "adapter.safetensors"))
    assert adapter.passport.eta == 1.0 and adapter.passport.steps == 34
    assert set(json.loads((folder / "demo.json").read_text())["seconds"]) == set(STEPS)


def give(command):
    """Do what a shell would with a told command, in this process."""
    if command[1] == "-c":
        exec(command[2], {})
        return 0
    assert command[1:3] == ["-m", "train"]
    return main(command[3:])


def test_the_commands_it_tells_make_the_same_in_another_folder(finished, tmp_path):
    folder, said = finished
    by_hand = tmp_path / "by hand"
    told = [line.strip()[2:] for line in said if line.startswith("  $ ")]
    commands = [[word.replace(str(folder), str(by_hand)) for word in shlex.split(line)] for line in told]
    trained = [command[3] for command in commands if "-m" in command]
    assert trained == ["vectors", "cache", "fit", "evaluate", "evaluate"]
    for command in commands:
        assert give(command) == 0, command
    table = "surd/metadata.jsonl"
    assert (by_hand / table).read_bytes() == (folder / table).read_bytes()
    ours, theirs = (load_adapter(where / "adapter.safetensors") for where in (folder, by_hand))
    assert parameters_equal(ours, theirs)
    for name in ("results.json", "eta/results.json"):
        assert same_figures(folder / name, by_hand / name)
    everything = [{path.name for path in where.iterdir()} for where in (folder, by_hand)]
    assert everything[0] - everything[1] <= {"demo.json", ".running.lock"} and everything[1] <= everything[0]


def test_the_arms_are_base_complex_and_sur_and_the_test_is_drawn_as_said(finished):
    results = json.loads((finished[0] / "results.json").read_text("utf-8"))
    arms = [(arm["text"], arm["adapter"] is not None, arm["eta"]) for arm in results["arms"]]
    assert arms == [("simple", False, 0.0), ("complex", False, 0.0), ("simple", True, 1.0)]
    assert len(results["pictures"]) == 3 * 6 * 2
    assert (results["settings"]["steps"], results["settings"]["guidance_scale"]) == (2, 2.0)
    assert results["kids"] and results["clip_scores"]


def test_its_training_settings_are_an_ordinary_config():
    config = TrainingConfig.load(DEMO_CONFIG)
    assert config.align_steps and config.full_steps and config.eta == DemoSettings("x").eta


def test_a_quick_demo_on_the_repositorys_models_ends_with_a_report_and_the_base_draws_keywords(tmp_path):
    """The demo that users run, but shorter: too little training to say anything of the adapter."""
    assert main(["demo", "--quick", "--output-dir", str(tmp_path)]) == 0
    assert load_adapter(tmp_path / "adapter.safetensors").passport.steps == 320
    assert "</html>" in (tmp_path / "report.html").read_text("utf-8")
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    simple, wanted, _ = (arm["name"] for arm in results["arms"])
    right = {
        row["arm"]: row["right"] / row["pictures"] for row in results["accuracies"] if row["type"] == "all"
    }
    assert right[wanted] >= 0.75 and right[wanted] - right[simple] >= 0.3
    assert len(results["pictures"]) == 3 * 45 * DemoSettings("x").quick().seeds


# --- stopping and going on ----------------------------------------------------------------------------------


def interrupt_when(path, rows, within):
    """SIGINT to this process as soon as a log has so many rows."""

    def watch():
        end = time.monotonic() + within
        while time.monotonic() < end:
            if path.is_file() and path.read_bytes().count(b"\n") > rows:
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.002)

    threading.Thread(target=watch, daemon=True).start()


def test_a_stopped_demo_goes_on_to_the_same_adapter_and_results(finished, settings, tmp_path):
    stopped = replace(settings, output_dir=tmp_path / "run")

    def stop(what, done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Demo(stopped, lambda _: None, stop).run()
    assert len(list((tmp_path / "run/surd").glob("*.png"))) == 7

    interrupt_when(tmp_path / "run/fit/log.csv", rows=5, within=120)
    said = []
    assert Demo(stopped, said.append, lambda *_: None).run() == 128 + signal.SIGINT
    assert "stopped in step fit" in said[-1] and not (tmp_path / "run/results.json").exists()

    assert Demo(stopped, said.append, lambda *_: None).run() == 0
    whole, again = (folder / "adapter.safetensors" for folder in (finished[0], tmp_path / "run"))
    assert parameters_equal(load_adapter(whole), load_adapter(again))
    assert same_figures(tmp_path / "run/results.json", finished[0] / "results.json")


def test_a_finished_demo_draws_nothing_again_and_writes_the_report_anew(finished, settings):
    folder = finished[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    (folder / "report.html").unlink()
    assert Demo(settings, lambda _: None, lambda *_: None).run() == 0
    assert (folder / "report.html").is_file()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before


def test_other_settings_are_refused_and_restart_throws_away_only_the_demo(finished, settings, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "notes.txt").write_text("mine")
    other = Demo(replace(settings, output_dir=folder, seed=5), lambda _: None, lambda *_: None)
    with pytest.raises(ValueError, match="seed was 0, now is 5.*--restart"):
        other.run()
    assert (folder / "report.html").is_file()
    other._open(restart=True)
    left = {path.name for path in folder.iterdir()}
    assert left - {".running.lock"} == {"demo.json", "notes.txt"}


def test_what_is_no_demo_is_left_alone(settings, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds something, but no demo"):
        Demo(replace(settings, output_dir=tmp_path), lambda _: None, lambda *_: None).run(restart=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_missing_models_are_told_in_words_before_anything_is_written(tmp_path, capsys):
    code = main(["demo", "--models", str(tmp_path / "none"), "--output-dir", str(tmp_path / "run")])
    assert code == 1 and not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert "model_index.json" in error and "--rebuild" in error
