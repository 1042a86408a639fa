"""Train an adapter in a small world whose truth is known, measure it, show it: minutes on a CPU.

Needs no download and no GPU; report.html has the result. Every step is one of the other commands, which is
printed before it runs; after a stop, the same command goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from .common import Bars


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output-dir", type=Path, metavar="FOLDER", help="(runs/demo; of a quick one runs/demo-quick)")
    words = "half a minute: every step, but too little training to show anything"
    add("--quick", action="store_true", help=words)
    add("--restart", action="store_true", help="throw away what the folder holds of a demo")
    add("--seed", type=int, default=0, metavar="N", help="of the training set and of training (0)")
    words = "folder with base, clip and llm, in place of the models of the repository"
    add("--models", type=Path, metavar="FOLDER", help=words)


def run(options: argparse.Namespace) -> int:
    from small_world.demo import Demo, DemoSettings
    from small_world.places import Models

    folder = options.output_dir or Path("runs/demo-quick" if options.quick else "runs/demo")
    settings = DemoSettings(folder, seed=options.seed)
    if options.models:
        settings = replace(settings, models=Models(options.models))
    if options.quick:
        settings = settings.quick()
    return Demo(settings, _say, Bars()).run(options.restart)


def _say(line: str) -> None:
    print(line, flush=True)
