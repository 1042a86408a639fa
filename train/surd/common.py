"""What the steps share: the work folder as an argument, processes, stopping."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sur_core.processes import ALONE, Processes
from sur_core.stop_signals import StopSignals
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.steps import Outcome, alone_in

STOPPED = 130


def add_work_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work", type=Path, help="work folder: the manifest and everything the steps make")


@contextmanager
def open_work(options: argparse.Namespace, processes: Processes = ALONE) -> Iterator[tuple]:
    """(manifest, stopped) with the work folder held; the first Ctrl-C or SIGTERM makes ``stopped()`` true."""
    with StopSignals() as signals:
        if processes.is_main:
            with alone_in(options.work):
                yield Manifest(options.work), lambda: signals.received
        else:
            yield Manifest(options.work), lambda: signals.received


def tell(outcome: Outcome, what: str, say: Callable = print) -> int | None:
    """The last line of a step; its exit code."""
    if not outcome.finished:
        say(f"{what}: stopped after {outcome.done:,}; the same command goes on where it was")
        return STOPPED
    say(f"{what}: {outcome.done:,} done, {outcome.kept:,} were done already")
    return None
