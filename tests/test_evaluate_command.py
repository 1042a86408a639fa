"""``python -m train evaluate``."""

import json
import os
import signal

import pytest

import train.evaluate
from sur_core import save_adapter
from sur_core.evaluation import Arm, write_prompts
from tests.evaluation_runs import PROMPTS, WIDTHS, ChannelJudge, adapter_file, clip_folder, run
from tests.helpers import random_adapter
from tests.small_data import tiny_model
from train.__main__ import main, parse
from train.evaluate import make_arms

JUDGE = "tests.evaluation_runs:make_judge"


@pytest.fixture
def prompts(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    return tmp_path / "prompts.jsonl"


def command(prompts, output, *more, model=None) -> list[str]:
    fixed = ["--pretrained-model-name-or-path", model or tiny_model("sd1"), "--prompts", prompts]
    fast = ["--steps", "2", "--guidance", "5", "--seed-list", "3", "5", "--batch-size", "4"]
    options = [*fixed, *fast, "--resamples", "200", "--output-dir", output, "--device", "cpu", *more]
    return ["evaluate", *map(str, options)]


def test_it_does_what_the_library_does_and_prints_the_tables(prompts, tmp_path, capsys):
    given = ["--adapter", adapter_file(), "--eta", "0.3", "1", "--with-complex", "--judge", JUDGE]
    assert main(command(prompts, tmp_path / "out", *given, "--clip", clip_folder())) == 0
    said = capsys.readouterr().out
    arms = [
        Arm("base"),
        Arm("base, complex prompt", text="complex"),
        *(Arm(f"SUR, eta {eta:g}", adapter=adapter_file(), eta=eta) for eta in (0.3, 1.0)),
    ]
    model = tiny_model("sd1")
    found = run(tmp_path / "own", arms, model=model, judge=ChannelJudge(), clip=clip_folder(), device="cpu")
    for name in ("results.json", "results.csv", "tables.csv", "tables.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
    for arm in found.arms:
        assert f"| {arm.name} " in said
    assert "CLIP Score" in said and str(tmp_path / "out" / "tables.md") in said


def test_the_command_goes_on_where_it_was(prompts, tmp_path):
    assert main(command(prompts, tmp_path / "out")) == 0
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.png")}
    assert main(command(prompts, tmp_path / "out", "--adapter", adapter_file(), "--eta", "0.5")) == 0
    after = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.png")}
    assert before.items() <= after.items() and len(after) == 2 * len(before) == 12


class StopAtOnce(train.evaluate.Bars):
    def __call__(self, what, done, total):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_is_told_and_has_a_code_of_its_own(prompts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train.evaluate, "Bars", StopAtOnce)
    assert main(command(prompts, tmp_path / "out")) == 128 + signal.SIGTERM
    assert "goes on from there" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_types_are_chosen(prompts, tmp_path):
    assert main(command(prompts, tmp_path / "out", "--types", "Counting")) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {picture["prompt_id"] for picture in found["pictures"]} == {"n1"}


def arms_of(*flags) -> list[Arm]:
    needed = ["--pretrained-model-name-or-path", "m", "--prompts", "p", "--output-dir", "o"]
    return make_arms(parse(["evaluate", *needed, *map(str, flags)]))


def trained(path, eta):
    save_adapter(random_adapter(WIDTHS["sd1"], depth=1, heads=2, feedforward=16, passport={"eta": eta}), path)
    return path


def test_arms_are_the_base_and_every_adapter_at_every_eta(tmp_path):
    assert arms_of() == [Arm("base")]
    names = [arm.name for arm in arms_of("--adapter", "mine=a.pt", "--adapter", "b.pt", "--eta", 0.1, 1)]
    assert names == ["base", "mine, eta 0.1", "mine, eta 1", "b, eta 0.1", "b, eta 1"]
    flags = ["--adapter", "a.pt", "--eta", 0.5, "--to-negative", "--negative-prompt", "ugly"]
    assert arms_of(*flags) == [
        Arm("base", negative_prompt="ugly"),
        Arm("SUR, eta 0.5", adapter="a.pt", eta=0.5, to_negative=True, negative_prompt="ugly"),
    ]
    odd = trained(tmp_path / "a=b.safetensors", 0.25)
    assert arms_of("--adapter", odd)[1] == Arm("SUR, eta 0.25", adapter=odd, eta=0.25), "as it was trained"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--eta", "0.5"], "give --adapter"),
        (["--adapter", "gone.safetensors"], "gone.safetensors: no such adapter file"),
        (["--adapter", "gone.safetensors", "--eta", "0.5"], "gone.safetensors: no such adapter file"),
        (["--adapter", "x=a.pt", "--eta", "2"], "found 2"),
        (["--types", "Colour"], "no prompts of type 'Colour'"),
        (["--judge", "no_such_module:make"], "no_such_module cannot be imported"),
        (["--reference", "."], "need a CLIP model"),
        (["--clip", "gone"], "gone: no such folder"),
        (["--seeds", "0", "--seed-list"], None),
        (["--steps", "0"], "steps"),
    ],
)
def test_errors_are_words_not_traces(prompts, tmp_path, capsys, flags, words):
    if words is None:
        with pytest.raises(SystemExit):
            main(command(prompts, tmp_path / "out", *flags))
        return
    given = command(prompts, tmp_path / "out", *flags)
    capsys.readouterr()  # of making the model, which shows a bar
    assert main(given) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "Traceback" not in error
    assert not list((tmp_path / "out").rglob("*.png"))


def test_folders_are_looked_at_before_the_model_is_opened(prompts, tmp_path, capsys):
    """Opening one may take minutes; this one is not there, and would be told of if it were opened."""
    (tmp_path / "empty").mkdir()
    clip = ["--clip", clip_folder()]
    for flags, words in (
        (["--clip", tmp_path / "no clip"], "no clip: no such folder"),
        (["--clip", tmp_path / "empty"], "config.json is missing"),
        ([*clip, "--reference", tmp_path / "no pictures"], "no pictures: no such folder"),
        ([*clip, "--reference", tmp_path / "empty"], "two reference pictures or more, found 0"),
        ([*clip, "--reference", tmp_path / "empty", "--types", "Counting"], "one prompt only"),
    ):
        assert main(command(prompts, tmp_path / "out", *flags, model=tmp_path / "no model")) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_say_its_eta_needs_one(tmp_path):
    with pytest.raises(ValueError, match="give --eta"):
        arms_of("--adapter", adapter_file())


def test_an_adapter_of_another_family_and_a_missing_model_are_told(prompts, tmp_path, capsys):
    wrong = command(prompts, tmp_path / "out", "--adapter", adapter_file("sdxl"), "--eta", "0.5")
    assert main(wrong) == 1
    assert str(adapter_file("sdxl")) in capsys.readouterr().err
    assert main(command(prompts, tmp_path / "out", model=tmp_path / "gone")) == 1
    assert "gone" in capsys.readouterr().err
