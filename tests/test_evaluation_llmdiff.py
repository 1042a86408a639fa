"""LLMDiff-Adapters as arms of an evaluation: they draw what the pipeline draws with the adapter attached."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from sur_core import AdapterMismatchError
from sur_core.evaluation import (
    Arm,
    EvalPrompt,
    EvaluationSettings,
    adapter_arm,
    hearing,
    read_results,
    study_checks,
    write_prompts,
)
from sur_core.evaluation.drawing import Draughtsman, read_picture
from sur_core.evaluation.hearing import SPAN
from sur_core.evaluation.methods import make_method
from sur_core.evaluation.methods.method import Opened
from sur_core.evaluation.pipeline_calls import prepared
from sur_core.evaluation.study_config import StudyError, load_study
from sur_core.language_model_files import KnowledgeError
from sur_core.llmdiff import encode_prompts, load_llmdiff, save_llmdiff
from sur_core.llmdiff.diffusers_unet import attach, unet_shape
from sur_core.llmdiff.encoder import BlockwiseEncoder
from sur_core.llmdiff.llm import open_llm
from tests.evaluation_runs import FAST, PROMPTS, adapter_file, by_prompt, equal, pipeline, run
from tests.llmdiff_parts import random_llmdiff
from tests.llmdiff_runs import tiny_llm
from tests.method_models import WIDE, method, table
from tests.small_data import tiny_model
from tests.study_runs import study, write_study_file
from train.__main__ import main

SIDES = ("positive", "negative")


@cache
def encoder() -> BlockwiseEncoder:
    return BlockwiseEncoder(open_llm(tiny_llm()))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Adapter file of a family and a seed, made once."""
    folder = tmp_path_factory.mktemp("llmdiff")

    @cache
    def made(family: str = "sd1", seed: int = 0, clip: str = "drop", dtype: str = "") -> Path:
        reader = encoder()
        shape = unet_shape(pipeline(family).unet)
        sizes = {"llm_width": reader.width, "llm_blocks": reader.blocks, "clip": clip}
        path = folder / f"{family}-{seed}-{clip}-{dtype}.safetensors"
        about = {"llm_name": reader.name, "llm_identity": reader.identity}
        about |= {"extra": {"llmdiff_training.llm_dtype": dtype}} if dtype else {}
        save_llmdiff(random_llmdiff(*shape, seed, **sizes), path, **about)
        return path

    return made


def arm(path: Path, strength: float = 0.7, name: str = "LLMDiff", **others) -> Arm:
    return Arm(name, llmdiff=path, strength=strength, llm=str(tiny_llm()), **others)


def by_hand(path: Path, prompt: str, seed: int, strength: float, family: str = "sd1") -> np.ndarray:
    """One picture of the pipeline itself, alone in its batch."""
    pipe, adapter = pipeline(family), load_llmdiff(path)
    pipe.set_progress_bar_config(disable=True)
    encoded = dict(zip(SIDES, encode_prompts(encoder(), adapter, [prompt, ""]), strict=True))
    with attach(pipe, adapter) as session:
        session.use([encoded["positive"]], [encoded["negative"]], strength)
        drawn = pipe(
            prompt,
            num_inference_steps=FAST["steps"],
            guidance_scale=FAST["guidance_scale"],
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        )
    return (drawn.images[0] * 255).round()


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_an_arm_draws_what_the_pipeline_draws_with_the_adapter_attached(family, files, tmp_path):
    path = files(family)
    found = run(tmp_path, [Arm("base"), arm(path)], family)
    base, drawn = by_prompt(found, "base"), by_prompt(found, "LLMDiff")
    for prompt in PROMPTS:
        for seed in FAST["seeds"]:
            pixels, wanted = drawn[prompt.id, seed], by_hand(path, prompt.prompt, seed, 0.7, family)
            moved = np.abs(pixels - base[prompt.id, seed].astype(float)).mean()
            assert np.abs(pixels - wanted).mean() < 0.02 * moved  # other batches, other rounding


def test_at_strength_0_the_pictures_are_the_baselines(files, tmp_path):
    found = run(tmp_path, [Arm("base"), arm(files(), 0.0)])
    assert equal(by_prompt(found, "base"), by_prompt(found, "LLMDiff"))


