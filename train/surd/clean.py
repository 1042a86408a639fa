"""Ask CLIP whether the plain prompt fits at least as well as the elaborate one."""

from __future__ import annotations

import argparse

from .common import add_work_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)


def run(options: argparse.Namespace) -> int | None:
    raise NotImplementedError
