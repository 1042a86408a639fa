"""Prompt sets, arms, judges and settings: what is wrong is named, before anything is drawn."""

import json
import sys

import pytest

from sur_core.evaluation import (
    Arm,
    EvalPrompt,
    EvaluationSettings,
    PromptSetError,
    Verdict,
    load_judge,
    load_prompts,
    types_of,
    write_prompts,
)
from sur_core.evaluation.judges import ask
from tests.evaluation_runs import PROMPTS, ChannelJudge, run

ENTRY = {"id": "p", "type": "Color", "prompt": "a red cat"}


def test_a_set_is_what_was_written(tmp_path):
    prompts = (*PROMPTS, EvalPrompt("ü", "Größe", 'ein "großes" Haus\n', truth=[1, {"a": None}, 0.5]))
    write_prompts(tmp_path / "deep" / "set.jsonl", prompts)
    assert load_prompts(tmp_path / "deep" / "set.jsonl") == prompts
    assert types_of(prompts) == ("Color", "Counting", "Größe")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_a_toml_set_says_the_same(tmp_path):
    (tmp_path / "set.toml").write_text(
        '[[prompts]]\nid = "c1"\ntype = "Color"\nprompt = "a red cat"\ncomplex = "red cat, photo"\n'
        'truth = {channel = 0}\n[[prompts]]\nid = "n1"\ntype = "Counting"\nprompt = "two birds"\n'
    )
    assert load_prompts(tmp_path / "set.toml") == (
        EvalPrompt("c1", "Color", "a red cat", "red cat, photo", {"channel": 0}),
        EvalPrompt("n1", "Counting", "two birds"),
    )


def test_types_can_be_chosen(tmp_path):
    write_prompts(tmp_path / "set.jsonl", PROMPTS)
    assert load_prompts(tmp_path / "set.jsonl", ["Counting"]) == PROMPTS[2:]
    with pytest.raises(PromptSetError, match="no prompts of type 'Colour'; its types are Color, Counting"):
        load_prompts(tmp_path / "set.jsonl", ["Counting", "Colour"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"id": "p", "type": "Color"}'], ("line 1", "'p'", "'prompt' is missing")),
        ([json.dumps(ENTRY), '{"type": "Color", "prompt": "x"}'], ("line 2", "'id' is missing")),
        ([json.dumps(ENTRY), "", json.dumps(ENTRY)], ("'p' occurs twice",)),
        ([json.dumps({**ENTRY, "simple": "x"})], ("unknown key 'simple'", "known are id, type")),
        ([json.dumps({**ENTRY, "prompt": " "})], ("line 1", "prompt should be a text")),
        ([json.dumps({**ENTRY, "id": 3})], ("line 1", "id should be a text", "3")),
        ([json.dumps({**ENTRY, "complex": None})], ("complex should be a text",)),
        (["[1, 2]"], ("line 1", "expected an object")),
        (["{"], ("line 1", "not JSON")),
        (["[" * 100_000], ("line 1", "not JSON")),
        (["", ""], ("no prompts",)),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, lines, words):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(PromptSetError) as caught:
        load_prompts(path)
    assert all(word in str(caught.value) for word in (str(path), *words)), caught.value


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[prompts]]\nid = 'p'\n", ("entry 1", "'type' is missing")),
        ("[[prompt]]\nid = 'p'\n", ("[[prompts]]", "['prompt']")),
        ("prompts = 3", ("[[prompts]]",)),
        ("= 3", ("not readable as TOML",)),
    ],
)
def test_a_wrong_toml_is_told(tmp_path, content, words):
    path = tmp_path / "set.toml"
    path.write_text(content)
    with pytest.raises(PromptSetError) as caught:
        load_prompts(path)
    assert all(word in str(caught.value) for word in (str(path), *words))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.jsonl: no such file"):
        load_prompts(tmp_path / "gone.jsonl")
    with pytest.raises(IsADirectoryError, match="found a folder"):
        load_prompts(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"id": "ü"}'.encode("latin-1"))
    with pytest.raises(PromptSetError, match="not UTF-8"):
        load_prompts(tmp_path / "latin.jsonl")


@pytest.mark.parametrize("truth", [{1, 2}, float("nan")])
def test_a_truth_that_is_no_json_is_not_written(tmp_path, truth):
    with pytest.raises(PromptSetError, match="'p'.*no JSON value"):
        write_prompts(tmp_path / "set.jsonl", [EvalPrompt("p", "t", "x", truth=truth)])
    assert not list(tmp_path.iterdir())


