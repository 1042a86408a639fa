"""Write a plain prompt for every picture with an image-to-text model."""

from __future__ import annotations

import argparse

from .common import add_work_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)


def run(options: argparse.Namespace) -> int | None:
    raise NotImplementedError
