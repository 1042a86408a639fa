"""Detectors of transformers: OWLv2, Grounding DINO and Mask2Former, with transformers' own post-processing.

OWLv2 and Grounding DINO are asked for words and give boxes; Mask2Former knows the classes it was trained on
(such as the eighty of COCO) and gives masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...surd_build.model_source import ModelSource, find_model, load_image_processor, load_tokenizer
from .detections import Detection
from .models import JudgeModel, JudgeModelError, memory_in_words


def open_detector(
    model: str,
    *,
    revision: str = "",
    device: str = "auto",
    dtype: str = "fp32",
    batch_size: int = 8,
    local_files_only: bool = False,
):
    """A :class:`.detections.Detector` from a folder as transformers saves it, or an id on the hub.

    Args:
        dtype: fp32 by default, since Grounding DINO cannot compute in less on all devices.
        batch_size: pictures at once.

    Raises:
        ValueError: not one of the three kinds, or incomplete, or too large for the device.
        OSError: there is no such model, or the hub cannot be reached.
    """
    source = find_model(str(model), _check_kind, revision, local_files_only)
    return _KINDS[source.config.model_type](source, device, dtype, batch_size)


class _TransformersDetector(JudgeModel):
    """What the three have in common."""

    usual_threshold = 0.3
    labels: tuple[str, ...] | None = None

    def __init__(self, source: ModelSource, device: str, dtype: str, batch_size: int):
        super().__init__(source, device, dtype)
        self.batch_size = batch_size
        self._processor = load_image_processor(source)

    @torch.inference_mode()
    def detect(
        self, pictures: Sequence[np.ndarray], labels: Sequence[str], threshold: float
    ) -> list[list[Detection]]:
        """As :meth:`.detections.Detector.detect`."""
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), self.batch_size):
            batch = list(pictures[start : start + self.batch_size])
            with memory_in_words(self.name, self.device, f"{len(batch)} pictures at once"):
                found += self._detect(batch, list(labels), threshold)
        return found

    def _inputs(self, batch: list[np.ndarray]) -> dict[str, torch.Tensor]:
        inputs = self._processor(images=batch, return_tensors="pt")
        inputs = {
            name: inputs[name].to(self.device) for name in ("pixel_values", "pixel_mask") if name in inputs
        }
        return inputs | {"pixel_values": inputs["pixel_values"].to(self._model.dtype)}

    def _boxes(self, outputs, logits: torch.Tensor, label: str, threshold: float, size) -> list[list]:
        """Of every picture what the processor keeps of ``logits`` [B, N, any], all of one label."""
        one = type(outputs)(logits=logits.float().cpu(), pred_boxes=outputs.pred_boxes.float().cpu())
        sizes = [size] * len(logits)
        kept = self._processor.post_process_object_detection(one, threshold=threshold, target_sizes=sizes)
        return [
            _inside(label, picture["scores"].tolist(), picture["boxes"].tolist(), size) for picture in kept
        ]


class Owlv2Detector(_TransformersDetector):
    """OWLv2, asked for "a photo of a ..." as its authors do. All labels at once, each scored by itself."""

    model_class = "Owlv2ForObjectDetection"

    def __init__(self, source: ModelSource, device: str, dtype: str, batch_size: int):
        super().__init__(source, device, dtype, batch_size)
        self._tokenizer = load_tokenizer(source)
        self._limit = source.config.text_config.max_position_embeddings

    def _detect(self, batch, labels, threshold) -> list[list[Detection]]:
        words = self._words(labels)
        repeated = {name: rows.repeat(len(batch), 1).to(self.device) for name, rows in words.items()}
        outputs = self._model(**self._inputs(batch), **repeated)
        parts = [
            self._boxes(outputs, outputs.logits[..., at : at + 1], label, threshold, batch[0].shape[:2])
            for at, label in enumerate(labels)
        ]
        return [[one for part in of_picture for one in part] for of_picture in zip(*parts, strict=True)]

    def _words(self, labels: list[str]) -> dict[str, torch.Tensor]:
        texts = [f"a photo of a {label}" for label in labels]
        for label, ids in zip(labels, self._tokenizer(texts).input_ids, strict=True):
            if len(ids) > self._limit:
                raise JudgeModelError(
                    f"{self.name}: reads {self._limit} tokens, and {label!r} has more; give it a shorter "
                    "name in the judge's classes"
                )
        rows = self._tokenizer(texts, padding="max_length", max_length=self._limit, return_tensors="pt")
        return {name: rows[name] for name in ("input_ids", "attention_mask")}


class GroundingDinoDetector(_TransformersDetector):
    """Grounding DINO, asked for one label at a time: its phrases for several of them run into each other."""

    model_class = "GroundingDinoForObjectDetection"
    usual_threshold = 0.35

    def __init__(self, source: ModelSource, device: str, dtype: str, batch_size: int):
        super().__init__(source, device, dtype, batch_size)
        self._tokenizer = load_tokenizer(source)

    def _detect(self, batch, labels, threshold) -> list[list[Detection]]:
        inputs, found = self._inputs(batch), [[] for _ in batch]
        for label in labels:
            # Lower case and a full stop behind each phrase are how the model was trained.
            words = self._tokenizer([f"{label.lower()}."] * len(batch), return_tensors="pt")
            outputs = self._model(**inputs, **words.to(self.device))
            kept = self._boxes(outputs, outputs.logits, label, threshold, batch[0].shape[:2])
            found = [before + new for before, new in zip(found, kept, strict=True)]
        return found


class Mask2FormerDetector(_TransformersDetector):
    """Mask2Former: a mask for every instance, of the classes that its config.json lists."""

    model_class = "Mask2FormerForUniversalSegmentation"
    usual_threshold = 0.5

    def __init__(self, source: ModelSource, device: str, dtype: str, batch_size: int):
        super().__init__(source, device, dtype, batch_size)
        self._names = {int(at): name for at, name in source.config.id2label.items()}
        self.labels = tuple(self._names[at] for at in sorted(self._names))

    def _detect(self, batch, labels, threshold) -> list[list[Detection]]:
        outputs, (height, width) = self._model(**self._inputs(batch)), batch[0].shape[:2]
        # On the CPU: the processor puts the masks of any device into a tensor of its own there.
        outputs.class_queries_logits = outputs.class_queries_logits.float().cpu()
        outputs.masks_queries_logits = outputs.masks_queries_logits.float().cpu()
        kept = self._processor.post_process_instance_segmentation(
            outputs, threshold=threshold, target_sizes=[(height, width)] * len(batch), return_binary_maps=True
        )
        return [self._instances(picture, set(labels)) for picture in kept]

    def _instances(self, picture: dict, labels: set[str]) -> list[Detection]:
        found = []
        for at, segment in enumerate(picture["segments_info"]):
            label = self._names[segment["label_id"]]
            mask = picture["segmentation"][at].bool().numpy()
            if label in labels and mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                found.append(Detection(label, float(segment["score"]), tuple(map(float, box)), mask))
        return found


_KINDS = {
    "owlv2": Owlv2Detector,
    "grounding-dino": GroundingDinoDetector,
    "mask2former": Mask2FormerDetector,
}


def _check_kind(name: str, config) -> None:
    if config.model_type not in _KINDS:
        raise JudgeModelError(
            f"{name}: expected a detector of type {', '.join(_KINDS)}, such as "
            f"google/owlv2-base-patch16-ensemble; found one of type {config.model_type!r}"
        )


def _inside(label: str, scores: list[float], boxes: list[list[float]], size) -> list[Detection]:
    """Cut to the picture; what lies outside of it (in what was filled up) is left out."""
    height, width = size
    found = []
    for score, (left, top, right, bottom) in zip(scores, boxes, strict=True):
        box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        if box[0] < box[2] and box[1] < box[3]:
            found.append(Detection(label, score, box))
    return found