# --- arms and settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "name"),
        ({"text": "long"}, "'long'"),
        ({"eta": 0.5}, "need an adapter"),
        ({"to_negative": True}, "need an adapter"),
        ({"adapter": "a.safetensors", "eta": 1.5}, "1.5"),
    ],
)
def test_an_impossible_arm(values, words):
    with pytest.raises(ValueError, match=words):
        Arm(**{"name": "SUR", **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "all different"),
        ({"seeds": (-1,)}, "seeds"),
        ({"seeds": (0.5,)}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"batch_size": True}, "batch_size"),
        ({"width": -8}, "width"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"scheduler": "heun"}, "keep, ddim, dpmpp_2m, euler"),
        ({"dtype": "fp8"}, "fp32"),
        ({"resamples": 5}, "resamples"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_impossible_settings(values, words):
    with pytest.raises(ValueError, match=words):
        EvaluationSettings("out", **values)


def refused(tmp_path, words, arms=None, **options):
    with pytest.raises((ValueError, OSError), match=words):
        run(tmp_path / "out", arms or [Arm("base")], **options)
    assert not (tmp_path / "out").exists(), "nothing is written for what cannot work"


def test_what_does_not_fit_together_is_refused_before_the_model_is_opened(tmp_path):
    nothing = {"model": tmp_path / "no model here"}
    bare = EvalPrompt("bare", "Color", "a cat")
    refused(tmp_path, "two arms are called 'base'", [Arm("base"), Arm("base")], **nothing)
    refused(tmp_path, "'bare'.*add 'complex'", [Arm("c", text="complex")], prompts=[bare], **nothing)
    refused(tmp_path, "no prompts", prompts=[], **nothing)
    refused(tmp_path, "'bare' occurs twice", prompts=[bare, bare], **nothing)
    refused(tmp_path, "cannot be called 'all'", prompts=[EvalPrompt("p", "all", "x")], **nothing)
    refused(tmp_path, "need a CLIP model", reference=[], **nothing)
    refused(tmp_path, "two reference pictures or more, found 0", reference=[], clip="x", **nothing)
    refused(tmp_path, "no such folder", reference=tmp_path / "gone", clip="x", **nothing)
    refused(tmp_path, r"uint8 \[H, W, 3\]", reference=[[1, 2], [3]], clip="x", **nothing)
    refused(tmp_path, "no such folder", clip=tmp_path / "gone", **nothing)
    refused(tmp_path, "one prompt only", prompts=[bare], reference=tmp_path, clip="x", **nothing)
    refused(tmp_path, "no model here", **nothing)
    with pytest.raises(ValueError, match="no arms"):
        run(tmp_path / "out", [], **nothing)


# --- judges -------------------------------------------------------------------------------------------------


def test_a_judge_is_named_by_module_and_callable():
    assert load_judge("tests.evaluation_runs:make_judge").name == "channel"
    assert load_judge("tests.evaluation_runs:ChannelJudge").name == "channel"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("judge", "module:callable"),
        (":make", "module:callable"),
        ("no_such_module:make", "no_such_module cannot be imported"),
        ("tests.evaluation_runs:no_such_name", "no callable no_such_name"),
        ("tests.evaluation_runs:FAST", "no callable FAST"),
        ("tests.evaluation_runs:make_nothing", "found str"),
        ("tests.evaluation_runs:pixels_of", "without arguments"),
    ],
)
def test_a_judge_that_cannot_be_had(place, words):
    with pytest.raises(ValueError, match=words):
        load_judge(place)


class Saying(ChannelJudge):
    def __init__(self, answer):
        self.answer = answer

    def mark(self, pixels, prompt):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (True, "not a Verdict"),
        (Verdict("yes"), "not a Verdict"),
        (Verdict(True, details={"x": {1}}), "no JSON values"),
        (Verdict(True, details={"x": float("inf")}), "no JSON values"),
    ],
)
def test_a_verdict_that_is_none(answer, words):
    with pytest.raises(ValueError, match=f"'channel'.*{words}"):
        ask(Saying(answer), None, PROMPTS[0])


class Strict(ChannelJudge):
    def check(self, prompts):
        for prompt in prompts:
            if prompt.type != "Color":
                raise ValueError(
                    f"prompt {prompt.id!r} is of type {prompt.type!r}; this judge knows Color only"
                )


def test_a_judge_can_refuse_a_type_before_anything_is_drawn(tmp_path):
    refused(tmp_path, "'n1' is of type 'Counting'", judge=Strict(), model=tmp_path / "no model here")
