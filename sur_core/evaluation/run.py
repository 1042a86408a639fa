"""One evaluation from prompts to tables. What a stopped run has drawn is kept and not drawn again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..processes import ALONE, Processes
from ..stop_signals import StopSignals
from .arms import Arm, check_adapter_files, check_arms
from .drawing import FOLDER, Draughtsman, library_versions
from .evaluation import Evaluation, Picture
from .image_text import ImageTextModel, check_folder
from .judges import Judge, check_judge
from .marking import add_clip, add_comparisons, add_verdicts
from .memory import memory_words
from .methods.method import Context, Method, Opened
from .pictures import UNFINISHED
from .pipeline_calls import HEARING_PIPELINES, are_plain, check_pipeline, prepared
from .pipelines import open_pipeline
from .prompt_sets import EvalPrompt, check_ids, types_of
from .references import open_references
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
    call_arguments: Mapping[str, Any] | None = None,
    method: Method | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Draw every (arm, prompt, seed), judge, count, and write images, results.json and tables.

    Args:
        pipeline: of diffusers, takes ``prompt_embeds`` (left as it was); or what ``open_pipeline`` opens.
        arms: the first is the baseline of all comparisons.
        judge: marks each picture; without one there is no accuracy.
        clip: a CLIPModel or its folder, for CLIP Score and cosine.
        reference: pictures uint8 [H, W, 3], or a folder of them (``<prompt id>-<digits>`` is of that prompt),
            for KID; needs ``clip``.
        report: called with (what, done, total).
        name: what to call the model in the results; otherwise its path or class.
        call_arguments: what else the pipeline is given for every picture, such as ControlNet's ``image``;
            with images, pictures are drawn one by one.
        method: a controlled method, such as ControlNet or Self-Attention Guidance; the pipeline must be a
            plain one.
        processes: each draws its share; the main one judges and writes, the others return what is not judged.

    Raises:
        EvaluationStopped: SIGINT or SIGTERM came; the same call goes on from there.
        ValueError, OSError: bad input, in words; before anything is drawn wherever it can be known.
    """
    prompts, arms, report = tuple(prompts), tuple(arms), report or (lambda *_: None)
    check_inputs(prompts, arms, judge, clip, reference)
    if method is not None:
        if call_arguments:
            raise ValueError("call_arguments: a method has its own; give one or the other")
        method.check(prompts)
    references = None if reference is None else open_references(reference, {p.id for p in prompts})
    pipeline, opened = _open(settings, pipeline)
    if method is None:
        check_pipeline(pipeline, call_arguments)
    device = pipeline._execution_device
    if isinstance(clip, str | Path) and processes.is_main:
        clip = ImageTextModel(clip, device)
    with StopSignals() as signals, alone_in(settings.output_dir, processes):
        pause = partial(stop_if_asked, signals, settings.output_dir)
        if method is None:
            alone = not are_plain(call_arguments or {})
            hears = type(pipeline).__name__ in HEARING_PIPELINES
            ready = Opened(pipeline, common=call_arguments or {}, alone=alone, hears_llmdiff=hears)
        else:
            ready = open_method(method, pipeline, settings, prompts, processes)
        found = draw_pictures(ready, name or opened, settings, prompts, arms, report, pause, processes)
        if processes.is_main:
            found = mark_pictures(found, judge, clip, references, report, pause)
            write_results(found)
    return found


def open_method(
    method: Method, pipeline, settings: EvaluationSettings, prompts, processes: Processes = ALONE
) -> Opened:
    """A method on a pipeline's model. ValueError or OSError in words if it cannot draw with it."""
    context = Context(
        settings=settings,
        prompts=prompts,
        device=pipeline._execution_device,
        dtype=pipeline.unet.dtype,
        folder=settings.output_dir,
        on_main=partial(_on_main, processes),
    )
    with memory_words(settings, settings.batch_size), torch.random.fork_rng(devices=[]):
        ready = replace(method.open(pipeline, context), hears_llmdiff=method.hears_llmdiff)
    check_pipeline(ready.pipeline, {**ready.common, **ready.arguments(prompts[0], settings.seeds[0])})
    return ready


