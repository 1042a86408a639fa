"""Self-Attention Guidance (Hong et al. 2023): away from a prediction whose salient regions are blurred."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...model_structure import ModelStructure
from ..settings import EvaluationSettings
from .method import Context, Method, Opened, rebuilt

_SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
"""Of whose latents and timesteps the pipeline's own formulas for x_0 are true."""


class SelfAttentionGuidance(Method):
    """diffusers' ``StableDiffusionSAGPipeline``, for SD 1.x and 2.x.

    It lies among diffusers' deprecated pipelines and is loaded from there by its usual name.

    Args:
        scale: how much; 0 is plain drawing.
    """

    kind, families = "sag", ("sd1", "sd2")
    hears_llmdiff = False  # it also calls the UNet with one half of the prompts alone

    def __init__(self, name: str = "", scale: float = 0.75):
        super().__init__(name)
        if not 0 <= scale <= 10:
            raise ValueError(f"scale: expected a number from 0 to 10, found {scale!r}")
        self._scale = float(scale)

    def check_model(self, source, structure: ModelStructure, settings: EvaluationSettings) -> None:
        own = source.config("scheduler", "scheduler_config.json").get("_class_name")
        self._check_scheduler(str(own), settings)
        middle = source.config("unet").get("mid_block_type", "UNetMidBlock2DCrossAttn")
        self._check_attention("CrossAttn" in str(middle))

    def _check_attention(self, there: bool) -> None:
        if not there:
            raise ValueError(
                f"method {self.name!r}: the UNet of this model has no self-attention in its middle; leave "
                "the method out for it"
            )

    def _check_scheduler(self, own: str, settings: EvaluationSettings) -> None:
        """``own``: class of the model's scheduler."""
        chosen = {"ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
        scheduler = own if settings.scheduler == "keep" else chosen.get(settings.scheduler)
        if scheduler not in _SCHEDULERS:
            raise ValueError(
                f"method {self.name!r}: the pipeline computes x_0 by formulas that are wrong for the "
                f"scheduler {scheduler or settings.scheduler}; set scheduler to 'ddim' or 'dpmpp_2m'"
            )

    def open(self, base, context: Context) -> Opened:
        pipeline = rebuilt(base, {False: "StableDiffusionSAGPipeline"}, self.name)
        self._check_scheduler(type(base.scheduler).__name__, context.settings)
        self._check_attention(bool(getattr(pipeline.unet.mid_block, "attentions", None)))
        return Opened(
            pipeline,
            common={"sag_scale": self._scale},
            guard=lambda: _attention_kept(pipeline),
        )


@contextmanager
def _attention_kept(pipeline) -> Iterator[None]:
    """The pipeline puts a processor of its own into the UNet, and takes it out only if nothing goes wrong."""
    before = pipeline.unet.attn_processors
    try:
        yield
    finally:
        pipeline.unet.set_attn_processor(before)
