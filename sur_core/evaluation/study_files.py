"""What a study leaves: study.json, study.csv, study.md, and a folder a cell with its pictures and results.

``study.json``, schema version 1, is one object::

    schema          1
    about           judge, versions, adapters with hashes of their files, the command
    remarks         sentences a reader must know
    config          the study's file as it was read
    measures        [{name, higher_is_better, note, model}]
    cells           [{model, method, folder, scores: {measure: [a number a picture, null where not defined]}}]
    accuracies      [{model, method, comparison, holm: {test: p}}]          Table 2
    qualities       [{model, method, score: fields of ScoreComparison}]     Table 3
    people          [{model, method, marks: [{people, arms: [{arm, type, right, wrong, undecided, share}]}],
                    judge: [agreement in Markdown], preferences: [{question, ask, people, votes: [{pair,
                    type, person, first, second, none, share, p}]}], left_out: [what is not counted, in
                    words]}]; for readers: it is taken from the cells' own files again

Pictures and verdicts are in each cell's own ``results.json``. ``study.csv`` has a row for every comparison
of both tables, with all its figures. None holds a date, so that equal studies leave equal files.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from .csv_files import compared
from .quality.comparison import ScoreComparison
from .results import comparison_from_json, read_results
from .statistics import Comparison
from .study import TESTS, AccuracyRow, Cell, MeasureInfo, QualityRow, Study
from .study_people import people_of, people_to_json
from .study_tables import all_tables

SCHEMA = 1
STUDY = "study.json"
_FIGURES = (
    *("difference", "low", "high", "paired_t_low", "paired_t_high"),
    *(f"p_{test}" for test in TESTS),
    *(f"holm_{test}" for test in TESTS),
)
COLUMNS = (
    *("table", "model", "method", "arm", "baseline", "measure", "type", "pictures", "prompts", "undefined"),
    *("mean_baseline", "mean", *_FIGURES),
)
"""Of study.csv. ``low`` and ``high`` are of the difference, by bootstrap over prompts."""


def write_study(study: Study) -> None:
    """Write the three files into the study's folder, each atomic."""
    contents = {
        STUDY: json.dumps(to_json(study), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n",
        "study.csv": study_csv(study),
        "study.md": all_tables(study),
    }
    for name, content in contents.items():
        with atomic_write(study.folder / name) as file:
            file.write(content.encode("utf-8"))


def to_json(study: Study) -> dict[str, Any]:
    """The object that study.json holds."""
    cells = [
        {
            "model": cell.model,
            "method": cell.method,
            "folder": cell.folder,
            "scores": {name: [_number(value) for value in values] for name, values in cell.scores.items()},
        }
        for cell in study.cells
    ]
    lists = ("measures", "accuracies", "qualities")
    return {
        "schema": SCHEMA,
        "about": dict(study.about),
        "remarks": list(study.remarks),
        "config": dict(study.config),
        "cells": cells,
        **{name: [asdict(entry) for entry in getattr(study, name)] for name in lists},
        "people": [people_to_json(found) for found in study.people],
    }


def read_study(folder: str | os.PathLike) -> Study:
    """What a study into ``folder`` has found; equal to what :func:`run_study` returned.

    Raises:
        OSError: there is no readable study.json, or a cell's results.json is not there.
        ValueError: one is damaged, or of another version.
    """
    path = Path(folder) / STUDY
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a folder that a study has filled") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); run the study again") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema is {schema!r}, expected {SCHEMA}; run the study again")
    try:
        return _from_json(found, Path(folder))
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged ({reason}); run the study again") from error


def study_csv(study: Study) -> str:
    """The content of study.csv."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in _rows(study):
        writer.writerow([row.get(name) for name in COLUMNS])
    return out.getvalue()


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for row in study.accuracies:
        where = {"table": 2, "model": row.model, "method": row.method}
        adjusted = {f"holm_{test}": row.holm.get(test) for test in TESTS}
        yield where | _figures(row.comparison) | adjusted
    for row in study.qualities:
        score = row.score
        where = {"table": 3, "model": row.model, "method": row.method, "undefined": score.undefined}
        names = {name: getattr(score, name) for name in ("arm", "baseline", "measure", "type")}
        adjusted = {f"holm_{test}": getattr(score, f"holm_{test}") for test in TESTS[:-1]}
        figures = {} if score.comparison is None else _figures(score.comparison)
        yield where | names | figures | adjusted


def _figures(found: Comparison) -> dict[str, Any]:
    names = ("arm", "baseline", "measure", "type", "pictures", "prompts", "mean")
    values = {name: getattr(found, name) for name in names}
    return values | {"mean_baseline": found.baseline_mean} | compared(found)


def _from_json(found: dict[str, Any], folder: Path) -> Study:
    cells = [
        Cell(
            model=entry["model"],
            method=entry["method"],
            folder=entry["folder"],
            evaluation=read_results(folder / entry["folder"]),
            scores={
                name: tuple(math.nan if value is None else value for value in values)
                for name, values in entry["scores"].items()
            },
        )
        for entry in found["cells"]
    ]
    return Study(
        folder=folder,
        cells=tuple(cells),
        measures=tuple(MeasureInfo(**entry) for entry in found["measures"]),
        accuracies=tuple(
            AccuracyRow(**entry | {"comparison": comparison_from_json(entry["comparison"])})
            for entry in found["accuracies"]
        ),
        qualities=tuple(
            QualityRow(**entry | {"score": _score(entry["score"])}) for entry in found["qualities"]
        ),
        config=found["config"],
        about=found["about"],
        remarks=tuple(found["remarks"]),
        people=people_of(folder, cells),
    )


def _score(entry: dict[str, Any]) -> ScoreComparison:
    comparison = entry["comparison"] and comparison_from_json(entry["comparison"])
    return ScoreComparison(**entry | {"comparison": comparison})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
