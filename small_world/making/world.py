"""All models of the small world, step by step, into the standard folders; a stopped build goes on."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from sur_core.atomic import atomic_write

from ..places import Models
from .cards import write_cards
from .tokenizers import say_for_transformers_4, write_vocabulary

Report = Callable[[str, int, int], None]


def raise_world(work: Path, out: Path, report: Report, device: torch.device) -> None:
    """Raise VAE, CLIP, UNet and language model, and write them as float16.

    Args:
        work: folder for checkpoints and pictures; what a stopped build finished there is taken from it.
        out: where the models go. An older set is replaced only when the new one is complete.
        report: called with (what, done, total); must pickle, since the UNet is raised in several processes.

    Raises:
        ValueError: ``work`` is from a build with other settings.
        OSError: a file cannot be written.
    """
    from .clip import raise_clip
    from .llm import raise_llm
    from .unet import raise_unet
    from .vae import raise_vae

    vae = raise_vae(work, report, device)
    clip, tokenizer = raise_clip(work, report, device)
    llm, llm_tokenizer = raise_llm(work, report, device)
    unet, scheduler = raise_unet(work, vae, clip, tokenizer, report, device)
    fresh = Models(work / "models")
    shutil.rmtree(fresh.root, ignore_errors=True)
    write_base(fresh.base, vae, clip, tokenizer, unet, scheduler)
    write_clip(fresh.clip, clip, tokenizer)
    write_llm(fresh.llm, llm, llm_tokenizer)
    write_cards(fresh)
    _replace(fresh.root, out)


def write_base(folder: Path, vae, clip, tokenizer, unet, scheduler) -> None:
    """A StableDiffusionPipeline folder whose text encoder is CLIP's text tower."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    text_encoder = CLIPTextModel(clip.config.text_config)
    state = {key: value for key, value in clip.state_dict().items() if key.startswith("text_model.")}
    if not any(key.startswith("text_model.") for key in text_encoder.state_dict()):
        # Since transformers 5 the tower's own keys carry no prefix.
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    text_encoder.load_state_dict(state)
    parts = _half(vae), text_encoder.half(), tokenizer, _half(unet), scheduler
    StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False).save_pretrained(folder)
    _name_as_published(folder / "text_encoder/model.safetensors")
    write_vocabulary(folder / "tokenizer")


def write_clip(folder: Path, clip, tokenizer) -> None:
    from .clip import write_image_processor

    _half(clip).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_vocabulary(folder)
    write_image_processor(folder)


def write_llm(folder: Path, llm, tokenizer) -> None:
    _half(llm).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    say_for_transformers_4(folder)


def _name_as_published(path: Path) -> None:
    """Name a text encoder's weights as the files of Stable Diffusion do. Transformers 5 leaves a prefix out
    that 4 wants; both read it.
    """
    from safetensors.torch import load_file, save

    prefix = "text_model."
    weights = {key if key.startswith(prefix) else prefix + key: w for key, w in load_file(path).items()}
    with atomic_write(path) as file:
        file.write(save(weights, metadata={"format": "pt"}))


def _half(model):
    """A copy in float16: the caller's model stays as exact as it is."""
    return copy.deepcopy(model).half()


def _replace(fresh: Path, out: Path) -> None:
    """Put the finished folder in the place of the old one.

    All copying is done beside ``out``; between the two renames at the end only names change. Whatever stops
    this, one whole set is there, as ``out`` or under the name it had beside it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    new, old = out.with_name(f".new-{out.name}"), out.with_name(f".old-{out.name}")
    if old.exists() and not out.exists():
        old.rename(out)  # stopped between the renames, the last time
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(fresh, new)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
