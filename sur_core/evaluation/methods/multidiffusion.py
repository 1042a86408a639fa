"""MultiDiffusion (Bar-Tal et al. 2023): views of a wide picture, drawn together and averaged at each step."""

from __future__ import annotations

from collections.abc import Sequence

from ...model_structure import ModelStructure
from ..pipelines import scheduler_of
from ..prompt_sets import EvalPrompt
from ..settings import EvaluationSettings
from .method import Context, Method, Opened, rebuilt

_VIEW, _STRIDE = 64, 8  # in latents; diffusers' pipeline has no argument for them
_FACTOR = 8


class MultiDiffusion(Method):
    """diffusers' ``StableDiffusionPanoramaPipeline``, for SD 1.x and 2.x.

    It lies among diffusers' deprecated pipelines and is loaded from there by its usual name. It pairs prompts
    with the wrong pictures in batches, so pictures are drawn one by one.

    Args:
        width, height: of the pictures; 0 takes a height of the model's own and four times as much for the
            width, which for SD 1.5 is the pipeline's default of 2048 x 512. A picture must be larger than one
            view, 512 pixels, in one direction: else the method does nothing.
        view_batch_size: views denoised at once.
        circular: the right edge goes on at the left one.
        scheduler_of: folder or hub id of a model whose scheduler is taken instead of the drawing model's. In
            the paper each of its two models has the other's here (B.1).
    """

    kind, families = "multidiffusion", ("sd1", "sd2")

    def __init__(
        self,
        name: str = "",
        width: int = 0,
        height: int = 0,
        view_batch_size: int = 1,
        circular: bool = False,
        scheduler_of: str = "",
    ):
        super().__init__(name)
        if view_batch_size < 1:
            raise ValueError(f"view_batch_size: expected a whole number from 1, found {view_batch_size!r}")
        self._size, self._scheduler_of = (width, height), scheduler_of
        # Of several views the pipeline has the negative and the positive rows in turn.
        self.hears_llmdiff = view_batch_size == 1
        self._common = {"view_batch_size": view_batch_size, "circular_padding": circular}
        for side, pixels in zip(("width", "height"), self._size, strict=True):
            if pixels:
                self._check_side(side, pixels)

    def check(self, prompts: Sequence[EvalPrompt]) -> None:
        if self._scheduler_of:
            scheduler_of(self._scheduler_of, "epsilon")

    def check_model(self, source, structure: ModelStructure, settings: EvaluationSettings) -> None:
        self._check_keeps(settings)
        self._checked_size(source.config("unet").get("sample_size") or _VIEW, structure.vae_factor)

    def open(self, base, context: Context) -> Opened:
        pipeline = rebuilt(
            base,
            {False: "StableDiffusionPanoramaPipeline"},
            self.name,
            scheduler=self._scheduler(base, context),
        )
        size = self._checked_size(pipeline.unet.config.sample_size, pipeline.vae_scale_factor)
        words = {"scheduler": f"that of {self._scheduler_of}"} if self._scheduler_of else {}
        return Opened(pipeline, common=self._common, alone=True, size=size, words=words)

    def _checked_size(self, side: int | Sequence[int], factor: int) -> tuple[int, int]:
        """(width, height) of the pictures. ``side``: of the model's latents; ``factor``: pixels of each."""
        height, width = (side, side) if isinstance(side, int) else side
        size = self._size[0] or 4 * width * _FACTOR, self._size[1] or height * _FACTOR
        if factor != _FACTOR:
            raise ValueError(
                f"method {self.name!r}: the pipeline takes a VAE that makes {_FACTOR} pixels of a latent for "
                f"granted; this one makes {factor}"
            )
        for name, pixels in zip(("width", "height"), size, strict=True):
            self._check_side(name, pixels)
        if max(size) <= _VIEW * _FACTOR:
            raise ValueError(
                f"method {self.name!r}: a picture of {size[0]} x {size[1]} is a single view, in which "
                f"MultiDiffusion does nothing; set width above {_VIEW * _FACTOR}"
            )
        return size

    def _scheduler(self, base, context: Context):
        if not self._scheduler_of:
            return base.scheduler
        self._check_keeps(context.settings)
        return scheduler_of(self._scheduler_of, base.scheduler.config.prediction_type)

    def _check_keeps(self, settings: EvaluationSettings) -> None:
        if self._scheduler_of and settings.scheduler != "keep":
            raise ValueError(
                f"method {self.name!r}: scheduler_of says whose scheduler to take, and scheduler is "
                f"{settings.scheduler!r} for all; set one of them, and scheduler to 'keep' otherwise"
            )

    def _check_side(self, name: str, pixels: int) -> None:
        """Views must reach the edge: what none covers, the pipeline would leave grey."""
        step = _STRIDE * _FACTOR if pixels > _VIEW * _FACTOR else _FACTOR
        if pixels < _FACTOR or pixels % step:
            raise ValueError(
                f"method {self.name!r}: {name} {pixels}: expected a multiple of {step}, so that the views "
                "cover the whole picture"
            )
