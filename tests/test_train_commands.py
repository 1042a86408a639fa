"""``python -m train`` on files."""

import subprocess
import sys
from pathlib import Path

import pytest

from sur_core import load_adapter, read_passport, save_adapter
from tests.helpers import parameters_equal, random_adapter, write_authors_file
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def test_convert_and_info_from_the_shell(tmp_path):
    source = write_authors_file(tmp_path / "run_adapterw0.1" / "adapter.pt")
    target = tmp_path / "out" / "rv2.safetensors"
    command = [
        sys.executable,
        "-m",
        "train",
        "convert",
        source,
        target,
        "--base-model",
        "Realistic Vision V2.0",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Realistic Vision V2.0" in done.stdout
    assert parameters_equal(load_adapter(source), load_adapter(target))
    done = subprocess.run(
        [sys.executable, "-m", "train", "info", target], cwd=ROOT, capture_output=True, text=True
    )
    assert "eta in training: 0.1" in done.stdout


def test_convert_options(tmp_path):
    source = write_authors_file(tmp_path / "adapter.pt")
    target = tmp_path / "a.safetensors"
    assert main(["convert", str(source), str(target), "--eta", "0.2", "--title", "mine"]) == 0
    assert (read_passport(target).eta, read_passport(target).title) == (0.2, "mine")


def test_convert_does_not_overrule_the_eta_a_file_stores(tmp_path, capsys):
    save_adapter(random_adapter("sd1", depth=1, passport={"eta": 0.1}), tmp_path / "a.safetensors")
    command = ["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--eta"]
    assert main([*command, "0.5"]) == 1
    assert "trained with eta 0.1" in capsys.readouterr().err and not (tmp_path / "b.safetensors").exists()
    assert main([*command, "0.1"]) == 0


def test_convert_joins_two_files_for_sdxl(tmp_path):
    parts = [write_authors_file(tmp_path / f"{width}.pt", width=width) for width in (768, 1280)]
    target = tmp_path / "sdxl.safetensors"
    assert main(["convert", *map(str, parts), str(target), "--eta", "0.1"]) == 0
    assert (read_passport(target).family, read_passport(target).eta) == ("sdxl", 0.1)
    assert "Realistic Vision" not in read_passport(target).to_text(), "that is an SD 1.5 model"


def test_convert_keeps_an_existing_file_unless_told(tmp_path, capsys):
    source = write_authors_file(tmp_path / "adapter.pt")
    target = tmp_path / "a.safetensors"
    save_adapter(random_adapter("sd1", depth=1), target)
    before = target.read_bytes()
    assert main(["convert", str(source), str(target)]) == 1
    assert "--overwrite" in capsys.readouterr().err and target.read_bytes() == before
    assert main(["convert", str(source), str(target), "--overwrite"]) == 0
    assert target.read_bytes() != before


def test_errors_are_words_not_traces(tmp_path, capsys):
    (tmp_path / "bad.pt").write_bytes(b"no")
    assert main(["info", str(tmp_path / "bad.pt")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "bad.pt" in error and "Traceback" not in error


@pytest.mark.parametrize(("command", "goes_on"), [("cache", True), ("check", False)])
def test_ctrl_c_says_which_commands_go_on(monkeypatch, capsys, command, goes_on):
    """A long command keeps what it has done; a short one has nothing to keep."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"train.{command}.run", interrupted)
    data = ["folder"] if command == "check" else []
    assert main([command, *data]) == 130
    assert capsys.readouterr().out.startswith("stopped" + "; the same command goes on" * goes_on)


def test_ctrl_c_while_modules_are_read_is_no_trace(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr() == ("stopped\n", "")
