"""What CLIP says of pictures: features, the cosine with a text, and the paper's CLIP Score."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..model_files import ModelFileError, fingerprint, told_in_words
from .memory import room_for
from .versions import marking_versions

log = logging.getLogger(__name__)

_CONFIGS = (".json", ".txt")


class ImageTextModel:
    """A transformers ``CLIPModel`` folder, with its tokenizer and image processor in the same folder.

    Args:
        folder: with config.json, weights as safetensors, preprocessor_config.json and tokenizer files.
        device: where it computes, in float32.
        batch_size: pictures or texts at once.

    Raises:
        ModelFileError (a ValueError): no such model in it.
        OSError: there is no such folder.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu", batch_size: int = 32):
        self.folder, self.device, self.batch_size = Path(folder), torch.device(device), batch_size
        files = check_folder(self.folder)
        self.fingerprint = fingerprint(files)
        """Hex hash of the files."""
        self.conditions = _hashed(self.fingerprint, self.device.type, batch_size, *marking_versions())
        """Hex hash of all that decides a feature besides the picture: equal ones give equal features."""
        with told_in_words(f"{self.folder}: not a usable CLIP model"):
            self._model, report = _clip_class().from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            self._tokenizer, self._processor = _readers(self.folder)
        if missing := sorted(report["missing_keys"]):
            raise ModelFileError(
                f"{self.folder}: the CLIP model is incomplete: {len(missing)} weights are missing, such as "
                f"{missing[0]}. Download or copy it again"
            )
        with room_for(f"{self.folder}: CLIP", self.device, "Take device 'cpu' or a smaller model"):
            self._model = self._model.float().to(self.device).eval().requires_grad_(False)

    @property
    def logit_scale(self) -> float:
        """What CLIP multiplies its cosines by (the inverse temperature it has learnt)."""
        return float(self._model.logit_scale.exp())

    @torch.no_grad()
    def image_features(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """Projected features before normalisation, float32 [N, D] on the CPU. Pictures: uint8 [H, W, 3]."""
        parts = []
        for start in range(0, len(pictures), self.batch_size):
            batch = list(pictures[start : start + self.batch_size])
            pixels = self._processor(images=filled(batch, self.batch_size), return_tensors="pt")[
                "pixel_values"
            ]
            pooled = self._model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
            parts.append(self._model.visual_projection(pooled).float().cpu()[: len(batch)])
        return torch.cat(parts) if parts else torch.empty(0, self._model.config.projection_dim)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Projected features before normalisation, float32 [N, D] on the CPU. Long texts are cut, with a
        warning in the log.
        """
        parts, limit = [], self._model.config.text_config.max_position_embeddings
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            for text, ids in zip(batch, self._tokenizer(batch).input_ids, strict=True):
                if len(ids) > limit:
                    log.warning("CLIP reads %d tokens only; cut: %r", limit, text)
            ids = self._tokenizer(
                filled(batch, self.batch_size),
                padding="max_length",
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(self.device)
            mask = ids.get("attention_mask")
            pooled = self._model.text_model(input_ids=ids["input_ids"], attention_mask=mask).pooler_output
            parts.append(self._model.text_projection(pooled).float().cpu()[: len(batch)])
        return torch.cat(parts) if parts else torch.empty(0, self._model.config.projection_dim)

    def hidden_part(self, height: int, width: int) -> str:
        """What of pictures of this size is not seen, in words; "" if all is."""
        if height == width or not getattr(self._processor, "do_center_crop", False):
            return ""
        side = min(height, width)
        return (
            f"CLIP's measures see only the middle {side} x {side} pixels of pictures of {width} x {height}, "
            "as its image processor cuts the rest off"
        )


def cosines(image_features: torch.Tensor, text_features: torch.Tensor) -> np.ndarray:
    """Cosine of each picture with its text, row by row: float64 [N]. ValueError if a feature is all zero."""
    image, text = image_features.double(), text_features.double()
    lengths = image.norm(dim=-1) * text.norm(dim=-1)
    if not (lengths > 0).all():
        raise ValueError("CLIP gave a feature of length zero; a cosine with it is not defined")
    return ((image * text).sum(-1) / lengths).numpy()


def clip_score_share(ours: np.ndarray, baseline: np.ndarray, logit_scale: float) -> np.ndarray:
    """The paper's CLIP Score of each pair, for ours: float64 [N]; the baseline's is 1 minus it.

    Section 5.1 of the paper lets CLIP decide between two pictures of one prompt, the baseline's and its own,
    and records each one's share after a softmax over both; the score of a method is the mean over the test
    set. So, for a pair drawn from the same prompt and noise, with l = logit_scale * cosine(picture, prompt),

        share = exp(l_ours) / (exp(l_ours) + exp(l_baseline)).

    0.5 means that CLIP prefers neither; both being equally bad also gives 0.5. (In five of the twelve rows of
    the paper's Table 2 the two scores do not add up to one; by this definition they always do.)

    Args:
        ours, baseline: cosines of the two pictures with the prompt [N].
    """
    difference = logit_scale * (np.asarray(baseline, np.float64) - np.asarray(ours, np.float64))
    return np.exp(-np.logaddexp(0.0, difference))


class FeatureCache:
    """Image features by the picture's content, in one file that is written whole.

    Args:
        folder: where; the file is named after the model's fingerprint.
        model: what computes what is missing.
    """

    def __init__(self, folder: Path, model: ImageTextModel):
        self.path, self._model = (
            folder / f"clip-{model.fingerprint[:16]}-{model.conditions[:8]}.safetensors",
            model,
        )
        self._features: dict[str, torch.Tensor] = {}
        self._changed = False
        if self.path.is_file():
            self._features = self._read()

    def features(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """As :meth:`ImageTextModel.image_features`, computed only for pictures not seen before."""
        keys = [picture_digest(picture) for picture in pictures]
        new = {key: at for at, key in enumerate(keys) if key not in self._features}
        if new:
            found = self._model.image_features([pictures[at] for at in new.values()])
            self._features |= dict(zip(new, found, strict=True))
            self._changed = True
        return torch.stack([self._features[key] for key in keys])

    def _read(self) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except SafetensorError as error:
            raise ValueError(f"{self.path}: damaged ({error}). Delete it; it will be made again") from error

    def save(self) -> None:
        """Write what is new to the file."""
        if not self._changed:
            return
        from safetensors.torch import save

        from ..atomic import atomic_write

        with atomic_write(self.path) as file:
            file.write(save({key: value.contiguous() for key, value in self._features.items()}))
        self._changed = False


def filled(batch: list, size: int) -> list:
    """Up to a size with its last entry: in batches of other sizes the last digits of a feature would be
    others, and how many are left to compute after a stop is chance.
    """
    return batch + batch[-1:] * (size - len(batch))


def _hashed(*parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def picture_digest(pixels: np.ndarray) -> str:
    """Hex hash of a picture's shape and pixels."""
    content = hashlib.blake2b(f"{pixels.shape}{pixels.dtype}".encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels).tobytes())
    return content.hexdigest()


def check_folder(folder: Path) -> list[tuple[str, Path]]:
    """(name, path) of the files that decide what a CLIP model computes; nothing is loaded.

    Raises:
        ModelFileError (a ValueError): not a CLIP model's folder.
        OSError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a CLIP model as transformers saves it")
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder}: {name} is missing; expected a whole CLIPModel folder")
    wanted = (*_CONFIGS, ".safetensors")
    return [(path.name, path) for path in sorted(folder.iterdir()) if path.suffix in wanted]


def _clip_class():
    try:
        from transformers import CLIPModel
    except ImportError:
        raise ValueError("transformers is not installed; pip install -r requirements-train.txt") from None
    return CLIPModel


def _readers(folder: Path) -> tuple:
    """(tokenizer, image processor). Always Pillow's resizing: torchvision's gives other pixels."""
    import transformers
    from transformers import CLIPTokenizer

    processor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, processor.from_pretrained(folder, local_files_only=True)
