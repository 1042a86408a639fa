"""Step 2 of making a SURD: a plain prompt for every picture (paper, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..processes import ALONE, Processes
from .captioner import CHAT_PROMPT, Captioner, Decoding
from .image_feed import ModelWork, image_stamp
from .manifest import MANIFEST_NAME, Manifest, SurdBuildError
from .model_source import ModelSource
from .samples import CAPTION, PREFER, REVIEW, SELECT, BuildSample, read_samples
from .steps import Outcome, Progress, Task, run_step

_NOTHING = (
    "no pictures have been collected into this work folder; give it and a folder that has some to "
    "'python -m train surd collect'"
)

MODEL = "model"
"""Step of the records {model's identity: its name for people}."""


def caption_samples(
    manifest: Manifest,
    source: ModelSource,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    *,
    dtype: str = "auto",
    device: Any = "auto",
    batch_size: int = 16,
    threads: int = 0,
    everything: bool = False,
    processes: Processes = ALONE,
    progress: Progress | None = None,
    stopped: Callable[[], Any] = lambda: False,
) -> Outcome:
    """Caption the samples that have no plain prompt yet, and those whose picture, model or settings changed.

    Args:
        source: of :func:`.model_source.find_model` with :func:`.captioner.check_captioner`.
        dtype: as :class:`.captioner.Captioner`; "auto" counts as one setting on every device.
        everything: caption also pictures that came with a plain prompt, and let the captions count.

    Raises:
        ValueError, OSError: there are no samples, or model, settings or work folder cannot be used.
    """
    if batch_size < 1:
        raise SurdBuildError(f"--batch-size must be at least 1, found {batch_size}")
    tasks = [
        Task(sample.id, _stamp(manifest, sample), sample)
        for sample in selected_samples(manifest)
        if everything or not given_prompt(manifest, sample)
    ]
    settings = {"model": source.identity, "dtype": dtype, **asdict(decoding), "chat_prompt": CHAT_PROMPT}
    with ModelWork(lambda: Captioner(source, decoding, dtype, device), _write, _values, threads) as work:
        outcome = run_step(
            manifest,
            CAPTION,
            settings,
            tasks,
            work,
            batch_size=batch_size,
            processes=processes,
            progress=progress,
            stopped=stopped,
            ahead=work.ahead,
        )
    if outcome.finished and processes.is_main:
        _note(manifest, source, everything)
    processes.barrier()  # the next step's processes must all read what was noted
    return outcome


def _note(manifest: Manifest, source: ModelSource, everything: bool) -> None:
    """Who wrote the captions, and whether they count where a plain prompt was given."""
    notes = [{"step": MODEL, "key": source.identity, "name": source.name}]
    if everything or manifest.record(PREFER, "simple"):
        counts = "caption" if everything else "given"
        notes.append({"step": PREFER, "key": "simple", "value": counts})
    manifest.add(notes)


def check_collected(folder: Path) -> None:
    """Raises SurdBuildError: nothing was collected into this work folder. Makes no folder, loads nothing."""
    if not (Path(folder) / MANIFEST_NAME).is_file():
        raise SurdBuildError(f"{folder}: {_NOTHING}")


def selected_samples(manifest: Manifest) -> list[BuildSample]:
    """Samples that neither ``select`` nor a person has left out. Raises SurdBuildError: there are none."""
    if not manifest.records(SELECT):
        raise SurdBuildError(f"{manifest.folder}: {_NOTHING}")
    found = [sample for sample in read_samples(manifest) if sample.dropped[:1] not in ((SELECT,), (REVIEW,))]
    if not found:
        raise SurdBuildError(
            f"{manifest.folder}: all {len(manifest.records(SELECT)):,} pictures were left out when they were "
            "collected; 'python -m train surd stats' shows why"
        )
    return found


def given_prompt(manifest: Manifest, sample: BuildSample) -> str:
    """The plain prompt that came with the picture or that a person wrote, "" if there is none."""
    written = sample.decision.simple if sample.decision else ""
    return written or manifest.record(SELECT, sample.name).get("simple", "")


def _stamp(manifest: Manifest, sample: BuildSample) -> str:
    record = manifest.record(CAPTION, sample.id)
    return image_stamp(sample.facts["sha256"], record, sample.path, (record or {}).get("dropped", ""))


def _write(model: Captioner, pictures: dict, samples: list[BuildSample]) -> list[dict]:
    return [_values("", caption) for caption in model.captions(pictures)]


def _values(problem: str, caption: str = "") -> dict:
    if problem or not caption:
        return {"caption": "", "dropped": problem or "no caption: the model wrote nothing"}
    return {"caption": caption}
