"""Parquet files with the images inside, as the Hugging Face hub and its ``datasets`` library know them.

Which shard a sample is in follows from its id, so that a change of one sample writes one shard anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .export_rows import ExportRow
from .manifest import SurdBuildError, hash_of

SHARD_BYTES = 256_000_000
ROWS_AT_ONCE = 64
"""Rows of a group: what a reader must take at once to show one picture."""

_KINDS = {"simple_score": "float64", "complex_score": "float64", "nsfw": "bool"}


@dataclass(frozen=True)
class Shard:
    """One file. ``images``: {name: row} in order; ``mark``: what its content depends on."""

    name: str
    images: dict[str, ExportRow]
    mark: str


def plan_shards(
    images: Mapping[str, ExportRow], marks: Mapping[str, str], columns: Sequence[str], total: int
) -> list[Shard]:
    """Shards of about :data:`SHARD_BYTES` or less, a power of two of them; ``total``: bytes of all images.

    Raises:
        SurdBuildError: pyarrow and datasets are not installed.
    """
    _library()
    count = 1
    while total > count * SHARD_BYTES and count * 2 <= len(images):
        count *= 2
    groups: list[dict[str, ExportRow]] = [{} for _ in range(count)]
    for name, row in images.items():
        groups[int(row.id[:8], 16) % count][name] = row
    groups = [group for group in groups if group]
    shards = []
    for number, group in enumerate(groups):
        about = [
            [marks[n], r.id, r.simple, r.complex, [r.extras[c] for c in columns]] for n, r in group.items()
        ]
        mark = hash_of(list(columns), about, ROWS_AT_ONCE)
        shards.append(Shard(f"data/train-{number:05}-of-{len(groups):05}.parquet", group, mark))
    return shards


def write_shard(
    file: BinaryIO, shard: Shard, columns: Sequence[str], read: Callable[[Sequence[str]], Iterable[bytes]]
) -> None:
    """Write one shard into ``file``.

    Args:
        columns: the extra ones.
        read: given names of images, gives their files' content.
    """
    from datasets import Features, Image, Value
    from pyarrow import Table, parquet

    kinds = {"image": Image(), "text": Value("string"), "prompt": Value("string"), "id": Value("string")}
    kinds |= {name: Value(_KINDS.get(name, "string")) for name in columns}
    kinds["file_name"] = Value("string")
    schema = Features(kinds).arrow_schema
    names = list(shard.images)
    with parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(names), ROWS_AT_ONCE):
            part = names[start : start + ROWS_AT_ONCE]
            rows = []
            for name, content in zip(part, read(part), strict=True):
                row, label = shard.images[name], name.rpartition("/")[2]
                values = {"text": row.simple, "prompt": row.complex, "id": row.id, "file_name": label}
                values["image"] = {"bytes": content, "path": label}
                rows.append(values | {column: row.extras[column] for column in columns})
            writer.write_table(Table.from_pylist(rows, schema=schema))


def _library() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise SurdBuildError(
            "parquet needs the datasets library (pip install datasets); or export with --layout authors"
        ) from error
