"""CONDITIONING lists: each entry is [embeddings, options]. New lists and new options come out; nothing is
changed in place.

Every entry and every option survives (pooled output, area, mask, control, hooks, sizes, whatever other packs
put there).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..sur_core import SURAdapterBundle
from ..sur_core.conditioning import mismatch, towers_for
from ..sur_core.families import width_words


def map_embeddings(conditioning: list, change: Callable[[torch.Tensor], torch.Tensor]) -> list:
    """The conditioning with ``change`` applied to the embeddings [B, T, D] of every entry."""
    return [new_entry(change(entry[0]), entry) for entry in conditioning]


def new_entry(embeddings: torch.Tensor, like: list, **options) -> list:
    """A new entry like another, with other embeddings and further options."""
    return [embeddings, {**like[1], **options}, *like[2:]]


def check_fit(adapter: SURAdapterBundle, conditioning: list) -> None:
    """Refuse embeddings of another base model family, in words.

    ``adapt`` would run SDXL's CLIP-L tower on SD 1.x embeddings, as both are 768 wide; but they come from
    different layers of CLIP-L. SDXL's CLIP-G tower alone is right for the SDXL refiner (and nothing in a
    CONDITIONING tells the refiner from Stable Cascade, which is as wide).

    Raises:
        AdapterMismatchError
    """
    widths = adapter.passport.widths
    for entry in conditioning:
        used = towers_for(adapter, entry[0])
        if used != list(widths) and used != ["clip_g"]:
            raise mismatch(adapter, f"this CONDITIONING is {width_words(entry[0].shape[-1])}")


def within_range(original: list, adapted: list, start: float, end: float) -> list:
    """The adapted conditioning between two points of sampling, the original before and after.

    An entry that already has a range of its own keeps it: only the overlap is adapted. ComfyUI counts both
    ends of a range as inside, so a step that lies exactly on a border is drawn with the mean of both prompts,
    as with ComfyUI's own timestep ranges. Leaving a gap instead would risk a step without any prompt.

    Args:
        original, adapted: conditionings of the same entries.
        start, end: share of sampling, 0 (first step) to 1 (last step), as from :func:`check_range`.
    """
    result = []
    for before, after in zip(original, adapted, strict=True):
        first, last = _range_of(before[1])
        if start <= first and last <= end and start < end:
            result.append(after)
        elif last <= start or end <= first or start == end:
            result.append(new_entry(before[0], before))
        else:
            for entry, low, high in (
                (before, first, start),
                (after, max(first, start), min(last, end)),
                (before, end, last),
            ):
                if low < high:
                    result.append(new_entry(entry[0], entry, start_percent=low, end_percent=high))
    return result


def check_range(start: float, end: float) -> None:
    """Raises ``ValueError`` if a range of sampling is upside down or outside 0..1."""
    if not 0 <= start <= end <= 1:
        raise ValueError(
            "start_percent must not lie after end_percent, both from 0 to 1; "
            f"found start {start} and end {end}"
        )


def _range_of(options: dict) -> tuple[float, float]:
    """When an entry is active, 0..1: its own range within that of its CLIP hooks, as ComfyUI samples."""
    first = max(options.get("start_percent", 0.0), options.get("clip_start_percent", 0.0))
    last = min(options.get("end_percent", 1.0), options.get("clip_end_percent", 1.0))
    return first, last
