"""New adapters from old ones: a weighted sum of adapters of one shape, or towers put side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from .bundle import SURAdapterBundle
from .errors import AdapterMismatchError
from .passport import Passport

MERGED = "merged adapter"
"""What a merge has for a file name until it is saved."""


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
        # In float64, so that merging an adapter with itself gives it back exactly; on the CPU, because not
        # every device has float64.
        merged = {
            key: sum(
                weight * state[key].cpu().double() for weight, state in zip(weights, states, strict=True)
            ).float()
            for key in states[0]
        }
        with torch.device("meta"):
            result = SURAdapterBundle(_merged_passport(adapters, weights), source=MERGED)
        result.load_state_dict(merged, assign=True)
    return result.freeze()


def join_towers(adapters: Sequence[SURAdapterBundle]) -> SURAdapterBundle:
    """Put adapters of different text encoders into one: two files of the authors' format, 768 and 1280 wide,
    make an adapter for SDXL. The parts are copied.

    Raises:
        AdapterMismatchError: two adapters have the same tower, or no base model has these encoders together.
    """
    towers = {name: tower for adapter in adapters for name, tower in adapter.towers.items()}
    names = [name for adapter in adapters for name in adapter.towers]
    try:
        if len(towers) < len(names):
            raise ValueError(f"a text encoder is there twice: {sorted(names)}")
        configs = {name: tower.config for name, tower in towers.items()}
        passport = Passport(towers=configs, **_common([adapter.passport for adapter in adapters]))
    except ValueError as error:
        sources = ", ".join(adapter.source for adapter in adapters)
        raise AdapterMismatchError(f"these adapters do not belong together ({sources}): {error}") from error
    with torch.device("meta"):
        result = SURAdapterBundle(passport, source="joined adapter")
    for name, tower in towers.items():
        result.towers[name] = copy.deepcopy(tower)
    return result.freeze()


def _merged_passport(adapters: list[SURAdapterBundle], weights: list[float]) -> Passport:
    parents = []
    for adapter, weight in zip(adapters, weights, strict=True):
        if adapter.source == MERGED:  # never a file of its own: its parents are the ones to name
            old = adapter.passport.parents
            parents += [{"name": parent["name"], "weight": weight * parent["weight"]} for parent in old]
        else:
            parents.append({"name": _file_name(adapter), "weight": weight})
    common = _common([adapter.passport for adapter in adapters])
    return Passport(towers=adapters[0].passport.towers, parents=tuple(parents), **common)


def _common(passports: list[Passport]) -> dict:
    """The fields that all passports agree on, but for those that belong to one file."""
    own = {"towers", "parents", "title", "created", "extra"}
    names = [field.name for field in fields(Passport) if field.name not in own]
    first = passports[0]
    common = {name: getattr(first, name) for name in names}
    for other in passports[1:]:
        common = {name: value for name, value in common.items() if getattr(other, name) == value}
    extra = dict(set.intersection(*(set(passport.extra.items()) for passport in passports)))
    return {**common, "extra": extra}


def _file_name(adapter: SURAdapterBundle) -> str:
    """The authors' files are all called adapter.pt or so; it is the folder that tells them apart."""
    path = Path(adapter.source)
    return f"{path.parent.name}/{path.name}" if adapter.passport.source_format == "authors" else path.name
