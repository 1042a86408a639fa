"""What a build computes once and keeps, under a name that says what it was computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from sur_core.atomic import atomic_write


def digest(*parts) -> str:
    """Twelve hex digits that differ where the parts do: tensors, arrays, state dicts, JSON values."""
    hashed = hashlib.sha256()
    for part in parts:
        _add(hashed, part)
    return hashed.hexdigest()[:12]


def _add(hashed, part) -> None:
    if isinstance(part, torch.Tensor):
        part = part.detach().cpu().numpy()
    if isinstance(part, np.ndarray):
        hashed.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    elif isinstance(part, dict) and any(isinstance(value, torch.Tensor) for value in part.values()):
        for key, value in part.items():
            hashed.update(key.encode())
            _add(hashed, value)
    else:
        hashed.update(json.dumps(part, sort_keys=True).encode())


def kept(path: Path, parts: Callable[[], Iterable[np.ndarray]], shape: tuple, dtype) -> np.ndarray:
    """The array in ``path``, mapped; made there first, piece by piece, if it is missing.

    Args:
        parts: pieces of the array along its first axis, in order.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        whole, done = np.empty(shape, dtype), 0
        for part in parts():
            whole[done : done + len(part)] = part
            done += len(part)
        with atomic_write(path) as file:
            np.save(file, whole)
    return np.load(path, mmap_mode="r")
