"""A picture depends on nothing but what its key says, and is what the pipeline itself would draw."""

import copy

import numpy as np
import pytest
import torch

from sur_core import adapt, load_adapter
from sur_core.diffusers_backend import open_backend
from sur_core.evaluation import Arm
from sur_core.evaluation.pipeline_identity import pipeline_fingerprint
from sur_core.evaluation.text import PromptEncoder, Request
from tests.evaluation_runs import FAST, PROMPTS, adapter_file, by_prompt, equal, pipeline, pixels_of, run
from tests.small_data import tiny_model

FAMILIES = pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
NEGATIVES = pytest.mark.parametrize("negative", ["", "a white car"])


def own_embeddings(family: str, text: str, negative: str) -> dict[str, torch.Tensor]:
    """What the pipeline makes of a prompt when it is called with words."""
    found = pipeline(family).encode_prompt(
        prompt=text,
        device=torch.device("cpu"),
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative or None,
    )
    names = [
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ]
    return dict(zip(names[: len(found)], found, strict=True))


def own_picture(family: str, seed: int, **inputs) -> np.ndarray:
    model = pipeline(family)
    model.set_progress_bar_config(disable=True)
    output = model(
        **inputs,
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=FAST["steps"],
        guidance_scale=FAST["guidance_scale"],
        output_type="pil",
    )
    model.set_progress_bar_config()
    return np.asarray(output.images[0])


@FAMILIES
@NEGATIVES
def test_embeddings_are_the_pipelines_own(family, negative):
    request = Request("a red cat near a blue dog", negative, None, 0.0, False)
    found = PromptEncoder(pipeline(family)).embeddings(request)
    expected = own_embeddings(family, request.text, negative)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_embeddings_are_those_the_adapter_was_trained_on(clip_skip):
    backend = open_backend(tiny_model("sd1"), clip_skip=clip_skip)
    encoder = PromptEncoder(pipeline("sd1"), clip_skip)
    found = encoder.embeddings(Request("a red cat", "a dog", None, 0.0, False))
    for name, text in {"prompt_embeds": "a red cat", "negative_prompt_embeds": "a dog"}.items():
        assert torch.equal(found[name], backend.encode_text([text]).hidden["clip_l"])


@FAMILIES
@NEGATIVES
def test_pictures_are_what_the_pipeline_draws_from_words(family, negative, tmp_path):
    found = run(tmp_path, [Arm("base", negative_prompt=negative)], family, prompts=PROMPTS[:1], batch_size=1)
    for picture, pixels in zip(found.pictures, pixels_of(found, "base"), strict=True):
        expected = own_picture(
            family, picture.seed, prompt=PROMPTS[0].prompt, negative_prompt=negative or None
        )
        assert np.array_equal(pixels, expected)


@FAMILIES
@pytest.mark.parametrize("to_negative", [False, True])
def test_an_adapters_pictures_are_those_of_adapted_embeddings(family, to_negative, tmp_path):
    arm = Arm("SUR", adapter=adapter_file(family), eta=0.5, to_negative=to_negative, negative_prompt="a dog")
    found = run(tmp_path, [arm], family, prompts=PROMPTS[:1], batch_size=1, seeds=(3,))
    inputs, adapter = own_embeddings(family, PROMPTS[0].prompt, "a dog"), load_adapter(adapter_file(family))
    for name in ("prompt_embeds", "negative_prompt_embeds")[: 1 + to_negative]:
        inputs[name] = adapt(adapter, inputs[name], 0.5)
    assert np.array_equal(pixels_of(found, "SUR")[0], own_picture(family, 3, **inputs))


@FAMILIES
def test_eta_0_draws_exactly_the_base(family, tmp_path):
    base = run(tmp_path / "base", [Arm("base")], family)
    none = run(tmp_path / "none", [Arm("SUR", adapter=adapter_file(family), to_negative=True)], family)
    some = run(tmp_path / "some", [Arm("SUR", adapter=adapter_file(family), eta=0.3)], family)
    assert equal(by_prompt(base, "base"), by_prompt(none, "SUR"))
    assert not equal(by_prompt(base, "base"), by_prompt(some, "SUR"))
    assert [p.path for p in base.pictures] == [p.path for p in none.pictures], "drawn once, if in one folder"


