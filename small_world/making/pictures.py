"""Pictures of chance to raise models on, rendered once and kept in the work folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sur_core.atomic import atomic_write

from ..dice import Dice
from ..render import SIZE, render
from ..scenes import TYPES, Meaning, Scene, meanings, place

SHARES = {"counting": 9, "color": 5, "action": 4}  # counting is the hardest to learn


def scene_of(index: int, seed: int) -> Scene:
    """Scene number ``index`` of the stream ``seed``; every meaning of its type is equally likely."""
    dice = Dice("scene", seed, index)
    turn = index % sum(SHARES.values())
    for type in TYPES:
        turn -= SHARES[type]
        if turn < 0:
            return place(dice.pick(_MEANINGS[type]), dice)
    raise AssertionError("the shares cover every turn")


_MEANINGS: dict[str, list[Meaning]] = {type: meanings(type) for type in TYPES}


def pictures(folder: Path, count: int, seed: int, report: Callable[[str, int, int], None]) -> np.ndarray:
    """Scenes 0..count - 1 of a stream as uint8 [count, 64, 64, 3], mapped from a file in ``folder``."""
    path = folder / f"pictures-{seed}-{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        drawn = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
        for index in range(count):
            drawn[index] = render(scene_of(index, seed))
            report("scenes", index + 1, count)
        with atomic_write(path) as file:
            np.save(file, drawn)
    return np.load(path, mmap_mode="r")


def as_images(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in -1..1, as a VAE reads them."""
    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
