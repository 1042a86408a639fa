"""How a pipeline is called: what it takes, what it needs besides prompt embeddings, how large it draws; and
its settings for the time of a run.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .settings import EvaluationSettings

_NEEDED = ("image", "mask_image", "control_image")
"""What pipelines that have it cannot draw without, though diffusers gives it a default of ``None``."""
_OURS = (
    *("prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "prompt_embeds"),
    *("negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds", "generator"),
    *("latents", "num_inference_steps", "guidance_scale", "width", "height", "clip_skip"),
    *("num_images_per_prompt", "output_type", "return_dict"),
)
"""What a run sets itself, from arms and settings."""
HEARING_PIPELINES = tuple(
    f"StableDiffusion{kind}{what}Pipeline"
    for kind in ("", "XL")
    for what in ("", "Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint")
)
"""Those that call the UNet as an LLMDiff-Adapter needs it: with all prompts, the negative ones first."""
_PLAIN = bool | int | float | str | None


def check_pipeline(pipeline, call_arguments: Mapping[str, Any] | None = None) -> None:
    """ValueError unless it can be called with prompt embeddings and ``call_arguments``, and needs no more."""
    name, takes, given = type(pipeline).__name__, _parameters(pipeline), call_arguments or {}
    told(given)
    if missing := [part for part in ("prompt_embeds", "negative_prompt_embeds") if part not in takes]:
        raise ValueError(f"{name} takes no {missing[0]}; expected a diffusers text-to-image pipeline")
    if getattr(pipeline, "unet", None) is None:
        raise ValueError(f"{name} has no UNet; expected SD 1.x, SD 2.x or SDXL")
    for argument in given:
        if argument in _OURS:
            raise ValueError(f"call_arguments: {argument} is set by arms and settings; leave it out")
        if argument not in takes:
            raise ValueError(f"call_arguments: {name} takes no {argument}; leave it out")
    for argument, parameter in takes.items():
        required = argument in _NEEDED or parameter.default is inspect.Parameter.empty
        if required and argument not in (*given, *_OURS):
            raise ValueError(
                f"{name} needs {argument} besides a prompt; give it for all pictures, as "
                f"call_arguments={{{argument!r}: ...}}"
            )


def _parameters(pipeline) -> dict[str, inspect.Parameter]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(type(pipeline).__call__).parameters
    return {name: part for name, part in list(found.items())[1:] if part.kind not in variable}


def picture_size(pipeline, settings: EvaluationSettings) -> tuple[int, int] | None:
    """(width, height) in pixels; ``None`` for a pipeline that draws in the size of the image it is given.

    ValueError if the settings' size does not fit the VAE, or cannot be chosen.
    """
    if not {"width", "height"} <= _parameters(pipeline).keys():
        if settings.width or settings.height:
            raise ValueError(
                f"width and height: {type(pipeline).__name__} draws in the size of its image; leave them at 0"
            )
        return None
    factor = pipeline.vae_scale_factor
    side = pipeline.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    size = settings.width or width * factor, settings.height or height * factor
    check_size(size, factor)
    return size


def check_size(size: tuple[int, int], factor: int) -> None:
    """ValueError if a VAE that makes ``factor`` pixels of a latent cannot draw (width, height)."""
    for name, pixels in zip(("width", "height"), size, strict=True):
        if pixels % max(8, factor):
            raise ValueError(f"{name} {pixels}: expected a multiple of {max(8, factor)} for this model")


def told(call_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as JSON values that tell their content. ValueError for one whose content is unknown."""
    return {name: _told(value, name) for name, value in sorted(call_arguments.items())}


def _told(value, name: str):
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _told(part, name) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_told(part, name) for part in value]
    if hasattr(value, "convert") and hasattr(value, "tobytes"):  # a Pillow image
        whole = value.convert("RGBA") if value.mode == "P" else value  # its bytes lack the palette
        return _digest(f"{value.mode}{value.size}", whole.tobytes())
    if isinstance(value, torch.Tensor):
        # NumPy has no bfloat16, but knows its bytes.
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _digest(f"{value.dtype}{tuple(value.shape)}", content.tobytes())
    if isinstance(value, np.ndarray):
        return _digest(f"{value.dtype}{value.shape}", value.tobytes())
    raise ValueError(
        f"call_arguments: {name} holds a {type(value).__name__}; expected images, arrays, tensors, numbers, "
        "texts, and lists and dictionaries of these"
    )


def _digest(words: str, content: bytes) -> str:
    return hashlib.blake2b(words.encode() + content, digest_size=16).hexdigest()


def are_plain(call_arguments: Mapping[str, Any]) -> bool:
    """Whether they hold numbers and words only, which pipelines take for each picture of a batch alike."""
    return all(isinstance(value, _PLAIN) for value in call_arguments.values())


@contextmanager
def prepared(pipeline, settings: EvaluationSettings) -> Iterator[None]:
    """While entered, the pipeline has the scheduler of the settings and shows no bar of its own."""
    scheduler, bar = pipeline.scheduler, dict(getattr(pipeline, "_progress_bar_config", {}))
    try:
        pipeline.scheduler = _chosen_scheduler(scheduler, settings.scheduler)
        pipeline.set_progress_bar_config(**{**bar, "disable": True})
        yield
    finally:
        pipeline.scheduler = scheduler
        pipeline.set_progress_bar_config(**bar)


def _chosen_scheduler(scheduler, name: str):
    import diffusers

    if name == "keep":
        return scheduler
    if name == "ddim":
        # Latents leave -1..1; a scheduler that clips them would spoil every image.
        return diffusers.DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    if name == "dpmpp_2m":
        return diffusers.DPMSolverMultistepScheduler.from_config(
            scheduler.config, algorithm_type="dpmsolver++", solver_order=2
        )
    return diffusers.EulerDiscreteScheduler.from_config(scheduler.config)
