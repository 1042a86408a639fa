"""One-file checkpoints as artists have them: ``.safetensors`` or ``.ckpt`` in the LDM layout.

Only the tensors of the part in question are read. A ``.ckpt`` is a pickle: torch's weights-only reader takes
numbers from it and runs nothing. Shapes of layers come from a diffusers configuration folder beside it.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open

from .model_files import (
    COMPONENTS,
    ModelFileError,
    ModelFolder,
    check_safetensors,
    open_folder,
    told_in_words,
)

PREFIXES = {
    "text": ("cond_stage_model.", "conditioner.embedders."),
    "vae": ("first_stage_model.",),
    "unet": ("model.diffusion_model.",),
}
_CROSS_ATTENTION = "attn2.to_k.weight"
_SECOND_ENCODER = "conditioner.embedders.1."
_REFINER = "conditioner.embedders.0.model."
_SAID_BY_KEYS = {
    "v_pred": {"prediction_type": "v_prediction"},
    "ztsnr": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
"""What the presence of an empty tensor of this name means for the schedule, by agreement among trainers."""

_KNOWN_TYPES = {"v1": "sd1", "v2": "sd2", "xl_base": "sdxl"}


class SingleFile:
    """A checkpoint file together with the configuration folder that describes it.

    Args:
        path: the file.
        config: diffusers folder or hub id whose configurations, tokenizers and schedule fit it; ``""`` takes
            the one diffusers knows for files of this shape, from the hub or its cache.
        local_files_only: do not use the network.

    Raises:
        ModelFileError, OSError
    """

    def __init__(self, path: Path, config: str = "", local_files_only: bool = False):
        self.path, self.name = Path(path), str(path)
        self.shapes = _read(self.path, None)
        self._check_layout()
        self._guessed = not config
        known = config or self._known_config()
        try:
            self._configs = open_folder(known, local_files_only=local_files_only)
        except OSError as error:
            if config:
                raise
            raise OSError(
                f"{self.name}: a checkpoint file holds no configuration and no tokenizer; they are fetched "
                f"from {known} on the hub, which failed ({error}). Or set single_file_config to a diffusers "
                "folder of the same family"
            ) from error
        self.root = self._configs.root
        self._check_config()

    def has(self, component: str) -> bool:
        return self._configs.has(component)

    def config(self, component: str, file: str = "config.json") -> dict:
        """As a folder's; the schedule with what the file itself says. Nothing says what an SD 2.x file
        predicts, so there the guessed configuration's word is not taken.
        """
        content = self._configs.config(component, file)
        if component == "scheduler":
            if self._guessed and self.config("unet").get("cross_attention_dim") == 1024:
                content = {**content, "prediction_type": "unknown"}
            for key in filter(self.shapes.__contains__, _SAID_BY_KEYS):
                content = {**content, **_SAID_BY_KEYS[key]}
        return content

    def index(self) -> dict:
        return self._configs.index()

    def part_files(self, part: str) -> list[tuple[str, Path]]:
        """The whole file, and the small configuration files that decide how it is read."""
        found = [("checkpoint", self.path)]
        for component in filter(self.has, COMPONENTS[part]):
            found.append((f"{component}/config.json", self.root / component / "config.json"))
            if part == "text":
                found += self._configs.tokenizer_files(component)
        return found

    def load(self, component: str, module_class, dtype: torch.dtype) -> torch.nn.Module:
        """The component on the CPU, weights in the file's own type. ModelFileError if weights are missing."""
        part = next(part for part, components in COMPONENTS.items() if component in components)
        tensors = _read(self.path, PREFIXES[part])
        place = {"config": str(self.root), "subfolder": component, "local_files_only": True}
        with told_in_words(
            f"{self.name}: {component} could not be built with the configuration {self._configs.name}"
        ):
            if part == "text":
                from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

                module = create_diffusers_clip_model_from_ldm(module_class, checkpoint=tensors, **place)
            else:
                module = module_class.from_single_file(tensors, **place)
        missing = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
        if missing:
            raise ModelFileError(
                f"{self.name}: {component} is incomplete: {len(missing)} weights are missing, such as "
                f"{missing[0]}"
            )
        return module

    def _check_layout(self) -> None:
        if not any(key.startswith("model.diffusion_model.input_blocks.") for key in self.shapes):
            raise ModelFileError(
                f"{self.name}: not a Stable Diffusion 1.x, 2.x or XL checkpoint. Expected tensors under "
                f"model.diffusion_model.input_blocks, found {len(self.shapes)} tensors such as "
                f"{', '.join(sorted(self.shapes)[:3]) or 'none'}. A LoRA, a VAE or an SD3 or Flux "
                "file cannot be used"
            )
        for part, prefixes in PREFIXES.items():
            if not any(key.startswith(prefixes) for key in self.shapes):
                raise ModelFileError(
                    f"{self.name}: has no {part} weights (tensors under {' or '.join(prefixes)}); use the "
                    "full file"
                )
        if any(key.startswith(_REFINER) for key in self.shapes):
            raise ModelFileError(f"{self.name}: this is the SDXL refiner; give the SDXL base model")
        channels = self.shapes.get("model.diffusion_model.input_blocks.0.0.weight")
        if channels is not None and channels.shape[1] != 4:
            raise ModelFileError(
                f"{self.name}: its UNet takes {channels.shape[1]} channels, as inpainting models do; "
                "expected 4. Give the model it was made from"
            )

    def _known_config(self) -> str:
        from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

        with told_in_words(
            f"{self.name}: diffusers does not know this kind of checkpoint; set single_file_config"
        ):
            kind = infer_diffusers_model_type(self.shapes)
            if kind not in _KNOWN_TYPES:
                raise ModelFileError(f"{self.name}: is of the kind {kind}; expected SD 1.x, SD 2.x or SDXL")
            return fetch_diffusers_config(self.shapes)["pretrained_model_name_or_path"]

    def _check_config(self) -> None:
        """The configuration must be of the same family: the widths its UNet reads say so."""
        wanted = self.config("unet").get("cross_attention_dim")
        found = {
            tensor.shape[1]
            for key, tensor in self.shapes.items()
            if key.startswith(PREFIXES["unet"]) and key.endswith(_CROSS_ATTENTION)
        }
        two = any(key.startswith(_SECOND_ENCODER) for key in self.shapes)
        if found - {wanted} or two != self.has("text_encoder_2"):
            raise ModelFileError(
                f"{self.name}: its UNet reads text {sorted(found)} wide from {1 + two} text encoder(s), but "
                f"the configuration {self._configs.name} is {wanted} wide with "
                f"{1 + self.has('text_encoder_2')}. Set single_file_config to a diffusers "
                "folder or hub id of the file's own family"
            )


