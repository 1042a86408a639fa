"""Every controlled method draws what diffusers' own pipeline draws, with and without an adapter."""

import copy
import importlib.util

import diffusers
import numpy as np
import pytest
import torch

from sur_core import adapt, load_adapter
from sur_core.evaluation import Arm
from sur_core.evaluation.methods import PictureFolder, canny
from sur_core.evaluation.methods.method import rebuilt
from sur_core.evaluation.pipeline_identity import pipeline_fingerprint
from sur_core.evaluation.run import open_method
from sur_core.evaluation.settings import EvaluationSettings
from sur_core.evaluation.text import PromptEncoder, Request
from tests.evaluation_runs import FAST, PROMPTS, adapter_file, by_prompt, equal, pipeline, pixels_of, run
from tests.method_models import (
    PLAIN_KINDS,
    WIDE,
    blocks,
    controlnet_folder,
    method,
    picture_folder,
    save_picture,
)

KINDS = pytest.mark.parametrize("kind", PLAIN_KINDS)
CASES = pytest.mark.parametrize(
    ("kind", "family"),
    [*((kind, "sd1") for kind in PLAIN_KINDS), ("controlnet-canny", "sdxl"), ("sag", "sd2")],
)
NEEDS_COMPEL = pytest.mark.skipif(
    importlib.util.find_spec("compel") is None, reason="compel is not installed"
)


def arm(family: str = "sd1", eta: float = 0.5) -> Arm:
    return Arm("SUR", adapter=adapter_file(family), eta=eta)


def options(kind: str, family: str) -> dict:
    return {"scheduler": "ddim"} if (kind, family) == ("sag", "sdxl") else {}


@CASES
def test_baseline_and_sur_at_eta_0_are_equal_image_by_image_and_at_another_eta_they_are_not(
    kind, family, tmp_path
):
    given = {"method": method(kind, family), "family": family, "prompts": PROMPTS[:2]}
    base = run(tmp_path / "base", [Arm("base")], **given)
    none = run(tmp_path / "none", [arm(family, 0.0)], **given)
    some = run(tmp_path / "some", [arm(family)], **given)
    assert equal(by_prompt(base, "base"), by_prompt(none, "SUR"))
    for key, pixels in by_prompt(some, "SUR").items():
        assert not np.array_equal(pixels, by_prompt(base, "base")[key]), key


@pytest.mark.parametrize("kind", [*PLAIN_KINDS, pytest.param("weighting", marks=NEEDS_COMPEL)])
def test_the_adapter_itself_changes_nothing_at_eta_0(kind, tmp_path):
    """A run never asks it at eta 0; if it did, the pipeline would be given the same numbers."""
    settings = EvaluationSettings(tmp_path, **FAST)
    ready = open_method(method(kind), pipeline("sd1"), settings, PROMPTS)
    encoder = PromptEncoder(ready.pipeline, 1, ready.weights)
    for prompt in PROMPTS:
        weighted = ready.weights.text(prompt) if ready.weights else ""
        base, none, some = (
            encoder.embeddings(Request(prompt.prompt, "a car", file, eta, True, weighted))
            for file, eta in ((None, 0.0), (adapter_file(), 0.0), (adapter_file(), 0.5))
        )
        assert base.keys() == none.keys() and all(torch.equal(base[name], none[name]) for name in base)
        assert not any(torch.equal(base[name], some[name]) for name in base)


def own_inputs(text: str, eta: float) -> dict:
    """What the plain pipeline makes of a prompt, adapted by hand."""
    hidden, none = pipeline("sd1").encode_prompt(text, torch.device("cpu"), 1, True)
    if eta:
        hidden = adapt(load_adapter(adapter_file()), hidden, eta)
    return {"prompt_embeds": hidden, "negative_prompt_embeds": none}


def own_pipeline(kind: str):
    parts = {**pipeline("sd1").components, "safety_checker": None, "requires_safety_checker": False}
    if kind == "multidiffusion":
        return diffusers.StableDiffusionPanoramaPipeline(**parts), WIDE
    if kind == "sag":
        return diffusers.StableDiffusionSAGPipeline(**parts), {"sag_scale": 0.75}
    net = diffusers.ControlNetModel.from_pretrained(controlnet_folder())
    return diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=net), {}


