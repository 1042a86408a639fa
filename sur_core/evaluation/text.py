"""Prompts as a diffusers pipeline reads them, and their correction by an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..bundle import SURAdapterBundle
from ..checkpoint import load_adapter
from ..conditioning import adapt
from ..errors import AdapterMismatchError
from ..families import CHUNK_TOKENS
from .hearing import Hearing
from .methods.method import Weights

_REMEMBERED = 256


class Request(NamedTuple):
    """What of an arm and a prompt decides the embeddings. An ``eta`` of 0 has no adapter. ``weighted`` is the
    text with weights on its words, where a method puts them there. ``hearing`` decides no embeddings, but
    what the UNet hears besides.
    """

    text: str
    negative: str
    adapter: Path | None
    eta: float
    to_negative: bool
    weighted: str = ""
    hearing: Hearing | None = None


class PromptEncoder:
    """Embeddings for a pipeline's ``prompt_embeds`` arguments, equal to what it would compute itself.

    Each text is encoded alone, so that its embedding depends on nothing else.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or SDXL, any kind that takes ``prompt_embeds``.
        clip_skip: as :func:`sur_core.diffusers_backend.open_backend`; applies to the negative prompt too.
        weights: who makes token embeddings of weighted texts; pooled ones are those of the plain text.

    Raises:
        ValueError: the pipeline has no CLIP text encoder, or clip_skip does not fit.
    """

    def __init__(self, pipeline, clip_skip: int = 1, weights: Weights | None = None):
        self._pipeline, self._clip_skip, self._weights = pipeline, clip_skip, weights
        self._is_sdxl = getattr(pipeline, "text_encoder_2", None) is not None
        self._encoders = ("text_encoder", "text_encoder_2") if self._is_sdxl else ("text_encoder",)
        self._adapters: dict[Path, SURAdapterBundle] = {}
        self._check()
        self._encode = lru_cache(_REMEMBERED)(self._encode)
        self._positive = lru_cache(_REMEMBERED)(self._positive)
        self._negative = lru_cache(_REMEMBERED)(self._negative)

    def embeddings(self, request: Request) -> dict[str, torch.Tensor]:
        """Keyword arguments for the pipeline, one row each: ``prompt_embeds`` [1, 77, D],
        ``negative_prompt_embeds``, and for SDXL ``pooled_prompt_embeds`` [1, P] and its negative.

        Raises:
            AdapterFileError, AdapterMismatchError, OSError: the adapter is unusable, or for another model.
        """
        hidden, pooled = self._positive(request.text, request.weighted, request.adapter, request.eta)
        use = request.adapter if request.to_negative else None
        negative, negative_pooled = self._negative(request.negative, use, request.eta)
        inputs = {"prompt_embeds": hidden, "negative_prompt_embeds": negative}
        if self._is_sdxl:
            inputs |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
        return inputs

    def cut(self, texts: Iterable[str]) -> list[str]:
        """Those of which CLIP reads only the beginning, each once."""
        tokenizer = self._pipeline.tokenizer
        return [text for text in dict.fromkeys(texts) if len(tokenizer(text).input_ids) > CHUNK_TOKENS]

    def _positive(self, text: str, weighted: str, adapter: Path | None, eta: float):
        hidden, pooled = self._encode(text)
        if weighted:
            hidden = self._weights.hidden(weighted).to(hidden)
        return self._adapted(hidden, adapter, eta), pooled

    def _negative(self, text: str, adapter: Path | None, eta: float):
        if not text and self._is_sdxl and self._pipeline.config.get("force_zeros_for_empty_prompt", True):
            # No negative prompt is zeros here, which are no text that an adapter could correct.
            return tuple(torch.zeros_like(tensor) for tensor in self._encode(""))
        hidden, pooled = self._encode(text)
        return self._adapted(hidden, adapter, eta), pooled

    def _adapted(self, hidden: torch.Tensor, adapter: Path | None, eta: float) -> torch.Tensor:
        if adapter is None:
            return hidden
        if adapter not in self._adapters:
            self._adapters[adapter] = self._load(adapter).to(hidden.device)
        with torch.no_grad():
            return adapt(self._adapters[adapter], hidden, eta)

    def _load(self, path: Path) -> SURAdapterBundle:
        return load_fitting(
            path, [getattr(self._pipeline, name).config.hidden_size for name in self._encoders]
        )

    @torch.no_grad()
    def _encode(self, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(hidden [1, 77, D], SDXL's pooled [1, P])."""
        parts, pooled = [], None
        for name in self._encoders:
            encoder = getattr(self._pipeline, name)
            ids = self._ids(getattr(self._pipeline, name.replace("text_encoder", "tokenizer")), text)
            output = encoder(ids.to(self._pipeline._execution_device), output_hidden_states=True)
            parts.append(output.hidden_states[-2] if self._is_sdxl else self._layer(encoder, output))
            pooled = output.text_embeds if name == "text_encoder_2" else None
        return torch.cat(parts, -1), pooled

    def _ids(self, tokenizer, text: str) -> torch.Tensor:
        if hasattr(self._pipeline, "maybe_convert_prompt"):  # textual inversion with several vectors
            text = self._pipeline.maybe_convert_prompt(text, tokenizer)
        return tokenizer(
            text, padding="max_length", max_length=CHUNK_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids

    def _layer(self, encoder: torch.nn.Module, output) -> torch.Tensor:
        if self._clip_skip == 1:
            return output.last_hidden_state
        # Newer versions of transformers have no inner text_model.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return norm(output.hidden_states[-self._clip_skip])

    def _check(self) -> None:
        name = type(self._pipeline).__name__
        for part in ("text_encoder", "tokenizer") + (("tokenizer_2",) if self._is_sdxl else ()):
            if getattr(self._pipeline, part, None) is None:
                raise ValueError(f"{name} has no {part}; expected a pipeline of SD 1.x, SD 2.x or SDXL")
        encoder = self._pipeline.text_encoder
        if not type(encoder).__name__.startswith("CLIPText") or getattr(
            self._pipeline, "text_encoder_3", None
        ):
            raise ValueError(
                f"{name} reads text by {type(encoder).__name__}; expected the CLIP encoders of SD 1.x, "
                "SD 2.x or SDXL"
            )
        check_clip_skip(self._clip_skip, self._is_sdxl, encoder.config.num_hidden_layers)


def check_clip_skip(clip_skip: int, is_sdxl: bool, layers: int) -> None:
    """ValueError for a model without that layer, or of whose layers none can be chosen."""
    if clip_skip > 1 and (is_sdxl or clip_skip > layers):
        raise ValueError(
            f"clip_skip {clip_skip}: expected 1 for SDXL, and at most {layers} for this text encoder"
        )


def load_fitting(path: Path, widths: Sequence[int]) -> SURAdapterBundle:
    """An adapter for text encoders of these widths. AdapterMismatchError if it is for others."""
    adapter = load_adapter(path)
    # By itself a tower of the right width would do, also one trained on another model's layer.
    if [tower.config.width for tower in adapter.towers.values()] != list(widths):
        raise AdapterMismatchError(
            f"{path}: made for {adapter.family_words}; the text encoders of this model are "
            f"{' | '.join(map(str, widths))} wide. Give an adapter that was trained for its family"
        )
    return adapter
