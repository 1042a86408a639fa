"""Write the data set in the layout that training reads, with a data card.

Only what is not there yet is written, so an export can be stopped, and done again after more was reviewed.
With --llm the vectors that training distils from are computed as well.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from sur_core.images import CROPS
from sur_core.stop_signals import StopSignals
from sur_core.surd_build.captions import check_collected
from sur_core.surd_build.export import FORMATS, LAYOUTS, Exported, ExportSettings, export
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.shell import as_typed

from .. import vectors
from ..common import Bars
from .common import STOPPED, add_work_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    parser.add_argument("out", type=Path, help="folder of the data set: new, empty, or of an earlier export")
    parser.add_argument("--resolution", type=int, default=512, help="side in pixels (512); 0: as they are")
    parser.add_argument(
        "--crop",
        choices=CROPS,
        default="center",
        help="center: the middle square (default); squash: all of it, out of proportion",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="authors",
        help="authors: image files and metadata.jsonl (default); parquet: images inside the table",
    )
    parser.add_argument(
        "--image-format",
        choices=FORMATS,
        default="png",
        help="png (default) loses nothing; original: each picture's own of PNG, JPEG, WebP. JPEG and WebP "
        "are written at quality 95; metadata of the originals is never copied",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (one a core)")
    parser.add_argument("--llm", help="folder or name of a language model: compute vectors, too")
    parser.add_argument("--layer", type=int, help="of the language model, as the vectors command counts")
    parser.add_argument(
        "--vectors-device", default="auto", metavar="DEVICE", help="for --llm, such as cuda:1 or cpu"
    )


def run(options: argparse.Namespace) -> int | None:
    check_collected(options.work)
    settings = ExportSettings(options.resolution, options.crop, options.layout, options.image_format)
    with StopSignals() as signals:
        done = export(
            Manifest(options.work),
            options.out,
            settings,
            workers=options.workers,
            progress=Bars(),
            stopped=lambda: signals.received,
        )
    _tell(done, options.out)
    if not done.finished:
        return STOPPED
    command = _vectors_command(options)
    if options.llm:
        return _vectors(command)
    print("vectors of a language model, which training distils from:")
    print("  python -m train vectors " + as_typed(command))
    return None


def _tell(done: Exported, out: Path) -> None:
    for reason, count in sorted(done.others.items()):
        print(f"not exported, {reason}: {count:,}")
    for note in done.notes:
        print(note)
    if not done.finished:
        print(f"export: stopped after {done.made:,} files; the same command goes on where it was")
        return
    print(
        f"{out}: {done.rows:,} samples; {done.made:,} files written, {done.kept:,} were there already, "
        f"{done.removed:,} removed"
    )


def _vectors_command(options: argparse.Namespace) -> list[str]:
    """Arguments of the vectors command for this export."""
    layer = -1 if options.layer is None else options.layer
    llm = options.llm or "MODEL"
    short = re.sub(r"[^\w.-]+", "-", Path(llm).name or "model")
    target = options.out / "vectors" / f"{short}-layer{layer}.safetensors"
    device = [] if options.vectors_device == "auto" else ["--device", options.vectors_device]
    return [str(options.out), str(target), "--llm", llm, f"--layer={layer}", *device]


def _vectors(command: list[str]) -> int | None:
    parser = argparse.ArgumentParser(prog="python -m train vectors")
    vectors.add_arguments(parser)
    return vectors.run(parser.parse_args(command))
