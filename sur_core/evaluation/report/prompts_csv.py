"""study-prompts.csv: what study.csv does not tell, every adapter's change of every prompt."""

from __future__ import annotations

import csv
import io

from ..study import Study
from .changes import RIGHT, prompt_changes

PROMPTS = "study-prompts.csv"
COLUMNS = (
    *("model", "method", "arm", "type", "prompt_id", "prompt", "measure", "pictures"),
    *("mean_baseline", "mean", "gain"),
)
"""``gain`` is above 0 where the arm is better, whatever the measure's direction. Of ``clip_score`` means are
of CLIP's scaled cosines, not of shares."""


def prompts_csv(study: Study) -> str:
    """The content of the file: a row for each measure, cell, adapter and prompt."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    measures = [RIGHT] * bool(study.accuracies) + [measure.name for measure in study.measures]
    for found in (change for measure in measures for change in prompt_changes(study, measure)):
        prompt = found.prompt
        where = (found.cell.model, found.cell.method, found.arm, prompt.type, prompt.id, prompt.prompt)
        writer.writerow([*where, found.measure, found.pictures, found.baseline, found.ours, found.gain])
    return out.getvalue()
