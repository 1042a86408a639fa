"""Print what an adapter file says about itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core import read_passport
from sur_core.llmdiff.checkpoint import is_llmdiff_file, read_llmdiff_passport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="adapter files")


def run(options: argparse.Namespace) -> None:
    for path in options.files:
        read = read_llmdiff_passport if is_llmdiff_file(path) else read_passport
        print(f"{path}\n{read(path).to_text()}")
