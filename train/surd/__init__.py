"""Make a SURD data set from your own pictures: collect, caption, clean, review, stats, export."""

from __future__ import annotations

import argparse

from . import build, caption, clean, collect, export, review, stats

STEPS = {
    "collect": collect,
    "caption": caption,
    "clean": clean,
    "review": review,
    "stats": stats,
    "export": export,
    "build": build,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="surd_step", required=True, metavar="step")
    for name, module in STEPS.items():
        words = module.__doc__.strip().partition("\n")[0]
        module.add_arguments(steps.add_parser(name, help=words, description=words))


def run(options: argparse.Namespace) -> int | None:
    return STEPS[options.surd_step].run(options)
