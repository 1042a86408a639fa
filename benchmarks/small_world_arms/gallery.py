"""Draws and judges: one evaluation folder for all arms of all groups, so that nothing is drawn twice."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import small_world
from small_world.dataset import Report, write_reference
from small_world.judge import make_judge
from sur_core.atomic import atomic_write
from sur_core.evaluation import (
    Arm,
    EvalPrompt,
    Evaluation,
    EvaluationSettings,
    ImageTextModel,
    Judge,
    Verdict,
    evaluate,
    open_pipeline,
)
from sur_core.evaluation.drawing import Draughtsman, read_picture
from sur_core.evaluation.image_text import picture_digest
from sur_core.evaluation.pipeline_calls import prepared
from sur_core.model_files import fingerprint

from .plan import Plan, hashed


class Gallery:
    """Pictures of one plan. Opens the base model and CLIP."""

    def __init__(self, plan: Plan, report: Report):
        self.plan, self._report = plan, report
        self.pipeline = open_pipeline(plan.models.base)
        self._clip = ImageTextModel(plan.models.clip, self.pipeline._execution_device)
        self._judge = RememberingJudge(make_judge(), plan.work_dir / "verdicts")
        self.folder = plan.work_dir / "evaluation"

    def show(self, prompts: Sequence[EvalPrompt], arms: Sequence[Arm], noises: int) -> Evaluation:
        """Every arm's pictures with verdicts, CLIP Score, cosine, and KID against true pictures of the same
        prompts. The first arm is the baseline.

        Args:
            noises: pictures of each prompt.

        Raises:
            EvaluationStopped: a signal came; the same call goes on.
        """
        try:
            return evaluate(
                self._settings(self.folder, noises),
                self.pipeline,
                prompts,
                arms,
                judge=self._judge,
                clip=self._clip,
                reference=self._reference(prompts),
                report=self._report,
                name=str(self.plan.models.base),
            )
        finally:
            self._judge.save()

    def seconds_per_picture(self, prompts: Sequence[EvalPrompt]) -> float:
        """Of drawing and judging, from one batch that is thrown away."""
        prompts, taken = prompts[: self.plan.batch_size], []
        for _ in range(2):  # the first one warms up
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                evaluate(self._settings(folder, 1), self.pipeline, prompts, [Arm("base")], judge=make_judge())
                taken.append((time.perf_counter() - began) / len(prompts))
        return taken[-1]

    def draw_changed(
        self, prompts: Sequence[EvalPrompt], noises: int, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> dict[tuple[str, int], np.ndarray]:
        """Pictures of prompts whose embeddings [1, T, D] went through ``change``, by (prompt id, seed)."""
        with tempfile.TemporaryDirectory() as folder:
            settings = self._settings(folder, noises)
            draughtsman = Draughtsman(self.pipeline, settings)
            draughtsman.encoder = _ChangedEncoder(draughtsman.encoder, change)
            jobs = {prompt.id: draughtsman.jobs(Arm("changed"), prompt) for prompt in prompts}
            with prepared(self.pipeline, settings):
                draughtsman.draw([job for each in jobs.values() for job in each], self._report, lambda: None)
            return {
                (name, job.seed): read_picture(Path(folder) / job.path)
                for name, each in jobs.items()
                for job in each
            }

    def _settings(self, folder: str | Path, noises: int) -> EvaluationSettings:
        return EvaluationSettings(
            output_dir=folder,
            seeds=tuple(range(noises)),
            steps=self.plan.steps,
            guidance_scale=self.plan.guidance,
            batch_size=self.plan.batch_size,
            resamples=self.plan.resamples,
        )

    def _reference(self, prompts: Sequence[EvalPrompt]) -> Path:
        name = hashed([[prompt.id, prompt.truth, prompt.complex] for prompt in prompts])
        folder = self.plan.work_dir / f"reference-{self.plan.references}-{name}"
        return write_reference(folder, prompts, self.plan.references, report=self._report)


class _ChangedEncoder:
    """A :class:`PromptEncoder` whose positive embeddings go through a function."""

    def __init__(self, encoder, change: Callable[[torch.Tensor], torch.Tensor]):
        self._encoder, self._change = encoder, change

    def embeddings(self, request) -> dict[str, torch.Tensor]:
        found = self._encoder.embeddings(request)
        return {**found, "prompt_embeds": self._change(found["prompt_embeds"])}


class RememberingJudge:
    """A judge whose verdicts are kept by picture and truth, as long as the small world's code is the same."""

    def __init__(self, judge: Judge, folder: Path):
        self.name, self.check, self._judge = judge.name, judge.check, judge
        code = sorted(Path(small_world.__file__).parent.glob("*.py"))
        self.path = folder / f"{fingerprint([(path.name, path) for path in code])[:16]}.json"
        self._known = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        self._changed = False

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        key = f"{picture_digest(pixels)} {json.dumps(prompt.truth, sort_keys=True)}"
        if key not in self._known:
            verdict = self._judge.mark(pixels, prompt)
            self._known[key] = [bool(verdict.right), verdict.why, dict(verdict.details)]
            self._changed = True
        return Verdict(*self._known[key])

    def save(self) -> None:
        if self._changed:
            with atomic_write(self.path) as file:
                file.write(json.dumps(self._known).encode("utf-8"))
            self._changed = False
