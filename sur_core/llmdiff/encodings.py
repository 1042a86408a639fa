"""Encoded prompts: what a language model made of a text, in memory and as a file."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors

from ..atomic import atomic_write
from ..errors import AdapterFileError, AdapterMismatchError
from ..tensor_files import check_finite, read_tensors, sorted_header
from .adapter import LLMDiffAdapter

FORMAT_VERSION = 1
_PREFIX = "llmdiff_encoding."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, encoded for one adapter.

    Attributes:
        prompt: its text.
        tokens: c of Eq. 3 [n, D], float32 on the CPU.
        encoding_id: :attr:`LLMDiffAdapter.encoding_id` of the adapter whose g(t) it was summed with.
        llm_name: the language model, for people.
    """

    prompt: str
    tokens: torch.Tensor
    encoding_id: str
    llm_name: str


def encode_prompts(encoder, adapter: LLMDiffAdapter, prompts: list[str]) -> list[EncodedPrompt]:
    """Encode prompts for an adapter (Eq. 1 to 3, without noise).

    Args:
        encoder: a :class:`.encoder.BlockwiseEncoder`.

    Raises:
        AdapterMismatchError: its language model is not the one the adapter learnt to read.
        KnowledgeError: a prompt is too long or cannot be read.
    """
    check_llm(encoder, adapter)
    weights = adapter.block_weights.detach().float().cpu()
    found = encoder.encode(prompts, weights, adapter.config.start)
    id, name = adapter.encoding_id, encoder.name
    return [
        EncodedPrompt(prompt, tokens.float().cpu(), id, name)
        for prompt, tokens in zip(prompts, found, strict=True)
    ]


def check_llm(encoder, adapter: LLMDiffAdapter) -> None:
    """Refuse a language model the adapter did not learn to read, with an ``AdapterMismatchError``."""
    passport = adapter.passport
    problem = passport.problem_with_llm(encoder.name, encoder.identity, encoder.width, encoder.blocks)
    if problem:
        raise AdapterMismatchError(
            f"{adapter.source}: {problem}. Load the language model the adapter was trained with"
        )
    known = passport.llm_identity, encoder.identity
    if all(known) and known[0] != known[1] and not any(id.startswith("commit-") for id in known):
        log.warning(
            "%s: trained with %s; the files found under this name are others (a fine-tune, or weights of "
            "another type). It works as far as the two are alike",
            adapter.source,
            passport.llm_words,
        )


def check_encodings(adapter: LLMDiffAdapter, prompts: list[EncodedPrompt]) -> None:
    """Refuse prompts that were encoded for another adapter, with an ``AdapterMismatchError``."""
    for encoded in prompts:
        if encoded.encoding_id != adapter.encoding_id:
            raise AdapterMismatchError(
                f"{adapter.source}: the prompt {encoded.prompt[:60]!r} was encoded for another adapter (with "
                f"{encoded.llm_name}). Encode it with this one, which reads {adapter.passport.llm_words}"
            )


def save_encodings(prompts: list[EncodedPrompt], path: str | os.PathLike) -> None:
    """Write encoded prompts as ``.safetensors``, atomically. Errors as :func:`.checkpoint.save_llmdiff`."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterFileError(f"{path}: encodings are written as .safetensors; give a name with that ending")
    tensors = {f"tokens.{place}": e.tokens.float().cpu().contiguous() for place, e in enumerate(prompts)}
    check_finite(tensors, path)
    entries = [[e.prompt, e.encoding_id, e.llm_name] for e in prompts]
    metadata = {"format_version": str(FORMAT_VERSION), "prompts": json.dumps(entries)}
    metadata = {_PREFIX + name: text for name, text in metadata.items()}
    with atomic_write(path) as file:
        file.write(sorted_header(to_safetensors(tensors, metadata)))


def load_encodings(path: str | os.PathLike) -> list[EncodedPrompt]:
    """Read what :func:`save_encodings` wrote.

    Raises:
        OSError: the file cannot be read.
        AdapterFileError: it is damaged, or of another kind.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    version = metadata.get(_PREFIX + "format_version")
    if version != str(FORMAT_VERSION):
        found = f"format {version}" if version else "a file of another kind"
        raise AdapterFileError(
            f"{path}: expected encoded prompts in format {FORMAT_VERSION}, found {found}. Save them again "
            "with Save LLMDiff Encoding"
        )
    check_finite(tensors, path)
    try:
        entries = json.loads(metadata[_PREFIX + "prompts"])
        found = [
            EncodedPrompt(prompt, tensors[f"tokens.{place}"].clone(), id, llm)
            for place, (prompt, id, llm) in enumerate(entries)
        ]
        if not found or any(e.tokens.dim() != 2 or not e.tokens.is_floating_point() for e in found):
            raise ValueError("no prompts, or tokens of a wrong shape")
    except (KeyError, ValueError, TypeError) as error:
        raise AdapterFileError(f"{path}: damaged ({error}); encode the prompts again") from error
    return found
