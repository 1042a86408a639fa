"""Rows of tensors on disk, found by a key, written one after another and safe to stop at any moment.

A row file is an ordinary ``.safetensors`` file, so that any tool can open and memory-map it: one tensor
[capacity, ...] per field, and ``keys`` [capacity, 16], which is all zero where a row is not written yet. A
row's data reaches the disk before its key does; after a crash a row is there whole or not at all.

Rows are read with positional reads, not through a mapping: pages of a mapped file count as memory of the
process, and a data set is larger than the memory it should be trained in.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import threading
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from .atomic import atomic_write

KEY_BYTES = 16
_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


class RowFileError(ValueError):
    """A row file is damaged, foreign, or holds rows of another form than expected."""


@dataclass(frozen=True)
class Field:
    """One tensor of a row: safetensors type name (``F32``, ``F16``, ``I32``, ``U8``) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numpy(self) -> np.dtype:
        return _TYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy.itemsize


def row_key(*parts: str | bytes | int) -> bytes:
    """16 bytes that stand for ``parts``; two different lists of parts never give the same (128 bit hash)."""
    digest = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf8", "surrogatepass")
        digest.update(struct.pack("<Q", len(data)) + data)
    return digest.digest()


class KeyIndex:
    """Finds rows by key in N x 24 bytes of memory, whatever the keys stand for."""

    def __init__(self, keys: np.ndarray):
        """``keys``: uint8 [N, 16]; all-zero rows are holes and are never found."""
        halves = np.ascontiguousarray(keys).view(">u8").astype(np.uint64)  # [N, 2]
        order = np.argsort(halves[:, 0], kind="stable")
        self._rows = order[halves[order].any(axis=1)]
        self._halves = halves[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, keys: list[bytes] | np.ndarray) -> np.ndarray:
        """Row of each key, int64 [M]; -1 where there is none."""
        wanted = np.frombuffer(b"".join(keys), np.uint8) if isinstance(keys, list) else keys
        wanted = np.ascontiguousarray(wanted.reshape(-1, KEY_BYTES)).view(">u8").astype(np.uint64)
        found = np.full(len(wanted), -1, np.int64)
        if len(self._rows):
            places = np.searchsorted(self._halves[:, 0], wanted[:, 0]).clip(max=len(self._rows) - 1)
            same = (self._halves[places] == wanted).all(axis=1)
            found[same] = self._rows[places[same]]
        return found