def _on_main(processes: Processes, make: Callable[[], Any]) -> None:
    if processes.is_main:
        make()
    processes.barrier()


def stop_if_asked(signals: StopSignals, folder: Path) -> None:
    """EvaluationStopped if a signal came."""
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
        check_adapter_files(arm)
    if judge is not None:
        check_judge(judge)
        getattr(judge, "check", lambda _: None)(prompts)
    if reference is not None:
        _check_reference(prompts, clip, reference)
    if isinstance(clip, str | Path):
        check_folder(Path(clip))
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed; pip install -r requirements-train.txt")


def _check_reference(prompts, clip, reference) -> None:
    if clip is None:
        raise ValueError("reference pictures need a CLIP model, whose features KID compares; give clip")
    if len(prompts) < 2:
        raise ValueError(
            "KID compares pictures of different prompts, and there is one prompt only; give two or more, or "
            "leave the reference pictures out"
        )
    open_references(reference, {prompt.id for prompt in prompts})


def _open(settings: EvaluationSettings, pipeline) -> tuple[Any, str]:
    """(pipeline, its name for the results)."""
    if isinstance(pipeline, str | Path):
        return open_pipeline(pipeline, device=settings.device, dtype=settings.dtype), str(pipeline)
    return pipeline, type(pipeline).__name__


def draw_pictures(
    ready: Opened,
    name: str,
    settings: EvaluationSettings,
    prompts: Sequence[EvalPrompt],
    arms: Sequence[Arm],
    report: Report,
    pause: Callable[[], None],
    processes: Processes = ALONE,
) -> Evaluation:
    """All pictures of :func:`evaluate` on the disk, and nothing said of them yet. Nobody else may use the
    folder meanwhile (:func:`alone_in`).
    """
    with prepared(ready.pipeline, settings):
        artist = Draughtsman(ready, settings)
        with memory_words(settings, settings.batch_size):
            for arm in arms:
                artist.check_arm(arm, prompts[0])
        pairs = [(arm, prompt) for arm in arms for prompt in prompts]
        wanted = [(arm, prompt, job) for arm, prompt in pairs for job in artist.jobs(arm, prompt)]
        artist.draw([job for _, _, job in wanted], report, pause, processes)
    processes.barrier()
    cut = artist.encoder.cut(arm.text_of(prompt) for arm, prompt in pairs)
    pictures = (Picture(arm.name, prompt.id, prompt.type, job.seed, job.path) for arm, prompt, job in wanted)
    about = {
        "model": name,
        "model fingerprint": artist.fingerprint,
        **artist.words(),
        "versions": ", ".join(f"{library} {version}" for library, version in library_versions().items()),
    }
    remarks = (f"CLIP reads only the beginning of {len(cut)} prompts, such as {cut[0]!r}",) if cut else ()
    return Evaluation(settings, prompts, arms, tuple(pictures), about=about, remarks=remarks)


def mark_pictures(
    found: Evaluation, judge, clip: ImageTextModel | None, references, report: Report, pause
) -> Evaluation:
    """What was drawn, with verdicts, scores and comparisons."""
    if judge is not None:
        found = add_verdicts(found, judge, report, pause)
    if clip is not None:
        found = add_clip(found, clip, references, report, pause)
    return add_comparisons(found)


@contextmanager
def alone_in(folder: Path, processes: Processes = ALONE) -> Iterator[None]:
    """Two runs in one folder would draw everything twice. What a killed run left half written is removed."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".running.lock")
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{folder}: another run is using this folder; choose another output folder"
            ) from None
    try:
        if processes.is_main:
            places = ("", "*/", f"{FOLDER}/*/")
            for path in [path for place in places for path in folder.glob(place + UNFINISHED)]:
                path.unlink(missing_ok=True)
        processes.barrier()
        yield
    finally:
        lock.release()
