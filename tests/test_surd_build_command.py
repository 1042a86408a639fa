"""`python -m train surd build` is its steps one after another, and goes on where it was stopped."""

import random

import pytest
from PIL.PngImagePlugin import PngInfo

from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.samples import read_samples
from tests.surd_models import make_blip, make_clip
from tests.surd_works import gradient
from train.__main__ import main, parse
from train.surd import STEPS, build


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_blip(folder / "blip"), make_clip(folder / "clip")


@pytest.fixture
def pictures(tmp_path):
    folder, draw = tmp_path / "pictures", random.Random(2)
    folder.mkdir()
    for number in range(6):
        told = PngInfo()
        told.add_text("parameters", f"best quality, picture {number}\nSteps: 20, Sampler: Euler, Seed: 1")
        gradient(draw, (40 + number, 44)).save(folder / f"{number}.png", pnginfo=told)
    gradient(draw, (8, 8)).save(folder / "small.png")
    return folder


def flags(models) -> list[str]:
    blip, clip = map(str, models)
    return ["--caption-model", blip, "--clean-model", clip, "--device", "cpu", "--min-side", "32",
            "--near-duplicates", "off", "--rule", "off", "--max-new-tokens", "4",
            "--caption-batch-size", "4"]  # fmt: skip


def records(folder) -> list[tuple]:
    steps = ("collect", "select", "caption", "clean", "rule")
    manifest = Manifest(folder)
    return [(step, key, record) for step in steps for key, record in manifest.records(step).items()]


def test_it_does_what_the_steps_do_one_by_one(models, pictures, tmp_path, capsys):
    blip, clip = map(str, models)
    one, by_one = tmp_path / "one", tmp_path / "by one"
    assert main(["surd", "build", str(one), str(pictures), *flags(models)]) == 0
    said = capsys.readouterr().out
    assert f"surd review {one}" in said and f"surd export {one} OUT" in said
    assert (one / "report.html").exists()
    samples = list(read_samples(Manifest(one)))
    ready = [sample for sample in samples if not sample.dropped and "simple_score" in sample.scores]
    assert [sample.complex for sample in ready] == [f"best quality, picture {n}" for n in range(6)]

    select = ["--min-side", "32", "--near-duplicates", "off"]
    for arguments in (
        ["collect", str(by_one), str(pictures), *select],
        [
            "caption",
            str(by_one),
            "--model",
            blip,
            "--max-new-tokens",
            "4",
            "--batch-size",
            "4",
            "--device",
            "cpu",
        ],
        ["clean", str(by_one), "--model", clip, "--rule", "off", "--device", "cpu"],
    ):
        assert main(["surd", *arguments]) == 0
    assert records(by_one) == records(one)

    before = records(one)
    assert main(["surd", "build", str(one), *flags(models)]) == 0  # nothing new
    assert records(one) == before
    assert main(["surd", "export", str(one), str(tmp_path / "out"), "--resolution", "16"]) == 0
    assert main(["check", str(tmp_path / "out"), "--resolution", "16"]) == 0


def test_pictures_that_all_came_with_plain_prompts_need_no_captioner(models, pictures, tmp_path, capsys):
    rows = [
        f'{{"file_name": "{n}.png", "text": "a thing {n}", "prompt": "best, thing {n}"}}' for n in range(6)
    ]
    (pictures / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    arguments = flags(models)
    arguments[1] = str(tmp_path / "no such model")
    assert main(["surd", "build", str(tmp_path / "w"), str(pictures / "metadata.jsonl"), *arguments]) == 0
    assert "every picture came with a plain prompt" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--rule", "threshold"], ["--clean-model", "no/such/model"]])
def test_what_the_last_step_would_refuse_is_refused_before_the_first(
    wrong, models, pictures, tmp_path, capsys
):
    assert main(["surd", "build", str(tmp_path / "w"), str(pictures), *flags(models), *wrong]) == 1
    assert not (tmp_path / "w" / "manifest.jsonl").exists()
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("step", list(build.STEPS))
def test_every_step_gets_what_its_own_command_line_would_give_it(step):
    own = parse(["surd", step, "w"])
    given = build._options_of(step, parse(["surd", "build", "w"]))
    meant = {name: value for name, value in vars(own).items() if name not in ("command", "surd_step")}
    assert meant.items() <= vars(given).items()
    assert STEPS[step] is build.STEPS[step]


@pytest.mark.parametrize("wrong", ["source", "--caption-model", "--clean-model"])
def test_a_mistyped_name_is_told_before_anything_is_done(models, pictures, tmp_path, capsys, wrong):
    given = flags(models)
    folder, missing = pictures, str(tmp_path / "no_such")
    if wrong == "source":
        folder = missing
    else:
        given[given.index(wrong) + 1] = missing
    assert main(["surd", "build", str(tmp_path / "work"), str(folder), *given]) == 1
    said = capsys.readouterr().err
    assert missing in said and (wrong == "source" or wrong in said)
    assert not (tmp_path / "work").exists()
