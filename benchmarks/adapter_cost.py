"""What an adapter costs: its time beside the text encoder's, and what the pack adds to ComfyUI's start.

    python benchmarks/adapter_cost.py [--quick]

1. ``adapt`` over one encoding by CLIP-L (transformers' CLIPTextModel, full size, random weights) at the same
   batch, on this machine's CPU, or its GPU if it has one. The two take turns, so that a change of the
   machine's speed meets both; the ratio of each turn is taken, and their median and quartiles are printed.
   The figure is the largest median.
2. The import of the pack in a process that has already imported what ComfyUI imports (COMFYUI_TEST_HOME names
   the ComfyUI; without one this figure is null).

The last line is one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sur_core import adapt, new_adapter  # noqa: E402

IMPORT = """
import asyncio, sys, time
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, ".")
import comfy.options; comfy.options.enable_args_parsing()
import nodes, comfy.sd
asyncio.run(nodes.init_builtin_extra_nodes())
start = time.perf_counter()
assert asyncio.run(nodes.load_custom_node(PACK)) and "SURLoadAdapter" in nodes.NODE_CLASS_MAPPINGS
print("seconds", time.perf_counter() - start)
"""


def text_encoder(device: torch.device) -> torch.nn.Module:
    """CLIP-L's text model at SD 1.5's size; random weights take the same time as trained ones."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        num_hidden_layers=12,
        projection_dim=768,
    )
    return CLIPTextModel(config).eval().to(device)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_adapt(batches: list[int], turns: int, device: torch.device) -> dict[tuple[str, int], list[float]]:
    """Ratio adapt / encode of every turn, for each adapter layout and batch."""
    encoder = text_encoder(device)
    authors = {"token_mixing": "none", "query_projection": True}
    adapters = {
        "paper": new_adapter("sd1").freeze().to(device),
        "authors' format": new_adapter("sd1", **authors).freeze().to(device),
    }
    ratios: dict[tuple[str, int], list[float]] = {}
    with torch.inference_mode():
        for batch in batches:
            tokens = torch.randint(0, 49000, (batch, 77), device=device)
            hidden = encoder(tokens).last_hidden_state
            for adapter in adapters.values():
                adapt(adapter, hidden, 0.5)
            for _ in range(turns):
                for name, adapter in adapters.items():
                    start = clock(device)
                    encoder(tokens)
                    middle = clock(device)
                    adapt(adapter, hidden, 0.5)
                    ratios.setdefault((name, batch), []).append((clock(device) - middle) / (middle - start))
    return ratios


def measure_import(turns: int) -> list[float] | None:
    """Seconds that loading the pack adds to ComfyUI's start, once for each fresh process; None without a
    ComfyUI.
    """
    home = Path(os.environ.get("COMFYUI_TEST_HOME", "~/.cache/comfyui-test")).expanduser()
    python = home / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"import of the pack: not measured, there is no ComfyUI at {home}")
        return None
    seconds = []
    for _ in range(turns):
        code = IMPORT.replace("PACK", repr(str(ROOT)))
        done = subprocess.run(
            [python, "-c", code], cwd=home / "ComfyUI", capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout.rsplit("seconds", 1)[1]))
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns and batches")
    quick = parser.parse_args().quick
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    print(f"adapt over CLIP-L encode, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'layout':16} {'batch':>5} {'median':>7} {'quartiles':>15}")
    ratios = measure_adapt([1, 2] if quick else [1, 2, 4, 8], 9 if quick else 25, device)
    for (name, batch), values in ratios.items():
        low, middle, high = quartiles(values)
        print(f"{name:16} {batch:5} {middle:7.3f} {low:7.3f}-{high:.3f}")

    imports = measure_import(3 if quick else 7)
    if imports:
        low, middle, high = quartiles(imports)
        print(f"import of the pack in ComfyUI: median {middle:.3f} s, quartiles {low:.3f}-{high:.3f}")
    figures = {
        "adapt_over_clip_encode": round(max(statistics.median(values) for values in ratios.values()), 3),
        "pack_import_seconds": round(statistics.median(imports), 3) if imports else None,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
