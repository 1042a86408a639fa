"""Blind marking sheets: make a page on which people mark pictures right or wrong; merge their marks."""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core.evaluation.report import write_report
from sur_core.evaluation.sheets import Choice, PageOptions, find_key, make_sheet, merge_marks
from sur_core.evaluation.sheets.against_judge import judge_agreement
from sur_core.evaluation.sheets.key import SHEET
from sur_core.evaluation.sheets.marks_report import agreement_table, arms_table, write_marks_report
from sur_core.evaluation.study import CELLS
from sur_core.evaluation.study_files import STUDY, read_study, write_study

from .common import Bars


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="step")
    words = "Make the page for people, and its key, which stays in the results."
    make = steps.add_parser("make", help=words, description=words)
    add_making(make)
    words = "only this arm, as results name it; may be repeated"
    make.add_argument("--arm", action="append", default=[], metavar="NAME", help=words)
    words = "Join the answers that people saved from a page with its key, and count them."
    add_merging(steps.add_parser("merge", help=words, description=words))


def run(options: argparse.Namespace) -> None:
    return {"make": _make, "merge": _merge}[options.step](options)


def add_making(parser: argparse.ArgumentParser) -> None:
    """What making a page of either kind takes."""
    add = parser.add_argument
    add("results", type=Path, metavar="RESULTS", help="folder that evaluate has filled (its --output-dir)")
    words = "HTML file to write, outside of the results (named after them, in this folder)"
    add("-o", "--output", type=Path, metavar="PAGE", help=words)
    add("--types", nargs="+", default=(), metavar="TYPE", help="only prompts of these types")
    words = "pictures of each prompt and arm, those of the first N seeds (all)"
    add("--per-prompt", type=int, default=0, metavar="N", help=words)
    words = (
        "number behind order and names, to make a page again; it betrays the order (a secret one is drawn)"
    )
    add("--seed", type=int, metavar="N", help=words)
    add(
        "--title",
        default="",
        metavar="TEXT",
        help="title of the page; people see it, so it should name no arm",
    )
    add("--question", default="", metavar="TEXT", help="question to ask instead of the usual one")
    words = "pictures in the page, or in a folder beside it (inside up to about 64 MB)"
    add("--pictures", choices=("inside", "beside"), help=words)
    words = "of the pictures: png keeps every pixel (png up to 40 megapixels in all, else jpeg)"
    add("--format", default="auto", choices=("auto", "png", "jpeg"), help=words)


def add_merging(parser: argparse.ArgumentParser) -> None:
    """What merging answers of either kind takes."""
    add = parser.add_argument
    add("answers", type=Path, nargs="+", metavar="FILE", help="answers, as people saved them from the page")
    words = "what evaluate filled; the key is in it (else looked for here and three folders below)"
    add("--results", type=Path, metavar="FOLDER", help=words)
    words = "folder for the tables (that of the key; a study takes in what is merged there alone)"
    add("-o", "--output", type=Path, metavar="FOLDER", help=words)


def page_place(options: argparse.Namespace, what: str) -> Path:
    """Where the page goes."""
    return options.output or Path(f"{options.results.resolve().name}-{what}.html")


def page_options(options: argparse.Namespace) -> PageOptions:
    inside = None if options.pictures is None else options.pictures == "inside"
    return PageOptions(options.seed, options.title, options.question, inside, options.format)


def tell_made(made, what: str) -> None:
    """What was made, and what to do with it."""
    lost = "; JPEG of high quality" if made.format == "jpeg" else ""
    print(f"{made.page}: {made.items:,} {what}{lost}")
    for remark in made.remarks:
        print(f"note: {remark}")
    page = (
        f"{made.page.name} with the folder {made.folder.name}"
        if made.folder
        else f"the file {made.page.name}"
    )
    print(f"Give people {page}, and nothing from the results. Which arm drew what stands in {made.key}")


def tell_merged(notes, written) -> None:
    """What was left out, and where the tables are."""
    for note in notes:
        print(f"note: {note}")
    print(f"all tables: {next(path for path in written if path.name == 'tables.md')}")


def refresh_study(key: Path, output: Path) -> None:
    """If the key lies in a cell of a finished study, its tables tell of people too: of those whose answers
    are merged into the key's folder.

    Args:
        output: the folder they were merged into.
    """
    results = key.resolve().parents[2]
    study = results.parents[1]
    if results.parent.name != CELLS or not (study / STUDY).is_file():
        return
    if output.resolve() != key.resolve().parent:
        print(
            f"{study / 'study.md'}: not changed, as answers that are merged into another folder than "
            f"{key.parent} are not the study's. Merge without -o to have them in its tables"
        )
        return
    found = read_study(study)
    write_study(found)
    report, _ = write_report(found)
    print(f"{study / 'study.md'} and {report.name}: now with what people said")
    for cell in found.people:
        for note in cell.notes:
            print(f"note: {cell.model}, {cell.method}: left out: {note}")


def _make(options: argparse.Namespace) -> None:
    choice = Choice(tuple(options.arm), tuple(options.types), options.per_prompt)
    page = page_place(options, "sheet")
    with Bars() as bars:
        made = make_sheet(options.results, page, choice, page_options(options), bars)
    tell_made(made, "pictures to mark")
    print(f"Then: python -m train evaluate sheet merge answers-*.json --results {options.results}")


def _merge(options: argparse.Namespace) -> None:
    key = find_key(options.answers, SHEET, options.results)
    marks = merge_marks(key, options.answers)
    judge = judge_agreement(marks, key.parents[2])
    output = options.output or key.parent
    written = write_marks_report(marks, output, judge)
    refresh_study(key, output)
    print(f"{arms_table(marks)}\n")
    if len(marks.people) > 1:
        print(f"{agreement_table(*marks.agreements())}\n")
    if judge:
        print(f"{judge}\n")
    tell_merged(marks.notes, written)
