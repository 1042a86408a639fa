"""Runs a study: all pictures first, by all processes; then marks, measures and tables, by the main one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ..model_files import fingerprint
from ..processes import ALONE, Processes
from ..stop_signals import StopSignals
from .evaluation import Evaluation
from .judges import check_judge
from .memory import memory_words
from .pictures import read_picture
from .pipelines import open_pipeline
from .quality import ScoreCache, make_measures, score_pictures
from .report import write_report
from .results import write_results
from .run import (
    Report,
    alone_in,
    check_inputs,
    draw_pictures,
    mark_pictures,
    open_method,
    stop_if_asked,
)
from .study import Cell, MeasureInfo, Study, accuracy_rows, cell_folder, quality_rows
from .study_checks import check_study
from .study_config import ModelChoice, StudyConfig
from .study_files import write_study
from .study_people import people_of
from .study_verdicts import RememberingJudge

Pause = Callable[[], None]
_SHARED = ("judge", "judge settings", "versions")


def run_study(
    config: StudyConfig,
    report: Report | None = None,
    processes: Processes = ALONE,
    device: str = "",
    command: str = "",
) -> Study | None:
    """Draw, judge, measure, and write study.json, study.csv, study.md and the report; each cell's own results
    beside its pictures.

    Args:
        report: called with (what, done, total).
        processes: each draws its share of every cell.
        device: where this process draws; otherwise that of the settings.
        command: what made the study, for its tables.

    Returns:
        The study in the main process, nothing in the others.

    Raises:
        EvaluationStopped: SIGINT or SIGTERM came; the same call goes on from there.
        ValueError, OSError: bad input, in words; before anything is drawn wherever it can be known.
    """
    report = report or (lambda *_: None)
    check_study(config)
    folder = config.settings.output_dir
    with StopSignals() as signals, alone_in(folder, processes):
        pause = partial(stop_if_asked, signals, folder)
        if processes.is_main and config.judge is not None:
            check_inputs(config.prompts, config.arms(config.models[0]), _judge(config))
            _release()  # drawing needs the memory
        drawn = [
            cell
            for model in config.models
            for cell in _draw_model(config, model, report, pause, processes, device)
        ]
        if not processes.is_main:
            return None
        study = _marked(config, drawn, report, pause)
        if command:
            study = replace(study, about={**study.about, "command": command})
        write_study(study)
        write_report(study)
    return study


def _draw_model(
    config: StudyConfig, model: ModelChoice, report: Report, pause: Pause, processes: Processes, device: str
) -> list[Cell]:
    """The cells of a model, not yet marked. Its memory is free again afterwards."""
    settings, cells = config.settings, []
    with memory_words(settings, settings.batch_size):
        pipeline = open_pipeline(
            model.path, device=device or settings.device, dtype=settings.dtype, **model.options
        )
    for method in config.methods_of(model):
        pause()
        name = cell_folder(model.name, method.name)
        own = replace(settings, output_dir=settings.output_dir / name)
        title = f"{model.name}, {method.name}"
        with alone_in(own.output_dir, processes):
            ready = open_method(method, pipeline, own, config.prompts, processes)
            found = draw_pictures(
                ready,
                model.name,
                own,
                config.prompts,
                tuple(config.arms(model, method.name)),
                _titled(report, title),
                pause,
                processes,
            )
        about = {**found.about, "model path": model.path, "method": method.name}
        cells.append(Cell(model.name, method.name, name, replace(found, about=about)))
        del ready
        _release()
    return cells


def _marked(config: StudyConfig, drawn: Sequence[Cell], report: Report, pause: Pause) -> Study:
    cells = list(drawn)
    if config.judge is not None:
        judge = RememberingJudge(_judge(config), config.settings.output_dir / "verdicts.jsonl")
        for number, cell in enumerate(cells):
            found = mark_pictures(cell.evaluation, judge, None, None, _titled(report, _title(cell)), pause)
            cells[number] = replace(cell, evaluation=found)
        del judge
        _release()
    for cell in cells:
        write_results(cell.evaluation)
    measures = [] if config.quality is None else make_measures(config.quality_settings)
    cache = ScoreCache(config.settings.output_dir / "scores.sqlite") if measures else None
    cells = [_scored(cell, measures, cache, report, pause) for cell in cells]
    return Study(
        folder=config.settings.output_dir,
        cells=tuple(cells),
        measures=tuple(
            MeasureInfo(m.name, m.higher_is_better, m.note, getattr(m, "model", "")) for m in measures
        ),
        accuracies=accuracy_rows(cells),
        qualities=quality_rows(cells, measures),
        config=config.document,
        about=_about(config, cells[0].evaluation),
        remarks=_remarks(cells, measures),
        people=people_of(config.settings.output_dir, cells),
    )


def _scored(cell: Cell, measures, cache: ScoreCache | None, report: Report, pause: Pause) -> Cell:
    found = cell.evaluation
    texts = {prompt.id: prompt.prompt for prompt in found.prompts}
    loads = [partial(read_picture, found.file(picture)) for picture in found.pictures]
    of = [texts[picture.prompt_id] for picture in found.pictures]
    scores = {
        measure.name: score_pictures(measure, loads, of, cache, _titled(report, _title(cell)), pause)
        for measure in measures
    }
    return replace(cell, scores={name: tuple(np.asarray(values).tolist()) for name, values in scores.items()})


def _remarks(cells: Sequence[Cell], measures) -> tuple[str, ...]:
    """Each once; with its cells' names unless it is true of all."""
    of: dict[str, list[str]] = {}
    for cell in cells:
        height, width, _ = read_picture(cell.evaluation.file(cell.evaluation.pictures[0])).shape
        cutting = [measure for measure in measures if hasattr(measure, "hidden_part")]
        hidden = (measure.hidden_part(height, width) for measure in cutting)
        for remark in dict.fromkeys([*cell.evaluation.remarks, *filter(None, hidden)]):
            of.setdefault(remark, []).append(_title(cell))
    return tuple(
        remark if len(names) == len(cells) else f"{'; '.join(names)}: {remark}"
        for remark, names in of.items()
    )


def _about(config: StudyConfig, found: Evaluation) -> dict[str, str]:
    """What all cells share."""
    about = {name: found.about[name] for name in _SHARED if name in found.about}
    files = dict.fromkeys((adapter.path, adapter.llm) for adapter in config.adapters)
    adapters = (
        f"{path} ({fingerprint([('adapter', path)])}{f', read by {llm}, {_identity(llm)}' if llm else ''})"
        for path, llm in files
    )
    return about | {"adapters": "; ".join(adapters)}


def _identity(llm: str) -> str:
    from ..language_model_files import find_model

    return find_model(llm).identity


def _judge(config: StudyConfig):
    from .judging import make_judge

    return check_judge(make_judge(config.judge_settings))


def _titled(report: Report, title: str) -> Report:
    return lambda what, done, total: report(f"{title}: {what}", done, total)


def _title(cell: Cell) -> str:
    return f"{cell.model}, {cell.method}"


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
