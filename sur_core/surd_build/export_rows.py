"""What goes into the exported data set: one row for each kept sample that has both prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..surd_rows import RowError, check_text
from .manifest import Manifest, SurdBuildError
from .samples import BuildSample, read_samples

EXTRAS = ("simple_score", "complex_score", "source", "license", "origin", "rating", "nsfw")
"""Columns besides file name, prompts and id; each stands in the table if any sample has it."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One sample to be.

    Attributes:
        id: of the sample.
        simple, complex: the prompts as they are written.
        extras: {name of :data:`EXTRAS`: text, number, for nsfw a bool, or ``None``}.
        image: the picture as it was collected; sha256: of that file; kind: its format, such as "PNG".
        bytes: size of that file.
    """

    id: str
    simple: str
    complex: str
    extras: dict
    image: Path
    sha256: str
    kind: str
    bytes: int


def export_rows(manifest: Manifest) -> tuple[list[ExportRow], Counter[str]]:
    """(rows in the order of ids, {why other samples are not exported: count}).

    Raises:
        SurdBuildError: no sample can be exported, or two have one id.
        OSError: the manifest or a review log cannot be read.
    """
    rows, others = {}, Counter()
    for sample in read_samples(manifest):
        if reason := _unfit(sample):
            others[reason] += 1
        elif sample.id in rows:
            raise SurdBuildError(
                f"{manifest.path}: {sample.name} and {rows[sample.id].image} are one and the same picture, "
                "and both are kept. Collect again"
            )
        else:
            rows[sample.id] = _row(sample)
    if not rows:
        told = "; ".join(f"{reason}: {count}" for reason, count in others.most_common())
        raise SurdBuildError(
            f"{manifest.path}: there is nothing to export ({told or 'no samples'}). Collect and caption "
            "pictures first; 'python -m train surd stats' tells more"
        )
    return [rows[id] for id in sorted(rows)], others


def used_columns(rows: Iterable[ExportRow]) -> list[str]:
    """Those of :data:`EXTRAS` that any row has a value for."""
    found = {name for row in rows for name, value in row.extras.items() if value is not None}
    return [name for name in EXTRAS if name in found]


def _unfit(sample: BuildSample) -> str:
    """Why a sample is not exported, "" if it is."""
    if sample.dropped:
        return f"left out by {sample.dropped[0]}"
    for kind, text in (("simple", sample.simple), ("complex", sample.complex)):
        if not text.strip():
            return f"no {kind} prompt yet"
        try:
            check_text(text, kind)
        except RowError:
            return f"{kind} prompt is not Unicode"
    return ""


def _row(sample: BuildSample) -> ExportRow:
    facts = sample.facts
    extras = {name: _text(facts.get(name)) for name in ("license", "origin", "rating")}
    extras["nsfw"] = facts.get("nsfw")
    scores = sample.scores
    extras |= {name: scores.get(name) for name in ("simple_score", "complex_score")}
    extras["source"] = _text(sample.name.partition("/")[0])
    return ExportRow(
        id=sample.id,
        simple=sample.simple,
        complex=sample.complex,
        extras=extras,
        image=sample.path,
        sha256=facts["sha256"],
        kind=facts.get("format") or "",
        bytes=facts.get("bytes") or 0,
    )


def _text(value: object) -> str | None:
    """As a column of one type holds it; what is no Unicode is written with escapes."""
    if value is None or value == "":
        return None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
