"""Nothing but itself decides a picture's features, scores and marks; what else does is in their keys."""

import json

import numpy as np
import pytest
import torch

from sur_core.evaluation import Arm, Verdict
from sur_core.evaluation.image_text import FeatureCache, ImageTextModel
from sur_core.evaluation.judging import NOT_COMPARABLE, JudgeByType
from sur_core.evaluation.judging.detector_judge import DetectorJudge
from sur_core.evaluation.judging.question_judge import VlmJudge
from sur_core.evaluation.judging.yes_or_no import Answer
from sur_core.evaluation.marking import add_verdicts
from sur_core.evaluation.quality import make_measures
from sur_core.evaluation.study_verdicts import RememberingJudge
from tests import study_runs
from tests.evaluation_quality_models import make_siglip
from tests.evaluation_runs import PROMPTS, clip_folder, run
from tests.method_models import blocks
from tests.study_runs import KnownJudge
from tests.test_evaluation_judges_vlm import BINDING

PICTURES = [blocks(seed, (48, 40)) for seed in range(7)]
TEXTS = [f"a red cat {'near a blue dog ' * number}" for number in range(7)]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return make_siglip(tmp_path_factory.mktemp("siglip") / "siglip")


@pytest.mark.parametrize("size", [4, 5])
def test_a_score_does_not_depend_on_what_is_scored_with_it(siglip, size):
    """To the last bit: what a stop leaves to be computed is chance."""
    settings = {"clip": str(clip_folder()), "clip_iqa": {}, "siglip": str(siglip), "batch_size": size}
    for measure in make_measures(settings):
        together = measure.score(PICTURES, TEXTS)
        alone = [measure.score([picture], [text])[0] for picture, text in zip(PICTURES, TEXTS, strict=True)]
        assert len(set(together)) == len(PICTURES) and together.tolist() == alone, measure.name


def test_all_batches_of_features_are_full():
    seen, model = set(), ImageTextModel(clip_folder(), batch_size=4)
    hooks = [
        part.register_forward_pre_hook(
            lambda _, given, named: seen.add(len(next(iter(named.values())))), with_kwargs=True
        )
        for part in (model._model.vision_model, model._model.text_model)
    ]
    found = model.image_features(PICTURES), model.text_features(TEXTS[:2])
    for hook in hooks:
        hook.remove()
    assert seen == {4} and [len(part) for part in found] == [7, 2]


def test_features_and_scores_of_another_batch_size_or_device_are_not_taken(tmp_path, monkeypatch):
    def names(**options) -> tuple[str, str]:
        model = ImageTextModel(clip_folder(), **options)
        settings = {"clip": str(clip_folder()), **options}
        return FeatureCache(tmp_path, model).path.name, make_measures(settings)[0].conditions

    def versions():
        return ["torch 99"]

    base = names(batch_size=4)
    assert base == names(batch_size=4)
    others = [names(batch_size=5)]
    for module in ("image_text", "quality.registry"):
        monkeypatch.setattr(f"sur_core.evaluation.{module}.marking_versions", versions)
    others.append(names(batch_size=4))
    assert all(a != b for other in others for a, b in zip(base, other, strict=True))
    assert len(make_measures({"clip": str(clip_folder())})[0].conditions) == 32


def test_a_remembered_mark_is_of_the_same_libraries_and_settings(tmp_path, monkeypatch):
    def asked(**about) -> int:
        judge = KnownJudge()
        judge.about = {**judge.about, **about}
        RememberingJudge(judge, tmp_path / "verdicts.jsonl").mark(PICTURES[0], PROMPTS[0])
        return judge.asked

    assert [asked(), asked(), asked(rules=2), asked(batch_size=3), asked(device="cuda")] == [1, 0, 1, 1, 1]
    monkeypatch.setattr("sur_core.evaluation.study_verdicts.marking_versions", lambda: ["torch 99"])
    assert [asked(), asked()] == [1, 0]


