"""Step 3 of making a SURD: does the plain prompt fit its picture at least as well? (paper, Sec. 3.1)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..processes import ALONE, Processes
from .captions import MODEL, selected_samples
from .clip_scores import ClipScorer
from .image_feed import ModelWork, image_stamp
from .manifest import Manifest, SurdBuildError, hash_of
from .model_source import ModelSource
from .rules import check_rule, verdict
from .samples import CLEAN, RULE, BuildSample
from .steps import Outcome, Progress, Task, run_step


def score_samples(
    manifest: Manifest,
    source: ModelSource,
    long: str = "first",
    *,
    device: Any = "auto",
    batch_size: int = 64,
    threads: int = 0,
    processes: Processes = ALONE,
    progress: Progress | None = None,
    stopped: Callable[[], Any] = lambda: False,
) -> Outcome:
    """Score the samples that have no score yet, and those whose picture, prompts, model or ``long`` changed.

    Args:
        source: of :func:`.model_source.find_model` with :func:`.clip_scores.check_clip`.
        long: as :data:`.clip_scores.LONG`.

    Raises:
        ValueError, OSError: nothing to score, or model, settings or work folder cannot be used.
    """
    if batch_size < 1:
        raise SurdBuildError(f"--batch-size must be at least 1, found {batch_size}")
    tasks = [Task(sample.id, _stamp(manifest, sample), sample) for sample in captioned_samples(manifest)]
    with ModelWork(lambda: ClipScorer(source, long, device, batch_size), _score, _problem, threads) as work:
        outcome = run_step(
            manifest,
            CLEAN,
            {"model": source.identity, "long": long},
            tasks,
            work,
            batch_size=batch_size,
            processes=processes,
            progress=progress,
            stopped=stopped,
            ahead=work.ahead,
        )
    if outcome.finished and processes.is_main:
        manifest.add([{"step": MODEL, "key": source.identity, "name": source.name}])
    return outcome


def apply_rule(manifest: Manifest, rule: str = "paper", threshold: float | None = None) -> int:
    """Judge all scored samples; CLIP is not needed.

    Returns:
        how many samples' verdicts are new or other ones than before.

    Raises:
        ValueError, OSError: the rule is none, or the manifest cannot be written.
    """
    check_rule(rule, threshold)
    values = {"rule": rule, "threshold": threshold}
    mark, found = hash_of(values), []
    for sample in captioned_samples(manifest):
        stamp = hash_of(sample.simple, sample.complex)
        if sample.scores.get("of", "").startswith(stamp):
            dropped = verdict(sample.scores, rule, threshold)
            found.append({"step": RULE, "key": sample.id, "settings": mark, "of": stamp, "dropped": dropped})
    about = {"step": "settings", "key": f"{RULE} {mark}", "values": values}
    new = sum(_dropped(manifest, record["key"]) != record["dropped"] for record in found)
    manifest.add([about, *sorted(found, key=lambda record: record["key"])])
    return new


def captioned_samples(manifest: Manifest) -> list[BuildSample]:
    """Those with both prompts that are still in, or that the rule alone has left out.

    Raises:
        SurdBuildError: there are none.
    """
    samples = selected_samples(manifest)
    found = [sample for sample in samples if sample.simple and sample.complex]
    if not found:
        raise SurdBuildError(
            f"{manifest.folder}: none of {len(samples):,} pictures has a plain prompt yet; run "
            "'python -m train surd caption' first"
        )
    return found


def _dropped(manifest: Manifest, key: str) -> str | None:
    record = manifest.record(RULE, key)
    return None if record is None else record["dropped"]


def _stamp(manifest: Manifest, sample: BuildSample) -> str:
    of, record = hash_of(sample.simple, sample.complex), manifest.record(CLEAN, sample.id)
    return image_stamp(of, record, sample.path, (record or {}).get("problem", ""))


def _score(model: ClipScorer, pictures: torch.Tensor, samples: list[BuildSample]) -> list[dict]:
    return model.scores(pictures, [(sample.simple, sample.complex) for sample in samples])


def _problem(reason: str) -> dict:
    return {"problem": reason}
