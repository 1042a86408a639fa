"""Raise the tiny models of the small world from seeds, write its test prompts, or say what is there."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rebuild", action="store_true", help="raise the models anew; after a stop, the same command goes on"
    )
    parser.add_argument(
        "--work-dir", default="runs/world", metavar="DIR", help="checkpoints and pictures (runs/world)"
    )
    parser.add_argument(
        "--models", metavar="DIR", help="where the models are, and go (small_world/models of this project)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    parser.add_argument(
        "--prompts", metavar="DIR", help="only write the test prompts, anew from their seeds, into DIR"
    )


def run(options: argparse.Namespace) -> None:
    from small_world.places import Models

    if options.prompts:
        _write_prompts(Path(options.prompts))
        return
    models = Models(Path(options.models)) if options.models else Models()
    if options.rebuild:
        _rebuild(models, options)
    else:
        models.check()
    for file in sorted(models.root.rglob("*.safetensors")):
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file}")


def _write_prompts(folder: Path) -> None:
    from small_world.dataset import write_prompt_sets

    folder.mkdir(parents=True, exist_ok=True)
    for path in write_prompt_sets(folder):
        print(path)


def _rebuild(models, options: argparse.Namespace) -> None:
    import torch

    from small_world.making.world import raise_world

    from .common import Bars, quiet_libraries

    quiet_libraries("diffusers", "transformers")
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    raise_world(Path(options.work_dir), models.root, Bars(), torch.device(name))
    print(f"the language model knows {_facts_known(models.llm):.1%} of the world's facts")


def _facts_known(folder: Path) -> float:
    from transformers import AutoTokenizer, LlamaForCausalLM

    from small_world.making.llm import facts_known

    model = LlamaForCausalLM.from_pretrained(folder).float().eval()
    return facts_known(model, AutoTokenizer.from_pretrained(folder))
