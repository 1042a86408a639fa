"""The frozen base model through diffusers: folder, hub id or one-file checkpoint; SD 1.x, 2.x and SDXL."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from pathlib import Path

import torch

from .backend import PARTS, LatentDistribution, TextEncoding
from .families import CHUNK_TOKENS
from .model_files import COMPONENTS, ModelFileError, fingerprint, told_in_words
from .model_structure import alphas_cumprod, examine, noise_schedule
from .single_file import open_source

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_backend(
    model: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "fp32",
    vae_dtype: str = "fp32",
    family: str = "",
    revision: str = "",
    variant: str = "",
    single_file_config: str = "",
    clip_skip: int = 1,
    prediction_type: str = "",
    local_files_only: bool = False,
) -> DiffusersBackend:
    """Look at a base model; its weights are loaded part by part when they are first used.

    Args:
        model: diffusers folder, hub id ``owner/name``, or ``.safetensors``/``.ckpt`` file.
        device: where it computes.
        dtype, vae_dtype: ``"fp32"``, ``"bf16"`` or ``"fp16"``. SDXL's own VAE overflows in fp16.
        family: ``"sd1"``, ``"sd2"`` or ``"sdxl"`` to insist on one.
        revision, variant: of a hub id; ``variant="fp16"`` takes the weights named so, also in a folder.
        single_file_config: diffusers folder or hub id that describes a one-file checkpoint.
        clip_skip: 1 takes the text encoder's last layer, 2 the one before it, and so on, each followed by the
            final norm; counted as AUTOMATIC1111 does. SD 1.x and 2.x only.
        prediction_type: instead of what the scheduler's configuration says.
        local_files_only: never use the network.

    Raises:
        ModelFileError (a ValueError): not a usable model, or not of the family asked for.
        OSError: it is not there or cannot be fetched.
    """
    _check_dtypes(dtype=dtype, vae_dtype=vae_dtype)
    source = open_source(
        str(model),
        revision=revision,
        variant=variant,
        single_file_config=single_file_config,
        local_files_only=local_files_only,
    )
    structure = examine(source, family, prediction_type)
    if clip_skip < 1 or clip_skip > 1 and structure.family == "sdxl":
        raise ModelFileError(f"{model}: clip_skip {clip_skip}; expected 1 or more, and 1 for SDXL")
    types = DTYPES[dtype], DTYPES[vae_dtype]
    return DiffusersBackend(source, structure, torch.device(device), *types, clip_skip)


class DiffusersBackend:
    """:class:`sur_core.backend.Backend` over diffusers; made by :func:`open_backend`."""

    def __init__(self, source, structure, device, dtype, vae_dtype, clip_skip):
        self.name, self.family, self.widths = source.name, structure.family, dict(structure.widths)
        self.prediction_type = structure.prediction_type
        self.default_resolution = structure.default_resolution
        self.latent_channels, self.vae_factor = structure.latent_channels, structure.vae_factor
        self.alphas_cumprod = alphas_cumprod(structure)
        self.device, self.dtype, self.clip_skip = device, dtype, clip_skip
        self._vae_dtype, self._source, self._structure = vae_dtype, source, structure
        self._parts: dict[str, dict] = {}
        self._checkpointing, self._session = False, None

    # --- parts ---

    def fingerprint(self, part: str) -> str:
        """Hex hash of the files that decide what ``part`` computes, and of clip skip for the text."""
        _check_parts(part)
        settings = [part, *([f"clip_skip={self.clip_skip}"] if part == "text" else [])]
        return fingerprint(self._source.part_files(part), *settings)

    def load(self, *parts: str) -> None:
        _check_parts(*parts)
        for part in parts or PARTS:
            self._part(part)

    def release(self, *parts: str) -> None:
        _check_parts(*parts)
        for part in parts or PARTS:
            self._parts.pop(part, None)
        if "unet" not in self._parts:
            self._session = None
        gc.collect()
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()

    def loaded(self, part: str) -> bool:
        _check_parts(part)
        return part in self._parts

    def _part(self, part: str) -> dict:
        """Component name -> module (or tokenizer) of a part, loaded if it was not."""
        if part not in self._parts:
            logger.info("loading %s of %s", part, self.name)
            dtype = self._vae_dtype if part == "vae" else self.dtype
            self._source.part_files(part)  # fetches what is on the hub, while progress bars still show
            with _undisturbed():
                found = {}
                for component in filter(self._source.has, COMPONENTS[part]):
                    module = self._source.load(component, self._module_class(component), dtype)
                    found[component] = _cast(module, dtype, self.device).requires_grad_(False).eval()
                    if part == "text":
                        found[component.replace("text_encoder", "tokenizer")] = self._tokenizer(component)
            self._parts[part] = found
            if part == "unet" and self._checkpointing:
                self.enable_gradient_checkpointing()
        return self._parts[part]

    def _module_class(self, component: str):
        if component == "unet":
            from diffusers import UNet2DConditionModel as module_class
        elif component == "vae":
            from diffusers import AutoencoderKL as module_class
        elif component == "text_encoder":
            from transformers import CLIPTextModel as module_class
        else:
            from transformers import CLIPTextModelWithProjection as module_class
        return module_class

    def _tokenizer(self, component: str):
        from transformers import CLIPTokenizer

        folder = self._source.root / component.replace("text_encoder", "tokenizer")
        names = [name for name, _ in self._source.part_files("text") if name.startswith(f"{folder.name}/")]
        if not names:
            raise ModelFileError(f"{self.name}: {folder} has no tokenizer files (vocab.json, merges.txt)")
        with told_in_words(f"{folder}: the tokenizer could not be read"):
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    # --- what a trainer calls ---

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> TextEncoding:
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError("encode_text takes a list of at least one prompt")
        modules = self._part("text")
        hidden, pooled, mask = {}, None, None
        for tower, component in self._structure.encoders.items():
            tokenizer = modules[component.replace("text_encoder", "tokenizer")]
            ids = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=CHUNK_TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(self.device)
            output = modules[component](ids, output_hidden_states=True)
            hidden[tower] = self._layer(modules[component], output)
            pooled = output.text_embeds if component == "text_encoder_2" else None
            mask = _up_to_first_end(ids, tokenizer.eos_token_id) if mask is None else mask
        return TextEncoding(hidden, pooled, mask)

    def _layer(self, encoder: torch.nn.Module, output) -> torch.Tensor:
        if self.family == "sdxl":
            return output.hidden_states[-2]
        if self.clip_skip == 1:
            return output.last_hidden_state
        if self.clip_skip >= len(output.hidden_states):
            raise ModelFileError(
                f"{self.name}: clip_skip {self.clip_skip}, but its text encoder has "
                f"{len(output.hidden_states) - 1} layers"
            )
        # Newer versions of transformers have no inner text_model.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return norm(output.hidden_states[-self.clip_skip])

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> LatentDistribution:
        if (
            pixels.dim() != 4
            or pixels.shape[1] != 3
            or any(side % self.vae_factor for side in pixels.shape[2:])
        ):
            raise ValueError(
                f"{self.name}: images must be [B, 3, H, W] with sides that are multiples of "
                f"{self.vae_factor}, found {list(pixels.shape)}"
            )
        vae = self._part("vae")["vae"]
        posterior = vae.encode(pixels.to(self.device, self._vae_dtype)).latent_dist
        shift, scale = self._latent_scale(vae)
        return LatentDistribution((posterior.mean.float() - shift) * scale, posterior.std.float() * scale)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._part("vae")["vae"]
        shift, scale = self._latent_scale(vae)
        unscaled = latents.to(self.device, torch.float32) / scale + shift
        return vae.decode(unscaled.to(self._vae_dtype)).sample.float().clamp(-1, 1)

    @staticmethod
    def _latent_scale(vae: torch.nn.Module) -> tuple[float, float]:
        return getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor

    def predict_noise(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        hidden: torch.Tensor,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if hidden.shape[-1] != sum(self.widths.values()):
            raise ValueError(
                f"{self.name}: embeddings are {hidden.shape[-1]} wide, expected {sum(self.widths.values())}"
            )
        inputs = {"encoder_hidden_states": hidden.to(self.device, self.dtype), "return_dict": False}
        if self.family == "sdxl":
            if pooled is None or time_ids is None:
                raise ValueError(f"{self.name}: SDXL needs pooled [B, P] and time_ids [B, 6]")
            inputs["added_cond_kwargs"] = {
                "text_embeds": pooled.to(self.device, self.dtype),
                # Not in half precision, which rounds sizes in pixels; the UNet embeds them in float32.
                "time_ids": time_ids.to(self.device, torch.float32),
            }
        unet = self._part("unet")["unet"]
        return unet(noisy.to(self.device, self.dtype), timesteps.to(self.device), **inputs)[0].float()

    def sample_images(
        self,
        hidden: torch.Tensor,
        negative_hidden: torch.Tensor,
        pooled: torch.Tensor | None = None,
        negative_pooled: torch.Tensor | None = None,
        *,
        seeds: list[int],
        steps: int,
        guidance_scale: float,
        resolution: int,
    ) -> list:
        """PIL images, one for each seed, by diffusers' own pipeline with DDIM. Each is drawn alone from its
        own CPU generator, so it depends on nothing but its row and seed.
        """
        pipeline = self._pipeline()
        inputs = {"prompt_embeds": hidden, "negative_prompt_embeds": negative_hidden}
        if self.family == "sdxl":
            inputs |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
        for name, rows in inputs.items():
            if rows is None or rows.shape[0] not in (1, len(seeds)):
                found = "nothing" if rows is None else f"{rows.shape[0]} rows"
                raise ValueError(
                    f"{self.name}: {name} needs one row, or one for each of {len(seeds)} seeds; {found}"
                )
        images = []
        for index, seed in enumerate(seeds):
            latents = pipeline(
                **{name: self._row(rows, index) for name, rows in inputs.items()},
                height=resolution,
                width=resolution,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="latent",
            ).images
            images += pipeline.image_processor.postprocess(self.decode_latents(latents))
        return images

    def _row(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        row = rows[index if rows.shape[0] > 1 else 0]
        return row[None].detach().to(self.device, self.dtype)

    def _pipeline(self):
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        parts = {
            "unet": self._part("unet")["unet"],
            "vae": self._part("vae")["vae"],
            "scheduler": noise_schedule(self._structure),
            "text_encoder": None,
            "tokenizer": None,
        }
        if self.family == "sdxl":
            absent = {"text_encoder_2": None, "tokenizer_2": None}
            pipeline = StableDiffusionXLPipeline(**parts, **absent, add_watermarker=False)
        else:
            absent = {"safety_checker": None, "feature_extractor": None}
            pipeline = StableDiffusionPipeline(**parts, **absent, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def attach(self, adapter):
        from .llmdiff.diffusers_unet import attach

        if self._session is not None and self._session.adapter is not adapter:
            self._session.__exit__()
            self._session = None
        if self._session is None:
            self._session = attach(self._part("unet")["unet"], adapter).__enter__()
        return self._session

    def enable_gradient_checkpointing(self) -> None:
        self._checkpointing = True
        if "unet" in self._parts:
            self._parts["unet"]["unet"].enable_gradient_checkpointing()

    # --- what can be said without weights ---

    def describe(self) -> str:
        towers = " + ".join(f"{tower} {width}" for tower, width in self.widths.items())
        return (
            f"{self.name}: {self._structure.words()}, {towers}, {self.prediction_type}, "
            f"{self.default_resolution} px"
        )

    def parameter_count(self, part: str) -> int:
        _check_parts(part)
        components = filter(self._source.has, COMPONENTS[part])
        return sum(
            weight.numel() for component in components for weight in self._on_meta(component).parameters()
        )

    def unet_on_meta(self) -> torch.nn.Module:
        return self._on_meta("unet")

    def _on_meta(self, component: str) -> torch.nn.Module:
        module_class, config = self._module_class(component), self._source.config(component)
        with told_in_words(f"{self.name}: {component}/config.json describes no {module_class.__name__}"):
            with _undisturbed(), torch.device("meta"):
                if component.startswith("text"):
                    module = module_class(module_class.config_class.from_dict(config))
                else:
                    module = module_class.from_config(config)
            return _cast(module, self.dtype).requires_grad_(False).eval()

    def meta_inputs(self, batch: int, resolution: int) -> dict:
        side = resolution // self.vae_factor
        with torch.device("meta"):
            inputs = {
                "sample": torch.empty(batch, self.latent_channels, side, side, dtype=self.dtype),
                "timestep": torch.empty(batch, dtype=torch.int64),
                "encoder_hidden_states": torch.empty(
                    batch, CHUNK_TOKENS, sum(self.widths.values()), dtype=self.dtype
                ),
            }
            if self.family == "sdxl":
                pooled = self._source.config("text_encoder_2")["projection_dim"]
                inputs["added_cond_kwargs"] = {
                    "text_embeds": torch.empty(batch, pooled, dtype=self.dtype),
                    "time_ids": torch.empty(batch, 6, dtype=self.dtype),
                }
        return inputs


def _cast(module: torch.nn.Module, dtype: torch.dtype, device=None) -> torch.nn.Module:
    """``module.to(device, dtype)`` by torch's own rules; diffusers' version of it warns of nothing."""
    return torch.nn.Module.to(module, device, dtype)


def _check_dtypes(**options: str) -> None:
    for option, value in options.items():
        if value not in DTYPES:
            raise ValueError(f"{option} is {value!r}; expected one of {sorted(DTYPES)}")


def _check_parts(*parts: str) -> None:
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"unknown parts {unknown}; expected some of {PARTS}")


def _up_to_first_end(ids: torch.Tensor, end: int) -> torch.Tensor:
    """True up to and with the first end token. Attention masks would not do: some tokenizers pad with it."""
    ended_before = (ids == end).long().cumsum(-1) - (ids == end).long()
    return ended_before == 0


@contextmanager
def _undisturbed():
    """Loading draws no global random numbers that a caller would miss, and shows no progress bars."""
    from transformers.utils import logging as hugging

    showing = hugging.is_progress_bar_enabled()
    hugging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if showing:
            hugging.enable_progress_bar()
