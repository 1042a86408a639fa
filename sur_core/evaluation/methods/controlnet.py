"""ControlNet (Zhang et al. 2023) with edges or segmentation maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...model_files import ModelFileError, ModelFolder, check_weights, open_folder, read_json
from ...model_structure import ModelStructure
from ..pipeline_calls import picture_size
from ..prompt_sets import EvalPrompt
from ..settings import EvaluationSettings
from .conditions import PictureFolder, made_condition, make_conditions
from .edges import HIGH, LOW, canny
from .method import Context, Method, Opened, rebuilt
from .segments import Segmenter

_CLASSES = {False: "StableDiffusionControlNetPipeline", True: "StableDiffusionXLControlNetPipeline"}


class ControlNet(Method):
    """diffusers' ControlNet pipelines for SD 1.x, SD 2.x and SDXL; subclasses say what the images show.

    Every prompt has one condition image, the same for all seeds and arms.

    Args:
        controlnet: folder or hub id of the ControlNet.
        conditions: folder of condition images; or
        pictures: folder of pictures that they are made from. In both, files are named after prompt ids.
        scale: weight of the ControlNet.
        start, end: part of the steps in which it takes part, 0..1.
        revision, variant: of the ControlNet.
    """

    sharp = False
    made_of = ""

    def __init__(
        self,
        name: str = "",
        *,
        controlnet: str,
        conditions: str | Path = "",
        pictures: str | Path = "",
        scale: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        revision: str = "",
        variant: str = "",
    ):
        super().__init__(name)
        if bool(conditions) == bool(pictures):
            raise ValueError(
                "expected either conditions, a folder of condition images, or pictures, a folder of pictures "
                f"they are made from; found {'both' if conditions else 'neither'}"
            )
        if not (scale >= 0 and 0 <= start < end <= 1):
            raise ValueError(
                "expected scale 0 or more and 0 <= start < end <= 1, found "
                f"scale {scale}, start {start}, end {end}"
            )
        what = "condition images" if conditions else f"pictures that {self.made_of} are made from"
        self._folder, self._given = PictureFolder(conditions or pictures, what), bool(conditions)
        self._model, self._revision, self._variant = str(controlnet), revision, variant
        self._common = {
            "controlnet_conditioning_scale": float(scale),
            "control_guidance_start": float(start),
            "control_guidance_end": float(end),
        }

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        self._folder.check(prompts)
        self._source()

    def check_model(self, source, structure: ModelStructure, settings: EvaluationSettings) -> None:
        net = self._source()
        self._check_family(net, source.config("unet"))
        check_weights(net)

    def open(self, base, context: Context) -> Opened:
        net = self._load(base, context)
        pipeline = rebuilt(base, _CLASSES, self.name, controlnet=net)
        size = picture_size(base, context.settings)
        if self._given:
            read = cache(lambda prompt_id: self._folder.read(by_id[prompt_id], size, self.sharp))
        else:
            key = self._make(context, size)
            read = cache(
                lambda prompt_id: made_condition(by_id[prompt_id], self._folder, size, key, context.folder)
            )
        by_id = {prompt.id: prompt for prompt in context.prompts}
        return Opened(
            pipeline,
            common=self._common,
            arguments=lambda prompt, seed: {"image": read(prompt.id)},
            words={
                "ControlNet": self._model,
                "conditions": f"{'' if self._given else self.made_of + ' made from '}{self._folder.path}",
            },
        )

    def maker(self, context: Context):
        """Who makes condition images."""
        raise NotImplementedError

    def _make(self, context: Context, size: tuple[int, int]) -> str:
        maker = self.maker(context)
        context.on_main(lambda: make_conditions(context.prompts, self._folder, size, maker, context.folder))
        getattr(maker, "close", lambda: None)()
        return maker.key

    def _load(self, base, context: Context):
        from diffusers import ControlNetModel

        source = self._source()
        self._check_family(source, base.unet.config)
        net = source.load("", ControlNetModel, context.dtype)
        return net.requires_grad_(False).eval().to(context.device)

    def _check_family(self, net: ModelFolder, unet: Mapping[str, Any]) -> None:
        found = read_json(net.root / "config.json", net.name)
        for setting, usual in (("cross_attention_dim", 1280), ("addition_embed_type", None)):
            ours, wanted = found.get(setting, usual), unet.get(setting, usual)
            if ours != wanted:
                raise ModelFileError(
                    f"{self._model}: this ControlNet is for another family of models ({setting} is {ours}, "
                    f"the model's UNet has {wanted}); give one that was trained for the model's family"
                )

    def _source(self) -> ModelFolder:
        """Where the ControlNet lies; its weights are not looked at."""
        source = open_folder(self._model, self._revision, self._variant)
        config = source.root / "config.json"
        kind = read_json(config, source.name).get("_class_name") if config.is_file() else "no config.json"
        if kind != "ControlNetModel":
            raise ModelFileError(
                f"{self._model}: expected the folder or hub id of a ControlNet, found {kind} in it"
            )
        return source


class CannyControlNet(ControlNet):
    """Edges. ``low`` and ``high``: Canny's thresholds, where edges are made (100 and 200, as is usual)."""

    kind, made_of = "controlnet-canny", "edges"

    def __init__(self, name: str = "", *, low: float = LOW, high: float = HIGH, **others):
        if not 0 <= low <= high:
            raise ValueError(f"expected 0 <= low <= high, found low {low}, high {high}")
        super().__init__(name, **others)
        self._low, self._high = float(low), float(high)

    def maker(self, context: Context):
        return _Edges(self._low, self._high)


class SegmentationControlNet(ControlNet):
    """Segmentation maps in ADE20K's colours.

    Args:
        segmentation_model: who makes them: folder or hub id of a transformers model trained on ADE20K.
        segmentation_revision: of a hub id.
    """

    kind, made_of, sharp = "controlnet-seg", "segmentation maps", True

    def __init__(
        self, name: str = "", *, segmentation_model: str = "", segmentation_revision: str = "", **others
    ):
        super().__init__(name, **others)
        if not self._given and not segmentation_model:
            raise ValueError(
                "segmentation maps are to be made from pictures; set segmentation_model to a model trained "
                "on ADE20K, such as openmmlab/upernet-convnext-small"
            )
        self._segmenter = segmentation_model, segmentation_revision

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        super().check(prompts)
        if not self._given:
            Segmenter(*self._segmenter)

    def maker(self, context: Context) -> Segmenter:
        return Segmenter(*self._segmenter, context.device)


class _Edges:
    def __init__(self, low: float, high: float):
        self.key, self._thresholds = f"canny {low} {high}", (low, high)

    def make(self, pixels: np.ndarray) -> np.ndarray:
        return canny(pixels, *self._thresholds)
