"""What a study found: every adapter against the baseline, for each model and controlled method."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .arms import Arm
from .correction import holm
from .evaluation import Evaluation
from .prompt_sets import EvalPrompt
from .quality.comparison import ScoreComparison, compare_scores
from .quality.measure import Measure
from .sheets.preferences import Votes
from .statistics import ALL, Comparison
from .study_people import CellPeople

CELLS = "cells"
CLIP_SCORE = "clip_score"
"""The measure that stands in Table 2."""
TESTS = ("independent", "welch", "paired", "by_prompt", "mcnemar")


@dataclass(frozen=True)
class MeasureInfo:
    """What a reader must know of a measure; ``note`` is a sentence for reports, ``model`` what it computes
    with and a hash of its files.
    """

    name: str
    higher_is_better: bool
    note: str = ""
    model: str = ""


@dataclass(frozen=True)
class Cell:
    """One model under one method.

    Attributes:
        folder: of its pictures and results.json, relative to the study's, with forward slashes.
        scores: by measure, one a picture in the order of ``evaluation.pictures``; NaN where not defined.
    """

    model: str
    method: str
    folder: str
    evaluation: Evaluation
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Without the baseline."""
        return self.evaluation.arms[1:]


@dataclass(frozen=True)
class AccuracyRow:
    """An entry of Table 2: right pictures of one type, or of all.

    Attributes:
        holm: adjusted p of each test of :data:`TESTS`, over all entries of the table with a type of their
            own; ``None`` where a test is not defined, and in entries of all types together.
    """

    model: str
    method: str
    comparison: Comparison
    holm: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityRow:
    """An entry of Table 3, or a CLIP Score of Table 2. Its adjusted p-values are over all entries of Table 3,
    or over all CLIP Scores.
    """

    model: str
    method: str
    score: ScoreComparison


@dataclass(frozen=True)
class PromptRow:
    """An entry of Table 7: right pictures of one prompt, by the baseline and by an arm."""

    model: str
    method: str
    arm: str
    prompt: EvalPrompt
    baseline_right: int
    right: int
    pictures: int


