"""Measure the data set and write a report in one file.

Lengths, nouns, words, CLIP scores, what each step kept and why the rest was left out, origins: report.html
and figures/*.png in the work folder, after the paper's Fig. 4.
"""

from __future__ import annotations

import argparse

from sur_core.surd_build.captions import check_collected
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.report import write_report
from sur_core.surd_build.stats import Statistics, measure
from sur_core.surd_build.steps import alone_in

from ..common import Bars
from .common import add_work_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)


def run(options: argparse.Namespace) -> int | None:
    check_collected(options.work)
    bars = Bars()
    with alone_in(options.work):
        manifest = Manifest(options.work)
        found = measure(manifest, bars)
        page, *figures = write_report(manifest, found, bars)
    for line in _summary(found):
        print(line)
    print(f"report: {page} ({len(figures)} pictures beside it)")
    return None


def _summary(found: Statistics) -> list[str]:
    lines = [f"{found.files:,} images; {found.ready:,} samples are ready for training"]
    for step, counts in found.dropped.items():
        told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
        lines.append(f"  left out by {step}: {sum(counts.values()):,} ({told})")
    if waiting := found.kept - found.ready:
        lines.append(f"  no simple prompt yet: {waiting:,}")
    for kind in ("complex", "simple"):
        content = getattr(found, kind)
        low, middle, high = content.lengths.quartiles
        lines.append(
            f"{kind} prompts: {content.prompts:,}, mean {content.lengths.mean:.1f} words, "
            f"quartiles {low:g}, {middle:g}, {high:g}"
        )
    return lines