def test_what_is_drawn_beside_an_arm_changes_no_picture_of_it(files, tmp_path):
    arms = [
        Arm("base"),
        arm(files(), 0.7, "one"),
        arm(files(), 0.3, "weak"),
        arm(files(seed=1), 0.7, "other"),
        Arm("SUR", adapter=adapter_file(), eta=0.5),
        arm(files(clip="keep"), 0.7, "both", adapter=adapter_file(), eta=0.5),
    ]
    together = run(tmp_path / "all", arms)
    drawn = [by_prompt(together, one.name) for one in arms]
    for one, pixels in zip(arms, drawn, strict=True):
        alone = run(tmp_path / one.name, [one])
        assert equal(by_prompt(alone, one.name), pixels), one.name
    for place, pixels in enumerate(drawn):
        assert not any(equal(pixels, others) for others in drawn[:place]), arms[place].name
    assert read_results(tmp_path / "all").arms == tuple(arms)


WORDS = ["red", "cat", "near", "a", "blue", "dog", "green", "horse", "photo", "two", "birds", "three"]
LENGTHS = (2, 14, 5, 8, 11, 3, 9)
SOME = tuple(
    EvalPrompt(f"p{place}", "Color", " ".join((WORDS[place:] + WORDS)[:count]), "", {"channel": 0})
    for place, count in enumerate(LENGTHS)
)


