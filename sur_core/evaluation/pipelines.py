"""Opens a text-to-image pipeline from a path."""

from __future__ import annotations

from pathlib import Path

import torch

from ..diffusers_backend import DTYPES
from ..model_files import ModelFileError, check_weights, told_in_words
from ..model_structure import ModelStructure, examine
from ..single_file import open_source
from .memory import room_for


def open_pipeline(
    model: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str = "fp32",
    family: str = "",
    revision: str = "",
    variant: str = "",
    single_file_config: str = "",
    prediction_type: str = "",
):
    """A diffusers text-to-image pipeline with the model's own scheduler, without a safety checker.

    Args:
        model: diffusers folder, hub id ``owner/name``, or ``.safetensors``/``.ckpt`` file of SD 1.x, SD 2.x
            or SDXL.
        device: ``"auto"`` takes the GPU if there is one.
        dtype, family, ...: as :func:`sur_core.diffusers_backend.open_backend`.

    Raises:
        ModelFileError (a ValueError): not a usable model, or not of the family asked for.
        OSError: it is not there or cannot be fetched.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {sorted(DTYPES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    source = open_source(
        str(model), revision=revision, variant=variant, single_file_config=single_file_config
    )
    structure = examine(source, family, prediction_type)
    with torch.random.fork_rng(devices=[]):  # building modules draws numbers that a caller would miss
        modules = _modules(source, DTYPES[dtype])
    scheduler = _scheduler(source, structure.prediction_type)
    pipeline = _assemble(source, structure.family, {"scheduler": scheduler, **modules})
    smaller = "" if dtype in ("bf16", "fp16") else "set dtype to bf16 or fp16; "
    with room_for(str(model), device, f"In this order: {smaller}take a smaller model or device 'cpu'"):
        return pipeline.to(device)


def scheduler_of(model: str | Path, prediction_type: str, revision: str = ""):
    """A model's scheduler, for another that predicts ``prediction_type``. Errors as :func:`open_pipeline`."""
    return _scheduler(open_source(str(model), revision=revision), prediction_type)


def check_parts(source, structure: ModelStructure) -> None:
    """That the scheduler is known and, of a folder on this machine, that all weights are there and whole; no
    number is read. Errors as :func:`open_pipeline`.
    """
    _scheduler(source, structure.prediction_type)
    for name in filter(source.has, ("unet", "vae", "text_encoder", "text_encoder_2")):
        check_weights(source, name)  # a single file's header has been read


def _modules(source, dtype: torch.dtype) -> dict:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    classes = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    parts = {}
    for name in filter(source.has, classes):
        module = source.load(name, classes[name], dtype).requires_grad_(False).eval()
        parts[name] = torch.nn.Module.to(module, dtype=dtype)
        if name.startswith("text_encoder"):
            folder = source.root / name.replace("text_encoder", "tokenizer")
            with told_in_words(f"{folder}: the tokenizer could not be read"):
                parts[folder.name] = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return parts


def _scheduler(source, prediction_type: str):
    import diffusers

    config = source.config("scheduler", "scheduler_config.json")
    scheduler = getattr(diffusers, str(config.get("_class_name")), None)
    if scheduler is None:
        raise ModelFileError(
            f"{source.name}: its scheduler {config.get('_class_name')!r} is unknown to diffusers "
            f"{diffusers.__version__}"
        )
    return scheduler.from_config(config, prediction_type=prediction_type)


def _assemble(source, family: str, parts: dict):
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    if family == "sdxl":
        zeros = source.index().get("force_zeros_for_empty_prompt", True)
        return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**parts, **absent)
