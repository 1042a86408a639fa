"""A weighted sum of adapters of the same shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from .bundle import SURAdapterBundle
from .errors import AdapterMismatchError
from .passport import Passport


def merge_adapters(adapters: Sequence[SURAdapterBundle], weights: Sequence[float]) -> SURAdapterBundle:
    """Add up adapters tensor by tensor: sum of weights[i] * adapters[i].

    Weights usually sum to 1; other sums scale the result and are allowed. The passport names the parents, and
    keeps what all of them agree on.

    Args:
        adapters: one or more, of the same towers and architecture.
        weights: a finite number for each.

    Raises:
        AdapterMismatchError: the architectures differ.
        ValueError: not one finite weight for each adapter.
    """
    adapters, weights = list(adapters), [float(weight) for weight in weights]
    if not adapters or len(adapters) != len(weights):
        raise ValueError(
            f"expected one weight for each adapter, found {len(adapters)} adapters and {len(weights)} weights"
        )
    if not all(map(math.isfinite, weights)):
        raise ValueError(f"merge weights must be finite numbers, found {weights}")
    first = adapters[0]
    for other in adapters[1:]:
        if other.passport.towers != first.passport.towers:
            raise AdapterMismatchError(
                f"adapters of different shape cannot be merged: {first.source} is for {first.family_words}, "
                f"{other.source} for {other.family_words}"
                + ("" if other.family_words != first.family_words else "; their inner architecture differs")
            )
    with torch.inference_mode(False), torch.no_grad():
        states = [adapter.state_dict() for adapter in adapters]
        # Summed in float64, so that merging an adapter with itself gives it back exactly.
        merged = {
            key: sum(
                weight * state[key].double().cpu() for weight, state in zip(weights, states, strict=True)
            ).float()
            for key in states[0]
        }
        with torch.device("meta"):
            result = SURAdapterBundle(_merged_passport(adapters, weights), source="merged adapter")
        result.load_state_dict(merged, assign=True)
    return result.freeze()


def _merged_passport(adapters: list[SURAdapterBundle], weights: list[float]) -> Passport:
    passports = [adapter.passport for adapter in adapters]
    common = {
        name: getattr(passports[0], name)
        for name in ("base_model", "eta", "llm_name", "llm_layer", "llm_width", "dataset_name")
        if all(getattr(other, name) == getattr(passports[0], name) for other in passports)
    }
    parents = tuple(
        {"name": Path(adapter.source).name, "weight": weight}
        for adapter, weight in zip(adapters, weights, strict=True)
    )
    return Passport(towers=passports[0].towers, source_format="merge", parents=parents, **common)
