"""Print what an adapter file says about itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core import read_passport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="adapter files")


def run(options: argparse.Namespace) -> None:
    for path in options.files:
        print(f"{path}\n{read_passport(path).to_text()}")