def test_no_negative_prompt_of_sdxl_is_no_text_to_adapt():
    encoder, file = PromptEncoder(pipeline("sdxl")), adapter_file("sdxl")
    found = encoder.embeddings(Request("a cat", "", file, 0.5, True))
    assert not found["negative_prompt_embeds"].any() and not found["negative_pooled_prompt_embeds"].any()


# --- what a picture does not depend on ----------------------------------------------------------------------


def test_order_and_company_change_nothing(tmp_path):
    arms = [Arm("base"), Arm("SUR", adapter=adapter_file(), eta=0.5)]
    first = run(tmp_path / "first", arms, seeds=(3, 5, 7))
    turned = run(tmp_path / "turned", arms[::-1], prompts=PROMPTS[::-1], seeds=(7, 3, 5))
    alone = run(tmp_path / "alone", arms[1:], prompts=PROMPTS[:2], seeds=(5, 11))
    for arm in ("base", "SUR"):
        assert equal(by_prompt(first, arm), by_prompt(turned, arm))
    pictures = by_prompt(alone, "SUR")
    for key in pictures.keys() & by_prompt(first, "SUR").keys():
        assert np.array_equal(pictures[key], by_prompt(first, "SUR")[key])


def test_every_batch_is_full_whatever_is_drawn_beside_a_picture(tmp_path):
    """Else a picture's last bits would depend on how many arms, prompts and seeds its first run had."""
    seen, model = set(), pipeline("sd1")
    hook = model.unet.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    try:
        run(tmp_path, [Arm("base")], prompts=PROMPTS[:1], seeds=(3,))
        run(tmp_path, [Arm("base")], seeds=(3, 5))
    finally:
        hook.remove()
    assert seen == {2 * FAST["batch_size"]}, "twice, with and without the prompt"


def test_the_batch_size_changes_rounding_at_most(tmp_path):
    found = [by_prompt(run(tmp_path / f"{size}", [Arm("base")], batch_size=size), "base") for size in (1, 4)]
    for key, pixels in found[0].items():
        difference = np.abs(pixels.astype(int) - found[1][key])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_each_seed_has_noise_of_its_own(tmp_path):
    found = run(tmp_path, [Arm("base")], seeds=(0, 1, 2), prompts=PROMPTS[:1])
    pictures = {pixels.tobytes() for pixels in by_prompt(found, "base").values()}
    assert len(pictures) == 3


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_schedulers_that_add_noise_add_each_pictures_own(scheduler, tmp_path):
    import diffusers

    model = copy.copy(pipeline("sd1"))
    model.scheduler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
    first = run(tmp_path / "first", [Arm("base")], model=model)
    turned = run(tmp_path / "turned", [Arm("base")], model=model, prompts=PROMPTS[::-1], seeds=(5, 3))
    assert equal(by_prompt(first, "base"), by_prompt(turned, "base"))


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "euler"])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_scheduler_can_be_chosen(scheduler, family, tmp_path):
    found = run(tmp_path, [Arm("base")], family, scheduler=scheduler, prompts=PROMPTS[:1], batch_size=1)
    import diffusers

    names = {"ddim": "DDIM", "dpmpp_2m": "DPMSolverMultistep", "euler": "EulerDiscrete"}
    model = copy.copy(pipeline(family))
    model.scheduler = getattr(diffusers, names[scheduler] + "Scheduler").from_config(model.scheduler.config)
    assert model.scheduler.config.prediction_type == {"sd1": "epsilon", "sd2": "v_prediction"}[family]
    direct = run(tmp_path, [Arm("base")], model=model, prompts=PROMPTS[:1], batch_size=1)
    assert equal(by_prompt(found, "base"), by_prompt(direct, "base"))


def test_the_pipeline_is_left_as_it_was(tmp_path):
    model = pipeline("sd1")
    scheduler, before = model.scheduler, pipeline_fingerprint(model)
    model.set_progress_bar_config(desc="mine")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    run(tmp_path, [Arm("SUR", adapter=adapter_file(), eta=0.5)], scheduler="euler")
    assert model.scheduler is scheduler and pipeline_fingerprint(model) == before
    assert model._progress_bar_config == {"desc": "mine"}
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are its own"
    model.set_progress_bar_config()


def test_pictures_have_the_size_asked_for(tmp_path):
    found = run(tmp_path, [Arm("base")], prompts=PROMPTS[:1], width=72, height=48)
    assert pixels_of(found, "base")[0].shape == (48, 72, 3)
    with pytest.raises(ValueError, match="width 70"):
        run(tmp_path, [Arm("base")], width=70)
