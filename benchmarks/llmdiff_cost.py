"""What LLMDiff costs: a step of the UNet with an adapter, and the encoding of a prompt by the language model.

    python benchmarks/llmdiff_cost.py [--quick] [--only step|encoding]

step      one step of SD 1.5's UNet (512 x 512, guidance) with an adapter over the same step without; the
          prompts' keys and values are computed before, as they are once for a picture.
encoding  the block-wise encoding of prompts of 64 tokens over one plain forward of the same model, a Llama of
          12 blocks, 768 wide; and the most bytes of tensors that live during an encoding by 16 blocks over
          the same by 2 (counted, the weights left out).

All weights are random, which takes the same time as trained ones. What is compared takes turns, so that a
change of the machine's speed meets both; the ratio of each turn is taken, and their median and quartiles are
printed. A figure is the largest median.

The last line is one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = ("step", "encoding")


def step(quick: bool, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    from benchmarks.llmdiff_cost_parts.unet import measure_step

    ratios, preparing = measure_step(3 if quick else 9, device, dtype, edge=32 if quick else 64)
    figure = row("step over plain UNet", ratios)
    print(f"{'preparing two prompts, once a picture':40} {preparing:7.3f} of a plain step")
    return {"step_over_plain_unet": figure}


def encoding(quick: bool, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    from benchmarks.llmdiff_cost_parts.encoding import DEEP, SHALLOW, measure_encoding, measure_peaks

    figures = []
    for batch in (1,) if quick else (1, 4):
        ratios = measure_encoding(7 if quick else 25, batch, device, dtype)
        figures.append(row(f"encode over LLM forward, {batch} prompts", ratios))
    shallow, deep = measure_peaks()
    print(f"{f'peak bytes, {DEEP} blocks over {SHALLOW}':40} {deep / shallow:7.3f} ({deep} over {shallow})")
    return {
        "encode_over_llm_forward": max(figures),
        "peak_bytes_ratio_deep_over_shallow": round(deep / shallow, 3),
    }


def row(name: str, ratios: list[float]) -> float:
    """Print a line of the table; returns the median."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    print(f"{name:40} {middle:7.3f} {low:7.3f}-{high:.3f}", flush=True)
    return round(middle, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns, smaller pictures")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    print(f"{device}, {dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':40} {'median':>7} {'quartiles':>15}")
    figures = {}
    for part, measure in (("step", step), ("encoding", encoding)):
        if options.only in (None, part):
            figures |= measure(options.quick, device, dtype)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
