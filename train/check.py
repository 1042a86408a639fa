"""Read a data set once and report what is in it; list what cannot be used.

Every image is decoded and every prompt measured. What cannot be used is written, with the reason, to a list
that training follows; the old list is not followed but made anew, so what has been mended comes back.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sur_core.surd import SurdError, quarantine_path, read_surd
from sur_core.surd_check import check_surd
from sur_core.surd_quarantine import read_quarantine, write_quarantine
from sur_core.surd_rows import Columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", help="folder with metadata.jsonl, .parquet, .csv or .jsonl file, or id of a hub data set"
    )
    parser.add_argument("--split", default="train", help="of parquet, hub and split folders (default: train)")
    parser.add_argument(
        "--image-column", default="", help="default: file_name, or image; 'none': prompts only"
    )
    parser.add_argument("--simple-column", default="", help="default: text, or simple")
    parser.add_argument("--complex-column", default="", help="default: prompt, or complex")
    parser.add_argument("--quarantine", type=Path, help="list to write (default: beside the data)")
    parser.add_argument(
        "--resolution", type=_positive, default=512, help="report smaller images (default: 512)"
    )
    parser.add_argument("--workers", type=_positive, default=os.cpu_count() or 1, help="threads that decode")


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    path = options.quarantine or quarantine_path(options.data, options.split)
    if path.exists():
        read_quarantine(path)  # refuses to overwrite what is no such list, such as the data itself
    columns = Columns(options.image_column, options.simple_column, options.complex_column)
    surd = read_surd(options.data, options.split, {}, columns)

    def bar(samples, total):
        return tqdm(samples, total=total, unit="image", desc="reading images")

    report = check_surd(surd, options.resolution, options.workers, bar)
    print(f"{surd.source}\n{report.to_text()}")
    if report.quarantined or path.exists():
        write_quarantine(path, report.quarantined)
        print(f"list of what is left out: {path}")
    if not report.samples:
        raise SurdError(f"{options.data}: no usable sample; the reasons are in {path}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text}")
    return value
