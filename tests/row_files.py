"""Row files that tests fill with rows known by their number."""

from __future__ import annotations

import numpy as np

from sur_core.row_store import Field, RowFile, row_key

FIELDS = {"half": Field("F16", (5,)), "whole": Field("F32", (3, 2)), "one": Field("I32", ())}


def row(number: int) -> dict[str, np.ndarray]:
    return {
        "half": np.full(5, number, np.float16),
        "whole": np.full((3, 2), number + 0.5, np.float32),
        "one": np.asarray(-number, np.int32),
    }


def key(number: int) -> bytes:
    return row_key("row", number)


def filled(path, rows: int = 4, capacity: int = 6, **options) -> RowFile:
    file = RowFile.create(path, capacity, FIELDS, **options)
    for number in range(rows):
        file.append(key(number), row(number))
    file.flush()
    return file


def is_row(found: dict[str, np.ndarray], number: int) -> bool:
    return all(np.array_equal(found[name], array) for name, array in row(number).items())
