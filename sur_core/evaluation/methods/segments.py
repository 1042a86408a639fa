"""Segmentation maps in ADE20K's colours, by any transformers model that knows its 150 classes."""

from __future__ import annotations

import json

import numpy as np
import torch

from ...model_files import (
    HubFolder,
    ModelFileError,
    ModelFolder,
    fingerprint,
    open_folder,
    told_in_words,
    whole_weights,
)
from .ade20k import CLASSES, palette


class Segmenter:
    """Makes segmentation maps; its model is loaded at the first and released by :meth:`close`.

    Args:
        model: folder or hub id, such as ``"openmmlab/upernet-convnext-small"``.
        device: where it computes, in float32.

    Raises:
        ModelFileError (a ValueError), OSError: no such model, or not of these classes.
    """

    def __init__(self, model: str, revision: str = "", device: str | torch.device = "cpu"):
        self._source, self._device, self._loaded = open_folder(model, revision), device, None
        self._check_classes()
        if not self._is_hub and not whole_weights(self._source.root):
            raise ModelFileError(f"{self._source.name}: the segmentation model has no weights; copy it again")
        self.key = _identity(self._source)
        """Equal keys make equal maps."""

    def make(self, pixels: np.ndarray) -> np.ndarray:
        """The map of a picture; both uint8 [H, W, 3]."""
        if self._loaded is None:
            self._loaded = self._load()
        model, processor = self._loaded
        inputs = processor(images=pixels, return_tensors="pt").to(self._device)
        with torch.no_grad():
            outputs = model(**inputs)
        size = [pixels.shape[:2]]
        classes = processor.post_process_semantic_segmentation(outputs, target_sizes=size)[0]
        classes = classes.cpu().numpy()
        if classes.min() < 0 or classes.max() >= CLASSES:
            raise ModelFileError(
                f"{self._source.name}: found class {int(classes.max())}; expected 0 to {CLASSES - 1}"
            )
        return palette()[classes]

    def close(self) -> None:
        """Release the model's memory."""
        self._loaded = None

    def _load(self):
        from transformers import AutoImageProcessor

        name, root = self._source.name, str(self._source.root)
        # The snapshot of a hub model has no weights yet; its name is its commit.
        place = (name, {"revision": self._source.root.name}) if self._is_hub else (root, {})
        with told_in_words(f"{name}: the segmentation model could not be read"):
            processor = AutoImageProcessor.from_pretrained(root, local_files_only=True)
            kind = _kind(json.loads((self._source.root / "config.json").read_text("utf-8")))
            model, report = kind.from_pretrained(place[0], output_loading_info=True, **place[1])
        if missing := sorted(report["missing_keys"]):
            raise ModelFileError(
                f"{name}: the segmentation model is incomplete: {len(missing)} weights are missing, such as "
                f"{missing[0]}. Download it again"
            )
        return model.float().to(self._device).eval().requires_grad_(False), processor

    @property
    def _is_hub(self) -> bool:
        return isinstance(self._source, HubFolder)

    def _check_classes(self) -> None:
        from transformers import AutoConfig

        name = self._source.name
        for file in ("config.json", "preprocessor_config.json"):
            if not (self._source.root / file).is_file():
                raise ModelFileError(
                    f"{name}: {file} is missing; expected a transformers segmentation model with its image "
                    "processor"
                )
        with told_in_words(f"{name}: its config.json could not be read"):
            found = AutoConfig.from_pretrained(self._source.root, local_files_only=True).num_labels
        if found != CLASSES:
            raise ModelFileError(
                f"{name}: knows {found} classes; expected the {CLASSES} of ADE20K, in whose colours "
                "segmentation ControlNets were trained. Give a model that was trained on ADE20K"
            )


def _kind(config: dict):
    import transformers

    universal = config.get("model_type") in ("mask2former", "maskformer")
    return getattr(
        transformers,
        "AutoModelForUniversalSegmentation" if universal else "AutoModelForSemanticSegmentation",
    )


def _identity(source: ModelFolder) -> str:
    if isinstance(source, HubFolder):
        return f"{source.name}@{source.root.name}"
    endings = (".json", ".safetensors", ".bin")
    files = sorted(path for path in source.root.iterdir() if path.suffix in endings)
    return fingerprint([(path.name, path) for path in files])
