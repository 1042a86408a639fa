"""All models of the small world, step by step, into the standard folders; a stopped build goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from ..places import Models
from .cards import write_cards

Report = Callable[[str, int, int], None]


def raise_world(work: Path, out: Path, report: Report, device: torch.device) -> None:
    """Raise VAE, CLIP, UNet and language model, and write them as float16.

    Args:
        work: folder for checkpoints and pictures; what a stopped build finished there is taken from it.
        out: where the models go. An older set is replaced only when the new one is complete.
        report: called with (what, done, total).

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
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    pipeline.to(torch.float32)


def write_clip(folder: Path, clip, tokenizer) -> None:
    from .clip import write_image_processor

    clip.half().save_pretrained(folder)
    clip.float()
    tokenizer.save_pretrained(folder)
    write_image_processor(folder)


def write_llm(folder: Path, llm, tokenizer) -> None:
    llm.half().save_pretrained(folder)
    llm.float()
    tokenizer.save_pretrained(folder)


def _replace(fresh: Path, out: Path) -> None:
    """Put the finished folder in the place of the old one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".old-{out.name}")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    shutil.copytree(fresh, out)
    shutil.rmtree(old, ignore_errors=True)