@pytest.mark.parametrize("kind", ["controlnet-canny", "multidiffusion", "sag"])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_a_methods_pictures_are_those_of_diffusers_own_pipeline(kind, eta, tmp_path):
    """Also in a run that draws several at once, where the pipeline itself draws one."""
    found = run(tmp_path, [arm(eta=eta)], method=method(kind), batch_size=2)
    own, given = own_pipeline(kind)
    own.set_progress_bar_config(disable=True)
    for picture, pixels in zip(found.pictures, pixels_of(found, "SUR"), strict=True):
        prompt = next(prompt for prompt in PROMPTS if prompt.id == picture.prompt_id)
        if kind == "controlnet-canny":
            given = {"image": edges_of(prompt)}
        output = own(
            **own_inputs(prompt.prompt, eta),
            generator=torch.Generator().manual_seed(picture.seed),
            num_inference_steps=FAST["steps"],
            guidance_scale=FAST["guidance_scale"],
            **given,
        )
        difference = np.abs(pixels.astype(int) - np.asarray(output.images[0]))
        assert difference.max() <= (0 if kind == "multidiffusion" else 1)
        assert (difference > 0).mean() < 0.01


def edges_of(prompt):
    """The condition image, made by other means than the method's."""
    from PIL import Image

    whole = Image.open(picture_folder() / f"{prompt.id}.png").crop((8, 0, 72, 64))
    return Image.fromarray(canny(np.asarray(whole)))


@KINDS
def test_order_and_company_change_nothing(kind, tmp_path):
    given = {"method": method(kind)}
    first = run(tmp_path / "first", [Arm("base"), arm()], **given)
    turned = run(tmp_path / "turned", [arm()], prompts=PROMPTS[::-1], seeds=(5, 3), **given)
    assert equal(by_prompt(first, "SUR"), by_prompt(turned, "SUR"))


@KINDS
def test_the_model_is_left_as_it_was(kind, tmp_path):
    model = pipeline("sd1")
    before = pipeline_fingerprint(model), dict(model.unet.attn_processors)
    run(tmp_path, [arm()], method=method(kind), prompts=PROMPTS[:1], seeds=(3,))
    assert (pipeline_fingerprint(model), dict(model.unet.attn_processors)) == before


def test_every_method_has_pictures_of_its_own(tmp_path):
    arms, given = [Arm("base")], {"prompts": PROMPTS[:1], "seeds": (3,)}
    found = [run(tmp_path, arms, method=method(kind), **given) for kind in PLAIN_KINDS]
    plain = run(tmp_path, arms, **given)
    assert len({result.pictures[0].path for result in found}) == len(PLAIN_KINDS)
    assert len({pixels_of(result, "base")[0].tobytes() for result in found}) == len(PLAIN_KINDS)
    assert found[0].pictures == plain.pictures, "no method and the plain one are the same"
    assert pixels_of(found[PLAIN_KINDS.index("multidiffusion")], "base")[0].shape == (64, 576, 3)


def test_the_key_knows_a_methods_settings_and_condition_images_and_nothing_else(tmp_path):
    def path(kind, **changes):
        given = {"prompts": PROMPTS[:1], "seeds": (3,), "method": method(kind, **changes)}
        return run(tmp_path / "out", [Arm("base")], **given).pictures[0].path

    other, same = tmp_path / "other", tmp_path / "same"
    for folder, seed in ((other, 9), (same, 0)):
        folder.mkdir()
        save_picture(folder / "c1.png", blocks(seed))
        for prompt in PROMPTS[1:]:
            save_picture(folder / f"{prompt.id}.png", blocks(5))
    found = [
        path("controlnet-canny"),
        path("controlnet-canny", pictures=str(other)),
        path("controlnet-canny", scale=0.5),
        path("controlnet-canny", end=0.4),
        path("controlnet-canny", low=20.0, high=40.0),
        path("sag"),
        path("sag", scale=0.5),
        path("multidiffusion"),
        path("multidiffusion", width=640),
        path("multidiffusion", circular=True),
    ]
    assert len(set(found)) == len(found)
    assert path("controlnet-canny", pictures=str(same)) == found[0], "other prompts' pictures decide nothing"
    assert path("controlnet-canny", name="another name") == found[0]


def test_condition_images_that_are_made_are_kept_and_may_be_given_instead(tmp_path):
    """What a run made from pictures, given as conditions, draws the same."""
    kept = tmp_path / "conditions"
    kept.mkdir()
    for kind in ("controlnet-canny", "controlnet-seg"):
        made = run(tmp_path / kind, [Arm("base")], method=method(kind))
        for prompt in PROMPTS:
            (path,) = (tmp_path / kind / "conditions").glob(f"{prompt.id}-*.png")
            (kept / f"{prompt.id}.png").write_bytes(path.read_bytes())
        changes = {"pictures": "", "conditions": str(kept)}
        given = run(tmp_path / f"{kind}-given", [Arm("base")], method=method(kind, **changes))
        assert [p.path for p in made.pictures] == [p.path for p in given.pictures]
        assert "made from" in made.about["conditions"] and "made" not in given.about["conditions"]


