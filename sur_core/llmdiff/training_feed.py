"""LLMDiff's part of a batch: a prompt, what the language model makes of it, the noise of Eq. 3."""

from __future__ import annotations

import numpy as np
import torch

from ..feed import Feed, Item
from ..randomness import counted_generator
from .objective import LLMDiffBatch


class LLMDiffFeed(Feed):
    """:class:`..feed.Feed` whose batches are :class:`.objective.LLMDiffBatch`."""

    def _read_prompts(self, item: Item, part: str) -> None:
        column, encodings = self._drawn_column(item, part), self.data.encodings
        if column:
            item.simple = self._prompt(item.sample, column)
            item.encoding = encodings.read(int(encodings.places[column][item.sample]))
        else:
            texts = self.data.texts
            item.simple = "" if texts is None else texts.rows.read(self.data.more_texts[""])
            item.encoding = encodings.read(encodings.more[""])
        if part == "train":
            generator = counted_generator(self.config.seed, "langevin", *item.counts)
            item.draws["langevin"] = torch.randn(item.encoding.shape[1:], generator=generator)

    def _drawn_column(self, item: Item, part: str) -> str:
        """``"simple"`` or ``"complex"``; ``""`` is the empty prompt."""
        counts = item.counts if part == "train" else (item.sample,)
        generator = counted_generator(self.config.seed, f"prompt {part}", *counts)
        empty, either = torch.rand(2, generator=generator).tolist()
        if part == "train" and empty < self.config.prompt_dropout:
            return ""
        chosen = self.config.llmdiff_prompt
        return ("simple", "complex")[either >= 0.5] if chosen == "both" else chosen

    def collate(self, items: list[Item], dropout: float) -> LLMDiffBatch:
        """As :class:`..feed.Feed`'s; the adapter has no dropout."""
        batch = LLMDiffBatch(**vars(super().collate(items, 0.0)))
        lengths = torch.tensor([item.encoding.shape[1] for item in items])
        longest = int(lengths.max())
        batch.updates = self._tensor([_padded(item.encoding, longest) for item in items])
        if (lengths < longest).any():
            batch.heard = (torch.arange(longest) < lengths[:, None])[:, None, None].to(self.device)
        if "langevin" in items[0].draws:
            noises = [item.draws["langevin"] for item in items]
            batch.langevin = torch.nn.utils.rnn.pad_sequence(noises, batch_first=True).to(self.device)
        return batch


def _padded(updates: np.ndarray, length: int) -> np.ndarray:
    """[T + 1, n, D] -> [T + 1, length, D], with zeros behind."""
    return np.pad(updates, ((0, 0), (0, length - updates.shape[1]), (0, 0)))
