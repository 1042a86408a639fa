"""Draws what is missing, in batches, so that a picture depends on nothing but itself.

A picture lies in ``images/<key>/<seed>.png``. The key is a hash of everything else that decides it; beside
the pictures, ``about.json`` says what was hashed. Arms that would draw the same share their pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..model_files import fingerprint
from ..processes import ALONE, Processes
from .arms import Arm
from .hearing import Hearing, Listener, deaf, is_deaf_to_text, without_effect
from .memory import memory_words
from .methods.method import Opened
from .pictures import is_whole, write_picture, write_quickly
from .pictures import read_picture as read_picture
from .pipeline_calls import are_plain, picture_size, told
from .pipeline_identity import pipeline_fingerprint, scheduler_settings
from .prompt_sets import EvalPrompt
from .settings import EvaluationSettings
from .text import PromptEncoder, Request

FOLDER = "images"


@dataclass(frozen=True)
class Job:
    """One picture: what is drawn from which noise, its path relative to the output folder, and what the
    pipeline is given for it alone.
    """

    request: Request
    seed: int
    path: str
    given: Mapping[str, Any] = field(default_factory=dict)


class Draughtsman:
    """Draws with one pipeline, which must be prepared (:func:`pipeline_calls.prepared`).

    Args:
        pipeline: a diffusers pipeline, or a method opened on one.
        settings: size, steps and so on.
    """

    def __init__(self, pipeline, settings: EvaluationSettings):
        self._method = pipeline if isinstance(pipeline, Opened) else Opened(pipeline)
        self._pipeline = pipeline = self._method.pipeline
        self._settings, self._arguments = settings, dict(self._method.common)
        # Alone where there are images: pipelines encode one of them for a whole batch, with the random
        # numbers of its first picture.
        self._together = 1 if self._method.alone else settings.batch_size
        self.encoder = PromptEncoder(pipeline, settings.clip_skip, self._method.weights)
        self._listener = Listener(pipeline, settings)
        self.size = self._method.size or picture_size(pipeline, settings)
        width, height = self.size or (None, None)
        self.fingerprint = pipeline_fingerprint(pipeline)
        self._common = {
            "model": self.fingerprint,
            "scheduler": scheduler_settings(pipeline.scheduler),
            "steps": settings.steps,
            "guidance_scale": float(settings.guidance_scale),
            "clip_skip": settings.clip_skip,
            "width": width,
            "height": height,
            # The libraries sum in another order for other shapes, and a picture differs in its last digits.
            "batch": self._together,
            "device": pipeline._execution_device.type,
            "versions": library_versions(),
        }
        if self._arguments:
            self._common["call_arguments"] = told(self._arguments)
        if self._method.about:
            self._common["method"] = dict(self._method.about)
        self._about: dict[str, dict] = {}

    def words(self) -> dict[str, str]:
        """The pictures' size, and what the pipeline is given besides prompts."""
        size = "{} x {}".format(*self.size) if self.size else "that of the image given"
        given = (
            f"{name} {value!r}" if are_plain({name: value}) else name
            for name, value in sorted(self._arguments.items())
        )
        found = {"size": size} | ({"also given": ", ".join(given)} if self._arguments else {})
        return found | dict(self._method.words)

    def jobs(self, arm: Arm, prompt: EvalPrompt) -> list[Job]:
        """One for each seed."""
        corrects = arm.adapter is not None and arm.eta > 0
        weights = self._method.weights if arm.text == "simple" else None
        request = Request(
            text=arm.text_of(prompt),
            negative=arm.negative_prompt,
            adapter=arm.adapter if corrects else None,
            eta=arm.eta if corrects else 0.0,
            to_negative=arm.to_negative and corrects,
            weighted=weights.text(prompt) if weights else "",
            hearing=Hearing(arm.llmdiff, arm.strength, arm.llm) if arm.llmdiff and arm.strength else None,
        )
        jobs = []
        for seed in self._settings.seeds:
            given = self._method.arguments(prompt, seed)
            jobs.append(Job(request, seed, f"{FOLDER}/{self._key(request, given)}/{seed}.png", given))
        return jobs

    def check_arm(self, arm: Arm, prompt: EvalPrompt) -> None:
        """Errors of :meth:`PromptEncoder.embeddings` and :meth:`.hearing.Listener.check`, before anything is
        drawn; at eta or strength 0 too.
        """
        self.encoder.embeddings(
            Request(arm.text_of(prompt), arm.negative_prompt, arm.adapter, arm.eta, arm.to_negative)
        )
        if arm.llmdiff is None:
            return
        if not self._method.hears_llmdiff:
            raise ValueError(deaf(arm.name))
        texts = [arm.text_of(prompt), arm.negative_prompt]
        adapter = self._listener.check(Hearing(arm.llmdiff, arm.strength, arm.llm), texts)
        if is_deaf_to_text(adapter.config, arm.strength):
            if arm.adapter is not None and arm.eta:
                raise ValueError(without_effect(arm.name, "the SUR-adapter"))
            if self._method.weights is not None:
                raise ValueError(without_effect(arm.name, "weights on words"))

    def draw(
        self,
        jobs: Sequence[Job],
        report: Callable | None,
        pause: Callable[[], None],
        processes: Processes = ALONE,
    ) -> None:
        """Draw the jobs whose files are missing; of several processes each its share.

        Args:
            report: called with ("drawing", done, all), of all or of this process's share.
            pause: called after every batch; may raise to stop.
        """
        jobs = list({job.path: job for job in jobs}.values())
        missing = [job for job in jobs if not is_whole(self._file(job))]
        if processes.count > 1:
            processes.barrier()  # all must have looked before the first draws
            missing = missing[processes.rank :: processes.count]
            jobs = missing
        # Always full batches, since neither what a run finds done nor how much is drawn beside it may change
        # a picture.
        size = self._together
        done = len(jobs) - len(missing)
        if report:
            report("drawing", done, len(jobs))
        heard = [job.request for job in missing if job.request.hearing]
        self._listener.encode((one.hearing, text) for one in heard for text in (one.text, one.negative))
        for batch in self._batches(missing):
            pictures = self._draw_batch(batch + [batch[-1]] * (size - len(batch)))
            for job, pixels in zip(batch, pictures, strict=False):
                self._write(job, pixels)
            done += len(batch)
            if report:
                report("drawing", done, len(jobs))
            pause()

    def _batches(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs that are drawn together: an LLMDiff-Adapter is attached to the UNet for a whole batch, and
        its prompts are of one length, which what else is drawn does not change.
        """
        groups: dict[tuple, list[Job]] = {}
        for job in jobs:
            one = job.request
            key = self._listener.batch_key(one.hearing, one.text, one.negative)
            groups.setdefault(key, []).append(job)
        for group in groups.values():
            for start in range(0, len(group), self._together):
                yield group[start : start + self._together]

    def _draw_batch(self, jobs: list[Job]) -> np.ndarray:
        """uint8 [B, H, W, 3]."""
        requests = [job.request for job in jobs]
        texts, negatives = ([getattr(one, name) for one in requests] for name in ("text", "negative"))
        heard = self._listener.attached(requests[0].hearing, texts, negatives)
        with memory_words(self._settings, len(jobs), self.size), self._method.guard(), heard:
            output = self._call(jobs)
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

    def _call(self, jobs: list[Job]):
        rows = [self.encoder.embeddings(job.request) for job in jobs]
        return self._pipeline(
            **{name: torch.cat([row[name] for row in rows]) for name in rows[0]},
            generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance_scale,
            **(dict(zip(("width", "height"), self.size, strict=True)) if self.size else {}),
            **self._arguments,
            **{name: [job.given[name] for job in jobs] for name in jobs[0].given},
            output_type="np",
        )

    def _write(self, job: Job, pixels: np.ndarray) -> None:
        path = self._file(job)
        about = path.parent / "about.json"
        if not about.is_file():
            write_quickly(about, json.dumps(self._about[path.parent.name], indent=1).encode())
        write_picture(path, pixels)

    def _file(self, job: Job) -> Path:
        return Path(self._settings.output_dir) / job.path

    def _key(self, request: Request, given: Mapping[str, Any]) -> str:
        adapter = request.adapter and fingerprint([("adapter", request.adapter)])
        about = {**request._asdict(), "adapter": adapter, **self._common}
        if not request.weighted:
            del about["weighted"]
        if request.hearing:
            about["hearing"] = self._listener.about(request.hearing)
        else:
            del about["hearing"]
        if given:
            about["given"] = told(given)
        key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=10).hexdigest()
        self._about[key] = about
        return key


def library_versions() -> dict[str, str]:
    """Of the libraries that decide what is drawn."""
    import diffusers
    import transformers

    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
