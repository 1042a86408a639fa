"""One evaluation from prompts to tables. What a stopped run has drawn is kept and not drawn again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import read_passport
from ..stop_signals import StopSignals
from .arms import Arm, check_arms
from .drawing import FOLDER, Draughtsman, library_versions
from .evaluation import Evaluation, Picture
from .image_text import ImageTextModel
from .judges import Judge, check_judge
from .marking import add_clip, add_comparisons, add_verdicts, open_references
from .pipelines import check_pipeline, open_pipeline, prepared
from .prompt_sets import EvalPrompt, check_ids, types_of
from .results import write_results
from .settings import EvaluationSettings
from .statistics import ALL

Report = Callable[[str, int, int], None]
_NEEDED = ("diffusers", "filelock", "PIL", "scipy", "transformers")


class EvaluationStopped(Exception):
    """The run was asked to stop. What it drew is kept, and the same call goes on. ``signal`` asked."""

    def __init__(self, folder: Path, signal: int):
        super().__init__(
            f"stopped; what was drawn is kept in {folder}, and the same command goes on from there"
        )
        self.signal = signal


def evaluate(
    settings: EvaluationSettings,
    pipeline,
    prompts: Sequence[EvalPrompt],
    arms: Sequence[Arm],
    judge: Judge | None = None,
    clip: ImageTextModel | str | Path | None = None,
    reference: Sequence[np.ndarray] | str | Path | None = None,
    report: Report | None = None,
    name: str = "",
) -> Evaluation:
    """Draw every (arm, prompt, seed), judge, count, and write images, results.json, results.csv, tables.md.

    Args:
        pipeline: a diffusers text-to-image pipeline that takes ``prompt_embeds`` (it is left as it was), or
            what :func:`sur_core.evaluation.open_pipeline` opens: a folder, hub id or file.
        arms: the first is the baseline of all comparisons.
        judge: marks each picture; without one there is no accuracy.
        clip: a CLIPModel or its folder, for CLIP Score and cosine.
        reference: pictures uint8 [H, W, 3], or a folder of them, for KID; needs ``clip``.
        report: called with (what, done, total).
        name: what to call the model in the results; otherwise its path or class.

    Raises:
        EvaluationStopped: SIGINT or SIGTERM came; the same call goes on from there.
        ValueError, OSError: bad input, in words; before anything is drawn wherever it can be known.
    """
    prompts, arms, report = tuple(prompts), tuple(arms), report or (lambda *_: None)
    check_inputs(prompts, arms, judge, clip, reference)
    references = None if reference is None else open_references(reference)
    pipeline, opened = _open(settings, pipeline)
    if isinstance(clip, str | Path):
        clip = ImageTextModel(clip, pipeline._execution_device)
    folder = Path(settings.output_dir)
    with _alone_in(folder), StopSignals() as signals:
        pause = partial(_stop_if_asked, signals, folder)
        found = _draw(settings, pipeline, name or opened, prompts, arms, report, pause)
        if judge is not None:
            found = add_verdicts(found, judge, report, pause)
        if clip is not None:
            found = add_clip(found, clip, references, report, pause)
        found = add_comparisons(found)
        write_results(found)
    return found


def _stop_if_asked(signals: StopSignals, folder: Path) -> None:
    if signals.received:
        raise EvaluationStopped(folder, signals.received)


def check_inputs(prompts, arms, judge=None, clip=None, reference=None) -> None:
    """What :func:`evaluate` checks before it opens a model. ValueError or OSError if it cannot work."""
    if not prompts:
        raise ValueError("no prompts to draw")
    check_ids(prompts)
    if ALL in types_of(prompts):
        raise ValueError(f"a prompt type cannot be called {ALL!r}, which stands for all types together")
    check_arms(arms, prompts)
    for arm in arms:
        if arm.adapter is not None:
            read_passport(arm.adapter)
    if judge is not None:
        check_judge(judge)
        getattr(judge, "check", lambda _: None)(prompts)
    if reference is not None and clip is None:
        raise ValueError("reference pictures need a CLIP model, whose features KID compares; give clip")
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed; pip install -r requirements-train.txt")


def _open(settings: EvaluationSettings, pipeline) -> tuple[Any, str]:
    """(pipeline, its name for the results)."""
    if isinstance(pipeline, str | Path):
        return open_pipeline(pipeline, device=settings.device, dtype=settings.dtype), str(pipeline)
    check_pipeline(pipeline)
    return pipeline, type(pipeline).__name__


def _draw(settings, pipeline, name, prompts, arms, report: Report, pause: Callable[[], None]) -> Evaluation:
    """All pictures on the disk, and nothing said of them yet."""
    with prepared(pipeline, settings):
        artist = Draughtsman(pipeline, settings)
        for arm in arms:
            artist.check_arm(arm, prompts[0])
        wanted = [
            (arm, prompt, job) for arm in arms for prompt in prompts for job in artist.jobs(arm, prompt)
        ]
        artist.draw([job for _, _, job in wanted], report, pause)
        cut = artist.encoder.cut(arm.text_of(prompt) for arm in arms for prompt in prompts)
    pictures = (Picture(arm.name, prompt.id, prompt.type, job.seed, job.path) for arm, prompt, job in wanted)
    about = {
        "model": name,
        "model fingerprint": artist.fingerprint,
        "size": f"{artist.width} x {artist.height}",
        "versions": ", ".join(f"{library} {version}" for library, version in library_versions().items()),
    }
    remarks = (f"CLIP reads only the beginning of {len(cut)} prompts, such as {cut[0]!r}",) if cut else ()
    return Evaluation(settings, prompts, arms, tuple(pictures), about=about, remarks=remarks)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two runs in one folder would draw everything twice. What a killed run left half written is removed."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".running.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{folder}: another run is using this folder; choose another output folder"
        ) from None
    try:
        for path in (*folder.glob(".unfinished-*.tmp"), *folder.glob(f"{FOLDER}/*/.unfinished-*.tmp")):
            path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