class RowFile:
    """One row file. Open it with :meth:`open`, make it with :meth:`create`.

    Attributes:
        path, metadata: the file and its safetensors metadata.
        fields: form of a row.
        capacity: rows the file has room for.
        count: rows written; they are the first ``count``.
    """

    def __init__(self, path: Path, header: dict, start: int, writable: bool):
        self.path = path
        self.metadata: dict[str, str] = header.get("__metadata__", {})
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self.capacity = tensors["keys"]["shape"][0]
        self._offsets = {name: start + entry["data_offsets"][0] for name, entry in tensors.items()}
        self._extra = {n: Field(e["dtype"], tuple(e["shape"])) for n, e in tensors.items() if n[:1] == "_"}
        self.fields = {
            name: Field(entry["dtype"], tuple(entry["shape"][1:]))
            for name, entry in tensors.items()
            if name != "keys" and name[:1] != "_"
        }
        self._file = open(path, "r+b" if writable else "rb", buffering=0)  # noqa: SIM115 - lives with the object
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        written = self.read_keys().any(axis=1)
        holes = np.flatnonzero(~written)
        self.count = int(holes[0]) if len(holes) else self.capacity
        if writable and written[self.count :].any():
            # A power cut may have kept a later key of a flush and lost an earlier one. Such a key must go
            # before other data is written where it points.
            blank = bytes((self.capacity - self.count) * KEY_BYTES)
            self._write(self._offsets["keys"] + self.count * KEY_BYTES, blank)
            self._sync()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        capacity: int,
        fields: dict[str, Field],
        metadata: dict[str, str] | None = None,
        extra: dict[str, np.ndarray] | None = None,
    ) -> RowFile:
        """A new file with room for ``capacity`` rows and none written.

        Args:
            fields: form of a row; names must not begin with ``_``.
            extra: further whole arrays to store, such as ``{"_prompts": uint8 array}``; names begin with
                ``_``.

        Raises:
            OSError: naming the file.
        """
        path = Path(path)
        extra = extra or {}
        if "keys" in fields or any(name[:1] == "_" for name in fields) or any(n[:1] != "_" for n in extra):
            raise ValueError(f"{path}: fields must not be named 'keys' or begin with '_', extras must")
        forms = {name: Field(field.dtype, (capacity, *field.shape)) for name, field in fields.items()}
        forms |= {name: Field(_type_name(array), array.shape) for name, array in extra.items()}
        layout, end = _lay_out({"keys": Field("U8", (capacity, KEY_BYTES)), **forms})
        encoded = json.dumps({"__metadata__": dict(metadata or {}), **layout}).encode("utf8")
        encoded += b" " * (-(8 + len(encoded)) % KEY_BYTES)
        with atomic_write(path) as file:
            file.write(struct.pack("<Q", len(encoded)) + encoded)
            for name, array in extra.items():
                file.seek(8 + len(encoded) + layout[name]["data_offsets"][0])
                file.write(np.ascontiguousarray(array).tobytes())
            file.truncate(8 + len(encoded) + end)
        return cls.open(path, writable=True)

    @classmethod
    def open(cls, path: str | os.PathLike, writable: bool = False) -> RowFile:
        """Raises ``RowFileError`` if it is no row file, ``OSError`` if it cannot be read."""
        path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:  # checks the header against the file's length
                file.keys()
        except SafetensorError as error:
            raise RowFileError(
                f"{path}: not a readable safetensors file ({error}). Delete it and build it again"
            ) from error
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        keys = header.get("keys", {})
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        known = all(entry["dtype"] in _TYPES for entry in tensors.values())
        rows = [entry["shape"][:1] for name, entry in tensors.items() if name[:1] != "_"]
        as_many = all(row == keys.get("shape", [])[:1] for row in rows)
        if keys.get("dtype") != "U8" or keys.get("shape", [])[1:] != [KEY_BYTES] or not (known and as_many):
            raise RowFileError(
                f"{path}: a safetensors file, but not one of rows with keys; found the tensors "
                f"{sorted(tensors)[:5]}"
            )
        return cls(path, header, 8 + length, writable)

    def append(self, key: bytes, row: dict[str, np.ndarray]) -> None:
        """Write the next row. It counts, also after a crash, from the next :meth:`flush` on.

        Raises:
            ValueError: the row's fields have other names, types or shapes, or the file is full.
            OSError: naming the file; what was flushed before stays whole.
        """
        place = self.count + len(self._pending)
        if place >= self.capacity:
            raise ValueError(f"{self.path}: full, {self.capacity} rows")
        if row.keys() != self.fields.keys():
            raise ValueError(f"{self.path}: expected the fields {sorted(self.fields)}, found {sorted(row)}")
        for name, array in row.items():
            field = self.fields[name]
            if array.shape != field.shape or array.dtype != field.numpy:
                raise ValueError(
                    f"{self.path}: field {name} must be {field.dtype} {list(field.shape)}, found "
                    f"{array.dtype} {list(array.shape)}"
                )
            self._write(self._offsets[name] + place * field.nbytes, np.ascontiguousarray(array).tobytes())
        self._pending.append(key)

    def flush(self) -> None:
        """Make every appended row durable, data first, then the keys that make it count."""
        if self._pending:
            self._sync()
            self._write(self._offsets["keys"] + self.count * KEY_BYTES, b"".join(self._pending))
            self._sync()
            self.count += len(self._pending)
            self._pending.clear()

    @property
    def room(self) -> int:
        """Rows that can still be appended."""
        return self.capacity - self.count - len(self._pending)

    @property
    def full(self) -> bool:
        return self.room <= 0

    def read(self, row: int) -> dict[str, np.ndarray]:
        """A copy of every field of a written row."""
        if not 0 <= row < self.count:
            raise IndexError(f"{self.path}: row {row} of {self.count}")
        return {
            name: self._read(self._offsets[name] + row * field.nbytes, field)
            for name, field in self.fields.items()
        }

    def read_keys(self) -> np.ndarray:
        """uint8 [capacity, 16]; zeros where no row is, but only the first ``count`` may be trusted."""
        return self._read(self._offsets["keys"], Field("U8", (self.capacity, KEY_BYTES)))

    def read_extra(self, name: str) -> np.ndarray:
        return self._read(self._offsets[name], self._extra[name])

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _read(self, offset: int, field: Field) -> np.ndarray:
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), field.nbytes, offset)
        else:  # Windows
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(field.nbytes)
        if len(data) != field.nbytes:
            raise RowFileError(f"{self.path}: ends early; it was cut off. Delete it and build it again")
        return np.frombuffer(bytearray(data), field.numpy).reshape(field.shape)

    def _write(self, offset: int, data: bytes) -> None:
        try:
            with self._lock:
                self._file.seek(offset)
                view = memoryview(data)
                while view:  # an unbuffered write may take a part only
                    view = view[self._file.write(view) :]
        except OSError as error:
            raise _write_error(error, self.path) from error

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _write_error(error, self.path) from error


