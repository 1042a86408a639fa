"""LLMDiff adapter files: ``.safetensors`` with a passport in the header."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors

from ..atomic import atomic_write
from ..errors import AdapterFileError
from ..tensor_files import (
    Found,
    check_complete,
    check_finite,
    found_in,
    looks_like_safetensors,
    read_header,
    read_tensors,
    sorted_header,
)
from .adapter import LLMDiffAdapter
from .passport import PREFIX, LLMDiffPassport

SUFFIX = ".safetensors"


def load_llmdiff(path: str | os.PathLike) -> LLMDiffAdapter:
    """Read an adapter in eval mode, on the CPU, without gradients, in float32 whatever the file holds.

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
        AdapterFileError: it is no whole LLMDiff adapter; the message says what was expected and found.
    """
    path = Path(path)
    # ComfyUI runs nodes in inference mode; tensors made there could never be trained further.
    with torch.inference_mode(False), torch.no_grad():
        _check_kind(path)
        tensors, metadata = read_tensors(path)
        adapter = _empty(_passport(metadata, path), found_in(tensors), path)
        check_finite(tensors, path)
        # Copied: what safetensors returns may be the file itself, mapped into memory.
        weights = {key: value.to(torch.float32, copy=True) for key, value in tensors.items()}
        adapter.load_state_dict(weights, assign=True)
        return adapter.freeze()


def read_llmdiff_passport(path: str | os.PathLike) -> LLMDiffPassport:
    """The passport alone; of tensors only names and shapes are checked. Errors as :func:`load_llmdiff`."""
    path = Path(path)
    _check_kind(path)
    found, metadata = read_header(path)
    passport = _passport(metadata, path)
    _empty(passport, found, path)
    return passport


def is_llmdiff_file(path: str | os.PathLike) -> bool:
    """Whether a file says that it is an LLMDiff adapter, sound or not. ``OSError`` if it cannot be read."""
    path = Path(path)
    if not looks_like_safetensors(path):
        return False
    try:
        return PREFIX + "format_version" in read_header(path)[1]
    except AdapterFileError:
        return False


def save_llmdiff(
    adapter: LLMDiffAdapter, path: str | os.PathLike, dtype: torch.dtype = torch.float32, **passport
) -> None:
    """Write an adapter with its passport. Atomic: ``path`` is never left half written.

    Args:
        adapter: what to write; it is not changed.
        path: must end in ``.safetensors``; an existing file is replaced. Missing folders are made.
        dtype: of the matrices in the file; the few single numbers stay float32.
        passport: :class:`LLMDiffPassport` fields to write instead of the adapter's own.

    Raises:
        AdapterFileError: the name does not end in ``.safetensors``, a weight is NaN, infinite or too large
            for ``dtype``, or a passport field is impossible.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise AdapterFileError(f"{path}: adapters are written as {SUFFIX}; give a name with that ending")
    tensors = {
        key: value.detach().cpu().to(dtype if value.dim() == 2 else torch.float32).contiguous()
        for key, value in adapter.state_dict().items()
    }
    check_finite(tensors, path)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        described = replace(adapter.passport, **{"created": adapter.passport.created or now, **passport})
    except (ValueError, TypeError) as error:
        raise AdapterFileError(f"{path}: not written: {error}") from error
    with atomic_write(path) as file:
        file.write(sorted_header(to_safetensors(tensors, metadata=described.to_metadata())))


def _check_kind(path: Path) -> None:
    if not looks_like_safetensors(path):
        raise AdapterFileError(
            f"{path}: not a readable LLMDiff adapter; expected a {SUFFIX} file. It may be truncated or of "
            "another kind; copy or download it again"
        )


def _passport(metadata: dict[str, str], path: Path) -> LLMDiffPassport:
    if PREFIX + "format_version" not in metadata:
        other = "sur.format_version" in metadata
        found = (
            "a SUR adapter, which Load SUR Adapter reads" if other else "a file without an LLMDiff passport"
        )
        raise AdapterFileError(
            f"{path}: not an LLMDiff adapter: found {found}. Choose a file that "
            "'python -m train fit --system llmdiff' wrote"
        )
    try:
        return LLMDiffPassport.from_metadata(metadata)
    except ValueError as error:
        raise AdapterFileError(f"{path}: {error}") from error


def _empty(passport: LLMDiffPassport, found: dict[str, Found], path: Path) -> LLMDiffAdapter:
    """An adapter without numbers, after what the file holds has been compared with what it needs."""
    if len(passport.config.layers) > len(found):
        raise AdapterFileError(f"{path}: the passport describes more layers than the file has tensors")
    with torch.device("meta"):  # nothing is allocated for a file that lies about its size
        adapter = LLMDiffAdapter(passport, source=str(path))
    check_complete(adapter.state_dict(), found, path, "LLMDiff adapter")
    return adapter
