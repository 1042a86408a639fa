"""Adapter files: our ``.safetensors`` with a passport in its header, and the authors' ``.pt``.

What a file is, its content decides, not its name. Nothing in a file is ever run: pickles are read by torch's
weights-only reader. A file is used only if every tensor that belongs there is there, has the right shape and
is finite.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors

from . import authors_format
from .atomic import atomic_write
from .bundle import SURAdapterBundle
from .conditioning import check_eta
from .errors import AdapterFileError
from .passport import Passport
from .tensor_files import (
    Found,
    check_complete,
    check_finite,
    found_in,
    looks_like_safetensors,
    read_header,
    read_tensors,
    some,
    sorted_header,
)

SUFFIXES = (".safetensors", ".pt")
"""File name endings that :func:`load_adapter` is meant for."""


def load_adapter(path: str | os.PathLike, eta: float | None = None) -> SURAdapterBundle:
    """Read an adapter in eval mode, float32, on the CPU, without gradients.

    Args:
        path: our ``.safetensors`` or the authors' ``.pt``.
        eta: training eta to note in the passport, where the file does not store it. In the authors' format it
            is otherwise looked for in an ``adapterw<number>`` part of the path.

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
        AdapterFileError: it is not a usable adapter; the message says what was expected and found.
    """
    path = Path(path)
    eta = None if eta is None else check_eta(eta)
    # ComfyUI runs nodes in inference mode; tensors made there could never be trained further.
    with torch.inference_mode(False), torch.no_grad():
        tensors, metadata = read_tensors(path)
        try:
            if "sur.format_version" in metadata:
                passport = Passport.from_metadata(metadata)
                if eta is not None and passport.eta is None:
                    passport = replace(passport, eta=eta)
            else:
                passport, tensors = _authors_adapter(path, tensors, eta)
            return _build(passport, tensors, path)
        except AdapterFileError:
            raise
        except ValueError as error:
            raise AdapterFileError(f"{path}: {error}") from error


def save_adapter(adapter: SURAdapterBundle, path: str | os.PathLike, **passport) -> None:
    """Write an adapter as ``.safetensors`` with its passport. Atomic: ``path`` is never left half written.

    Args:
        adapter: what to write; it is not changed.
        path: must end in ``.safetensors``; an existing file is replaced. Missing folders are made.
        passport: :class:`Passport` fields to write instead of the adapter's own, such as ``title="my
            adapter"``. The date is set to now where there is none.

    Raises:
        AdapterFileError: the name does not end in ``.safetensors``, a weight is NaN or infinite, or a
            passport field is impossible.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterFileError(f"{path}: adapters are written as .safetensors; give a name with that ending")
    tensors = {
        key.removeprefix("towers."): value.detach().cpu().contiguous()
        for key, value in adapter.state_dict().items()
    }
    check_finite(tensors, path)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        described = replace(adapter.passport, **{"created": adapter.passport.created or now, **passport})
    except ValueError as error:
        raise AdapterFileError(f"{path}: not written: {error}") from error
    with atomic_write(path) as file:
        file.write(sorted_header(to_safetensors(tensors, metadata=described.to_metadata())))


def convert_adapter(
    source: str | os.PathLike, target: str | os.PathLike, eta: float | None = None, **passport
) -> None:
    """Write any loadable adapter as our ``.safetensors``.

    Args:
        source, target: file read and file written.
        eta: training eta, if the source does not store it.
        passport: further :class:`Passport` fields to fill in, such as ``base_model="Realistic Vision V2.0"``.
    """
    save_adapter(load_adapter(source, eta), target, **passport)


def read_passport(path: str | os.PathLike) -> Passport:
    """The passport alone. Of our ``.safetensors`` only the header is read: whether every tensor is there and
    has its shape is checked, its numbers are not. Errors as :func:`load_adapter`.
    """
    path = Path(path)
    if looks_like_safetensors(path):
        found, metadata = read_header(path)
        if "sur.format_version" in metadata:
            try:
                passport = Passport.from_metadata(metadata)
            except ValueError as error:
                raise AdapterFileError(f"{path}: {error}") from error
            _empty_bundle(passport, found, path)  # a passport is worth as much as what it stands on
            return passport
        _check_authors(path, found)  # before the weights are read: it may be a whole model
    return load_adapter(path).passport


def _authors_adapter(
    path: Path, tensors: dict[str, torch.Tensor], eta: float | None
) -> tuple[Passport, dict[str, torch.Tensor]]:
    """A passport for the authors' tensors, and the tensors as our files name them."""
    _check_authors(path, tensors)
    config, renamed = authors_format.convert_tensors(tensors)
    passport = authors_format.describe(config, path, eta)
    (tower,) = passport.towers
    return passport, {f"{tower}.{key}": value for key, value in renamed.items()}


def _check_authors(path: Path, keys: Collection[str]) -> None:
    if "layers.0.tau_q.weight" in keys:
        raise AdapterFileError(
            f"{path}: this is an LLMDiff adapter, which acts on a model, not a SUR adapter, which corrects "
            "prompts. In ComfyUI it belongs in models/llmdiff_adapters and into Load LLMDiff Adapter"
        )
    if not authors_format.is_authors_format(keys):
        raise AdapterFileError(
            f"{path}: not a SUR adapter. Expected our passport or the authors' tensors "
            f"(transformer_encoder.*, attention.*, fc.*), found {len(keys)} tensors such as {some(keys)}"
        )


def _build(passport: Passport, tensors: dict[str, torch.Tensor], path: Path) -> SURAdapterBundle:
    """Towers filled with ``{"clip_l.h2.weight": tensor, ...}`` after every check."""
    adapter = _empty_bundle(passport, found_in(tensors), path)
    check_finite(tensors, path)
    # Copied: what safetensors returns may be the file itself, mapped into memory, which others may overwrite.
    weights = {
        f"towers.{key}": value.to(torch.float32, copy=True).contiguous() for key, value in tensors.items()
    }
    adapter.load_state_dict(weights, assign=True)
    return adapter.freeze()


def _empty_bundle(passport: Passport, found: dict[str, Found], path: Path) -> SURAdapterBundle:
    """Towers without numbers, after what a file holds has been compared with what they need."""
    if max(config.depth for config in passport.towers.values()) > len(found):
        raise AdapterFileError(f"{path}: the passport describes more layers than the file has tensors")
    with torch.device("meta"):  # shapes first: nothing is allocated for a file that lies about its size
        adapter = SURAdapterBundle(passport, source=str(path))
    wanted = {key.removeprefix("towers."): value for key, value in adapter.state_dict().items()}
    check_complete(wanted, found, path, "SUR adapter")
    return adapter
