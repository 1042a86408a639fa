"""Pictures of chance to raise models on, rendered once and kept in the work folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..dice import Dice
from ..render import SIZE, render
from ..scenes import TYPES, Meaning, Scene, meanings, place
from .kept import digest, kept

EVEN = {"counting": 9, "color": 5, "action": 4}  # by how hard they are to learn at first


@dataclass(frozen=True)
class Pool:
    """A numbered stream of scenes.

    Attributes:
        stream: its number; pools of one stream and the same shares have the same scenes.
        count: how many scenes.
        shares: how many scenes of each type follow one another.
    """

    stream: int
    count: int
    shares: Mapping[str, int] = field(default_factory=lambda: dict(EVEN))

    def scene(self, index: int) -> Scene:
        """Scene number ``index``; every meaning of its type is equally likely."""
        dice = Dice("scene", self.stream, index)
        turn = index % sum(self.shares.values())
        for type in TYPES:
            turn -= self.shares[type]
            if turn < 0:
                return place(dice.pick(_MEANINGS[type]), dice)
        raise AssertionError("the shares cover every turn")

    def name(self) -> str:
        """A name no other scenes have: also when the way they are placed or drawn changes."""
        first = [render(self.scene(index)) for index in range(min(64, self.count))]
        return f"{self.stream}-{self.count}-{digest(dict(self.shares), *first)}"

    def pictures(self, folder: Path, report: Callable[[str, int, int], None]) -> np.ndarray:
        """All scenes as uint8 [count, 64, 64, 3], mapped from a file in ``folder``."""

        def parts():
            for start in range(0, self.count, 256):
                part = range(start, min(start + 256, self.count))
                yield np.stack([render(self.scene(index)) for index in part])
                report("scenes", part[-1] + 1, self.count)

        shape = (self.count, SIZE, SIZE, 3)
        return kept(folder / f"pictures-{self.name()}.npy", parts, shape, np.uint8)


_MEANINGS: dict[str, list[Meaning]] = {type: meanings(type) for type in TYPES}


def as_images(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in -1..1, as a VAE reads them."""
    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
