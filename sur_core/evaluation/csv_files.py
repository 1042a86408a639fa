"""An evaluation as CSV: a row a picture, and a row for each arm and type with every figure of the tables.

Empty cells are what there is not or is not defined. Shares are 0..1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from .evaluation import Evaluation
from .kid import KID
from .statistics import ALL, Comparison

PICTURE_COLUMNS = ("arm", "type", "prompt_id", "seed", "right", "why", "cosine", "clip_share", "path", "text")
_COMPARED = (
    *("difference", "low", "high", "paired_t_low", "paired_t_high"),
    *("p_independent", "p_welch", "p_paired", "p_by_prompt", "p_mcnemar"),
)
_KID = ("kid", "kid_low", "kid_high", "kid_difference", "kid_difference_low", "kid_difference_high")
TABLE_COLUMNS = (
    *("arm", "type", "pictures", "right", "share", *_COMPARED),
    *("clip_score", "clip_score_baseline", "cosine", *(f"cosine_{name}" for name in _COMPARED[:-1])),
    *_KID,
)
"""Of tables.csv. ``low`` and ``high`` are of the difference, by bootstrap over prompts; ``kid`` stands in the
rows of type ``"all"``."""


def pictures_csv(evaluation: Evaluation) -> str:
    """The content of results.csv."""
    texts = {(a.name, p.id): a.text_of(p) for a in evaluation.arms for p in evaluation.prompts}
    rows = []
    for picture in evaluation.pictures:
        verdict = picture.verdict
        rows.append(
            [
                *(picture.arm, picture.type, picture.prompt_id, picture.seed),
                *((None, None) if verdict is None else (int(verdict.right), verdict.why)),
                *(picture.cosine, picture.clip_share, picture.path),
                texts[picture.arm, picture.prompt_id],
            ]
        )
    return _csv(PICTURE_COLUMNS, rows)


def tables_csv(evaluation: Evaluation) -> str:
    """The content of tables.csv."""
    rows = [_row(evaluation, arm.name, kind) for arm in evaluation.arms for kind in (*evaluation.types, ALL)]
    return _csv(TABLE_COLUMNS, ([row.get(name) for name in TABLE_COLUMNS] for row in rows))


def _row(evaluation: Evaluation, arm: str, kind: str) -> dict:
    row = {"arm": arm, "type": kind, "pictures": len(evaluation.of(arm, kind))}
    if evaluation.accuracies:
        accuracy = evaluation.accuracy(arm, kind)
        row |= {"right": accuracy.right, "share": accuracy.share}
    if evaluation.clip_scores:
        score = evaluation.clip_score(arm, kind)
        row |= {"cosine": score.cosine, "clip_score": score.share}
        row["clip_score_baseline"] = score.baseline_share
    for found in evaluation.comparisons:
        if (found.arm, found.type) == (arm, kind):
            prefix = "" if found.measure == "right" else f"{found.measure}_"
            row |= {prefix + name: value for name, value in compared(found).items()}
    if evaluation.kids and kind == ALL:
        row |= _kid(evaluation.kid(arm))
    return row


def compared(found: Comparison) -> dict[str, float | None]:
    """The figures of a comparison as columns have them."""
    values = (
        *(found.difference, found.over_prompts.low, found.over_prompts.high),
        *(found.paired_interval.low, found.paired_interval.high),
        *(found.independent.p, found.welch.p, found.paired.p, found.by_prompt.p),
        found.mcnemar and found.mcnemar.p,
    )
    return dict(zip(_COMPARED, values, strict=True))


def _kid(found: KID) -> dict[str, float | None]:
    values = [found.value, found.interval.low, found.interval.high, found.difference]
    bounds = found.difference_interval
    values += [None, None] if bounds is None else [bounds.low, bounds.high]
    return dict(zip(_KID, values, strict=True))


def _csv(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)  # which writes None as nothing, and numbers with all their digits
    return out.getvalue()