def open_source(
    model: str,
    *,
    revision: str = "",
    variant: str = "",
    single_file_config: str = "",
    local_files_only: bool = False,
) -> ModelFolder | SingleFile:
    """Whatever the user named: a file, a folder or a hub id."""
    path = Path(model).expanduser()
    if not path.is_file():
        return open_folder(str(model), revision, variant, local_files_only)
    if path.suffix.lower() == ".json":
        raise ModelFileError(f"{model}: give the model's folder, not a file in it")
    return SingleFile(path, single_file_config, local_files_only)


def _read(path: Path, prefixes: tuple[str, ...] | None) -> dict[str, torch.Tensor]:
    """Tensors under the prefixes; with ``None`` all names, with tensors that have a shape and no storage."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        return _read_safetensors(path, prefixes)
    if path.suffix.lower() == ".safetensors":
        raise _unreadable(path, "its header is damaged")
    content = _unpickle(path, "meta" if prefixes is None else "cpu")
    return {key: value for key, value in content.items() if prefixes is None or key.startswith(prefixes)}


def _read_safetensors(path: Path, prefixes: tuple[str, ...] | None) -> dict[str, torch.Tensor]:
    check_safetensors(path)
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        if prefixes is None:
            return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in keys}
        return {key: file.get_tensor(key) for key in keys if key.startswith(prefixes)}


def _unpickle(path: Path, device: str) -> dict[str, torch.Tensor]:
    """The tensors of a torch file. Torch's own words are not repeated: they advise to switch its protection
    off.
    """
    try:
        # Mapping the file spares reading tensors of other parts; only the zip format allows it.
        mapped = zipfile.is_zipfile(path) and device != "meta"
        content = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise _unreadable(path, "neither safetensors nor a torch file") from error
        raise ModelFileError(
            f"{path}: refused. A checkpoint holds numbers only, but this file asks to run Python code or "
            "holds other objects, as some old .ckpt files do. Use a .safetensors version of it"
        ) from error
    except Exception as error:  # a damaged or foreign file can fail in any way inside the reader
        raise _unreadable(path, "neither safetensors nor a whole torch file") from error
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _unreadable(path, f"expected named tensors, found {type(content).__name__}")
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _unreadable(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: not a readable checkpoint ({reason}). It may be truncated or of another kind; download it "
        "again"
    )
