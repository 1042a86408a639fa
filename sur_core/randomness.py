"""Counted randomness: what is drawn for a sample depends on where it stands, never on what was drawn before.

Every draw has a generator of its own, seeded by a hash of (seed, what for, counts). A training run that was
stopped goes on with the very numbers it would have had, and they do not depend on how many processes or
loader threads share the work.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

import torch


def counted_generator(seed: int, purpose: str, *counts: int, device: str | torch.device = "cpu"):
    """A fresh ``torch.Generator`` that depends on the arguments alone.

    Args:
        seed: of the whole run.
        purpose: ``"noise"``, ``"order"``, ...; draws for different purposes are independent.
        counts: whole numbers that say which draw it is, such as (step, epoch, sample).
        device: where it draws. The numbers of a GPU's generator differ from the CPU's.
    """
    hashed = blake2b(purpose.encode(), digest_size=8, key=struct.pack("<q", seed))
    hashed.update(struct.pack(f"<{len(counts)}q", *counts))
    # Some of torch's generators take 32 bits of the seed only, so the hash must be good in every bit.
    (number,) = struct.unpack("<q", hashed.digest())
    return torch.Generator(device).manual_seed(number)


class SampleOrder:
    """In which order samples are used: a permutation for every epoch, a function of (seed, epoch).

    Position 0, 1, 2, ... is the count of samples used so far by all processes together.
    """

    def __init__(self, size: int, seed: int, purpose: str = "order"):
        if size < 1:
            raise ValueError("there are no samples to put in order")
        self.size, self._seed, self._purpose = size, seed, purpose
        self._known: dict[int, torch.Tensor] = {}

    def __getitem__(self, position: int) -> tuple[int, int]:
        """(epoch, sample) at a position."""
        epoch, place = divmod(position, self.size)
        if epoch not in self._known:
            if len(self._known) > 1:  # a batch can touch two epochs
                self._known.pop(min(self._known))
            generator = counted_generator(self._seed, self._purpose, epoch)
            self._known[epoch] = torch.randperm(self.size, generator=generator)
        return epoch, int(self._known[epoch][place])


class CountedDropout:
    """Dropout masks that belong to samples, so that a sample meets the same ones in any batch."""

    def __init__(self, generators: list[torch.Generator], probability: float):
        """One generator for each sample of the batch; they are drawn from in the order of the calls."""
        self._generators, self.probability = generators, probability

    def masks(self, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
        """For each shape S a float mask [B, *S]: 0 with the probability, otherwise 1 / (1 - probability)."""
        sizes = [torch.Size(shape).numel() for shape in shapes]
        total, keep = sum(sizes), 1.0 - self.probability
        draws = torch.stack(
            [torch.rand(total, generator=g, device=g.device) for g in self._generators]
        )  # [B, total], one draw a sample: many small ones would cost more than the layers themselves
        flat = (draws >= self.probability).to(torch.float32).div_(keep)
        return [part.view(-1, *shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)]
