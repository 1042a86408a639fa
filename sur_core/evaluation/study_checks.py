"""What is wrong with a study, told before anything is drawn: hours would be lost otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..llmdiff import LLMDiffAdapter, load_llmdiff
from ..llmdiff.config import LayerShape
from ..llmdiff.diffusers_unet import check_fit, unet_shape
from ..model_structure import ModelStructure, examine
from ..single_file import open_source
from .arms import Arm
from .hearing import check_hearing, deaf, is_deaf_to_text, without_effect
from .methods import Method
from .pipeline_calls import check_size
from .pipelines import check_parts
from .quality import check_measures
from .run import check_inputs
from .study import cell_folder
from .study_config import ModelChoice, StudyConfig
from .study_people import people_in
from .text import check_clip_skip, load_fitting


def check_study(config: StudyConfig) -> None:
    """Look at every model's configuration, every adapter, condition image and measure; no model's weights are
    loaded. Models named as on the hub have their configurations fetched.

    Raises:
        ValueError, OSError: in words.
    """
    llmdiff = _LLMDiffChecks(config)
    for model in config.models:
        arms = config.arms(model)
        check_inputs(config.prompts, arms)
        if len(arms) < 2:
            raise ValueError(
                f"model {model.name!r} has no adapter to compare with the baseline; add [[adapters]]"
            )
        if not config.methods_of(model):
            raise ValueError(f"model {model.name!r} has no method to draw with; add [[methods]]")
        source, structure = _examine(model)
        _check_drawing(model, source, structure, config.settings)
        for method in config.methods_of(model):
            _check_method(config, model, method, source, structure)
            people_in(config.settings.output_dir / cell_folder(model.name, method.name))
        for path in {arm.adapter for arm in arms if arm.adapter is not None}:
            load_fitting(path, list(structure.widths.values()))
        if any(arm.llmdiff is not None for arm in arms):
            llmdiff.check(model, source)
    for choice in config.methods:
        choice.method.check(config.prompts)
    if config.quality is not None:
        check_measures(config.quality_settings)


def _check_method(
    config: StudyConfig, model: ModelChoice, method: Method, source, structure: ModelStructure
) -> None:
    """ValueError or OSError if a method cannot draw with a model, or has nothing to draw."""
    if structure.family not in method.families:
        raise ValueError(
            f"method {method.name!r}: diffusers has no such pipeline for {structure.words()}; set "
            f"the method's models, without {model.name!r}"
        )
    try:
        method.check_model(source, structure, config.settings)
    except ValueError as error:
        raise ValueError(f"model {model.name!r}: {error}") from error
    if len(config.arms(model, method.name)) < 2:
        raise ValueError(
            f"model {model.name!r}, method {method.name!r}: every adapter has other methods; leave "
            "the method out, or the methods of an adapter"
        )


class _LLMDiffChecks:
    """Whether a study's LLMDiff-Adapters can draw. Each file is read once, for all models and methods."""

    def __init__(self, config: StudyConfig):
        self._config, self._adapters = config, {}

    def check(self, model: ModelChoice, source) -> None:
        """ValueError or OSError if one of a model's cannot; ``source``: what opens the model."""
        shape = _unet_shape(source.config("unet"))
        for method in self._config.methods_of(model):
            where = f"model {model.name!r}, method {method.name!r}"
            for arm in self._config.arms(model, method.name):
                if arm.llmdiff is None:
                    continue
                if not method.hears_llmdiff:
                    raise ValueError(f"{where}: {deaf(arm.name)}")
                adapter = self._adapter(arm)
                check_fit(adapter, *shape, f"model {model.name!r}")
                if method.is_of_text_encoder and is_deaf_to_text(adapter.config, arm.strength):
                    raise ValueError(f"{where}: {without_effect(arm.name, 'the method')}")

    def _adapter(self, arm: Arm) -> LLMDiffAdapter:
        """Without its weights, if it can read this study's prompts."""
        files = arm.llmdiff, arm.llm
        if files not in self._adapters:
            adapter = load_llmdiff(arm.llmdiff).to("meta")
            texts = [arm.negative_prompt, *(arm.text_of(prompt) for prompt in self._config.prompts)]
            check_hearing(adapter, arm.llm, texts)
            self._adapters[files] = adapter
        return self._adapters[files]


def _unet_shape(config: Mapping[str, Any]) -> tuple[int, tuple[LayerShape, ...]]:
    """As :func:`unet_shape`, of a UNet's configuration."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return unet_shape(UNet2DConditionModel.from_config(config))


def _check_drawing(model: ModelChoice, source, structure: ModelStructure, settings) -> None:
    """ValueError for settings that do not fit this model."""
    layers = source.config("text_encoder")["num_hidden_layers"]
    try:
        check_clip_skip(settings.clip_skip, structure.family == "sdxl", layers)
        check_size((settings.width, settings.height), structure.vae_factor)
    except ValueError as error:
        raise ValueError(f"model {model.name!r}: drawing: {error}") from error


def _examine(model: ModelChoice) -> tuple[Any, ModelStructure]:
    """What opens the model, and what it is."""
    names = ("revision", "variant", "single_file_config")
    source = open_source(model.path, **{name: model.options.get(name, "") for name in names})
    structure = examine(source, model.options.get("family", ""), model.options.get("prediction_type", ""))
    check_parts(source, structure)
    return source, structure
