"""Pieces that every LLMDiff node uses: socket types, the schema helper, shared inputs."""

from __future__ import annotations

from comfy_api.latest import io

from .common import CATEGORY, schema

LLMDIFF_CATEGORY = f"{CATEGORY}/LLMDiff"
ALIASES = ["LLM text encoder", "LLM to SD", "decoder-only LLM", "LLMDiff"]

LLMSocket = io.Custom("LLMDIFF_LLM")
"""Carries an :class:`.llmdiff_handle.LLMHandle`."""
LLMDiffAdapterSocket = io.Custom("LLMDIFF_ADAPTER")
"""Carries an :class:`.llmdiff_handle.LLMDiffHandle`."""


def llmdiff_schema(aliases: list[str] | tuple[str, ...] = (), **values) -> io.Schema:
    return schema(category=LLMDIFF_CATEGORY, search_aliases=[*ALIASES, *aliases], **values)


def adapter_input(tooltip: str = "The adapter, from Load LLMDiff Adapter.") -> io.Input:
    return LLMDiffAdapterSocket.Input("adapter", tooltip=tooltip)


def conditioning_input(tooltip: str) -> io.Input:
    return io.Conditioning.Input("conditioning", optional=True, tooltip=tooltip)
