"""Encoded prompts and CONDITIONINGs: remembered, carried, collected."""

from __future__ import annotations

from collections import OrderedDict

import torch

from ..sur_core import AdapterMismatchError
from ..sur_core.families import width_words
from ..sur_core.llmdiff import EncodedPrompt, LLMDiffAdapter
from .entries import new_entry
from .llmdiff_attach import OPTION
from .llmdiff_handle import LLMHandle

REMEMBERED = 64
"""Prompts; one of 100 tokens for a language model 4096 wide is 1.6 MiB."""
CLIP_TOKENS = 77
_SDXL_WIDTH, _SDXL_POOLED = 2048, 1280

_remembered: OrderedDict[tuple, EncodedPrompt] = OrderedDict()


def encode(llm: LLMHandle, adapter: LLMDiffAdapter, text: str) -> EncodedPrompt:
    """A prompt's encoding; the language model is neither run nor loaded for one that is remembered. Errors as
    :meth:`.llmdiff_handle.LLMHandle.encode`.
    """
    llm.check(adapter, text)
    key = (*llm.key, adapter.encoding_id, text)
    if key not in _remembered:
        _remembered[key] = llm.encode(adapter, text)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    _remembered.move_to_end(key)
    return _remembered[key]


def with_prompts(
    conditioning: list | None, prompts: list[EncodedPrompt], adapter: LLMDiffAdapter
) -> list[list]:
    """A conditioning whose every entry carries these prompts, beside those for other adapters.

    Args:
        conditioning: ``None``: a text encoder's output of zeros, of the width the adapter's UNet reads.

    Raises:
        AdapterMismatchError: the conditioning is for another family of UNets than the adapter.
    """
    width = adapter.config.context_width
    for entry in conditioning or ():
        if entry[0].shape[-1] != width:
            raise AdapterMismatchError(
                f"{adapter.source}: made for {adapter.config.family_words}; this CONDITIONING is "
                f"{width_words(entry[0].shape[-1])}. Encode it with the CLIP of a checkpoint of that family"
            )
    new = {prompt.encoding_id: prompt for prompt in prompts}
    return [
        new_entry(entry[0], entry, **{OPTION: {**entry[1].get(OPTION, {}), **new}})
        for entry in (silent(adapter) if conditioning is None else conditioning)
    ]


def silent(adapter: LLMDiffAdapter) -> list[list]:
    """Zeros in place of what CLIP would say."""
    width = adapter.config.context_width
    options = {"pooled_output": torch.zeros(1, _SDXL_POOLED)} if width == _SDXL_WIDTH else {}
    return [[torch.zeros(1, CLIP_TOKENS, width), options]]


def collect(conditioning: list) -> list[EncodedPrompt]:
    """The prompts that a conditioning carries, one for each adapter.

    Raises:
        ValueError: there is none, or more than one for the same adapter.
    """
    found: dict[str, EncodedPrompt] = {}
    for entry in conditioning:
        for id, prompt in entry[1].get(OPTION, {}).items():
            if id in found and found[id].prompt != prompt.prompt:
                raise ValueError(
                    "Save LLMDiff Encoding: the conditioning is combined of several prompts, such as "
                    f"{found[id].prompt[:40]!r} and {prompt.prompt[:40]!r}. Save each before they are "
                    "combined"
                )
            found[id] = prompt
    if not found:
        raise ValueError(
            "Save LLMDiff Encoding: this conditioning carries no prompt of a language model. Connect the "
            "output of Encode Prompt (LLMDiff)"
        )
    return list(found.values())