def test_a_stop_within_self_attention_guidance_leaves_the_model_as_it_was(tmp_path):
    model = pipeline("sd1")
    before = dict(model.unet.attn_processors)

    def fail(*_):
        raise KeyboardInterrupt

    hook = model.unet.up_blocks[0].register_forward_pre_hook(fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, [Arm("base")], method=method("sag"), prompts=PROMPTS[:1])
    finally:
        hook.remove()
    assert dict(model.unet.attn_processors) == before


@pytest.mark.parametrize("kind", ["none", "sag"])
def test_no_gpu_memory_is_told_in_words_and_what_was_drawn_is_kept(kind, tmp_path):
    model, calls = pipeline("sd1"), []

    def full(*_):
        calls.append(1)
        if len(calls) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = model.unet.register_forward_pre_hook(full)
    try:
        with pytest.raises(ValueError, match="drawing 2 pictures of 64 x 64.*lower batch_size"):
            run(tmp_path, [Arm("base")], method=method(kind), batch_size=2)
    finally:
        hook.remove()
    assert list(tmp_path.rglob("*.png"))


# --- prompt weighting ---------------------------------------------------------------------------------------


@NEEDS_COMPEL
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_weights_act_before_the_adapter(family, tmp_path):
    from compel import CompelForSD, CompelForSDXL

    kind = {"sd1": CompelForSD, "sdxl": CompelForSDXL}[family]
    expected = kind(pipeline(family))("a (red)1.5 cat near a blue dog").embeds

    ready = open_method(method("weighting"), pipeline(family), EvaluationSettings(tmp_path, **FAST), PROMPTS)
    encoder = PromptEncoder(pipeline(family), 1, ready.weights)
    text = ready.weights.text(PROMPTS[0])
    assert text == "a (red)1.5 cat near a blue dog"
    found = encoder.embeddings(Request(PROMPTS[0].prompt, "", None, 0.0, False, text))
    assert torch.equal(found["prompt_embeds"], expected)
    adapted = encoder.embeddings(Request(PROMPTS[0].prompt, "", adapter_file(family), 0.5, False, text))
    assert torch.equal(adapted["prompt_embeds"], adapt(load_adapter(adapter_file(family)), expected, 0.5))


@NEEDS_COMPEL
def test_weighted_pictures_differ_and_are_baseline_at_eta_0(tmp_path):
    given = {"method": method("weighting")}
    base = run(tmp_path / "base", [Arm("base")], **given)
    none = run(tmp_path / "none", [arm(eta=0.0)], **given)
    plain = run(tmp_path / "plain", [Arm("base")])
    assert equal(by_prompt(base, "base"), by_prompt(none, "SUR"))
    for key, pixels in by_prompt(plain, "base").items():
        assert not np.array_equal(pixels, by_prompt(base, "base")[key]), key
    assert not {picture.path for picture in base.pictures} & {picture.path for picture in plain.pictures}


@pytest.mark.skipif(importlib.util.find_spec("compel") is not None, reason="compel is installed")
def test_without_compel_prompt_weighting_says_what_to_install(tmp_path):
    with pytest.raises(ValueError, match="needs compel, which is not installed; pip install compel"):
        run(tmp_path / "out", [Arm("base")], method=method("weighting"))
    assert not (tmp_path / "out").exists()


# --- what a method cannot do is told before drawing ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["sag", "multidiffusion"])
def test_methods_without_an_sdxl_pipeline_say_so(kind, tmp_path):
    with pytest.raises(ValueError, match=f"method '{kind}': diffusers has no such pipeline for SDXL"):
        run(tmp_path, [Arm("base")], "sdxl", method=method(kind))


def test_a_pipeline_that_has_left_diffusers_is_told():
    with pytest.raises(ValueError, match="'sag': diffusers .* has no StableDiffusionGonePipeline any more"):
        rebuilt(pipeline("sd1"), {False: "StableDiffusionGonePipeline"}, "sag")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 600}, "width 600: expected a multiple of 64"),
        (
            {"width": 0},
            "256 x 64 is a single view, .* does nothing; set width above 512",
        ),
    ],
)
def test_a_picture_that_multidiffusion_would_leave_grey_or_alone_is_refused(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, [Arm("base")], method=method("multidiffusion", **changes))


