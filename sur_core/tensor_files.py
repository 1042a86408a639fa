"""Files of tensors: read with nothing in them ever run, checked against what they should hold, written in one
order.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .errors import AdapterFileError

Found = tuple[tuple[int, ...], bool, str]
"""Of a tensor in a file: its shape, whether it holds floating-point numbers, its type in words."""


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a ``.safetensors`` or torch file, and its metadata ({} where the format has none).

    Raises:
        AdapterFileError: it is damaged, of another kind, or holds anything but tensors.
        OSError: it cannot be read.
    """
    if looks_like_safetensors(path):
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as error:
            raise _unreadable(path, str(error)) from error
    return _read_torch(path), {}


def read_header(path: Path) -> tuple[dict[str, Found], dict[str, str]]:
    """What tensors a ``.safetensors`` says it has, and its metadata. Errors as :func:`read_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: _in_header(file, key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise _unreadable(path, str(error)) from error


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
            f"{path}: expected plain tensors only, found other values under {some(strangers)}"
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


def looks_like_safetensors(path: Path) -> bool:
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


def _in_header(file, key: str) -> Found:
    view = file.get_slice(key)
    return tuple(view.get_shape()), view.get_dtype().startswith(("F", "BF")), view.get_dtype()


def found_in(tensors: Mapping[str, torch.Tensor]) -> dict[str, Found]:
    return {
        key: (tuple(value.shape), value.is_floating_point(), str(value.dtype))
        for key, value in tensors.items()
    }


def check_complete(
    wanted: Mapping[str, torch.Tensor], found: Mapping[str, Found], path: Path, kind: str
) -> None:
    """Refuse a file whose tensors are not just those wanted, in name and shape.

    Args:
        wanted: what there should be; only names and shapes are looked at.
        kind: what the file should be, for the message.

    Raises:
        AdapterFileError
    """
    problems = []
    if missing := sorted(set(wanted) - set(found)):
        problems.append(f"{len(missing)} tensors are missing ({some(missing)})")
    if unexpected := sorted(set(found) - set(wanted)):
        problems.append(f"{len(unexpected)} tensors do not belong there ({some(unexpected)})")
    for key in sorted(set(wanted) & set(found)):
        shape, is_float, type_words = found[key]
        if tuple(wanted[key].shape) != shape:
            problems.append(f"{key} should be {tuple(wanted[key].shape)}, found {shape}")
        elif not is_float:
            problems.append(f"{key} should hold floating-point numbers, found {type_words}")
    if problems:
        raise AdapterFileError(f"{path}: not a complete {kind}: " + "; ".join(problems[:5]))


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse NaN and infinity with an ``AdapterFileError``."""
    broken = [key for key, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if broken:
        raise AdapterFileError(
            f"{path}: {len(broken)} tensors hold NaN or infinite numbers ({some(broken)}). The training "
            "that made them diverged; use an earlier checkpoint"
        )


def some(names: Iterable[str]) -> str:
    """The first three names, for messages."""
    names = list(names)
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def sorted_header(content: bytes) -> bytes:
    """A safetensors file with its header in order. The library writes metadata in another order each time, so
    that the same adapter would have another hash at every save.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[end:]