def test_the_prompts_of_these_tests_are_of_several_spans():
    tokens = [len(ids) for ids in encoder().tokenize([prompt.prompt for prompt in SOME])]
    assert len({-(-count // SPAN) for count in tokens}) > 1 and len(set(tokens)) > 4


def test_a_stopped_run_that_goes_on_draws_the_same_pictures(files, tmp_path):
    arms, options = [arm(files(), 0.9)], {"prompts": SOME, "seeds": (1, 2, 3), "steps": 4}
    whole = by_prompt(run(tmp_path, arms, **options), "LLMDiff")
    random = np.random.default_rng(0)
    for _ in range(2):
        for path in sorted(tmp_path.rglob("*/*/*.png")):
            if random.random() < 0.5:
                path.unlink()
        hearing._remembered.clear()  # as in a new process
        assert equal(whole, by_prompt(run(tmp_path, arms, **options), "LLMDiff"))


def test_the_shares_of_two_processes_are_the_pictures_of_one(files, tmp_path):
    def drawn(folder, parts):
        settings = EvaluationSettings(folder, **FAST)
        with prepared(pipeline(), settings):
            for rank in range(parts):
                artist = Draughtsman(Opened(pipeline()), settings)
                jobs = [job for prompt in SOME for job in artist.jobs(arm(files()), prompt)]
                hearing._remembered.clear()
                artist.draw(jobs[rank::parts], None, lambda: None)
        return {job.path: read_picture(folder / job.path) for job in jobs}

    assert equal(drawn(tmp_path / "one", 1), drawn(tmp_path / "two", 2))


def test_two_language_models_of_one_name_are_two_arms(files, tmp_path, caplog):
    """A model and its fine-tune."""
    tuned = tmp_path / "models" / tiny_llm().name
    shutil.copytree(tiny_llm(), tuned)
    weights = {name: 1.3 * value for name, value in load_file(tuned / "model.safetensors").items()}
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    arms = [arm(files(), name="first"), Arm("tuned", llmdiff=files(), strength=0.7, llm=str(tuned))]
    together = run(tmp_path / "both", arms)
    assert "the files found under this name are others" in caplog.text
    drawn = {one.name: by_prompt(together, one.name) for one in arms}
    assert not equal(drawn["first"], drawn["tuned"])
    for one in arms:
        assert equal(by_prompt(run(tmp_path / one.name, [one]), one.name), drawn[one.name])
    paths = [{picture.path for picture in together.of(one.name)} for one in arms]
    assert not paths[0] & paths[1]


def test_the_language_model_is_read_in_the_type_that_the_adapter_learnt_from(files, tmp_path):
    """And what is drawn so lies elsewhere."""
    learnt = [files(dtype=dtype) for dtype in ("fp32", "bf16")]
    found = [run(tmp_path / path.stem, [arm(path)]) for path in learnt]
    assert not equal(*(by_prompt(one, "LLMDiff") for one in found))
    about = [json.loads(one.file(one.pictures[0]).with_name("about.json").read_text()) for one in found]
    assert [one["hearing"]["llm"].pop("dtype") for one in about] == ["fp32", "bf16"]
    assert about[0]["hearing"]["llm"] == about[1]["hearing"]["llm"]
    unknown = run(tmp_path / "unknown", [arm(files())])
    assert equal(by_prompt(found[0], "LLMDiff"), by_prompt(unknown, "LLMDiff"))


def test_a_unet_that_is_guided_without_negative_rows_is_drawn_with(files, tmp_path):
    config = {**pipeline().unet.config, "time_cond_proj_dim": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(config).eval()
    unet.load_state_dict(pipeline().unet.state_dict(), strict=False)
    parts = {**pipeline().components, "unet": unet}
    distilled = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    found = run(tmp_path, [Arm("base"), arm(files())], model=distilled, guidance_scale=8.0)
    assert not equal(by_prompt(found, "base"), by_prompt(found, "LLMDiff"))


def test_what_only_the_text_encoder_would_hear_is_refused_where_it_is_not_heard(files, tmp_path):
    both = {"adapter": adapter_file(), "eta": 0.5}
    with pytest.raises(ValueError, match="so that the SUR-adapter would change nothing"):
        run(tmp_path, [arm(files(), 1.0, **both)])
    for path, strength in ((files(), 0.9), (files(clip="keep"), 1.0)):
        run(tmp_path, [arm(path, strength, **both)], prompts=PROMPTS[:1])


def test_several_views_at_once_are_refused(files, tmp_path):
    views = make_method({**table("multidiffusion"), "view_batch_size": 2}, tmp_path)
    with pytest.raises(ValueError, match="arm 'LLMDiff': this method calls the UNet in ways"):
        run(tmp_path, [arm(files())], method=views, prompts=PROMPTS[:1], **WIDE)


def test_pipelines_that_are_not_known_to_call_the_unet_as_it_needs_are_refused(files, tmp_path):
    class OtherPipeline(StableDiffusionPipeline):
        pass

    other = OtherPipeline(**pipeline().components, requires_safety_checker=False)
    with pytest.raises(ValueError, match="arm 'LLMDiff': this method calls the UNet in ways"):
        run(tmp_path, [arm(files())], model=other)


def test_a_language_model_without_weights_is_told_before_anything_is_drawn(files, tmp_path):
    empty = tmp_path / "models" / tiny_llm().name
    shutil.copytree(tiny_llm(), empty)
    (empty / "model.safetensors").unlink()
    with pytest.raises(KnowledgeError, match="the language model has no weights there"):
        run(tmp_path / "out", [Arm("base"), Arm("x", llmdiff=files(), strength=1.0, llm=str(empty))])
    assert not list(tmp_path.rglob("*.png"))


def test_running_out_of_memory_while_reading_says_what_to_set(files, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    hearing._remembered.clear()
    monkeypatch.setattr(hearing, "open_llm", full)
    with pytest.raises(ValueError, match="does not fit into the memory of cpu. Set llm_device to cpu"):
        run(tmp_path, [arm(files())])


def test_the_negative_prompt_is_heard(files, tmp_path):
    plain = run(tmp_path / "plain", [arm(files(), 1.0)])  # with clip="drop" nothing else reads prompts
    other = run(tmp_path / "other", [arm(files(), 1.0, negative_prompt="blurred")])
    assert not equal(by_prompt(plain, "LLMDiff"), by_prompt(other, "LLMDiff"))


def test_without_guidance_there_is_no_negative_prompt(files, tmp_path):
    runs = [
        run(tmp_path / str(number), [arm(files(), negative_prompt=text)], guidance_scale=1.0)
        for number, text in enumerate(["", "blurred"])
    ]
    assert equal(*(by_prompt(found, "LLMDiff") for found in runs))


@pytest.mark.parametrize("kind", ["controlnet-canny", "multidiffusion"])
def test_controlled_methods_hear_it(kind, files, tmp_path):
    size = WIDE if kind == "multidiffusion" else {}
    arms = [Arm("base"), arm(files(), 0.0, "none"), arm(files(), 0.7)]
    found = run(tmp_path, arms, method=method(kind), prompts=PROMPTS[:2], **size)
    base = by_prompt(found, "base")
    assert equal(base, by_prompt(found, "none"))
    for key, pixels in by_prompt(found, "LLMDiff").items():
        assert not np.array_equal(pixels, base[key]), key


def test_self_attention_guidance_refuses_it_before_anything_is_drawn(files, tmp_path):
    with pytest.raises(ValueError, match="arm 'LLMDiff': this method calls the UNet in ways"):
        run(tmp_path, [Arm("base"), arm(files())], method=method("sag"), prompts=PROMPTS[:1])
    assert not list(tmp_path.rglob("*.png"))


def test_the_pipeline_is_left_as_it_was(files, tmp_path):
    before = dict(pipeline().unet.attn_processors)
    run(tmp_path, [arm(files())])
    after = pipeline().unet.attn_processors
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)


def test_wrong_arms_are_told_in_words(files, tmp_path):
    with pytest.raises(ValueError, match="arm 'x': .*reads prompts with a language model; give its folder"):
        adapter_arm("x", files(), 1.0)
    with pytest.raises(ValueError, match="arm 'x': strength and llm need an LLMDiff-Adapter file"):
        Arm("x", strength=0.5)
    with pytest.raises(ValueError, match="arm 'x': .*strength must be in 0..1, found 1.5"):
        adapter_arm("x", files(), 1.5, tiny_llm())
    with pytest.raises(ValueError, match="reads every negative prompt"):
        adapter_arm("x", files(), 1.0, tiny_llm(), to_negative=True)


def test_what_does_not_fit_is_told_before_anything_is_drawn(files, tmp_path):
    wrong = {
        "another family": (arm(files("sd2")), AdapterMismatchError, "Choose a model of the family"),
        "another language model": (
            Arm("x", llmdiff=files(), strength=1.0, llm=str(tiny_llm("gpt2", layers=2))),
            AdapterMismatchError,
            "Load the language model the adapter was trained with",
        ),
        "no folder": (
            Arm("x", llmdiff=files(), strength=1.0, llm=str(tmp_path / "none")),
            OSError,
            "Give the folder of a transformers model",
        ),
    }
    for name, (one, kind, words) in wrong.items():
        with pytest.raises(kind, match=words):
            run(tmp_path / name, [Arm("base"), one])
        assert not list((tmp_path / name).rglob("*.png"))
    long = (EvalPrompt("l", "Color", "cat " * 60, "", {"channel": 0}),)
    with pytest.raises(KnowledgeError, match="reads at most"):
        run(tmp_path / "long", [Arm("base"), arm(files())], prompts=long)


def test_a_study_takes_an_llmdiff_adapter_with_its_language_model_beside_it(files, tmp_path):
    (tmp_path / "llm").symlink_to(tiny_llm())
    text = f"""
        output_dir = "out"
        prompts = ["paper"]
        [[models]]
        path = "any"
        [[adapters]]
        path = "{files().as_posix()}"
        name = "LLMDiff"
    """
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(StudyError, match="reads prompts with a language model"):
        load_study(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(text + 'llm = "llm"')
    config = load_study(tmp_path / "study.toml")
    _, found = config.arms(config.models[0])
    assert (found.llmdiff, found.strength, found.llm) == (files(), 1.0, str(tmp_path / "llm"))


def test_a_study_of_both_systems_says_what_drew_and_equals_the_baseline_at_0(files, tmp_path):
    both = [
        {"name": "SUR", "path": str(adapter_file()), "etas": [0.5]},
        {"path": str(files()), "etas": [0.0, 0.7], "llm": str(tiny_llm())},
    ]
    kinds, model = ("none", "controlnet-canny"), {"name": "DM", "path": str(tiny_model("sd1"))}
    changes = {"methods": [table(kind) for kind in kinds], "adapters": both, "models": [model]}
    found = study(tmp_path, **changes, quality=None)
    assert [cell.method for cell in found.cells] == list(kinds)
    for cell in found.cells:
        arms = {arm.name: by_prompt(cell.evaluation, arm.name) for arm in cell.evaluation.arms}
        assert list(arms) == ["Baseline", "SUR, eta 0.5", "LLMDiff, strength 0", "LLMDiff, strength 0.7"]
        assert equal(arms["Baseline"], arms["LLMDiff, strength 0"])
        assert not equal(arms["Baseline"], arms["LLMDiff, strength 0.7"])
    for name in ("study.md", "report.html"):
        assert f"read by {tiny_llm()}" in (tmp_path / "study" / name).read_text("utf-8")


def test_a_study_refuses_a_model_of_another_family_before_anything_is_drawn(files, tmp_path):
    adapter = {"name": "LLMDiff", "path": str(files()), "etas": [0.7], "llm": str(tiny_llm())}
    models = [{"name": family, "path": str(tiny_model(family))} for family in ("sd1", "sd2")]
    common = {"methods": [table("none")], "quality": None, "judge": None}
    with pytest.raises(AdapterMismatchError, match="made for .*model 'sd2' is a UNet"):
        study(tmp_path, models=models, adapters=[adapter], **common)
    assert not list(tmp_path.rglob("*.png"))
    sur = {"name": "SUR", "path": str(adapter_file("sd2")), "etas": [0.5], "models": ["sd2"]}
    study(tmp_path, models=models, adapters=[{**adapter, "models": ["sd1"]}, sur], **common)


def test_a_study_reads_an_adapter_once_for_all_models_and_methods(files, tmp_path, monkeypatch):
    read, load = [], study_checks.load_llmdiff
    monkeypatch.setattr(study_checks, "load_llmdiff", lambda path: read.append(path) or load(path))
    adapter = {"path": str(files()), "etas": [0.0, 0.3, 0.7], "llm": str(tiny_llm())}
    models = [{"name": name, "path": str(tiny_model("sd1"))} for name in "ab"]
    methods = [table("none"), table("controlnet-canny")]
    changes = {"models": models, "adapters": [adapter], "methods": methods, "quality": None}
    study_checks.check_study(load_study(write_study_file(tmp_path, **changes)))
    assert read == [files()]


def test_a_study_refuses_what_cannot_hear_before_anything_is_drawn(files, tmp_path):
    llmdiff = {"name": "LLMDiff", "path": str(files()), "etas": [0.7], "llm": str(tiny_llm())}
    model = {"name": "DM", "path": str(tiny_model("sd1"))}
    common = {"adapters": [llmdiff], "models": [model], "quality": None}
    methods = [table("none"), table("sag")]
    with pytest.raises(
        ValueError, match="model 'DM', method 'sag': arm 'LLMDiff, strength 0.7': this method"
    ):
        study(tmp_path / "sag", methods=methods, **common)
    with pytest.raises(ValueError, match="method 'sag': every adapter has other methods"):
        study(tmp_path / "sag", methods=methods, **common | {"adapters": [{**llmdiff, "methods": ["none"]}]})
    with pytest.raises(ValueError, match="methods names 'some'; expected names of"):
        study(tmp_path / "sag", methods=methods, **common | {"adapters": [{**llmdiff, "methods": ["some"]}]})
    prompts = tmp_path / "long.jsonl"
    write_prompts(prompts, [EvalPrompt("l", "Color", "cat " * 60, "", {"channel": 0})])
    with pytest.raises(KnowledgeError, match="reads at most"):
        study(tmp_path / "long", methods=[table("none")], prompts=str(prompts), **common)
    assert not list(tmp_path.rglob("*.png"))


def test_the_command_line_draws_both_systems(files, tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "type": "Color", "prompt": "a red cat"}\n')
    options = ["--pretrained-model-name-or-path", tiny_model("sd1"), "--prompts", tmp_path / "prompts.jsonl"]
    options += ["--adapter", f"LLM={files()}", "--adapter", f"SUR={adapter_file()}", "--eta", "0", "0.5"]
    options += ["--output-dir", tmp_path / "out", "--seeds", "1", "--steps", "2", "--device", "cpu"]
    assert main(["evaluate", *map(str, options)]) == 1
    assert "give its folder as llm" in capsys.readouterr().err
    assert main(["evaluate", *map(str, options), "--llm", str(tiny_llm())]) == 0
    names = [one.name for one in read_results(tmp_path / "out").arms]
    assert names == ["base", "LLM, strength 0", "LLM, strength 0.5", "SUR, eta 0", "SUR, eta 0.5"]
