"""What an evaluation leaves: results.json, results.csv, tables.csv, tables.md.

``results.json``, schema version 2, is one object::

    schema          2
    about           model, its fingerprint, judge, CLIP, reference, versions
    remarks         sentences a reader must know
    settings        every field of EvaluationSettings but output_dir
    baseline        name of the arm the others are compared with
    arms            [{name, text, adapter, eta, to_negative, negative_prompt, llmdiff, strength, llm}]
    prompts         [{id, type, prompt, complex, truth}]
    pictures        [{arm, prompt_id, type, seed, path, verdict: {right, why, details} or null, cosine,
                    clip_share}]
    accuracies      [{arm, type, right, pictures}]           type "all": every picture
    comparisons     [fields of Comparison; tests are {statistic, degrees, p, note}, intervals {low, high,
                    confidence, note}]
    clip_scores     [{arm, type, cosine, share, baseline_share}]
    kids            [fields of KID]

Shares are 0..1. ``null`` in a test or interval means "not defined", and its ``note`` says why.
``results.csv`` has a row a picture, ``tables.csv`` one for each arm and type. None holds a date, so that
equal runs leave equal files.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from .arms import Arm
from .csv_files import pictures_csv, tables_csv
from .evaluation import Accuracy, ClipScore, Evaluation, Picture
from .judges import Verdict
from .kid import KID
from .prompt_sets import EvalPrompt
from .settings import EvaluationSettings
from .statistics import Comparison, Interval, McNemar, SignificanceTest
from .tables import all_tables

SCHEMA = 2
RESULTS = "results.json"
_TESTS, _INTERVALS = ("independent", "welch", "paired", "by_prompt"), ("over_prompts", "paired_interval")


def write_results(evaluation: Evaluation) -> None:
    """Write the four files into the output folder, each atomic."""
    folder = Path(evaluation.settings.output_dir)
    contents = {
        RESULTS: json.dumps(to_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": pictures_csv(evaluation),
        "tables.csv": tables_csv(evaluation),
        "tables.md": all_tables(evaluation),
    }
    for name, content in contents.items():
        with atomic_write(folder / name) as file:
            file.write(content.encode("utf-8"))


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The object that results.json holds."""
    settings = asdict(evaluation.settings)
    settings.pop("output_dir")
    arms = [
        {name: str(value) if isinstance(value, Path) else value for name, value in asdict(arm).items()}
        for arm in evaluation.arms
    ]
    lists = ("prompts", "pictures", "accuracies", "comparisons", "clip_scores", "kids")
    return {
        "schema": SCHEMA,
        "about": dict(evaluation.about),
        "remarks": list(evaluation.remarks),
        "settings": {**settings, "seeds": list(settings["seeds"])},
        "baseline": evaluation.baseline,
        "arms": arms,
        **{name: [asdict(entry) for entry in getattr(evaluation, name)] for name in lists},
    }


def read_results(folder: str | os.PathLike) -> Evaluation:
    """What an evaluation into ``folder`` has found; equal to what :func:`evaluate` returned.

    Raises:
        OSError: there is no readable results.json.
        ValueError: it is damaged, or of another version.
    """
    path = Path(folder) / RESULTS
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a folder that evaluate has filled") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); evaluate again") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema is {schema!r}, expected {SCHEMA}; evaluate again with this version")
    try:
        return _from_json(found, Path(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged ({reason}); evaluate again") from error


def _from_json(found: dict[str, Any], folder: Path) -> Evaluation:
    return Evaluation(
        settings=EvaluationSettings(folder, **found["settings"]),
        prompts=tuple(EvalPrompt(**entry) for entry in found["prompts"]),
        arms=tuple(Arm(**entry) for entry in found["arms"]),
        pictures=tuple(Picture(**_with(entry, Verdict, "verdict")) for entry in found["pictures"]),
        accuracies=tuple(Accuracy(**entry) for entry in found["accuracies"]),
        comparisons=tuple(map(comparison_from_json, found["comparisons"])),
        clip_scores=tuple(ClipScore(**entry) for entry in found["clip_scores"]),
        kids=tuple(
            KID(**_with(entry, Interval, "interval", "difference_interval")) for entry in found["kids"]
        ),
        about=found["about"],
        remarks=tuple(found["remarks"]),
    )


def comparison_from_json(entry: dict) -> Comparison:
    """A comparison of :func:`to_json`."""
    entry = _with(_with(entry, SignificanceTest, *_TESTS), Interval, *_INTERVALS)
    return Comparison(**_with(entry, McNemar, "mcnemar"))


def _with(entry: dict, kind: type, *names: str) -> dict:
    """The entry with some of its values, where there are any, as objects of a class."""
    return entry | {name: entry[name] and kind(**entry[name]) for name in names if name in entry}
