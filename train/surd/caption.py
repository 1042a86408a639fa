"""Write a plain prompt for every picture with an image-to-text model.

Any image-to-text model of transformers will do: BLIP as in the paper, GIT, or a chat model that sees.
Pictures that came with a plain prompt keep it unless --all is given. Stop it at any time; the same command
goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter

from sur_core.surd_build.captioner import BLIP, CHAT_PROMPT, Decoding, check_captioner
from sur_core.surd_build.captions import caption_samples, check_collected, selected_samples
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.model_source import find_model
from sur_core.surd_build.samples import CAPTION

from ..common import Bars, all_processes, quiet_libraries
from .common import STOPPED, add_work_folder, open_work, tell
from .models import add_model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    add_model_arguments(parser, BLIP, batch_size=16)
    parser.add_argument(
        "--prompt",
        default="",
        help="BLIP, GIT: the caption's beginning, which is not kept; chat models: the request "
        f"(default: {CHAT_PROMPT!r})",
    )
    parser.add_argument("--max-new-tokens", type=int, default=40, help="longest caption (40)")
    parser.add_argument("--min-new-tokens", type=int, default=0, help="shortest caption (0)")
    parser.add_argument("--beams", type=int, default=1, help="1: the likeliest token each time (default)")
    parser.add_argument("--dtype", choices=("auto", "fp32", "fp16", "bf16"), default="auto")
    parser.add_argument(
        "--all", action="store_true", help="caption also pictures with a plain prompt, and use the captions"
    )


def run(options: argparse.Namespace) -> int | None:
    check_collected(options.work)
    source = find_model(options.model, check_captioner, options.revision, options.local_files_only)
    quiet_libraries("transformers")
    decoding = Decoding(options.prompt, options.max_new_tokens, options.min_new_tokens, options.beams)
    processes, device = all_processes(options.device)
    with open_work(options, processes) as (manifest, stopped), Bars(processes.is_main) as bars:
        outcome = caption_samples(
            manifest,
            source,
            decoding,
            dtype=options.dtype,
            device=device,
            batch_size=options.batch_size,
            threads=options.threads,
            everything=options.all,
            processes=processes,
            progress=bars,
            stopped=stopped,
        )
        if not processes.is_main:
            return None if outcome.finished else STOPPED
        if outcome.finished:
            _summarise(manifest)
        return tell(outcome, f"caption with {source.name}")


def _summarise(manifest: Manifest) -> None:
    samples = selected_samples(manifest)
    lengths = [len(sample.simple.split()) for sample in samples if sample.simple]
    print(f"{len(lengths):,} of {len(samples):,} pictures have a plain prompt", end="")
    if lengths:
        middle = statistics.median(lengths)
        print(f" of {min(lengths)} to {max(lengths)} words, median {middle:g}", end="")
    print()
    records = [manifest.record(CAPTION, sample.id) or {} for sample in samples if not sample.simple]
    reasons = Counter(record.get("dropped", "no caption").partition(":")[0] for record in records)
    for reason, count in reasons.most_common():
        print(f"dropped: {reason} {count:,}")
