"""What a data set's name means: a folder, a file or an id of the hub, and which table is read for it."""

from __future__ import annotations

import re
from pathlib import Path

from .surd_parquet import DatasetTable, open_hub, open_parquet, parquet_files
from .surd_rows import Columns, SurdError
from .surd_tables import TextTable

TABLE_NAMES = ("metadata.jsonl", "metadata.csv")
QUARANTINE_NAME = "quarantine.jsonl"


def open_table(source: str | Path, split: str, wanted: Columns) -> TextTable | DatasetTable:
    """The table of a data set, its columns found. Sources and errors as :func:`sur_core.surd.open_surd`."""
    if is_hub_id(source):
        return open_hub(str(source), split, wanted)
    return _open_local(Path(source), split, wanted)


def source_name(source: str | Path) -> str:
    """A short name for people and the passport."""
    if is_hub_id(source):
        return str(source)
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.stem


def quarantine_path(source: str | Path, split: str = "train") -> Path:
    """Where the list of a data set stands unless said otherwise: in its folder, beside its file, or, for the
    hub, in the working folder.
    """
    path = Path(source)
    if is_hub_id(source):
        name = str(source).replace("/", "--")
        return Path(f"{name}.{QUARANTINE_NAME}" if split == "train" else f"{name}.{split}.{QUARANTINE_NAME}")
    if not path.is_dir():
        return path.with_name(f"{path.name}.{QUARANTINE_NAME}")
    table = _folder_table(path, split)
    if table is not None:
        return table.parent / QUARANTINE_NAME
    return path / (QUARANTINE_NAME if split == "train" else f"{split}.{QUARANTINE_NAME}")


def _open_local(path: Path, split: str, wanted: Columns) -> TextTable | DatasetTable:
    if path.is_dir():
        table = _folder_table(path, split)
        if table is not None:
            return TextTable(table, wanted)
        if parquet_files(path):
            return open_parquet(path, split, wanted)
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "an empty folder"
        raise SurdError(
            f"{path}: no data set with split {split!r}. Expected metadata.jsonl beside the images, the same "
            f"in a folder {split}, or .parquet files; found {found}"
        )
    if not path.is_file():
        raise SurdError(f"{path}: no such file or folder. Check the name")
    if path.suffix.lower() in (".jsonl", ".csv"):
        return TextTable(path, wanted)
    if path.suffix.lower() == ".parquet":
        return open_parquet(path, split, wanted)
    raise SurdError(
        f"{path}: expected a folder, a .jsonl, .csv or .parquet file, or the id of a hub data set"
    )


def _folder_table(folder: Path, split: str) -> Path | None:
    """The table of the authors' layout. One that stands beside the images themselves is the train split."""
    places = [folder / split, folder] if split == "train" else [folder / split]
    candidates = (place / name for place in places for name in TABLE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def is_hub_id(source: str | Path) -> bool:
    """Whether it is ``owner/name`` and no file or folder here. A Path object, or a name that ends as a table
    does, means a file.
    """
    return (
        isinstance(source, str)
        and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None
        and Path(source).suffix.lower() not in (".jsonl", ".csv", ".parquet")
        and not Path(source).exists()
    )
