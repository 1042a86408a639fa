"""Open the page on which people keep, drop and edit samples."""

from __future__ import annotations

import argparse
import getpass
import webbrowser
from pathlib import Path

from sur_core.surd_build.manifest import Manifest, SurdBuildError
from sur_core.surd_build.review.merge import merge_logs
from sur_core.surd_build.review.server import DEFAULT_PORT, ReviewServer
from sur_core.surd_build.reviews import check_reviewer
from sur_core.surd_build.samples import read_samples

from .common import add_work_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    add = parser.add_argument
    words = "whose decisions these are; each reviewer has a log of their own (your user name)"
    add("--reviewer", metavar="NAME", help=words)
    words = f"of the page; 0 for any that is free ({DEFAULT_PORT})"
    add("--port", type=int, default=DEFAULT_PORT, metavar="N", help=words)
    add("--open", action="store_true", help="open the page in the browser")
    words = "add other people's logs (review/<name>.jsonl of their copies of the work folder) and end"
    add("--merge", type=Path, nargs="+", metavar="FILE", help=words)


def run(options: argparse.Namespace) -> int | None:
    return _merge(options) if options.merge else _serve(options)


def _serve(options: argparse.Namespace) -> None:
    with ReviewServer(options.work, options.reviewer or _user_name(), options.port) as server:
        _say(f"review page: {server.url}")
        _say("The address works once, on this machine. Every decision is on the disk at once; Ctrl-C ends.")
        if options.open:
            webbrowser.open(server.door().as_uri())
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            counts = server.gallery.counts()
            decided = counts["kept"] + counts["dropped"]
            _say(f"\n{decided:,} of {counts['all']:,} decided; {server.book.path}")


def _merge(options: argparse.Namespace) -> None:
    ids = {sample.id for sample in read_samples(Manifest(options.work), {})}
    for merged in merge_logs(options.work, options.merge, ids):
        _say(
            f"{merged.reviewer}: {merged.added:,} decisions added, {merged.known:,} were there already, "
            f"{merged.foreign:,} refused as they are about samples that are not here"
        )


def _user_name() -> str:
    try:
        return check_reviewer(getpass.getuser())
    except (SurdBuildError, OSError, ImportError, KeyError):  # containers run as users without a name
        raise SurdBuildError("who is reviewing? Give --reviewer NAME") from None


def _say(line: str) -> None:
    print(line, flush=True)
