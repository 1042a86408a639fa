"""Draws what is missing, in batches, so that a picture depends on nothing but itself.

A picture lies in ``images/<key>/<seed>.png``. The key is a hash of everything else that decides it; beside
the pictures, ``about.json`` says what was hashed. Arms that would draw the same share their pictures.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..model_files import fingerprint
from .arms import Arm
from .pipelines import picture_size, pipeline_fingerprint, scheduler_settings
from .prompt_sets import EvalPrompt
from .settings import EvaluationSettings
from .text import PromptEncoder, Request

log = logging.getLogger(__name__)

FOLDER = "images"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


@dataclass(frozen=True)
class Job:
    """One picture: what is drawn from which noise, and its path relative to the output folder."""

    request: Request
    seed: int
    path: str


class Draughtsman:
    """Draws with one pipeline, which must be prepared (:func:`pipelines.prepared`).

    Args:
        pipeline: a diffusers pipeline.
        settings: size, steps and so on.
    """

    def __init__(self, pipeline, settings: EvaluationSettings):
        self._pipeline, self._settings = pipeline, settings
        self.encoder = PromptEncoder(pipeline, settings.clip_skip)
        self.width, self.height = picture_size(pipeline, settings)
        self.fingerprint = pipeline_fingerprint(pipeline)
        self._common = {
            "model": self.fingerprint,
            "scheduler": scheduler_settings(pipeline.scheduler),
            "steps": settings.steps,
            "guidance_scale": float(settings.guidance_scale),
            "clip_skip": settings.clip_skip,
            "width": self.width,
            "height": self.height,
            "device": pipeline._execution_device.type,
            "versions": library_versions(),
        }
        self._about: dict[str, dict] = {}

    def jobs(self, arm: Arm, prompt: EvalPrompt) -> list[Job]:
        """One for each seed."""
        corrects = arm.adapter is not None and arm.eta > 0
        request = Request(
            text=arm.text_of(prompt),
            negative=arm.negative_prompt,
            adapter=arm.adapter if corrects else None,
            eta=arm.eta if corrects else 0.0,
            to_negative=arm.to_negative and corrects,
        )
        key = self._key(request)
        return [Job(request, seed, f"{FOLDER}/{key}/{seed}.png") for seed in self._settings.seeds]

    def check_arm(self, arm: Arm, prompt: EvalPrompt) -> None:
        """Errors of :meth:`PromptEncoder.embeddings`, before anything is drawn; at eta 0 too."""
        self.encoder.embeddings(
            Request(arm.text_of(prompt), arm.negative_prompt, arm.adapter, arm.eta, arm.to_negative)
        )

    def draw(self, jobs: Sequence[Job], report: Callable | None, pause: Callable[[], None]) -> None:
        """Draw the jobs whose files are missing.

        Args:
            report: called with ("drawing", done, all).
            pause: called after every batch; may raise to stop.
        """
        jobs = list({job.path: job for job in jobs}.values())
        missing = [job for job in jobs if not is_whole(self._file(job))]
        # Always full batches: the libraries sum in another order for other shapes, and what a run finds
        # done must not change what it draws.
        size = min(self._settings.batch_size, len(jobs))
        done = len(jobs) - len(missing)
        if report:
            report("drawing", done, len(jobs))
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            pictures = self._draw_batch(batch + [batch[-1]] * (size - len(batch)))
            for job, pixels in zip(batch, pictures, strict=False):
                self._write(job, pixels)
            done += len(batch)
            if report:
                report("drawing", done, len(jobs))
            pause()

    def _draw_batch(self, jobs: list[Job]) -> np.ndarray:
        """uint8 [B, H, W, 3]."""
        rows = [self.encoder.embeddings(job.request) for job in jobs]
        output = self._pipeline(
            **{name: torch.cat([row[name] for row in rows]) for name in rows[0]},
            generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance_scale,
            width=self.width,
            height=self.height,
            output_type="np",
        )
        if any(getattr(output, "nsfw_content_detected", None) or []):
            raise ValueError(
                "the pipeline's safety checker blacked out a picture, which would be judged as the model's; "
                "give a pipeline with safety_checker=None"
            )
        if not np.isfinite(output.images).all():
            raise ValueError(
                "the model drew NaN. In half precision use bf16, or a VAE that is made for fp16; otherwise "
                "the adapter or the model is damaged"
            )
        return (output.images * 255).round().astype(np.uint8)

    def _write(self, job: Job, pixels: np.ndarray) -> None:
        from PIL import Image

        path, content = self._file(job), io.BytesIO()
        about = path.parent / "about.json"
        if not about.is_file():
            _write_quickly(about, json.dumps(self._about[path.parent.name], indent=1).encode())
        Image.fromarray(pixels).save(content, format="PNG")
        _write_quickly(path, content.getvalue())

    def _file(self, job: Job) -> Path:
        return Path(self._settings.output_dir) / job.path

    def _key(self, request: Request) -> str:
        adapter = request.adapter and fingerprint([("adapter", request.adapter)])
        about = {**request._asdict(), "adapter": adapter, **self._common}
        key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=10).hexdigest()
        self._about[key] = about
        return key


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end. One that a power failure cut is named in the log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - len(_PNG_END)))
            whole = file.read() == _PNG_END
    except FileNotFoundError:
        return False
    if not whole:
        log.warning("%s: the picture is cut off; it is drawn again", path)
    return whole


def _write_quickly(path: Path, content: bytes) -> None:
    """Whole or not there after a kill. Not flushed to the disk, which would take longer than drawing a small
    picture; what a power failure leaves is told by its end (:func:`is_whole`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".unfinished-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_picture(path: Path) -> np.ndarray:
    """uint8 [H, W, 3]. ValueError naming the file if it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: damaged picture ({error}). Delete it; it will be drawn again") from error


def library_versions() -> dict[str, str]:
    """Of the libraries that decide what is drawn."""
    import diffusers
    import transformers

    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
