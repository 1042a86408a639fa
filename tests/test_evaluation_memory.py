"""Running out of memory is told in words, wherever it happens, and no trace is shown."""

import diffusers
import numpy as np
import pytest
import torch

from sur_core.evaluation import Arm, open_pipeline, write_prompts
from sur_core.evaluation.image_text import ImageTextModel
from sur_core.evaluation.memory import room_for
from sur_core.evaluation.quality import QualityError, make_measures, score_pictures
from tests.evaluation_runs import PROMPTS, ChannelJudge, clip_folder, run
from tests.small_data import tiny_model
from train.__main__ import main

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
OTHER_WORDS = RuntimeError("CUDA error: out of memory")
ERRORS = pytest.mark.parametrize("error", [FULL, OTHER_WORDS, MemoryError()])


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def command(tmp_path, *more) -> int:
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    model = ["--pretrained-model-name-or-path", tiny_model("sd1"), "--prompts", tmp_path / "prompts.jsonl"]
    fast = ["--steps", "2", "--seeds", "1", "--resamples", "100", "--device", "cpu"]
    return main(["evaluate", *map(str, [*model, *fast, "--output-dir", tmp_path / "out", *more])])


def said(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") or "\nerror: " in error
    assert "Traceback" not in error
    return error


@ERRORS
def test_a_model_that_does_not_fit(error, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "to", raising(error))
    assert command(tmp_path) == 1
    words = said(capsys)
    assert f"{tiny_model('sd1')} does not fit into the memory of cpu" in words
    assert "set dtype to bf16 or fp16; take a smaller model or device 'cpu'" in words


@ERRORS
def test_pictures_that_do_not_fit(error, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", raising(error))
    assert command(tmp_path) == 1
    words = said(capsys)
    assert "out of memory while drawing 8 pictures of 64 x 64 pixels" in words
    assert "lower batch_size, now 8; set dtype to bf16 or fp16; lower width and height" in words


def test_a_prompt_that_does_not_fit(tmp_path, capsys, monkeypatch):
    """The first thing that is computed, and in half of all cases the last that fits."""
    from transformers import CLIPTextModel

    monkeypatch.setattr(CLIPTextModel, "forward", raising(FULL))
    assert command(tmp_path) == 1
    assert "out of memory while drawing" in said(capsys)


def test_clip_that_does_not_fit(tmp_path, capsys, monkeypatch):
    from transformers import CLIPModel

    monkeypatch.setattr(CLIPModel, "to", raising(FULL))
    assert command(tmp_path, "--clip", clip_folder()) == 1
    assert f"{clip_folder()}: CLIP does not fit into the memory of cpu" in said(capsys)


def test_clips_batches_that_do_not_fit_leave_the_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ImageTextModel, "image_features", raising(FULL))
    assert command(tmp_path, "--clip", clip_folder()) == 1
    assert "32 pictures at once does not fit into the memory of cpu" in said(capsys)
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(PROMPTS)


def test_a_judge_of_ones_own_that_needs_too_much(tmp_path):
    class Large(ChannelJudge):
        mark = raising(FULL)

    with pytest.raises(ValueError, match="judge channel: .*does not fit into the memory"):
        run(tmp_path, [Arm("base")], judge=Large())


@ERRORS
def test_measures_that_need_too_much(error, monkeypatch):
    (measure, _) = make_measures({"clip": str(clip_folder())})
    monkeypatch.setattr(measure, "score", raising(error))
    with pytest.raises(QualityError, match="clip_score: not enough memory.*quality.batch_size"):
        score_pictures(measure, [lambda: np.zeros((8, 8, 3), np.uint8)], ["a cat"])
    monkeypatch.setattr("sur_core.evaluation.quality.registry.ImageTextModel", raising(error))
    with pytest.raises(QualityError, match="clip: its model does not fit into the memory of cpu"):
        make_measures({"clip": str(clip_folder())})


def test_what_is_no_lack_of_memory_stays_what_it_is(monkeypatch):
    with pytest.raises(RuntimeError, match="sizes differ"), room_for("x", "cpu", "y"):
        raise RuntimeError("sizes differ")
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "to", raising(RuntimeError("no such device")))
    with pytest.raises(RuntimeError, match="no such device"):
        open_pipeline(tiny_model("sd1"), device="cpu")