def test_self_attention_guidance_needs_a_scheduler_its_formulas_are_for(tmp_path):
    model = copy.copy(pipeline("sd1"))
    model.scheduler = diffusers.EulerDiscreteScheduler.from_config(model.scheduler.config)
    with pytest.raises(ValueError, match="formulas that are wrong for the scheduler EulerDiscreteScheduler"):
        run(tmp_path, [Arm("base")], model=model, method=method("sag"))
    found = run(tmp_path, [Arm("base")], model=model, method=method("sag"), scheduler="ddim")
    assert len(found.pictures) == 6


def test_a_missing_doubled_or_damaged_condition_image_is_named_before_the_model_is_opened(tmp_path):
    def words(error=(ValueError, OSError)) -> str:
        with pytest.raises(error) as caught:
            run(tmp_path / "out", [Arm("base")], model=str(tmp_path / "no model"), method=chosen)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    folder = tmp_path / "pictures"
    chosen = method("controlnet-canny", pictures=str(folder))
    assert "pictures: no such folder; expected one with pictures that edges are made from" in words()
    folder.mkdir()
    assert "no picture for the prompt 'c1'; expected c1.png" in words(FileNotFoundError)
    for prompt in PROMPTS:
        save_picture(folder / f"{prompt.id}.png", blocks(0))
    save_picture(folder / "c2.jpg", blocks(0))
    assert "two pictures for the prompt 'c2'" in words()
    (folder / "c2.jpg").unlink()
    (folder / "n1.png").write_bytes((folder / "n1.png").read_bytes()[:200])
    assert str(folder / "n1.png") in words()
    (folder / "n1.png").write_text("no picture")
    assert str(folder / "n1.png") in words()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"controlnet": "/gone/net"}, "/gone/net: no such file or folder"),
        ({"controlnet": "a b/c?d"}, "a b/c\\?d: neither a file or folder here nor a possible hub id"),
    ],
)
def test_a_wrong_id_is_told(changes, words, tmp_path):
    with pytest.raises((ValueError, OSError), match=words):
        run(tmp_path, [Arm("base")], method=method("controlnet-canny", **changes))


def test_a_controlnet_that_is_none_or_incomplete_or_of_another_family_is_told(tmp_path):
    import shutil

    def words(folder, family="sd1") -> str:
        with pytest.raises(ValueError) as caught:
            chosen = method("controlnet-canny", controlnet=str(folder))
            run(tmp_path / "out", [Arm("base")], family, method=chosen)
        return str(caught.value)

    assert "expected the folder or hub id of a ControlNet, found no config.json" in words(picture_folder())
    assert "for another family of models (cross_attention_dim is 32" in words(controlnet_folder(), "sd2")
    copied = shutil.copytree(controlnet_folder(), tmp_path / "net")
    weights = copied / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    assert str(weights) in words(copied)
    weights.unlink()
    assert "the model has no weights" in words(copied)


def test_pictures_are_fitted_without_mixing_a_maps_colours(tmp_path):
    """Nearest pixels for maps; what does not fit is cut off evenly."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (120, 60, 30)
    pixels[:, 15:20] = (6, 230, 230)
    save_picture(tmp_path / "c1.png", pixels)
    folder = PictureFolder(tmp_path, "maps")
    found = np.asarray(folder.read(PROMPTS[0], (20, 20), sharp=True))
    assert found.shape == (20, 20, 3)
    assert {tuple(color) for color in found.reshape(-1, 3)} == {(120, 60, 30), (6, 230, 230)}
    mixed = np.asarray(folder.read(PROMPTS[0], (20, 20)))
    assert len({tuple(color) for color in mixed.reshape(-1, 3)}) > 2


def test_multidiffusion_may_take_another_models_scheduler(tmp_path):
    """As in the paper; what the drawing model predicts stays."""
    from tests.small_data import tiny_model

    changed = method("multidiffusion", scheduler_of=str(tiny_model("sd2")))
    found = run(tmp_path / "other", [Arm("base")], method=changed, prompts=PROMPTS[:1], seeds=(3,))
    model = copy.copy(pipeline("sd1"))
    model.scheduler = diffusers.DDIMScheduler.from_config(
        pipeline("sd2").scheduler.config, prediction_type="epsilon"
    )
    plain = {"method": method("multidiffusion"), "prompts": PROMPTS[:1], "seeds": (3,)}
    by_hand = run(tmp_path / "by hand", [Arm("base")], model=model, **plain)
    assert found.pictures == by_hand.pictures and equal(by_prompt(found, "base"), by_prompt(by_hand, "base"))
    assert found.pictures != run(tmp_path, [Arm("base")], **plain).pictures
    with pytest.raises(ValueError, match="scheduler_of says whose scheduler to take.*'ddim' for all"):
        run(tmp_path, [Arm("base")], method=changed, scheduler="ddim")
