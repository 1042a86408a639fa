"""Write the report of a study anew: one HTML page with its tables and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core.evaluation.report import write_report
from sur_core.evaluation.study_files import read_study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "that evaluate --config has filled (its output_dir)"
    parser.add_argument("study", type=Path, metavar="STUDY_FOLDER", help=words)


def run(options: argparse.Namespace) -> None:
    report, prompts = write_report(read_study(options.study))
    print(f"{report}: {report.stat().st_size / 1e6:.1f} MB; every prompt's change: {prompts}")
