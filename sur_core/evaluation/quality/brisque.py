"""BRISQUE: how far a picture's statistics are from those of natural, undistorted photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...model_files import fingerprint
from .measure import identity
from .nss import brisque_features
from .svr import read_svr

FEATURES = 36
NOTE = (
    "BRISQUE, about 0 to 100, lower is better (although the paper calls all its measures positively "
    "oriented): how far a picture's local statistics are from those of undistorted photos, whatever it "
    "shows; not defined for a picture of one colour"
)


class Brisque:
    """BRISQUE by its authors' features and a regression that is given.

    Args:
        model, ranges: LIBSVM's files, such as ``allmodel`` and ``allrange`` of the authors' release.

    Raises:
        QualityError (a ValueError): not such files.
        OSError: no such files.
    """

    name, higher_is_better, reads_text = "brisque", False, False
    note = f"{NOTE}; programs differ by some points, so compare only values of this one."

    def __init__(self, model: str | Path, ranges: str | Path):
        model, ranges = Path(model), Path(ranges)
        self._regression = read_svr(model, ranges, FEATURES)
        self.fingerprint = identity(self.name, fingerprint([("model", model), ("ranges", ranges)]))

    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        return np.array([self._score(picture) for picture in pictures], np.float64)

    def _score(self, picture: np.ndarray) -> float:
        features = brisque_features(picture)
        return self._regression.predict(features) if np.isfinite(features).all() else np.nan
