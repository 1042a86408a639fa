"""Parquet files and data sets of the Hugging Face hub, read through the ``datasets`` library.

The library keeps its own copy on disk (``HF_DATASETS_CACHE``) and maps it into memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .surd_images import FolderImages, file_stamp
from .surd_rows import Columns, Record, RowError, SurdError, check_text, choose_columns

BATCH_ROWS = 1000


class EmbeddedImages:
    """Images in a column of a ``datasets`` table. The cell is (name, stored, path); the locator is the row.

    Rows of a hub data set may hold the path of a file that ``datasets`` has downloaded instead of its bytes.
    """

    def __init__(self, dataset, column: str, stamp: str, folder: Path | None) -> None:
        """``folder``: where a local table's image paths must lie; None trusts the paths (hub)."""
        self._cells = dataset.select_columns([column])
        self._column, self._stamp = column, stamp
        self._folder = FolderImages(folder) if folder else None

    def name(self, cell: tuple, line: int) -> str:
        """The row's own file name; else the row, with the path stored beside the image if there is one, which
        is only a label and may repeat.
        """
        name, _, path = cell
        if name is not None:
            return check_text(name, "the file name")
        return f"row {line}" + (f" ({os.path.basename(path)})" if path else "")

    def locate(self, cell: tuple, line: int) -> str:
        _, stored, path = cell
        if not stored and not path:
            raise RowError("missing image: the row holds none")
        if not stored and self._folder:
            self._folder.locate(path, line)
        elif not stored and not os.path.isfile(path):
            raise RowError(f"missing image: no file {path}")
        return str(line - 1)

    def read(self, locator: str) -> bytes:
        cell = self._cell(locator)
        return cell["bytes"] if cell["bytes"] is not None else self._path(cell, locator).read_bytes()

    def stamp(self, locator: str) -> str:
        cell = self._cell(locator)
        table = f"{self._stamp}|row {locator}"
        return table if cell["bytes"] is not None else f"{table}|{file_stamp(self._path(cell, locator))}"

    def _cell(self, locator: str) -> dict:
        return self._cells[int(locator)][self._column]

    def _path(self, cell: dict, locator: str) -> Path:
        if self._folder is None:
            return Path(cell["path"])
        return self._folder.folder / self._folder.locate(cell["path"], int(locator) + 1)


class DatasetTable:
    """A ``datasets.Dataset`` as a table of prompts and images."""

    unit = "row"

    def __init__(self, dataset, label: str, wanted: Columns, stamp: str, folder: Path | None) -> None:
        """Raises SurdError: wrong columns.

        Args:
            dataset: a ``datasets.Dataset``.
            label: what to call it in places and errors.
            wanted: column names given by the user.
            stamp: identity of the table's files.
            folder: where a local table's image files would lie; None for the hub.
        """
        self.label = label
        features = dataset.features
        typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        beside = ["file_name"] if folder else []
        self.columns = choose_columns(list(features), wanted, [*typed, "image", *beside], label)
        self.images = None
        self._embedded = False
        if column := self.columns.image:
            self._embedded = getattr(features[column], "dtype", "") not in ("string", "large_string")
            if self._embedded:
                dataset = _undecoded(dataset, column, label)
                self.images = EmbeddedImages(dataset, column, stamp, folder)
            elif folder:
                self.images = FolderImages(folder)
            else:
                raise SurdError(f"{label}: column {column!r} holds text; expected images")
        self._dataset = dataset

    def place(self, line: int) -> str:
        return f"{self.label}: row {line}"

    def records(self) -> Iterator[tuple[int, Record]]:
        """(row counted from 1 over all files, row)."""
        names = self.columns
        own_name = "file_name" if self._embedded and "file_name" in self._dataset.column_names else ""
        wanted = [name for name in (names.image, names.simple, names.complex, own_name) if name]
        line = 0
        for batch in self._dataset.select_columns(wanted).with_format("arrow").iter(BATCH_ROWS):
            rows = batch.num_rows
            images = self._image_cells(batch, own_name) if names.image else [None] * rows
            prompts = (batch.column(name).to_pylist() for name in (names.simple, names.complex))
            for image, simple, complex_ in zip(images, *prompts, strict=True):
                line += 1
                yield line, Record(line, image, simple, complex_)

    def _image_cells(self, batch, own_name: str) -> list:
        """Image cells without a look at the images themselves, which would read the whole table."""
        import pyarrow.compute as pc

        column = batch.column(self.columns.image)
        if not self._embedded:
            return column.to_pylist()
        stored = pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()
        paths = pc.struct_field(column, "path").to_pylist()
        names = batch.column(own_name).to_pylist() if own_name else [None] * batch.num_rows
        return list(zip(names, stored, paths, strict=True))


def open_parquet(source: Path, split: str, wanted: Columns) -> DatasetTable:
    """One ``.parquet`` file, or those of a folder that belong to ``split``. Raises SurdError."""
    datasets = _library(source)
    folder = source if source.is_dir() else source.parent
    files = _split_files(source, split) if source.is_dir() else [source]
    try:
        stamp = ";".join(file_stamp(path) for path in files)
        dataset = datasets.load_dataset("parquet", data_files={split: list(map(str, files))}, split=split)
    except Exception as error:  # the reader wraps whatever a damaged file makes it raise
        raise SurdError(
            f"{source}: not readable as parquet ({_first_line(error.__cause__ or error)}). Copy or download "
            f"again what is damaged of {', '.join(path.name for path in files[:5])}"
        ) from error
    return DatasetTable(dataset, files[0].name if len(files) == 1 else source.name, wanted, stamp, folder)


def open_hub(name: str, split: str, wanted: Columns) -> DatasetTable:
    """A data set of the hub. Raises SurdError."""
    datasets = _library(name)
    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # network, access, spelling, split and builders all fail in their own ways
        raise SurdError(
            f"{name}: no such file or folder here, and the hub gave no data set of that name with split "
            f"{split!r} ({_first_line(error)}). Check the spelling, the network and, for a gated data set, "
            "your token ('hf auth login')"
        ) from error
    return DatasetTable(dataset, name, wanted, f"{name}|{split}|{dataset._fingerprint}", None)


def parquet_files(folder: Path) -> list[Path]:
    """The folder's parquet files, in it or in its ``data``."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def _split_files(folder: Path, split: str) -> list[Path]:
    """Files named after the split (train.parquet, train-00000-of-00002.parquet); all if none is named so."""
    files = parquet_files(folder)
    splits = {}
    for path in files:
        match = re.match(r"(.+?)-\d+-of-\d+$", path.stem)
        splits.setdefault(match[1] if match else path.stem, []).append(path)
    if split in splits:
        return splits[split]
    known = set(splits) & {"train", "test", "validation", "valid", "val"}
    if known or split != "train":
        raise SurdError(f"{folder}: no split {split!r}; its parquet files are {', '.join(sorted(splits))}")
    return files


def _undecoded(dataset, column: str, label: str):
    from datasets import Image

    try:
        return dataset.cast_column(column, Image(decode=False))
    except Exception as error:
        raise SurdError(
            f"{label}: column {column!r} does not hold images (expected their bytes, found "
            f"{dataset.features[column]}). Name another one with image_column"
        ) from error


def _library(source: object):
    try:
        import datasets
    except ImportError as error:
        raise SurdError(
            f"{source}: parquet files and hub data sets need the datasets library (pip install datasets). "
            "If a local folder or file was meant, check its name"
        ) from error
    return datasets


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
