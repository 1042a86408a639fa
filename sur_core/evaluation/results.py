"""What an evaluation leaves: results.json, results.csv, tables.md.

``results.json``, schema version 1, is one object::

    schema          1
    about           model, its fingerprint, judge, CLIP, reference, versions
    remarks         sentences a reader must know
    settings        every field of EvaluationSettings but output_dir
    baseline        name of the arm the others are compared with
    arms            [{name, text, adapter, eta, to_negative, negative_prompt}]
    prompts         [{id, type, prompt, complex, truth}]
    pictures        [{arm, prompt_id, type, seed, path, verdict: {right, why, details} or null, cosine,
                    clip_share}]
    accuracies      [{arm, type, right, pictures}]           type "all": every picture
    comparisons     [fields of Comparison; tests are {statistic, degrees, p, note}, intervals {low, high,
                    confidence, note}]
    clip_scores     [{arm, type, cosine, share, baseline_share}]
    kids            [fields of KID]

Shares are 0..1. ``null`` in a test or interval means "not defined", and its ``note`` says why.
``results.csv`` has a row a picture. Neither holds a date, so that equal runs leave equal files.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from .evaluation import Evaluation
from .tables import all_tables

SCHEMA = 1
COLUMNS = ("arm", "type", "prompt_id", "seed", "right", "why", "cosine", "clip_share", "path", "text")


def write_results(evaluation: Evaluation) -> None:
    """Write the three files into the output folder, each atomic."""
    folder = Path(evaluation.settings.output_dir)
    contents = {
        "results.json": json.dumps(to_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": _csv(evaluation),
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
        {**asdict(arm), "adapter": None if arm.adapter is None else str(arm.adapter)}
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


def _csv(evaluation: Evaluation) -> str:
    texts = {(a.name, p.id): a.text_of(p) for a in evaluation.arms for p in evaluation.prompts}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in evaluation.pictures:
        verdict = picture.verdict
        writer.writerow(
            [
                picture.arm,
                picture.type,
                picture.prompt_id,
                picture.seed,
                "" if verdict is None else int(verdict.right),
                "" if verdict is None else verdict.why,
                "" if picture.cosine is None else repr(picture.cosine),
                "" if picture.clip_share is None else repr(picture.clip_share),
                picture.path,
                texts[picture.arm, picture.prompt_id],
            ]
        )
    return out.getvalue()
