"""Adapter files: our ``.safetensors`` with a passport in its header, and the authors' ``.pt``.

What a file is, its content decides, not its name. Nothing in a file is ever run: pickles are read by torch's
weights-only reader. A file is used only if every tensor that belongs there is there, has the right shape and
is finite.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from . import authors_format
from .atomic import atomic_write
from .bundle import SURAdapterBundle
from .conditioning import check_eta
from .errors import AdapterFileError
from .passport import Passport

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
        tensors, metadata = _read(path)
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
    _check_finite(tensors, path)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        described = replace(adapter.passport, **{"created": adapter.passport.created or now, **passport})
    except ValueError as error:
        raise AdapterFileError(f"{path}: not written: {error}") from error
    with atomic_write(path) as file:
        file.write(_sorted_header(to_safetensors(tensors, metadata=described.to_metadata())))


def _sorted_header(content: bytes) -> bytes:
    """A safetensors file with its header in order. The library writes metadata in another order each time, so
    that the same adapter would have another hash at every save.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[end:]


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
    if _looks_like_safetensors(path):
        try:
            with safe_open(path, framework="pt") as file:
                metadata, found = file.metadata() or {}, {key: _in_header(file, key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise _unreadable(path, str(error)) from error
        if "sur.format_version" in metadata:
            try:
                passport = Passport.from_metadata(metadata)
            except ValueError as error:
                raise AdapterFileError(f"{path}: {error}") from error
            _empty_bundle(passport, found, path)  # a passport is worth as much as what it stands on
            return passport
        _check_authors(path, found)  # before the weights are read: it may be a whole model
    return load_adapter(path).passport


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file and its metadata ({} where the format has none)."""
    if _looks_like_safetensors(path):
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as error:
            raise _unreadable(path, str(error)) from error
    return _read_torch(path), {}


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``torch.save`` file. Torch's own words are not repeated: they advise to switch its
    protection off.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        if not _looks_like_pickle(path) or "Unsupported operand" in str(error):
            raise _unreadable(path, "neither safetensors nor a torch file") from error
        raise AdapterFileError(
            f"{path}: refused. An adapter holds numbers only, but this file asks to run Python code or holds "
            "other objects. Do not use it; ask its author for a .safetensors file"
        ) from error
    except Exception as error:  # a damaged or foreign file can fail in any way inside the reader
        raise _unreadable(path, "neither safetensors nor a whole torch file") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise AdapterFileError(
            f"{path}: expected a state_dict of named tensors, found {type(content).__name__}"
        )
    strangers = [key for key, value in content.items() if not _is_plain(value)]
    if strangers:
        raise AdapterFileError(
            f"{path}: expected plain tensors only, found other values under {_some(strangers)}"
        )
    return content


def _is_plain(value) -> bool:
    """A dense tensor whose numbers are all in the file (a stride of 0 could claim any size)."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_nested
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def _looks_like_safetensors(path: Path) -> bool:
    """Whether the content begins as a safetensors header does. OSError if there is no readable file."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected an adapter file, found a folder")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such adapter file. It may have been moved, renamed or deleted"
        ) from error
    if not start:
        raise AdapterFileError(f"{path}: the file is empty. Copy or download it again")
    return start[8:9] == b"{" or path.suffix.lower() == ".safetensors" and start[:2] != b"PK"


def _looks_like_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _unreadable(path: Path, reason: str) -> AdapterFileError:
    return AdapterFileError(
        f"{path}: not a readable adapter file ({reason}). It may be truncated or of another kind; copy or "
        "download it again"
    )


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
    if not authors_format.is_authors_format(keys):
        raise AdapterFileError(
            f"{path}: not a SUR adapter. Expected our passport or the authors' tensors "
            f"(transformer_encoder.*, attention.*, fc.*), found {len(keys)} tensors such as {_some(keys)}"
        )


def _build(passport: Passport, tensors: dict[str, torch.Tensor], path: Path) -> SURAdapterBundle:
    """Towers filled with ``{"clip_l.h2.weight": tensor, ...}`` after every check."""
    found = {
        key: (tuple(value.shape), value.is_floating_point(), str(value.dtype))
        for key, value in tensors.items()
    }
    adapter = _empty_bundle(passport, found, path)
    _check_finite(tensors, path)
    # Copied: what safetensors returns may be the file itself, mapped into memory, which others may overwrite.
    weights = {
        f"towers.{key}": value.to(torch.float32, copy=True).contiguous() for key, value in tensors.items()
    }
    adapter.load_state_dict(weights, assign=True)
    return adapter.freeze()


Found = tuple[tuple[int, ...], bool, str]
"""Of a tensor in a file: its shape, whether it holds floating-point numbers, its type in words."""


def _in_header(file, key: str) -> Found:
    view = file.get_slice(key)
    return tuple(view.get_shape()), view.get_dtype().startswith(("F", "BF")), view.get_dtype()


def _empty_bundle(passport: Passport, found: dict[str, Found], path: Path) -> SURAdapterBundle:
    """Towers without numbers, after what a file holds has been compared with what they need."""
    if max(config.depth for config in passport.towers.values()) > len(found):
        raise AdapterFileError(f"{path}: the passport describes more layers than the file has tensors")
    with torch.device("meta"):  # shapes first: nothing is allocated for a file that lies about its size
        adapter = SURAdapterBundle(passport, source=str(path))
    wanted = {key.removeprefix("towers."): value for key, value in adapter.state_dict().items()}
    problems = []
    if missing := sorted(set(wanted) - set(found)):
        problems.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if unexpected := sorted(set(found) - set(wanted)):
        problems.append(f"{len(unexpected)} tensors do not belong there ({_some(unexpected)})")
    for key in sorted(set(wanted) & set(found)):
        shape, is_float, kind = found[key]
        if tuple(wanted[key].shape) != shape:
            problems.append(f"{key} should be {tuple(wanted[key].shape)}, found {shape}")
        elif not is_float:
            problems.append(f"{key} should hold floating-point numbers, found {kind}")
    if problems:
        raise AdapterFileError(f"{path}: not a complete SUR adapter: " + "; ".join(problems[:5]))
    return adapter


def _check_finite(tensors: dict[str, torch.Tensor], path: Path) -> None:
    broken = [key for key, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if broken:
        raise AdapterFileError(
            f"{path}: {len(broken)} tensors hold NaN or infinite numbers ({_some(broken)}). The training "
            "that made them diverged; use an earlier checkpoint"
        )


def _some(names) -> str:
    names = list(names)
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
