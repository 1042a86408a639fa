"""The pipeline that draws: opened from a path, told by its content, prepared for a run and left as it was."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..diffusers_backend import DTYPES
from ..model_files import ModelFileError, told_in_words
from ..model_structure import examine
from ..single_file import open_source
from .settings import EvaluationSettings

_PLACES = ("transformers_version", "dtype", "torch_dtype", "architectures")


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
    return _assemble(source, structure.family, {"scheduler": scheduler, **modules}).to(device)


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


# --- what a pipeline is -------------------------------------------------------------------------------------


def pipeline_fingerprint(pipeline) -> str:
    """Hex hash of what a pipeline's parts compute: classes, configurations, weights and tokenizers as they
    are in memory. The scheduler is not in it.
    """
    total = hashlib.blake2b(type(pipeline).__name__.encode(), digest_size=16)
    settings = {key: value for key, value in pipeline.config.items() if isinstance(value, bool | int | float)}
    total.update(_canonical(settings))
    for name, part in sorted(pipeline.components.items()):
        if isinstance(part, torch.nn.Module):
            total.update(f"{name}:{type(part).__name__}".encode() + _canonical(_config(part)))
            for key, tensor in sorted(part.state_dict().items()):
                total.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
                total.update(_bytes(tensor, f"{name}.{key}"))
        elif hasattr(part, "get_vocab"):
            total.update(f"{name}:{type(part).__name__}".encode() + _tokenizer_content(part))
    return total.hexdigest()


def scheduler_settings(scheduler) -> dict:
    """Class and configuration of a scheduler, JSON values."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": type(scheduler).__name__, **json.loads(_canonical(config))}


def _config(module: torch.nn.Module) -> dict:
    config = getattr(module, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    return {key: value for key, value in values.items() if key[0] != "_" and key not in _PLACES}


def _tokenizer_content(tokenizer) -> bytes:
    content = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        # What is set by calling it, not by its files, is left out.
        described = json.loads(inner.to_str())
        content["inner"] = {k: v for k, v in described.items() if k not in ("truncation", "padding")}
    return _canonical(content)


def _bytes(tensor: torch.Tensor, name: str) -> memoryview:
    if tensor.is_meta:
        raise ValueError(
            f"{name} is not in memory (sequential offloading); use enable_model_cpu_offload instead"
        )
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _canonical(values) -> bytes:
    return json.dumps(values, sort_keys=True, default=str).encode()


# --- preparing one ------------------------------------------------------------------------------------------


def check_pipeline(pipeline) -> None:
    """ValueError unless it can be called with prompt embeddings."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    if missing := [name for name in ("prompt_embeds", "negative_prompt_embeds") if name not in takes]:
        raise ValueError(
            f"{type(pipeline).__name__} takes no {missing[0]}; expected a diffusers text-to-image pipeline"
        )
    if getattr(pipeline, "unet", None) is None:
        raise ValueError(f"{type(pipeline).__name__} has no UNet; expected SD 1.x, SD 2.x or SDXL")


def picture_size(pipeline, settings: EvaluationSettings) -> tuple[int, int]:
    """(width, height) in pixels. ValueError if the settings' do not fit the VAE."""
    factor = pipeline.vae_scale_factor
    side = pipeline.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    size = settings.width or width * factor, settings.height or height * factor
    for name, pixels in zip(("width", "height"), size, strict=True):
        if pixels % max(8, factor):
            raise ValueError(f"{name} {pixels}: expected a multiple of {max(8, factor)} for this model")
    return size


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
