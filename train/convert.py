"""Turn an adapter file, such as the authors' .pt, into a .safetensors with a passport.

Given two files of the authors' format for SDXL's two text encoders (768 and 1280 wide), it makes one SDXL
adapter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sur_core import join_towers, load_adapter, read_passport, save_adapter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", type=Path, nargs="+", help="adapter file to read, one for each text encoder"
    )
    parser.add_argument("target", type=Path, help=".safetensors file to write")
    parser.add_argument("--eta", type=float, help="eta used in training, if the file does not store it")
    parser.add_argument("--base-model", help="model it was trained on, such as 'Realistic Vision V2.0'")
    parser.add_argument("--title", help="a name for people (default: the source's)")
    parser.add_argument("--overwrite", action="store_true", help="replace the target if it exists")


def run(options: argparse.Namespace) -> None:
    if options.target.exists() and not options.overwrite:
        raise FileExistsError(f"{options.target} is already there; choose another name or add --overwrite")
    fields = {"base_model": options.base_model, "title": options.title}
    known = {name: value for name, value in fields.items() if value is not None}
    adapters = [load_adapter(source, options.eta) for source in options.sources]
    for source, adapter in zip(options.sources, adapters, strict=True):
        if options.eta not in (None, adapter.passport.eta):
            raise ValueError(
                f"{source} says it was trained with eta {adapter.passport.eta:g}; leave --eta out"
            )
    save_adapter(adapters[0] if len(adapters) == 1 else join_towers(adapters), options.target, **known)
    print(f"{options.target}\n{read_passport(options.target).to_text()}")
