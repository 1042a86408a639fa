"""What an LLMDiff adapter does while a UNet runs: :class:`Run` for a sampling, :class:`Call` for one step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..sur_core.language_model_files import KnowledgeError
from ..sur_core.llmdiff import EncodedPrompt, LLMDiffAdapter
from ..sur_core.llmdiff.attention import LayerTokens
from .llmdiff_unet import Place, cross_attention_layers

KEPT = 16
"""Combinations of prompts whose tokens are kept; a sampling rarely has more than two."""


class Run:
    """One sampling: the UNet's layers, and every prompt as each layer reads it, computed once."""

    def __init__(self, adapter: LLMDiffAdapter):
        self.adapter = adapter
        self.layers: dict[Place, tuple[int, nn.Module]] = {}
        self._unet: nn.Module | None = None
        self._tokens: dict[tuple[int, ...], tuple[list[EncodedPrompt], list[LayerTokens]]] = {}

    def see(self, unet: nn.Module, name: str) -> None:
        """Note where the UNet's layers are."""
        if unet is not self._unet:
            layers = cross_attention_layers(unet, name)
            self._unet = unet
            self.layers = {place: (n, layer) for n, (place, layer) in enumerate(layers.items())}

    def tokens(self, prompts: list[EncodedPrompt]) -> list[LayerTokens]:
        """Prompts as each layer reads them. Raises ``KnowledgeError`` if their numbers are too large."""
        key = tuple(id(prompt) for prompt in prompts)
        if key not in self._tokens:
            made = self.adapter.prepare([prompt.tokens for prompt in prompts])
            _check_finite(self.adapter, made)
            while len(self._tokens) >= KEPT:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[key] = list(prompts), made  # with the prompts, so that no other gets their id
        return self._tokens[key][1]


@dataclass(frozen=True)
class _Rows:
    """Which rows of a batch hear a prompt.

    Attributes:
        index: their numbers; ``None`` for all.
        tokens: of each layer, a row for each of them.
    """

    index: torch.Tensor | None
    tokens: list[LayerTokens]


class Call:
    """One step of a sampling; the batches that ComfyUI makes of it come one after the other.

    Attributes:
        prompts: by the uuid of their conditioning.
        strength: s of the formula.
        weight: w of the formula.
    """

    def __init__(self, run: Run, prompts: dict[object, EncodedPrompt], strength: float, weight: float):
        self._run, self._prompts, self._strength, self._weight = run, prompts, strength, weight
        self._x: torch.Tensor | None = None
        self._rows: dict[tuple, _Rows | None] = {}

    def begin(self, x: torch.Tensor, value: torch.Tensor, extra: dict) -> torch.Tensor:
        """Before a layer: keep what its query projection gets, and make the text encoder's values smaller."""
        self._x = None
        rows = self._rows_of(x, extra)
        if rows is None or self._layer(extra) is None:
            return value
        self._x = x
        if self._weight == 1:
            return value
        if rows.index is None:
            return value * self._weight
        return value.index_copy(0, rows.index, value[rows.index] * self._weight)

    def finish(self, out: torch.Tensor, extra: dict) -> torch.Tensor:
        """After a layer: add the adapter's part to the rows that have a prompt."""
        x, self._x = self._x, None
        if x is None:
            return out
        rows = self._rows_of(x, extra)
        number, attention = self._layer(extra)
        if rows.index is not None:
            x = x[rows.index]
        bracket = self._bracket(number, attention, x, rows.tokens[number])
        # As a module, so that casting, offloading, LoRA and quantisation of its weights act. Its bias is in
        # ``out`` already: one more token of zeros tells it, as a second call would fetch all weights again.
        projected = attention.to_out(F.pad(bracket * self._strength, (0, 0, 0, 1)))
        added = projected[:, :-1] - projected[:, -1:]
        return out + added if rows.index is None else out.index_add(0, rows.index, added)

    def _bracket(
        self, number: int, attention: nn.Module, x: torch.Tensor, tokens: LayerTokens
    ) -> torch.Tensor:
        layer = self._run.adapter.layers[number]
        dtype = layer.tau_q.weight.dtype
        found = layer(
            tokens,
            x.to(dtype),
            attention.to_q(x).to(dtype),
            lambda context: attention.to_k(context.to(x.dtype)).to(dtype),
            lambda context: attention.to_v(context.to(x.dtype)).to(dtype),
        )
        return found.to(x.dtype)

    def _layer(self, extra: dict) -> tuple[int, nn.Module] | None:
        block = extra.get("block")
        return self._run.layers.get((*block[:2], extra.get("block_index", 0))) if block else None

    def _rows_of(self, x: torch.Tensor, extra: dict) -> _Rows | None:
        """``None`` if no row of this batch has a prompt."""
        uuids = tuple(extra.get("uuids", ()))
        key = (uuids, len(x))
        if key not in self._rows:
            self._rows[key] = self._find_rows(uuids, len(x), x.device)
        return self._rows[key]

    def _find_rows(self, uuids: tuple, count: int, device: torch.device) -> _Rows | None:
        heard = [place for place, uuid in enumerate(uuids) if uuid in self._prompts]
        if not heard:
            return None
        if count % len(uuids):
            raise ValueError(
                f"Apply LLMDiff: {count} pictures for {len(uuids)} conditionings; another node has changed "
                "the batch, so it cannot be told which prompt belongs to which picture. Remove that node or "
                "Apply LLMDiff"
            )
        each = count // len(uuids)
        tokens = self._run.tokens([self._prompts[uuids[place]] for place in heard])
        repeated = [layer.repeated(each * len(heard)) for layer in tokens]
        if len(heard) == len(uuids):
            return _Rows(None, repeated)
        numbers = [place * each + row for place in heard for row in range(each)]
        return _Rows(torch.tensor(numbers, device=device), repeated)


def _check_finite(adapter: LLMDiffAdapter, tokens: list[LayerTokens]) -> None:
    parts = [part for layer in tokens for part in (layer.key, layer.value)]
    if not all(part.isfinite().all() for part in (tokens[0].context, *parts)):
        dtype = str(tokens[0].context.dtype).removeprefix("torch.")
        raise KnowledgeError(
            f"{adapter.source}: this prompt's encoding gives NaN or infinite numbers in {dtype}. Start "
            "ComfyUI with --bf16-unet or --fp32-unet"
        )
