"""Ask CLIP whether the plain prompt fits at least as well as the elaborate one.

CLIP scores both prompts of every picture, and a rule decides who stays. Scores are kept: with another --rule
or --threshold the same command only judges again. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter

from sur_core.surd_build.captions import check_collected
from sur_core.surd_build.clean import apply_rule, captioned_samples, score_samples
from sur_core.surd_build.clip_scores import CLIP, LONG, check_clip
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.model_source import find_model
from sur_core.surd_build.rules import RULES, check_rule

from ..common import Bars, all_processes, quiet_libraries
from .common import STOPPED, add_work_folder, open_work, tell
from .models import add_model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    add_model_arguments(parser, CLIP, batch_size=64)
    parser.add_argument(
        "--rule",
        choices=RULES,
        default="paper",
        help="paper: the plain prompt's score is not lower (default); threshold: it is at least --threshold; "
        "off: all stay",
    )
    parser.add_argument("--threshold", type=float, help="from 0 to 1, of the plain prompt's score")
    parser.add_argument(
        "--long",
        choices=LONG,
        default="first",
        help="prompts beyond CLIP's 77 tokens: their beginning (default), or the mean of their parts",
    )


def run(options: argparse.Namespace) -> int | None:
    check_rule(options.rule, options.threshold)
    check_collected(options.work)
    source = find_model(options.model, check_clip, options.revision, options.local_files_only)
    quiet_libraries("transformers")
    processes, device = all_processes(options.device)
    with open_work(options, processes) as (manifest, stopped), Bars(processes.is_main) as bars:
        outcome = score_samples(
            manifest,
            source,
            options.long,
            device=device,
            batch_size=options.batch_size,
            threads=options.threads,
            processes=processes,
            progress=bars,
            stopped=stopped,
        )
        if outcome.finished and processes.is_main:
            changed = apply_rule(manifest, options.rule, options.threshold)
            _summarise(manifest, options, changed)
        processes.barrier()  # the next step's processes must all read the verdicts
        if not processes.is_main:
            return None if outcome.finished else STOPPED
        return tell(outcome, f"clean with {source.name}")


def _summarise(manifest: Manifest, options: argparse.Namespace, changed: int) -> None:
    samples = captioned_samples(manifest)
    scored = [sample.scores for sample in samples if "simple_score" in sample.scores]
    if scored:
        values = [scores["simple_score"] for scores in scored]
        cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
        low, quarter, middle, three, high = (cuts[place] for place in (0, 4, 9, 14, 18))
        below = sum(scores["simple_cosine"] < scores["complex_cosine"] for scores in scored)
        print(
            f"score of the plain prompt: median {middle:.3f}, half in {quarter:.3f} to {three:.3f}, "
            f"90% in {low:.3f} to {high:.3f}; {below:,} of {len(values):,} lower than the elaborate one's"
        )
    if long := sum(scores["complex_tokens"] > 77 for scores in scored):
        how = "their beginning was" if options.long == "first" else "all parts were"
        print(f"{long:,} elaborate prompts have more than 77 tokens; {how} read")
    lost = Counter(sample.dropped[1].partition(":")[0] for sample in samples if sample.dropped)
    kept = len(samples) - lost.total()
    print(f"rule {options.rule}: kept {kept:,} of {len(samples):,}; {changed:,} verdicts are new")
    for reason, count in lost.most_common():
        print(f"dropped: {reason} {count:,}")
