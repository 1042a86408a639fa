"""Pipelines that need more than a prompt: they get it, for every picture alike, or are refused by name."""

import numpy as np
import pytest
import torch

from sur_core import adapt, load_adapter
from sur_core.evaluation import Arm
from tests.evaluation_runs import FAST, PROMPTS, adapter_file, by_prompt, equal, pipeline, pixels_of, run

WITHOUT = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def parts() -> dict:
    return {**pipeline("sd1").components, **WITHOUT}


@pytest.fixture(scope="module")
def controlled():
    """The tiny pipeline with a random ControlNet, whose own start would add nothing."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(
            pipeline("sd1").unet, conditioning_embedding_out_channels=(8, 8, 16, 16)
        ).eval()
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.3)
    return StableDiffusionControlNetPipeline(**parts(), controlnet=net)


def image(seed: int = 0, side: int = 64):
    from PIL import Image

    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_controlnet_draws_what_it_draws_by_itself_with_and_without_an_adapter(controlled, tmp_path):
    arms = [Arm("base"), Arm("SUR", adapter=adapter_file(), eta=0.5)]
    given = {"image": image(), "controlnet_conditioning_scale": 0.7}
    found = run(tmp_path, arms, model=controlled, prompts=PROMPTS[:1], seeds=(3,), call_arguments=given)
    words, none = controlled.encode_prompt(PROMPTS[0].prompt, torch.device("cpu"), 1, True)
    controlled.set_progress_bar_config(disable=True)
    for arm, embeddings in (("base", words), ("SUR", adapt(load_adapter(adapter_file()), words, 0.5))):
        output = controlled(
            prompt_embeds=embeddings,
            negative_prompt_embeds=none,
            generator=torch.Generator().manual_seed(3),
            num_inference_steps=FAST["steps"],
            guidance_scale=FAST["guidance_scale"],
            **given,
        )
        assert np.array_equal(pixels_of(found, arm)[0], np.asarray(output.images[0]))
    assert found.about["also given"] == "controlnet_conditioning_scale 0.7, image"


def test_the_key_knows_what_else_was_given(controlled, tmp_path):
    def path(**given):
        arguments = {"image": image(), **given}
        options = {"prompts": PROMPTS[:1], "seeds": (3,), "call_arguments": arguments}
        return run(tmp_path, [Arm("base")], model=controlled, **options).pictures[0].path

    first = path()
    assert first == path() == path(image=image().copy())
    changes = ({"image": image(1)}, {"image": np.asarray(image())[None] / 255}, {"guess_mode": True})
    found = [path(**change) for change in changes]
    found += [path(controlnet_conditioning_scale=scale) for scale in (0.5, 0.25)]
    assert len({first, *found}) == 6


@pytest.mark.parametrize("kind", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_with_an_image_order_and_company_change_nothing(kind, tmp_path):
    """These encode the image with a picture's own random numbers, or in a batch with another's."""
    import diffusers

    given = {"image": image(), "strength": 1.0 if "Inpaint" in kind else 0.6}
    if "Inpaint" in kind:
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 32:] = 255
        given["mask_image"] = mask.astype(np.float32)[None] / 255
        given["image"] = np.asarray(image(), np.float32)[None] / 255
    model = getattr(diffusers, kind)(**parts())
    first = run(tmp_path / "first", [Arm("base")], model=model, call_arguments=given)
    turned = run(
        tmp_path / "turned",
        [Arm("base")],
        model=model,
        prompts=PROMPTS[::-1],
        seeds=(5, 3),
        call_arguments=given,
    )
    assert equal(by_prompt(first, "base"), by_prompt(turned, "base"))
    assert pixels_of(first, "base")[0].shape == (64, 64, 3)


def test_the_size_is_the_images_where_it_cannot_be_chosen(tmp_path):
    from diffusers import StableDiffusionImg2ImgPipeline

    model, given = StableDiffusionImg2ImgPipeline(**parts()), {"image": image(side=48)}
    options = {"model": model, "prompts": PROMPTS[:1], "seeds": (3,), "call_arguments": given}
    found = run(tmp_path, [Arm("base")], **options)
    assert pixels_of(found, "base")[0].shape == (48, 48, 3)
    assert found.about["size"] == "that of the image given"
    with pytest.raises(ValueError, match="Img2ImgPipeline draws in the size of its image"):
        run(tmp_path, [Arm("base")], **options, width=64)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("StableDiffusionImg2ImgPipeline", {}, "needs image besides a prompt.*call_arguments={'image'"),
        ("StableDiffusionInpaintPipeline", {"image": image()}, "needs mask_image"),
        ("StableDiffusionPipeline", {"image": image()}, "takes no image"),
        ("StableDiffusionPipeline", {"generator": None}, "generator is set by arms and settings"),
        ("StableDiffusionPipeline", {"guidance_scale": 2}, "guidance_scale is set by"),
        ("StableDiffusionPipeline", {"callback_on_step_end": print}, "callback_on_step_end holds a builtin"),
    ],
)
def test_what_a_pipeline_lacks_or_cannot_take_is_named_before_drawing(kind, given, words, tmp_path):
    import diffusers

    model = getattr(diffusers, kind)(**parts())
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "out", [Arm("base")], model=model, call_arguments=given)
    assert not (tmp_path / "out").exists()


def test_controlnet_without_its_image_is_refused(controlled, tmp_path):
    with pytest.raises(ValueError, match="StableDiffusionControlNetPipeline needs image"):
        run(tmp_path / "out", [Arm("base")], model=controlled)


def test_plain_arguments_are_drawn_in_batches_and_change_the_picture(tmp_path):
    plain = run(tmp_path, [Arm("base")], prompts=PROMPTS[:1])
    same = run(tmp_path, [Arm("base")], prompts=PROMPTS[:1], call_arguments={})
    other = run(tmp_path, [Arm("base")], prompts=PROMPTS[:1], call_arguments={"guidance_rescale": 0.9})
    assert [p.path for p in plain.pictures] == [p.path for p in same.pictures]
    assert not equal(by_prompt(plain, "base"), by_prompt(other, "base"))
