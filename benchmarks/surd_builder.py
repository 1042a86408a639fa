"""What making a SURD costs: collecting pictures, and what batches save when captioning and cleaning.

    python benchmarks/surd_builder.py [--quick] [--only collecting|models]

collect   the whole step on 512 x 512 files, from walking the folder to the choice of samples; every file is
          read once and decoded once. Rates are of core-seconds, so that other programs count for little; how
          fast Pillow alone decodes the same files is printed beside them. The figure is one thread's.
caption   one picture at a time against batches, with models of random weights.
clean     the same.

The last line is one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = ("collecting", "models")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pictures and turns")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    options = parser.parse_args()
    figures = {}
    for part in [options.only] if options.only else PARTS:
        found = importlib.import_module(f"benchmarks.surd_builder_parts.{part}").measure(options.quick)
        figures |= {
            name: value["median"] if isinstance(value, dict) else value for name, value in found.items()
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
