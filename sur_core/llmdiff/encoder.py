"""Prompts in, block-wise encodings out: Eq. 3 without its noise, c = c^T + sum over t of g(t) * Delta_t."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..language_model_files import KnowledgeError
from .blockwise import walk
from .config import STARTS
from .llm import OpenedLLM, dtype_words, quoted


class BlockwiseEncoder:
    """A language model as a text encoder.

    A prompt's encoding depends on nothing but the prompt: neither on the others of its batch nor on padding.

    Attributes:
        llm: the language model.
        blocks: their number, T.
        width: features of an encoding, D.
        name: the model's, for people and passports.
        identity: changes when the model's config, tokenizer or weights change.
    """

    def __init__(self, llm: OpenedLLM, batch_tokens: int = 2048):
        """``batch_tokens``: as many tokens, padding counted, run at once; one prompt always does."""
        self.llm, self._batch_tokens = llm, batch_tokens
        self.blocks, self.width = len(llm.blocks), llm.info.width
        self.name, self.identity = llm.info.name, llm.info.identity

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each prompt, the start token first. As :class:`.llm.StartTokenizer`."""
        return self.llm.tokenizer(prompts)

    def encode(
        self, prompts: Sequence[str], block_weights: torch.Tensor | Sequence[float], start: str = "embedding"
    ) -> list[torch.Tensor]:
        """The prompts' encodings.

        Args:
            prompts: texts; an empty one is a start token alone.
            block_weights: g, [T], counted from the input.
            start: ``"embedding"`` begins the sum of Eq. 3 with c^T, the first block's input; ``"zero"``
                without it.

        Returns:
            For each prompt [n, D] on the CPU; float64 for a float64 model, else float32.

        Raises:
            KnowledgeError: a prompt cannot be encoded, or its numbers leave the range of the model's type.
            ValueError: block_weights or start is none.
        """
        weights = self._check_weights(block_weights)
        if start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, found {start!r}")

        def run(ids: torch.Tensor, lengths: list[int]) -> list[torch.Tensor]:
            total = torch.zeros(())

            def add(row: int, value: torch.Tensor) -> None:
                nonlocal total
                if row == 0:
                    total = value.clone() if start == "embedding" else torch.zeros_like(value)
                else:
                    total.add_(value, alpha=weights[row - 1])

            walk(self.llm.model, self.llm.blocks, ids, add)
            # Copies, not views, each of which would keep the whole batch in memory.
            return [part[:length].clone() for part, length in zip(total.cpu(), lengths, strict=True)]

        return self._in_batches(prompts, run)

    def updates(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """What :meth:`encode` sums up, apart, for a training that learns g.

        Returns:
            For each prompt [T + 1, n, D] on the CPU: row 0 is c^T, row t is Delta_t of block t, counted
            from 1 at the input: ``c = rows[0] + (g[:, None, None] * rows[1:]).sum(0)``. Types and errors as
            :meth:`encode`.
        """

        def run(ids: torch.Tensor, lengths: list[int]) -> list[torch.Tensor]:
            rows: list[torch.Tensor] = []

            def keep(row: int, value: torch.Tensor) -> None:
                if row == 0:
                    shapes = [(self.blocks + 1, length, self.width) for length in lengths]
                    rows.extend(value.new_empty(shape, device="cpu") for shape in shapes)
                for place, length in enumerate(lengths):
                    rows[place][row] = value[place, :length]

            walk(self.llm.model, self.llm.blocks, ids, keep)
            return rows

        return self._in_batches(prompts, run)

    def _check_weights(self, weights: torch.Tensor | Sequence[float]) -> list[float]:
        values = torch.as_tensor(weights).detach().double().cpu()
        if values.shape != (self.blocks,):
            raise ValueError(
                f"{self.name} has {self.blocks} blocks and needs as many weights g, found a tensor of shape "
                f"{tuple(values.shape)}. The adapter belongs to another language model"
            )
        if not values.isfinite().all():
            raise ValueError("the block weights g hold NaN or infinite numbers; use another adapter file")
        return values.tolist()

    def _in_batches(
        self, prompts: Sequence[str], run: Callable[[torch.Tensor, list[int]], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Results of ``run(ids [B, n], lengths)`` in the prompts' order; those of about the same length run
        together.
        """
        tokens = self.tokenize(prompts)
        results: list[torch.Tensor | None] = [None] * len(tokens)
        for places in self._batches([len(ids) for ids in tokens]):
            lengths = [len(tokens[place]) for place in places]
            ids = torch.full((len(places), max(lengths)), self.llm.tokenizer.start)
            for row, place in enumerate(places):
                ids[row, : lengths[row]] = torch.tensor(tokens[place])
            self._check_ids(ids)
            for place, result in zip(places, run(ids.to(self.llm.device), lengths), strict=True):
                self._check_finite(prompts[place], result)
                results[place] = result
        return results

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[place] > self._batch_tokens:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _check_ids(self, ids: torch.Tensor) -> None:
        known = self.llm.model.get_input_embeddings().num_embeddings
        if ids.max() >= known:
            raise KnowledgeError(
                f"{self.name}: its tokenizer writes the token {int(ids.max())}, and the model knows {known}. "
                "The tokenizer belongs to another model; download both again"
            )

    def _check_finite(self, prompt: str, encoding: torch.Tensor) -> None:
        if not encoding.isfinite().all():
            raise KnowledgeError(
                f"{self.name}: {quoted(prompt)} gives NaN or infinite numbers in "
                f"{dtype_words(self.llm.dtype)}. Load the language model in bf16 or fp32"
            )
