"""Real ComfyUI samples pictures through our nodes, with our files and the authors', on SD 1.5 and SDXL."""

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.server import Graph

AUTHORS = "test_llm13B_adapterw0.1/adapter_checkpoint5000.pt"
PROMPT = "Three fluffy white kittens playing with a ball of yarn on a bright green carpet"
NEGATIVE = "blurry"


class Pictures:
    """One graph that samples many pictures from one checkpoint, all with the same noise."""

    def __init__(self, server, checkpoint: str):
        self.server, self.graph, self.names = server, Graph(), []
        self.model, self.clip, self.vae = self.graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)[:3]
        self.negative = self.encode(self.clip, NEGATIVE)
        self.latent = self.graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)[0]

    def encode(self, clip, text=PROMPT):
        return self.graph.add("CLIPTextEncode", clip=clip, text=text)[0]

    def adapter(self, name):
        return self.graph.add("SURLoadAdapter", adapter_name=name)[0]

    def on_conditioning(self, conditioning, adapter, eta, start=0.0, end=1.0):
        return self.graph.add(
            "SURApplyConditioning",
            conditioning=conditioning,
            adapter=adapter,
            eta=eta,
            start_percent=start,
            end_percent=end,
        )[0]

    def on_clip(self, clip, adapter, eta):
        return self.graph.add("SURApplyCLIP", clip=clip, adapter=adapter, eta=eta)[0]

    def draw(self, name, positive, negative=None, steps=4):
        samples = self.graph.add(
            "KSampler",
            model=self.model,
            positive=positive,
            negative=negative or self.negative,
            latent_image=self.latent,
            seed=7,
            steps=steps,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )[0]
        image = self.graph.add("VAEDecode", samples=samples, vae=self.vae)[0]
        self.graph.add("SaveImage", images=image, filename_prefix=name)
        self.names.append(name)

    def run(self) -> dict[str, np.ndarray]:
        self.server.run(self.graph)
        newest = {name: max(self.server.output.glob(f"{name}_0*.png")) for name in self.names}
        return {name: np.asarray(Image.open(path)) for name, path in newest.items()}


def same(left, right) -> bool:
    return np.array_equal(left, right)


@pytest.fixture(scope="module")
def sd15(server):
    pictures = Pictures(server, "sur_test_sd15.safetensors")
    plain = pictures.encode(pictures.clip)
    pictures.draw("plain", plain)
    for kind, name in (("ours", "ours.safetensors"), ("authors", AUTHORS)):
        adapter = pictures.adapter(name)
        for eta in (0.0, 0.5):
            pictures.draw(f"{kind}_cond_{eta}", pictures.on_conditioning(plain, adapter, eta))
            pictures.draw(
                f"{kind}_clip_{eta}", pictures.encode(pictures.on_clip(pictures.clip, adapter, eta))
            )
    ours = pictures.adapter("ours.safetensors")
    pictures.draw("never", pictures.on_conditioning(plain, ours, 0.5, start=0.4, end=0.4))
    pictures.draw("first_half", pictures.on_conditioning(plain, ours, 0.5, end=0.5))
    pictures.draw("second_half", pictures.on_conditioning(plain, ours, 0.5, start=0.5))
    weighted = "a (seven:1.5) vintage glass bottles"
    pictures.draw(
        "weighted_cond", pictures.on_conditioning(pictures.encode(pictures.clip, weighted), ours, 0.5)
    )
    pictures.draw("weighted_clip", pictures.encode(pictures.on_clip(pictures.clip, ours, 0.5), weighted))
    return pictures.run()


@pytest.fixture(scope="module")
def sdxl(server):
    pictures = Pictures(server, "sur_test_sdxl.safetensors")
    plain = pictures.encode(pictures.clip)
    pictures.draw("xl_plain", plain, steps=2)
    for kind, name in (("ours", "xl/sdxl.safetensors"), ("authors", "xl/authors.safetensors")):
        adapter = pictures.adapter(name)
        for eta in (0.0, 0.5):
            on_clip = pictures.encode(pictures.on_clip(pictures.clip, adapter, eta))
            on_conditioning = pictures.on_conditioning(plain, adapter, eta)
            pictures.draw(f"xl_{kind}_cond_{eta}", on_conditioning, steps=2)
            pictures.draw(f"xl_{kind}_clip_{eta}", on_clip, steps=2)
    return pictures.run()


@pytest.mark.parametrize("route", ["cond", "clip"])
@pytest.mark.parametrize("kind", ["ours", "authors"])
def test_sd15_eta_0_is_pixel_identical_and_eta_05_is_not(sd15, kind, route):
    assert same(sd15[f"{kind}_{route}_0.0"], sd15["plain"])
    assert not same(sd15[f"{kind}_{route}_0.5"], sd15["plain"])


