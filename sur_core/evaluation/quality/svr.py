"""A support vector regression from two text files of LIBSVM: the model, and the features' ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .measure import QualityError

_KINDS = {"svm_type": ("epsilon_svr", "nu_svr"), "kernel_type": ("rbf",)}


@dataclass(frozen=True)
class Svr:
    """sum_i weights_i exp(-gamma |x - vectors_i|^2) - rho, of features scaled to their ranges.

    Attributes:
        vectors: [M, D], weights: [M].
        low, high: of each feature where it was fitted [D]; these become ``lower`` and ``upper``.
    """

    gamma: float
    rho: float
    weights: np.ndarray
    vectors: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lower: float
    upper: float

    def predict(self, features: np.ndarray) -> float:
        """For features [D]; beyond the ranges the scaling goes on linearly, as ``svm-scale`` does."""
        span = self.high - self.low
        # svm-scale leaves out a feature that never varied, which LIBSVM then reads as 0.
        share = np.divide(features - self.low, span, out=np.zeros(len(span)), where=span != 0)
        scaled = np.where(span != 0, self.lower + (self.upper - self.lower) * share, 0.0)
        distances = ((self.vectors - scaled) ** 2).sum(1)
        return float(self.weights @ np.exp(-self.gamma * distances) - self.rho)


def read_svr(model: Path, ranges: Path, features: int) -> Svr:
    """An SVR with a Gaussian kernel over so many features.

    Args:
        model: as ``svm-train`` writes it; ``allmodel`` in the BRISQUE release.
        ranges: as ``svm-scale -s`` writes it; ``allrange`` in the BRISQUE release.

    Raises:
        QualityError (a ValueError): not such a file, or of another number of features.
        OSError: no such file.
    """
    head, lines = _head(model)
    pairs = [_sparse(model, line, features) for line in lines]
    if not pairs or (head.get("total_sv") or len(pairs)) != len(pairs):
        raise QualityError(
            f"{model}: expected {head.get('total_sv') or 'some'} support vectors, found {len(pairs)}; the "
            "file is incomplete, take it anew"
        )
    bounds, low, high = _ranges(ranges, features)
    weights, vectors = (np.array(part) for part in zip(*pairs, strict=True))
    return Svr(head["gamma"], head["rho"], weights, vectors, low, high, *bounds)


def _head(path: Path) -> tuple[dict, list[str]]:
    """What the lines before "SV" say, and the lines after it."""
    lines = _lines(path)
    if "SV" not in lines:
        raise _foreign(path, "no line 'SV'")
    at = lines.index("SV")
    head = {name: value for name, _, value in (line.partition(" ") for line in lines[:at])}
    for name, wanted in _KINDS.items():
        if head.get(name) not in wanted:
            raise _foreign(path, f"{name} {head.get(name, 'missing')}, expected {' or '.join(wanted)}")
    try:
        numbers = {name: float(head[name]) for name in ("gamma", "rho")}
        numbers["total_sv"] = int(head.get("total_sv", 0))
    except (KeyError, ValueError) as error:
        raise _foreign(path, f"gamma, rho or total_sv is missing or no number ({error})") from error
    return numbers, lines[at + 1 :]


def _sparse(path: Path, line: str, features: int) -> tuple[float, np.ndarray]:
    """Weight and vector of a line such as ``0.5 1:-0.2 36:1``."""
    vector = np.zeros(features)
    try:
        weight, *entries = line.split()
        for entry in entries:
            place, value = entry.split(":")
            vector[_place(place, features)] = float(value)
        return float(weight), vector
    except (ValueError, IndexError) as error:
        raise _foreign(path, f"{line[:60]!r} is no support vector of {features} features") from error


def _ranges(path: Path, features: int) -> tuple[tuple[float, float], np.ndarray, np.ndarray]:
    """(lower, upper), low [D] and high [D]. A block for the target, headed "y", is passed over."""
    lines = _lines(path)
    if "x" not in lines:
        raise _foreign(path, "no line 'x'", "as svm-scale -s writes it, such as BRISQUE's allrange")
    low, high = np.full(features, np.nan), np.full(features, np.nan)
    try:
        lower, upper = map(float, lines[lines.index("x") + 1].split())
        for line in lines[lines.index("x") + 2 :]:
            place, least, most = line.split()
            at = _place(place, features)
            low[at], high[at] = float(least), float(most)
    except (ValueError, IndexError) as error:
        raise QualityError(
            f"{path}: not the ranges of {features} features ({error}); take it anew"
        ) from error
    if missing := (np.flatnonzero(np.isnan(low)) + 1).tolist():
        raise QualityError(
            f"{path}: expected the ranges of {features} features, not found: {missing}; take it anew"
        )
    return (lower, upper), low, high


def _place(number: str, features: int) -> int:
    place = int(number)
    if not 1 <= place <= features:
        raise IndexError(f"feature {place} of {features}")
    return place - 1


def _lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a text file of LIBSVM")
    try:
        return [line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise _foreign(path, "not a text file") from error


def _foreign(path: Path, found: str, expected: str = "") -> QualityError:
    expected = expected or "an SVR with a Gaussian kernel as svm-train writes it, such as BRISQUE's allmodel"
    return QualityError(f"{path}: {found}; expected {expected}")
