"""The files of the authors' public code (Qrange-group/SUR-adapter) in this library's terms.

A file is a bare ``state_dict`` of 48 tensors. Used at inference are the encoder's layers, the query and key
layers, the output layer and ``fc``; never used are ``encoder_layer`` (a template the encoder was copied from)
and ``value_layer`` (V is the input itself). Their encoder sees a single prompt token by token, hence
``token_mixing="none"``.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from .adapter import SURAdapterConfig
from .families import tower_for_width
from .passport import Passport

HEADS = 8
"""Attention heads of their encoder: a constant of their code that no shape shows."""

_UNUSED = ("encoder_layer.", "attention.value_layer.")
_RENAMED = {
    "transformer_encoder.layers.": "h3.",
    "attention.query_layer.": "query.",
    "attention.key_layer.": "h2.",
    "attention.output_layer.": "h1.",
    "fc.": "g.",
}
_ETA_IN_PATH = re.compile(r"adapterw(\d*\.?\d+(?:e[-+]?\d+)?)(?![\d,])", re.IGNORECASE)


def is_authors_format(keys) -> bool:
    """Whether these tensor names are those of the authors' files."""
    keys = set(keys)
    return "fc.weight" in keys and any(key.startswith("transformer_encoder.layers.") for key in keys)


def convert_tensors(tensors: dict[str, torch.Tensor]) -> tuple[SURAdapterConfig, dict[str, torch.Tensor]]:
    """Their tensors under our names, without the unused ones, and the architecture their shapes show.

    Raises:
        ValueError: a name is unknown, or a shape the architecture is read from is missing or odd.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith(_UNUSED):
            continue
        prefix = next((prefix for prefix in _RENAMED if key.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"unexpected tensor {key!r} in a file of the authors' format")
        renamed[_RENAMED[prefix] + key[len(prefix) :]] = tensor
    layers = {key.split(".")[1] for key in renamed if key.startswith("h3.")}
    if layers != {str(index) for index in range(len(layers))}:
        raise ValueError(
            f"the encoder's layers are numbered {sorted(layers)}, expected 0, 1, ... without a gap"
        )
    try:
        feedforward = int(renamed["h3.0.linear1.weight"].shape[0])
        width = int(renamed["g.weight"].shape[0])
    except (KeyError, IndexError):
        raise ValueError(
            "the tensors transformer_encoder.layers.0.linear1.weight and fc.weight are needed"
        ) from None
    config = SURAdapterConfig(
        width, len(layers), HEADS, feedforward=feedforward, token_mixing="none", query_projection=True
    )
    return config, renamed


def describe(config: SURAdapterConfig, path: Path, eta: float | None) -> Passport:
    """A passport for a file that has none. ``eta`` wins over one found in the path."""
    return Passport(
        towers={tower_for_width(config.width): config},
        source_format="authors",
        title=path.stem,
        eta=eta_in_path(path) if eta is None else eta,
    )


def eta_in_path(path: Path) -> float | None:
    """The eta their demo reads from a folder such as ``test_llm13B_..._adapterw0.1/``: last one in the path,
    or None.
    """
    found = [float(number) for number in _ETA_IN_PATH.findall(str(path))]
    possible = [eta for eta in found if 0 <= eta <= 1]
    return possible[-1] if possible else None