@pytest.mark.parametrize("route", ["cond", "clip"])
@pytest.mark.parametrize("kind", ["ours", "authors"])
def test_sdxl_eta_0_is_pixel_identical_and_eta_05_is_not(sdxl, kind, route):
    assert same(sdxl[f"xl_{kind}_{route}_0.0"], sdxl["xl_plain"])
    assert not same(sdxl[f"xl_{kind}_{route}_0.5"], sdxl["xl_plain"])


def test_both_routes_draw_the_same_picture_for_a_short_prompt(sd15, sdxl):
    for kind in ("ours", "authors"):
        assert same(sd15[f"{kind}_cond_0.5"], sd15[f"{kind}_clip_0.5"])
        assert same(sdxl[f"xl_{kind}_cond_0.5"], sdxl[f"xl_{kind}_clip_0.5"])


def test_both_formats_draw_their_own_picture(sd15):
    assert not same(sd15["ours_cond_0.5"], sd15["authors_cond_0.5"])


def test_outside_its_range_of_sampling_the_original_prompt_is_used(sd15):
    assert same(sd15["never"], sd15["plain"])
    for half in ("first_half", "second_half"):
        assert not same(sd15[half], sd15["plain"]) and not same(sd15[half], sd15["ours_cond_0.5"])
    assert not same(sd15["first_half"], sd15["second_half"])


def test_with_weights_the_two_routes_differ(sd15):
    """On CLIP the adapter acts before the weights, on CONDITIONING after them."""
    assert not same(sd15["weighted_cond"], sd15["weighted_clip"])


def test_the_pictures_are_pictures(sd15, sdxl):
    for name, pixels in (sd15 | sdxl).items():
        assert pixels.shape == (64, 64, 3) and pixels.std() > 1, name


def test_controlnet_area_mask_and_ranges_sample_through_the_adapter(server):
    pictures = Pictures(server, "sur_test_sd15.safetensors")
    graph = pictures.graph
    adapter = pictures.adapter("ours.safetensors")
    net = graph.add("ControlNetLoader", control_net_name="sur_test_controlnet.safetensors")[0]
    hint = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x8040C0)[0]
    mask = graph.add("SolidMask", value=1.0, width=64, height=64)[0]

    def controlled(conditioning):
        return graph.add(
            "ControlNetApply", conditioning=conditioning, control_net=net, image=hint, strength=1.0
        )[0]

    def decorated(conditioning):
        masked = graph.add(
            "ConditioningSetMask", conditioning=conditioning, mask=mask, strength=0.8, set_cond_area="default"
        )[0]
        ranged = graph.add("ConditioningSetTimestepRange", conditioning=masked, start=0.0, end=0.9)[0]
        return graph.add("ConditioningCombine", conditioning_1=ranged, conditioning_2=conditioning)[0]

    plain = pictures.encode(pictures.clip)
    for name, decorate in (("control", controlled), ("mask", decorated)):
        pictures.draw(f"{name}_plain", decorate(plain))
        pictures.draw(f"{name}_eta0", pictures.on_conditioning(decorate(plain), adapter, 0.0))
        pictures.draw(f"{name}_before", decorate(pictures.on_conditioning(plain, adapter, 0.5)))
        pictures.draw(f"{name}_after", pictures.on_conditioning(decorate(plain), adapter, 0.5))
    pictures.draw("uncontrolled", plain)
    drawn = pictures.run()
    for name in ("control", "mask"):
        assert same(drawn[f"{name}_eta0"], drawn[f"{name}_plain"])
        assert same(drawn[f"{name}_before"], drawn[f"{name}_after"])
        assert not same(drawn[f"{name}_after"], drawn[f"{name}_plain"])
    assert not same(drawn["control_plain"], drawn["uncontrolled"]), "the ControlNet must do something"


def test_eta_sweep_runs_what_follows_once_for_each(server):
    pictures = Pictures(server, "sur_test_sd15.safetensors")
    plain = pictures.encode(pictures.clip)
    adapter = pictures.adapter("ours.safetensors")
    sweep = pictures.graph.add("SUREtaSweep", conditioning=plain, adapter=adapter, etas="0, 0.25; 0.5")
    pictures.graph.add("PreviewAny", source=sweep[1])
    pictures.draw("sweep", sweep[0])
    pictures.draw("sweep_plain", plain)
    pictures.draw("sweep_single", pictures.on_conditioning(plain, adapter, 0.5))
    outputs = server.run(pictures.graph)
    drawn = [np.asarray(Image.open(path)) for path in sorted(server.output.glob("sweep_0*.png"))]
    assert len(drawn) == 3
    assert same(drawn[0], np.asarray(Image.open(server.output / "sweep_plain_00001_.png")))
    assert same(drawn[2], np.asarray(Image.open(server.output / "sweep_single_00001_.png")))
    assert not same(drawn[1], drawn[0]) and not same(drawn[1], drawn[2])
    shown = [text for output in outputs.values() for text in output.get("text", [])]
    assert shown == ["eta 0", "eta 0.25", "eta 0.5"]