class RowFolder:
    """A store that grows: row files of one form in a folder, each filled before the next is begun.

    Several processes may write at once if each has its own ``writer`` name; a reader opened afterwards sees
    the rows of all. Rows nobody asks for any more stay until the folder is deleted.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        fields: dict[str, Field],
        writer: str = "",
        file_bytes: int = 1 << 28,
    ):
        """
        Args:
            folder: made when the first row is written.
            fields: form of a row; files of another form are refused.
            writer: name of this process among those that write; ``""`` opens for reading only.
            file_bytes: size of one file, about.
        """
        self.folder = Path(folder)
        self.fields = fields
        self.row_bytes = sum(field.nbytes for field in fields.values())
        self._writer = writer
        self._capacity = max(16, min(65536, file_bytes // max(1, self.row_bytes)))
        own = re.compile(rf"rows-{re.escape(writer)}-\d+\.safetensors") if writer else None
        paths = sorted(self.folder.glob("rows-*.safetensors"))
        self._files = [RowFile.open(path, bool(own and own.fullmatch(path.name))) for path in paths]
        for file in self._files:
            if file.fields != fields:
                raise RowFileError(
                    f"{file.path}: rows of another form ({file.fields}) than expected ({fields}). Delete the "
                    "folder and build it again"
                )
        mine = [file for file in self._files if own and own.fullmatch(file.path.name) and not file.full]
        self._current = mine[-1] if mine else None
        self._index_rows()

    def __len__(self) -> int:
        return len(self._index)

    def find(self, keys: list[bytes] | np.ndarray) -> np.ndarray:
        """Row of each key among those flushed, int64 [M]; -1 where there is none."""
        return self._index.find(keys)

    def read(self, row: int) -> dict[str, np.ndarray]:
        """A copy of every field. ``row`` is what :meth:`find` gave, since the last :meth:`flush`."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._files[place].read(row - int(self._starts[place]))

    def make_room(self, count: int) -> None:
        """Begin a new file now if the current one has no room for ``count`` rows.

        A file that fills up becomes durable at once. Encoders round differently in other batches, so a run
        that was stopped must find whole ones.
        """
        if self._current is not None and self._current.room < count:
            self._current.flush()
            self._current = None

    def append(self, key: bytes, row: dict[str, np.ndarray]) -> None:
        """Errors as :meth:`RowFile.append`."""
        if self._current is None or self._current.full:
            if self._current is not None:
                self._current.flush()
            path = self.folder / f"rows-{self._writer}-{self._next_number():05d}.safetensors"
            self._current = RowFile.create(path, self._capacity, self.fields)
            self._files.append(self._current)
        self._current.append(key, row)

    def flush(self) -> None:
        """Make appended rows durable and findable; row numbers found before may change."""
        if self._current is not None:
            self._current.flush()
        self._index_rows()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _next_number(self) -> int:
        """One more than the highest in use: a file may have been deleted from between."""
        name = re.compile(rf"rows-{re.escape(self._writer)}-(\d+)\.safetensors")
        found = [name.fullmatch(file.path.name) for file in self._files]
        return max((int(match[1]) for match in found if match), default=-1) + 1

    def _index_rows(self) -> None:
        keys = [file.read_keys()[: file.count] for file in self._files]
        self._starts = np.cumsum([0, *(len(block) for block in keys)])
        self._index = KeyIndex(np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *keys]))


def _lay_out(forms: dict[str, Field]) -> tuple[dict[str, dict], int]:
    """safetensors' header entries of whole tensors, and the bytes they take together.

    Keys come first, so that none lies across two sectors of a disk and could be kept in part; then the wider
    numbers first, so that every tensor begins at a multiple of its number's size.
    """
    layout, end = {}, 0
    for name in sorted(forms, key=lambda name: (name != "keys", -forms[name].numpy.itemsize)):
        start, end = end, end + forms[name].nbytes
        layout[name] = {
            "dtype": forms[name].dtype,
            "shape": list(forms[name].shape),
            "data_offsets": [start, end],
        }
    return layout, end


def _type_name(array: np.ndarray) -> str:
    for name, dtype in _TYPES.items():
        if array.dtype == dtype:
            return name
    raise ValueError(f"no row file can hold {array.dtype}")


def _write_error(error: OSError, path: Path) -> OSError:
    full = error.errno == errno.ENOSPC
    advice = "the disk is full; free some space and run the same command again, it goes on where it stopped"
    return type(error)(error.errno, f"could not write ({advice if full else error.strerror})", str(path))
