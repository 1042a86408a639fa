"""What the SUR-adapter does where the truth is known: every table of the paper that a small world can have.

    python benchmarks/small_world.py [--quick] [--only main quality ...] [--seeds 0 1 2]

Trains adapters on SURD-Shapes as the demo does, one for each training seed, and others that differ in one
thing; draws the test prompts, lets the exact judge count, and writes RESULTS.md and small_world.json. It
takes hours on a CPU. Stop it at any time: the same command goes on, with what was trained and drawn.

    main      base and SUR by type                     terms     LLM and complex-prompt terms on and off
    quality   KID, CLIP Score, cosine                  start     phi_1 at zero, normal random, Kaiming
    eta       strengths of main's adapters             stages    align only, full only, both: equal compute
    value     Eq. 6 as in the paper, and extended      authors   the authors' code against their paper
    layers    layer of the language model              llmdiff   LLMDiff-Adapters beside SUR

Prints the first table, and as its last line one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.small_world_arms.plan import GROUPS, Plan  # noqa: E402
from small_world.places import Models  # noqa: E402


def make_plan(options: argparse.Namespace) -> Plan:
    plan = Plan(models=Models(options.models)) if options.models else Plan()
    if options.quick:
        plan = plan.quick(Path("runs/small_world-quick"))
    given = {
        "work_dir": options.work_dir,
        "page": options.page,
        "figures": options.figures,
        "groups": tuple(name for name in GROUPS if name in options.only),
        "training_seeds": tuple(options.seeds or ()),
    }
    if options.quick and options.work_dir:
        plan = plan.quick(options.work_dir)
    return replace(plan, **{name: value for name, value in given.items() if value})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="every table, too little training to show anything")
    add("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help="only these groups")
    add("--seeds", nargs="+", type=int, metavar="N", help="training seeds (0 1 2; quick: 0)")
    add("--models", type=Path, metavar="DIR", help="with base, clip and llm (those of the repository)")
    add("--work-dir", type=Path, metavar="DIR", help="(runs/small_world; quick: runs/small_world-quick)")
    add("--page", type=Path, metavar="FILE", help="(RESULTS.md; quick: in the work folder)")
    add("--figures", type=Path, metavar="FILE", help="(benchmarks/small_world.json; quick: work folder)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parse(arguments)
    from benchmarks.small_world_arms.study import Study
    from benchmarks.small_world_arms.tables import gain_table
    from sur_core.evaluation import EvaluationStopped
    from sur_core.training import Stopped
    from train.common import Bars, quiet_libraries

    quiet_libraries("diffusers", "transformers")
    try:
        figures = Study(make_plan(options), lambda line: print(line, flush=True), Bars()).run()
    except (Stopped, EvaluationStopped) as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if "main" in figures["tables"]:
        print(gain_table(figures["tables"]["main"]))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
