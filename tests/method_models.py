"""What controlled methods read, made by the test: ControlNets, a segmentation model, folders of pictures."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sur_core.evaluation.methods import make_method
from tests.evaluation_runs import PROMPTS, pipeline

_FILES = tempfile.TemporaryDirectory(prefix="methods-")
WIDE = {"width": 576, "height": 64}
"""Of two views; in a tiny model that draws 64 x 64."""
PLAIN_KINDS = ("none", "controlnet-canny", "controlnet-seg", "multidiffusion", "sag")
"""All that need nothing that is not required."""


@cache
def controlnet_folder(family: str = "sd1") -> Path:
    """A ControlNet of random weights, whose own start would add nothing."""
    from diffusers import ControlNetModel

    folder = Path(_FILES.name) / f"controlnet-{family}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(
            pipeline(family).unet, conditioning_embedding_out_channels=(8, 8, 16, 16)
        ).eval()
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.3)
        net.save_pretrained(folder)
    return folder


def write_segmenter(folder: Path, classes: int = 150) -> Path:
    """A Segformer of random weights that sees many classes, with its image processor."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.SegformerConfig(
            num_labels=classes,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            sr_ratios=[4, 2, 1, 1],
            decoder_hidden_size=16,
        )
        model = transformers.SegformerForSemanticSegmentation(config).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        model.save_pretrained(folder)
    kind = getattr(transformers, "SegformerImageProcessorPil", None) or transformers.SegformerImageProcessor
    kind(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@cache
def segmenter_folder() -> Path:
    return write_segmenter(Path(_FILES.name) / "segmenter")


@cache
def picture_folder(sides: tuple[int, int] = (80, 64)) -> Path:
    """A picture for each prompt: coloured blocks on a noisy ground."""
    folder = Path(_FILES.name) / f"pictures-{sides[0]}-{sides[1]}"
    folder.mkdir()
    for number, prompt in enumerate(PROMPTS):
        save_picture(folder / f"{prompt.id}.png", blocks(number, sides))
    return folder


def blocks(seed: int, sides: tuple[int, int] = (80, 64)) -> np.ndarray:
    draw, (width, height) = np.random.default_rng(seed), sides
    pixels = draw.integers(60, 70, (height, width, 3), dtype=np.uint8)
    for _ in range(4):
        top, left = draw.integers(0, height - 12), draw.integers(0, width - 12)
        pixels[top : top + 20, left : left + 20] = draw.integers(0, 256, 3)
    return pixels


def save_picture(path: Path, pixels: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


def table(kind: str, family: str = "sd1", **changes) -> dict:
    """The settings of a method, as a study's configuration has them."""
    control = {"controlnet": str(controlnet_folder(family)), "pictures": str(picture_folder())}
    settings = {
        "controlnet-canny": control,
        "controlnet-seg": {**control, "segmentation_model": str(segmenter_folder())},
        "multidiffusion": WIDE,
        "weighting": {"words": ["red", "green", "two"], "weight": 1.5},
    }
    return {"kind": kind, **settings.get(kind, {}), **changes}


def method(kind: str, family: str = "sd1", **changes):
    return make_method(table(kind, family, **changes))
