"""SigLIP's score: how probable it finds that a text belongs to a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ...model_files import read_json
from ...surd_build.model_source import ModelSource, load_image_processor, load_tokenizer, load_weights
from ..image_text import cosines, filled
from .measure import QualityError, identity

log = logging.getLogger(__name__)


class SiglipScore:
    """The sigmoid of SigLIP's logit of a picture and its text, 0..1 (Zhai et al., 2023).

        score = 1 / (1 + exp(-(logit_scale * cosine + logit_bias)))

    with the scale and the bias that the model has learnt. Unlike CLIP's softmax it needs no second picture.

    Args:
        source: a transformers ``SiglipModel`` (of SigLIP, or of SigLIP 2 with a fixed picture size), with its
            tokenizer and image processor.
        device: where it computes, in float32.
        batch_size: pictures or texts at once.

    Raises:
        ValueError: weights, tokenizer or image processor are missing or damaged.
    """

    name, higher_is_better, reads_text = "siglip", True, True
    note = (
        "SigLIP score: the sigmoid of SigLIP's scaled and shifted cosine of picture and prompt, 0 to 1, "
        "higher is better; comparable only with scores of the same SigLIP model."
    )

    def __init__(self, source: ModelSource, device: str | torch.device = "cpu", batch_size: int = 32):
        from transformers import SiglipModel

        self._device, self._batch_size = torch.device(device), batch_size
        self._tokenizer, self._processor = load_tokenizer(source), load_image_processor(source)
        self._model = load_weights(source, SiglipModel, torch.float32, self._device)
        self._length = self._model.config.text_config.max_position_embeddings
        self.fingerprint = identity(self.name, source.identity)

    @torch.no_grad()
    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        if not len(pictures):
            return np.empty(0)
        places: dict[str, int] = {}
        rows = [places.setdefault(text, len(places)) for text in texts]
        words = self._text_features(list(places))[rows]
        scale, bias = self._model.logit_scale.double().exp().item(), self._model.logit_bias.item()
        logits = scale * cosines(self._image_features(pictures), words) + bias
        return np.exp(-np.logaddexp(0.0, -logits))

    def _image_features(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        parts = []
        for start in range(0, len(pictures), self._batch_size):
            batch = list(pictures[start : start + self._batch_size])
            full = filled(batch, self._batch_size)
            pixels = self._processor(images=full, return_tensors="pt")["pixel_values"].to(self._device)
            pooled = self._model.vision_model(pixel_values=pixels).pooler_output
            parts.append(pooled.float().cpu()[: len(batch)])
        return torch.cat(parts)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), self._batch_size):
            # SigLIP was trained on small letters; the tokenizer of SigLIP 2 leaves that to the caller.
            batch = [text.lower() for text in texts[start : start + self._batch_size]]
            for text, ids in zip(batch, self._tokenizer(batch).input_ids, strict=True):
                if len(ids) > self._length:
                    log.warning("SigLIP reads %d tokens only; cut: %r", self._length, text)
            tokens = self._tokenizer(
                filled(batch, self._batch_size),
                padding="max_length",
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
            )
            # No attention mask: it was trained to read its padding.
            ids = tokens["input_ids"].to(self._device)
            parts.append(self._model.text_model(input_ids=ids).pooler_output.float().cpu()[: len(batch)])
        return torch.cat(parts)


def check_siglip(name: str, config: object) -> None:
    """QualityError if the model of this configuration is no ``SiglipModel``."""
    kind = getattr(config, "model_type", "")
    if kind == "siglip" and getattr(config, "vision_config", None) is not None:
        return
    hint = (
        "; a NaFlex model has pictures of any size: take one with a fixed size" if kind == "siglip2" else ""
    )
    raise QualityError(
        f"siglip: {name} is a model of type {kind!r}; expected 'siglip', such as "
        f"google/siglip-base-patch16-224 or google/siglip2-base-patch16-224{hint}"
    )


def check_tokenizer(folder: Path) -> None:
    """QualityError if the tokenizer of this SigLIP needs a package that is not installed."""
    path = folder / "tokenizer_config.json"
    kind = read_json(path, str(folder)).get("tokenizer_class") if path.is_file() else "SiglipTokenizer"
    if kind == "SiglipTokenizer" and find_spec("sentencepiece") is None:
        raise QualityError(
            f"siglip: the tokenizer in {folder} needs sentencepiece, which is not installed; pip install "
            "sentencepiece protobuf, or take a SigLIP 2 of fixed picture size, which does not need it"
        )
