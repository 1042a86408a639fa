"""What a base model is, told by its configuration files: family, text encoders, sizes, noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .families import FAMILIES, family_words
from .model_files import ModelFileError

PREDICTION_TYPES = ("epsilon", "v_prediction")
_FOREIGN = ("transformer", "text_encoder_3", "prior", "decoder", "image_encoder_2", "controlnet")
_CLIP_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")


@dataclass(frozen=True)
class ModelStructure:
    """Attributes as in :class:`sur_core.backend.Backend`; ``encoders`` maps a tower to its component."""

    family: str
    widths: dict[str, int]
    encoders: dict[str, str]
    prediction_type: str
    schedule: dict
    default_resolution: int
    latent_channels: int
    vae_factor: int

    def words(self) -> str:
        return {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}[self.family]


def examine(source, family: str = "", prediction_type: str = "") -> ModelStructure:
    """Read what ``source`` (a ModelFolder or SingleFile) is.

    Args:
        family: what it should be; ``""`` takes what it is.
        prediction_type: instead of what the scheduler's configuration says.

    Raises:
        ModelFileError: another kind of model, another family, or configurations that do not fit together.
    """
    if family and family not in FAMILIES:
        raise ModelFileError(f"family {family!r} is unknown; expected one of {sorted(FAMILIES)}")
    _refuse_foreign(source)
    unet, vae = source.config("unet"), source.config("vae")
    encoders = _encoders(source, unet)
    widths = {tower: source.config(component)["hidden_size"] for tower, component in encoders.items()}
    _check_unet(source, unet, vae, widths)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    side = unet.get("sample_size") or 64
    found = ModelStructure(
        family=_family(encoders),
        widths=widths,
        encoders=encoders,
        prediction_type=_prediction_type(source, prediction_type),
        schedule=_schedule(source),
        default_resolution=(side if isinstance(side, int) else side[0]) * factor,
        latent_channels=vae["latent_channels"],
        vae_factor=factor,
    )
    if family and family != found.family:
        raise ModelFileError(
            f"{family} asked for, but {source.name} is {found.words()} ({found.family}: "
            f"{family_words(widths)}). Set family to {found.family} or give another model"
        )
    return found


def noise_schedule(structure: ModelStructure):
    """The model's schedule as diffusers' DDIM scheduler, which knows training and sampling alike."""
    from diffusers import DDIMScheduler

    # Latents leave -1..1; a scheduler that clips them would spoil every image.
    changes = {"prediction_type": structure.prediction_type, "clip_sample": False, "thresholding": False}
    return DDIMScheduler.from_config(structure.schedule, **changes)


def alphas_cumprod(structure: ModelStructure) -> torch.Tensor:
    """Cumulative products of Eq. 1's schedule: float32 [T] on the CPU."""
    return noise_schedule(structure).alphas_cumprod.detach().cpu().clone()


def _refuse_foreign(source) -> None:
    index = source.index()
    kind = index.get("_class_name", "this folder")
    foreign = [name for name in _FOREIGN if (index.get(name) or [None])[0] or source.has(name)]
    if foreign or not source.has("unet"):
        what = f"has {', '.join(foreign)}" if foreign else f"has no unet/config.json in {source.root}"
        raise ModelFileError(
            f"{source.name}: not an SD 1.x, SD 2.x or SDXL model: {kind} {what}. Expected a diffusers folder "
            "with unet, vae, text_encoder, tokenizer and scheduler"
        )
    if not source.has("text_encoder"):
        refiner = "the SDXL refiner, which reads one encoder only; give the SDXL base model"
        missing = "incomplete: text_encoder/config.json is missing"
        raise ModelFileError(f"{source.name}: is {refiner if source.has('text_encoder_2') else missing}")
    network = source.config("unet").get("_class_name", "UNet2DConditionModel")
    if network != "UNet2DConditionModel":
        raise ModelFileError(f"{source.name}: its UNet is a {network}; expected a UNet2DConditionModel")


def _encoders(source, unet: dict) -> dict[str, str]:
    """``{"clip_l": "text_encoder", ...}``. Real models are told by their width, tiny ones by the activation
    that only OpenAI's CLIP uses.
    """
    for component in filter(source.has, ("text_encoder", "text_encoder_2")):
        classes = source.config(component).get("architectures") or _CLIP_CLASSES
        if not set(classes) & set(_CLIP_CLASSES):
            raise ModelFileError(
                f"{source.name}: {component} is a {classes[0]}; expected a CLIP text encoder"
            )
    if source.has("text_encoder_2"):
        return {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
    known = {768: "clip_l", 1024: "clip_h"}
    activation = source.config("text_encoder").get("hidden_act", "quick_gelu")
    tower = known.get(unet.get("cross_attention_dim"), "clip_l" if activation == "quick_gelu" else "clip_h")
    return {tower: "text_encoder"}


def _family(encoders: dict[str, str]) -> str:
    return next(family for family, towers in FAMILIES.items() if set(towers) == set(encoders))


def _check_unet(source, unet: dict, vae: dict, widths: dict[str, int]) -> None:
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        raise ModelFileError(
            f"{source.name}: its UNet takes {channels} channels and its VAE makes {latent}: an inpainting or "
            "editing model. Give the text-to-image model it was made from"
        )
    reads = unet.get("cross_attention_dim")
    reads = set(reads) if isinstance(reads, list) else {reads}
    if reads != {sum(widths.values())}:
        raise ModelFileError(
            f"{source.name}: its UNet reads text {sorted(reads, key=str)} wide, its text encoders make "
            f"{sum(widths.values())} ({family_words(widths)}). The parts belong to different models"
        )
    if len(widths) == 2 and unet.get("addition_embed_type") != "text_time":
        raise ModelFileError(
            f"{source.name}: two text encoders, but its UNet takes no SDXL sizes (text_time)"
        )


def _prediction_type(source, asked: str) -> str:
    found = asked or source.config("scheduler", "scheduler_config.json").get("prediction_type", "epsilon")
    if found not in PREDICTION_TYPES:
        raise ModelFileError(
            f"{source.name}: prediction type {found!r}; expected one of {PREDICTION_TYPES}. Set "
            "prediction_type: epsilon for most, v_prediction for the 768 pixel models of SD 2.x and others "
            "made for it"
        )
    return found


def _schedule(source) -> dict:
    config = source.config("scheduler", "scheduler_config.json")
    if config.get("beta_start") is None and config.get("trained_betas") is None:
        raise ModelFileError(
            f"{source.name}: its scheduler {config.get('_class_name')} has no betas (a flow or EDM model); "
            "expected the noise schedule of Stable Diffusion"
        )
    return config
