"""CONDITIONING lists: each entry is [embeddings, options]. New lists and new options come out; nothing is
changed in place.

Every entry and every option survives (pooled output, area, mask, control, hooks, sizes, whatever other packs
put there).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..sur_core import AdapterMismatchError, SURAdapterBundle
from ..sur_core.conditioning import towers_for
from ..sur_core.families import width_words


def map_embeddings(conditioning: list, change: Callable[[torch.Tensor], torch.Tensor]) -> list:
    """The conditioning with ``change`` applied to the embeddings [B, T, D] of every entry."""
    return [[change(embeddings), options.copy()] for embeddings, options in conditioning]


def check_fit(adapter: SURAdapterBundle, conditioning: list) -> None:
    """Refuse embeddings of another base model family, in words.

    ``adapt`` would run SDXL's CLIP-L tower on SD 1.x embeddings, as both are 768 wide; but they come from
    different layers of CLIP-L. SDXL's CLIP-G tower alone is right for the SDXL refiner.

    Raises:
        AdapterMismatchError
    """
    widths = adapter.passport.widths
    for embeddings, _ in conditioning:
        used = towers_for(adapter, embeddings)
        if used != list(widths) and used != ["clip_g"]:
            raise AdapterMismatchError(
                f"{adapter.source} was trained for {adapter.family_words}; this CONDITIONING is "
                f"{width_words(embeddings.shape[-1])}. Load an adapter made for this base model, or use the "
                "checkpoint the adapter was made for"
            )


def within_range(original: list, adapted: list, start: float, end: float) -> list:
    """The adapted conditioning between two points of sampling, the original before and after.

    An entry that already has a range of its own keeps it: only the overlap is adapted.

    Args:
        original, adapted: conditionings of the same entries.
        start, end: share of sampling, 0 (first step) to 1 (last step).

    Raises:
        ValueError: the range is upside down or outside 0..1.
    """
    if not 0 <= start <= end <= 1:
        raise ValueError(
            f"start_percent must not lie after end_percent, both from 0 to 1; found start {start} and end "
            f"{end}"
        )
    if (start, end) == (0, 1):
        return adapted
    result = []
    for before, after in zip(original, adapted, strict=True):
        first, last = _range_of(before[1])
        for entry, low, high in (
            (before, first, min(last, start)),
            (after, max(first, start), min(last, end)),
            (before, max(first, end), last),
        ):
            if (low, high) == (first, last):
                result.append([entry[0], entry[1].copy()])
            elif low < high:
                result.append([entry[0], {**entry[1], "start_percent": low, "end_percent": high}])
    return result


def _range_of(options: dict) -> tuple[float, float]:
    """When an entry is active, 0..1: its own range within that of its CLIP hooks, as ComfyUI's sampler reads
    them.
    """
    first = max(options.get("start_percent", 0.0), options.get("clip_start_percent", 0.0))
    last = min(options.get("end_percent", 1.0), options.get("clip_end_percent", 1.0))
    return first, last
