"""What a controlled method is, and the plain one.

A method makes from an opened pipeline the one to call, and tells what it is called with for each prompt and
seed. Prompts reach every pipeline as embeddings, so that an adapter corrects them in the same way in each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ...model_structure import ModelStructure
from ..prompt_sets import EvalPrompt
from ..settings import EvaluationSettings

NO_ARGUMENTS: Mapping[str, Any] = {}


class Weights(Protocol):
    """Prompts with weights on their words."""

    def text(self, prompt: EvalPrompt) -> str:
        """A prompt with its weights written in; part of the picture's key."""

    def hidden(self, text: str) -> torch.Tensor:
        """Token embeddings of such a text, [1, 77, D], before an adapter corrects them."""


@dataclass(frozen=True)
class Opened:
    """A method on one model, ready to draw.

    Attributes:
        pipeline: what is called; it shares its parts with the pipeline it was made from.
        common: call arguments of every picture.
        arguments: further call arguments of a (prompt, seed), the same names for all. In a batch each becomes
            a list with one value a picture.
        alone: the pipeline cannot draw several pictures at once, or not each as if it were alone.
        size: (width, height) in pixels where the method has one of its own.
        weights: who weighs words, if anyone does.
        hears_llmdiff: whether LLMDiff-Adapters can act; of a method, :func:`..run.open_method` sets it to
            what the method says.
        guard: entered around every call; leaves shared parts as they were, whatever happens.
        about: JSON values: what decides a picture besides the pipeline's parts and the call arguments.
        words: the same for people.
    """

    pipeline: Any
    common: Mapping[str, Any] = field(default_factory=dict)
    arguments: Callable[[EvalPrompt, int], Mapping[str, Any]] = lambda prompt, seed: NO_ARGUMENTS
    alone: bool = False
    size: tuple[int, int] | None = None
    weights: Weights | None = None
    guard: Callable[[], AbstractContextManager] = nullcontext
    hears_llmdiff: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a method may need to open itself.

    Attributes:
        settings: of the run.
        prompts: all that will be drawn.
        device, dtype: of models the method loads besides.
        folder: where condition images that are made are kept; the run's output folder.
        on_main: runs what it is given in the main process only, while the others wait.
    """

    settings: EvaluationSettings
    prompts: Sequence[EvalPrompt]
    device: torch.device
    dtype: torch.dtype
    folder: Path
    on_main: Callable[[Callable[[], Any]], None] = lambda make: make()


class Method:
    """The plain method: the model's own pipeline. The others are its subclasses.

    Attributes:
        name: unique in a study; the second column of the tables.
    """

    kind = "none"
    families = ("sd1", "sd2", "sdxl")
    """Of models that diffusers has a pipeline for."""
    hears_llmdiff = True
    """Every call of the UNet has rows for the prompts, in guidance all negative ones first."""
    is_of_text_encoder = False
    """All it does is done to what the text encoder says."""

    def __init__(self, name: str = ""):
        self.name = name or self.kind

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        """What can be checked before a model is opened. ValueError or OSError in words."""

    def check_model(self, source, structure: ModelStructure, settings: EvaluationSettings) -> None:
        """What a model's configuration files tell of whether :meth:`open` will work, before any weights are
        loaded. ``source``: a ModelFolder or SingleFile. ValueError in words.
        """

    def open(self, base, context: Context) -> Opened:
        """Ready to draw with the model of ``base``, a text-to-image pipeline, which is left as it is."""
        return Opened(base)


def rebuilt(base, names: Mapping[bool, str], method: str, **parts):
    """A pipeline of another class with the parts of ``base`` and some more.

    Args:
        names: the class in diffusers for SDXL (``True``) and for SD 1.x and 2.x (``False``).
        method: what to call the method in errors.

    Raises:
        ValueError: there is no such pipeline for this family, or not in this version of diffusers.
    """
    import diffusers

    is_sdxl = getattr(base, "text_encoder_2", None) is not None
    if is_sdxl not in names:
        family = "SDXL" if is_sdxl else "SD 1.x and 2.x"
        raise ValueError(
            f"method {method!r}: diffusers has no such pipeline for {family}; leave the method out for this "
            "model"
        )
    kind = getattr(diffusers, names[is_sdxl], None)
    if kind is None:
        raise ValueError(
            f"method {method!r}: diffusers {diffusers.__version__} has no {names[is_sdxl]} any more (0.42 "
            "has it among its deprecated pipelines). Install a version that has it, or leave the method out"
        )
    logger = diffusers.utils.logging.get_logger("diffusers.pipelines.pipeline_utils")
    level = logger.level
    logger.setLevel("ERROR")  # those that are deprecated say so whenever one is made
    try:
        return kind(**{**base.components, **_switches(base, is_sdxl), **parts})
    finally:
        logger.setLevel(level)


def _switches(base, is_sdxl: bool) -> dict[str, Any]:
    """What a pipeline is built with besides its parts, as :func:`sur_core.evaluation.open_pipeline` does."""
    if is_sdxl:
        zeros = base.config.get("force_zeros_for_empty_prompt", True)
        return {"force_zeros_for_empty_prompt": zeros, "add_watermarker": False}
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
