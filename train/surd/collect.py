"""Read pictures, their prompts and what else they say; put aside what cannot be used."""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core.surd_build.collect import SKIPPED_FOLDER, CollectSettings, collect
from sur_core.surd_build.select import MAX_DISTANCE, SelectSettings

from ..common import Bars
from .common import add_work_folder, open_work, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    add_source_arguments(parser)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything but the work folder."""
    chosen = SelectSettings()
    # As argparse before Python 3.13 wants it: sources behind a flag would be unknown arguments.
    parser.usage = f"{parser.prog} work [source ...] [options]"
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="source",
        help="folder of pictures (with all inside), metadata.jsonl, the authors' data.json, or saved JSON of "
        "the Civitai API; none: those collected before, for what has changed",
    )
    parser.add_argument(
        "--as",
        dest="source_name",
        default="",
        metavar="NAME",
        help="name of the source; a known one has moved here",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="where a table's images lie (default: image or images near it)",
    )
    parser.add_argument(
        "--no-sidecar", action="store_true", help="do not read .txt files beside the pictures"
    )
    parser.add_argument(
        "--min-side", type=int, default=chosen.min_side, help=f"shorter side, pixels ({chosen.min_side})"
    )
    parser.add_argument(
        "--near-duplicates",
        type=_distance,
        default=chosen.near_distance,
        metavar="BITS",
        help=f"drop pictures whose perceptual hashes differ by so many of 64 bits or fewer, 0 to "
        f"{MAX_DISTANCE}, or 'off' ({chosen.near_distance})",
    )
    parser.add_argument(
        "--drop-rating",
        action="append",
        default=[],
        metavar="LIST",
        help="drop pictures of these ratings, as Mature,X",
    )
    parser.add_argument(
        "--drop-nsfw", action="store_true", help="drop pictures that their source marks as nsfw"
    )
    parser.add_argument(
        "--clean-prompts",
        action=argparse.BooleanOptionalAction,
        default=chosen.clean_prompts,
        help="take <lora:..>, weights, BREAK and embeddings out of the elaborate prompt (on)",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="threads that read (default: one for each core)"
    )


def settings_of(options: argparse.Namespace) -> CollectSettings:
    """Raises ValueError: a value out of its range."""
    if options.workers < 0:
        raise ValueError(f"--workers must be 0 or more, found {options.workers}")
    words = [word.strip() for value in options.drop_rating for word in value.split(",")]
    return CollectSettings(
        name=options.source_name,
        images=options.images,
        sidecar=not options.no_sidecar,
        select=SelectSettings(
            min_side=options.min_side,
            near_distance=options.near_duplicates,
            drop_ratings=tuple(filter(None, words)),
            drop_nsfw=options.drop_nsfw,
            clean_prompts=options.clean_prompts,
        ),
    )


def run(options: argparse.Namespace) -> int | None:
    settings = settings_of(options)
    with open_work(options) as (manifest, stopped):
        summary = collect(
            manifest,
            options.sources,
            settings,
            workers=options.workers,
            progress=Bars(),
            stopped=stopped,
        )
    # A terminal takes no half characters, which names of files can have.
    print(summary.to_text().encode("utf-8", "backslashreplace").decode())
    if any(found.skipped for found in summary.found):
        print(f"what was skipped: {options.work / SKIPPED_FOLDER}")
    return tell(summary.outcome, "collect")


def _distance(text: str) -> int | None:
    return None if text == "off" else int(text)
