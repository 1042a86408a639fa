"""User preference study: make a page on which people choose between two pictures; merge what they chose."""

from __future__ import annotations

import argparse

from sur_core.evaluation.sheets import Choice, find_key, make_preference, merge_preferences
from sur_core.evaluation.sheets.key import PREFERENCE
from sur_core.evaluation.sheets.preference import ASKS, QUALITY
from sur_core.evaluation.sheets.preferences_report import pairs_table, people_table, write_preferences_report

from .common import Bars
from .evaluate_sheet import (
    add_making,
    add_merging,
    page_options,
    page_place,
    refresh_study,
    tell_made,
    tell_merged,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="step")
    words = "Make the page for people, and its key, which stays in the results."
    make = steps.add_parser("make", help=words, description=words)
    add_making(make)
    words = "two arms to choose between; may be repeated (the baseline with each other arm)"
    make.add_argument("--pair", nargs=2, action="append", default=[], metavar="ARM", help=words)
    words = "quality, as the paper asks, or which one shows the prompt better (quality)"
    make.add_argument("--ask", choices=ASKS, default=QUALITY, help=words)
    words = "with several pairs of arms, show a picture in each of them, by which people may tell an arm"
    make.add_argument("--reuse", action="store_true", help=words)
    words = "Join the answers that people saved from a page with its key, and count them."
    add_merging(steps.add_parser("merge", help=words, description=words))


def run(options: argparse.Namespace) -> None:
    return {"make": _make, "merge": _merge}[options.step](options)


def _make(options: argparse.Namespace) -> None:
    with Bars() as bars:
        made = make_preference(
            options.results,
            page_place(options, "preference"),
            [tuple(pair) for pair in options.pair],
            options.ask,
            options.reuse,
            Choice(types=tuple(options.types), per_prompt=options.per_prompt),
            page_options(options),
            bars,
        )
    tell_made(made, "pairs of pictures")
    print(f"Then: python -m train evaluate preference merge preferences-*.json --results {options.results}")


def _merge(options: argparse.Namespace) -> None:
    key = find_key(options.answers, PREFERENCE, options.results)
    found = merge_preferences(key, options.answers)
    output = options.output or key.parent
    written = write_preferences_report(found, output)
    refresh_study(key, output)
    print(f"{pairs_table(found)}\n")
    print(f"{people_table(found)}\n")
    tell_merged(found.notes, written)