class Model:
    """Says yes to every question, and sees nothing."""

    name, identity, dtype, device, batch_size, prompt = "m", "1", "fp32", torch.device("cpu"), 3, "{question}"
    labels, usual_threshold = None, 0.3

    def __init__(self, answered: float = 1.0):
        self._answered = answered

    def answers(self, pairs):
        return [Answer(0.9, self._answered) for _ in pairs]


@pytest.mark.parametrize("judge", [DetectorJudge, VlmJudge])
def test_judges_tell_all_that_their_marks_depend_on(judge):
    about = judge(Model()).about
    assert {"model", "identity", "dtype", "device", "batch_size", "rules", "threshold"} <= about.keys()
    assert (about["device"], about["batch_size"], about["rules"]) == ("cpu", 3, 1)
    json.dumps(about)


def test_what_is_judged_together_is_judged_together_again(tmp_path):
    """After a kill that left a part, too: else a picture's company would depend on the kill."""

    class Company(KnownJudge):
        def mark_many(self, pairs):
            return [Verdict(True, f"one of {len(pairs)}") for _ in pairs]

    pairs = [(picture, PROMPTS[0]) for picture in PICTURES]
    path = tmp_path / "verdicts.jsonl"
    first = RememberingJudge(Company(), path).mark_many(pairs)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:4]), "utf-8")
    assert RememberingJudge(Company(), path).mark_many(pairs) == first
    assert {verdict.why for verdict in first} == {"one of 7"}


# --- what a reader must know --------------------------------------------------------------------------------


def test_a_judge_of_several_says_what_each_of_them_says():
    one, other = KnownJudge(), KnownJudge()
    one.note, other.note = "One errs.", "The other errs too."
    silent = study_runs.make_judge()
    judge = JudgeByType({"Color": one, "Action": other, "x": one, "y": silent})
    assert judge.note == "One errs. The other errs too."


@pytest.mark.parametrize(("answered", "low"), [(0.2, 2), (0.9, 0)])
def test_answers_that_were_none_are_told(tmp_path, answered, low):
    found = run(tmp_path, [Arm("base")], prompts=[BINDING], seeds=(3, 5))
    marked = add_verdicts(found, VlmJudge(Model(answered)), lambda *_: None, lambda: None)
    told = [remark for remark in marked.remarks if "next token" in remark]
    questions = sum(len(picture.verdict.details["answers"]) for picture in marked.pictures)
    assert len(told) == 1 and f"median probability of {answered:.2f}" in told[0]
    assert f"in {low and questions} of {questions} answers it was below 0.5" in told[0]
    assert NOT_COMPARABLE in marked.remarks
    silent = add_verdicts(found, study_runs.make_judge(), lambda *_: None, lambda: None)
    assert not any("next token" in remark for remark in silent.remarks)


def test_what_clip_does_not_see_of_a_wide_picture_is_told(tmp_path):
    wide = {"prompts": PROMPTS[:1], "seeds": (3,), "width": 72, "clip": clip_folder()}
    words = "CLIP's measures see only the middle 64 x 64 pixels of pictures of 72 x 64"
    assert any(remark.startswith(words) for remark in run(tmp_path / "wide", [Arm("base")], **wide).remarks)
    square = run(tmp_path / "square", [Arm("base")], **{**wide, "width": 64})
    assert square.remarks == ()


def test_a_study_tells_which_cells_clip_does_not_see_whole(tmp_path):
    methods = [study_runs.table(kind) for kind in ("none", "multidiffusion")]
    models = [{"name": "DM", "path": str(study_runs.tiny_model("sd1"))}]
    found = study_runs.study(
        tmp_path, methods=methods, models=models, judge=None, quality={"clip": str(clip_folder())}
    )
    assert [remark for remark in found.remarks if "576" in remark] == [
        "DM, multidiffusion: CLIP's measures see only the middle 64 x 64 pixels of pictures of 576 x 64, as "
        "its image processor cuts the rest off"
    ]


def test_equal_prompts_are_one_text_whatever_their_order():
    (measure, _) = make_measures({"clip": str(clip_folder()), "batch_size": 4})
    there = measure.score(PICTURES, TEXTS)
    back = measure.score(PICTURES[::-1], TEXTS[::-1])
    assert np.array_equal(there, back[::-1])