@dataclass(frozen=True)
class Study:
    """All of it.

    Attributes:
        folder: where it lies.
        cells: model by model, each with all methods.
        measures: what pictures were measured by.
        accuracies: empty without a judge.
        qualities: empty without measures.
        config: the study's file as it was read.
        about: the judge, versions, adapters with hashes of their files, the command that made the study.
        remarks: what a reader must know, such as that a judge's marks are not comparable with the paper's.
        people: what people marked and preferred, of cells where answers were merged.
    """

    folder: Path
    cells: tuple[Cell, ...]
    measures: tuple[MeasureInfo, ...] = ()
    accuracies: tuple[AccuracyRow, ...] = ()
    qualities: tuple[QualityRow, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    people: tuple[CellPeople, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        return self.cells[0].evaluation.types

    def cell(self, model: str, method: str) -> Cell:
        """KeyError if there is none."""
        for cell in self.cells:
            if (cell.model, cell.method) == (model, method):
                return cell
        raise KeyError(f"no cell of model {model!r} and method {method!r}")

    def accuracy(self, cell: Cell, arm: str, type: str) -> AccuracyRow:
        """KeyError if there is none."""
        for row in self.accuracies:
            found = row.comparison.arm, row.comparison.type
            if (row.model, row.method) == (cell.model, cell.method) and found == (arm, type):
                return row
        raise KeyError(f"nothing for {arm!r}, {type!r}; was there a judge?")

    def quality(self, cell: Cell, arm: str, measure: str) -> QualityRow:
        """KeyError if there is none."""
        for row in self.qualities:
            found = row.score.arm, row.score.measure
            if (row.model, row.method) == (cell.model, cell.method) and found == (arm, measure):
                return row
        raise KeyError(f"nothing for {arm!r}, {measure!r}")

    def votes(self, cell: Cell, arm: str) -> Votes | None:
        """People's preferences between the baseline (first) and an arm; ``None`` without."""
        for found in self.people:
            if (found.model, found.method) == (cell.model, cell.method):
                return found.votes(cell.evaluation.baseline, arm)
        return None

    def prompt_rows(self, cell: Cell, arm: str) -> list[PromptRow]:
        """Of a cell and an arm, by prompt; empty without a judge."""
        found, rows = cell.evaluation, []
        if not found.accuracies:
            return rows
        marks = {name: _by_prompt(found, name) for name in (found.baseline, arm)}
        for prompt in found.prompts:
            base, ours = marks[found.baseline][prompt.id], marks[arm][prompt.id]
            counts = int(sum(base)), int(sum(ours)), len(ours)
            rows.append(PromptRow(cell.model, cell.method, arm, prompt, *counts))
        return rows


def cell_folder(model: str, method: str) -> str:
    """Where a cell lies in its study: a readable name that no other cell has."""
    words = "--".join(re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") for name in (model, method))
    digest = hashlib.blake2b(f"{model}\0{method}".encode(), digest_size=3).hexdigest()
    return Path(CELLS, f"{words[:80]}-{digest}").as_posix()


def accuracy_rows(cells: Sequence[Cell]) -> tuple[AccuracyRow, ...]:
    """Of every cell, arm and type, with Holm's correction for each test."""
    rows = [
        AccuracyRow(cell.model, cell.method, comparison)
        for cell in cells
        for comparison in cell.evaluation.comparisons
        if comparison.measure == "right"
    ]
    counted = [number for number, row in enumerate(rows) if row.comparison.type != ALL]
    for test in TESTS:
        adjusted = holm([_p(rows[number].comparison, test) for number in counted])
        for number, p in zip(counted, adjusted, strict=True):
            rows[number] = replace(rows[number], holm={**rows[number].holm, test: p})
    return tuple(rows)


def quality_rows(cells: Sequence[Cell], measures: Sequence[Measure]) -> tuple[QualityRow, ...]:
    """Of every cell, arm and measure over all pictures, with Holm's correction for each test: over Table 3,
    and over CLIP Scores by themselves, which are not in that table.
    """
    rows = [
        QualityRow(cell.model, cell.method, score) for cell in cells for score in _compared(cell, measures)
    ]
    for in_table_2 in (False, True):
        family = [place for place, row in enumerate(rows) if (row.score.measure == CLIP_SCORE) is in_table_2]
        for test in TESTS[:-1]:
            found = [rows[place].score.comparison for place in family]
            adjusted = holm([comparison and getattr(comparison, test).p for comparison in found])
            for place, p in zip(family, adjusted, strict=True):
                score = replace(rows[place].score, **{f"holm_{test}": p})
                rows[place] = replace(rows[place], score=score)
    return tuple(rows)


def _compared(cell: Cell, measures: Sequence[Measure]) -> list[ScoreComparison]:
    found = cell.evaluation
    size = len(found.pictures) // len(found.arms)
    scores = {
        name: {
            arm.name: np.asarray(values[number * size : (number + 1) * size])
            for number, arm in enumerate(found.arms)
        }
        for name, values in cell.scores.items()
    }
    return compare_scores(
        measures,
        scores,
        [(arm.name, found.baseline) for arm in cell.arms],
        [picture.prompt_id for picture in found.pictures[:size]],
        [picture.type for picture in found.pictures[:size]],
        resamples=found.settings.resamples,
        seed=found.settings.bootstrap_seed,
        confidence=found.settings.confidence,
    )


def _p(comparison: Comparison, test: str) -> float | None:
    result = getattr(comparison, test)
    return None if result is None else result.p


def _by_prompt(found: Evaluation, arm: str) -> dict[str, list[bool]]:
    marks: dict[str, list[bool]] = {}
    for picture in found.of(arm):
        marks.setdefault(picture.prompt_id, []).append(picture.verdict.right)
    return marks
