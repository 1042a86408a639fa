"""Row files keep what was flushed through every crash, and nothing else is ever found in them."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sur_core import row_store
from sur_core.row_store import Field, KeyIndex, RowFile, RowFileError, row_key
from tests.row_files import FIELDS, filled, is_row, key, row

ROOT = Path(__file__).resolve().parents[1]


def test_rows_come_back_as_they_were(tmp_path):
    with filled(tmp_path / "a.safetensors", metadata={"who": "ö"}) as file:
        assert file.count == 4 and not file.full
    with RowFile.open(tmp_path / "a.safetensors") as file:
        assert (file.count, file.capacity, file.metadata, file.fields) == (4, 6, {"who": "ö"}, FIELDS)
        for number in range(4):
            assert is_row(file.read(number), number)
            assert {name: array.dtype for name, array in file.read(number).items()} == {
                name: array.dtype for name, array in row(number).items()
            }
        file.read(0)["half"][:] = 99
        assert is_row(file.read(0), 0), "what is read is a copy"


@pytest.mark.parametrize("framework", ["numpy", "pt"])
@pytest.mark.parametrize("odd", [0, 1, 5])
def test_it_is_an_ordinary_safetensors_file(tmp_path, framework, odd):
    blob = np.arange(odd, dtype=np.uint8)
    filled(tmp_path / "a.safetensors", extra={"_blob": blob}).close()
    with safe_open(tmp_path / "a.safetensors", framework=framework) as file:
        tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    assert set(tensors) == {"keys", "half", "whole", "one", "_blob"}
    assert np.array_equal(tensors["_blob"], blob)
    assert np.array_equal(tensors["whole"][:4, 0, 0], [0.5, 1.5, 2.5, 3.5]) and not tensors["whole"][4:].any()
    assert tensors["keys"][2].tobytes() == key(2) and not tensors["keys"][4:].any()


@pytest.mark.parametrize("name", ["", "n", "longer name"])
def test_every_tensor_is_aligned_and_no_key_lies_across_two_sectors(tmp_path, name):
    with filled(
        tmp_path / "a.safetensors", metadata={name: name}, extra={"_x": np.zeros(3, np.uint8)}
    ) as file:
        assert file._offsets["keys"] % 16 == 0
        for field, form in FIELDS.items():
            assert file._offsets[field] % form.numpy.itemsize == 0


def test_extras_come_back(tmp_path):
    extra = {"_text": np.frombuffer(b"abc", np.uint8), "_ends": np.array([[1, 2]], np.int32)}
    with filled(tmp_path / "a.safetensors", extra=extra) as file:
        for name, array in extra.items():
            found = file.read_extra(name)
            assert np.array_equal(found, array) and found.dtype == array.dtype
        assert is_row(file.read(3), 3)


def test_no_rows_at_all(tmp_path):
    with RowFile.create(tmp_path / "a.safetensors", 0, FIELDS) as file:
        assert file.full and file.count == 0 and len(KeyIndex(file.read_keys())) == 0
        with pytest.raises(ValueError, match="full"):
            file.append(key(0), row(0))


def test_torch_reads_the_same_numbers(tmp_path):
    filled(tmp_path / "a.safetensors").close()
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert torch.equal(file.get_slice("whole")[2:3], torch.full((1, 3, 2), 2.5))


def test_only_known_types_can_be_stored(tmp_path):
    with pytest.raises(ValueError, match="int64"):
        RowFile.create(tmp_path / "a.safetensors", 1, {}, extra={"_a": np.zeros(1, np.int64)})
    assert set(row_store._TYPES) == {"F32", "F16", "I32", "U8"}


# --- crashes ----------------------------------------------------------------------------------------------


def record_writes(path, monkeypatch, steps) -> tuple[bytes, list]:
    """The file before ``steps``, and every write they make, as (offset, data), with "sync" between."""
    log = []
    write, fsync = RowFile._write, os.fsync

    def logged(self, offset, data):
        log.append((offset, bytes(data)))
        write(self, offset, data)

    with filled(path) as file:
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(RowFile, "_write", logged)
            patch.setattr(os, "fsync", lambda handle: (log.append("sync"), fsync(handle)))
            steps(file)
    return before, log


def fill_up(file: RowFile) -> None:
    file.append(key(4), row(4))
    file.append(key(5), row(5))
    file.flush()


def rows_by_key(path, numbers=range(6)) -> dict[int, bool]:
    """Which of these rows are found in a file, and whether each is the one it should be."""
    with RowFile.open(path) as file:
        found = KeyIndex(file.read_keys()[: file.count]).find([key(number) for number in numbers])
        assert file.count == (found >= 0).sum(), "a row counts that has no key"
        pairs = zip(numbers, found.tolist(), strict=True)
        return {number: is_row(file.read(place), number) for number, place in pairs if place >= 0}


def test_killed_after_any_write_a_row_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    before, log = record_writes(tmp_path / "a.safetensors", monkeypatch, fill_up)
    writes = [entry for entry in log if entry != "sync"]
    seen = set()
    for kept in range(len(writes) + 1):
        for part in (0.0, 0.5, 0.99):  # of the write in which the process was killed
            image = bytearray(before)
            for index, (offset, data) in enumerate(writes[: kept + 1]):
                cut = len(data) if index < kept else int(len(data) * part) // 16 * 16
                image[offset : offset + cut] = data[:cut]
            (tmp_path / "b.safetensors").write_bytes(image)
            found = rows_by_key(tmp_path / "b.safetensors")
            assert all(found.values()) and set(range(4)) <= set(found)
            seen.add(len(found))
    assert seen == {4, 5, 6}


def test_a_power_cut_loses_no_flushed_row_and_keeps_no_half_one(tmp_path, monkeypatch):
    before, log = record_writes(tmp_path / "a.safetensors", monkeypatch, fill_up)
    draw = random.Random(0)
    for _ in range(300):
        end = draw.randrange(len(log) + 1)
        synced = max((place for place in range(end) if log[place] == "sync"), default=-1)
        image = bytearray(before)
        for place, entry in enumerate(log[:end]):
            if entry == "sync":
                continue
            offset, data = entry
            for start in range(0, len(data), 16):  # what no sync has sealed is kept in any pieces
                if place < synced or draw.random() < 0.5:
                    piece = data[start : start + 16]
                    image[offset + start : offset + start + len(piece)] = piece
        (tmp_path / "b.safetensors").write_bytes(image)
        found = rows_by_key(tmp_path / "b.safetensors")
        assert all(found.values()) and set(range(4)) <= set(found)
        # The next writer goes on from there, and is cut off in turn before it has flushed.
        with RowFile.open(tmp_path / "b.safetensors", writable=True) as file:
            if not file.full:
                file.append(key(4), row(4))
        assert all(rows_by_key(tmp_path / "b.safetensors").values())
        with RowFile.open(tmp_path / "b.safetensors", writable=True) as file:
            for number in range(file.count, 6):
                file.append(key(number), row(number))
            file.flush()
        assert rows_by_key(tmp_path / "b.safetensors") == dict.fromkeys(range(6), True)


def test_a_key_behind_a_hole_never_gets_the_data_of_another_row(tmp_path):
    path = tmp_path / "a.safetensors"
    with filled(path, rows=6) as file:
        place = file._offsets["keys"] + 4 * 16
    content = bytearray(path.read_bytes())
    content[place : place + 16] = bytes(16)  # of a flush of two keys, the power cut kept the second
    path.write_bytes(content)
    with RowFile.open(path) as file:
        assert file.count == 4
    with RowFile.open(path, writable=True) as file:
        file.append(key(7), row(7))
        file.append(key(8), row(8))  # never flushed, but it may well reach the disk
    with RowFile.open(path, writable=True) as file:
        file.append(key(7), row(7))
        file.flush()
    assert rows_by_key(path, [0, 1, 2, 3, 7, 5, 8]) == dict.fromkeys([0, 1, 2, 3, 7], True)


def test_an_appended_row_counts_from_the_flush_on(tmp_path):
    with filled(tmp_path / "a.safetensors") as file:
        file.append(key(4), row(4))
        assert file.count == 4
        with pytest.raises(IndexError):
            file.read(4)
        with RowFile.open(tmp_path / "a.safetensors") as other:
            assert other.count == 4
        file.flush()
        assert is_row(file.read(4), 4)
    with RowFile.open(tmp_path / "a.safetensors") as other:
        assert other.count == 5


# --- full disks -------------------------------------------------------------------------------------------

TOO_LARGE = """
import os, resource, sys
from tests.row_files import filled, key, row
file = filled(sys.argv[1])
end = os.path.getsize(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (file._offsets["one"] + 16, resource.RLIM_INFINITY))
try:
    file.append(key(4), row(4))
    file.flush()
except OSError as error:
    print("told:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.append(key(5), row(5))
file.flush()
"""


@pytest.mark.skipif(os.name == "nt", reason="a limit on a file's size is POSIX's")
def test_a_failed_write_is_told_and_harms_no_row(tmp_path):
    path = tmp_path / "a.safetensors"
    done = subprocess.run([sys.executable, "-c", TOO_LARGE, path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "told:" in done.stdout and str(path) in done.stdout
    assert rows_by_key(path) == dict.fromkeys([0, 1, 2, 3, 5], True)


@pytest.mark.skipif(os.name == "nt", reason="a limit on a file's size is POSIX's")
def test_a_file_that_cannot_be_made_is_told_and_not_left_behind(tmp_path):
    code = TOO_LARGE.replace("file = filled", "resource.setrlimit(resource.RLIMIT_FSIZE, (64, -1)); filled")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.safetensors"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and f"OSError: [Errno {errno.EFBIG}]" in done.stderr
    assert str(tmp_path / "a.safetensors") in done.stderr and not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_what_to_do(tmp_path):
    """On a real tiny disk, where this user may mount one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        fields = {"v": Field("F32", (1000,))}
        file = RowFile.create(tmp_path / "a.safetensors", 1000, fields)
        with pytest.raises(OSError, match="the disk is full; free some space") as caught:
            for number in range(1000):
                file.append(key(number), {"v": np.full(1000, number, np.float32)})
                file.flush()
        assert caught.value.errno == errno.ENOSPC and str(tmp_path / "a.safetensors") in str(caught.value)
        file.close()
        with RowFile.open(tmp_path / "a.safetensors") as file:
            assert 5 < file.count < 20
            assert all((file.read(number)["v"] == number).all() for number in range(file.count))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- files that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [3, 9, 60, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, part):
    filled(tmp_path / "a.safetensors").close()
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[: int(part * len(whole)) if part < 1 else part])
    with pytest.raises(RowFileError, match=r"b\.safetensors: not a readable"):
        RowFile.open(tmp_path / "b.safetensors")


def test_a_file_cut_off_while_open_is_told(tmp_path):
    with filled(tmp_path / "a.safetensors", rows=6) as file:
        os.truncate(tmp_path / "a.safetensors", file._offsets["half"] + 7 * 5)
        with pytest.raises(RowFileError, match="cut off"):
            file.read(5)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": np.zeros((2, 2), np.float32)},
        {"keys": np.zeros((2, 16), np.float32), "v": np.zeros((2, 2), np.float32)},
        {"keys": np.zeros((2, 8), np.uint8), "v": np.zeros((2, 2), np.float32)},
        {"keys": np.zeros((2, 16), np.uint8), "v": np.zeros((2, 2), np.float64)},
        {"keys": np.zeros((2, 16), np.uint8), "v": np.zeros((3, 2), np.float32)},
        {"keys": np.zeros((2, 16), np.uint8), "v": np.zeros((), np.float32)},
        {},
    ],
)
def test_foreign_files_are_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(RowFileError, match=r"a\.safetensors.*not one of rows"):
        RowFile.open(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK", b"no safetensors" * 20])
def test_noise_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(RowFileError, match=r"a\.safetensors"):
        RowFile.open(tmp_path / "a.safetensors")


def test_a_missing_file_is_an_os_error_with_its_name(tmp_path):
    with pytest.raises(OSError, match=r"gone\.safetensors"):
        RowFile.open(tmp_path / "gone.safetensors")


# --- wrong rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"half": np.zeros(4, np.float16)}, r"half must be F16 \[5\], found float16 \[4\]"),
        ({"half": np.zeros(5, np.float32)}, "found float32"),
        ({"one": np.zeros(1, np.int32)}, r"one must be I32 \[\]"),
        ({"more": np.zeros(1, np.int32)}, "expected the fields"),
    ],
)
def test_a_row_of_another_form_is_refused_and_leaves_no_trace(tmp_path, change, words):
    with filled(tmp_path / "a.safetensors") as file:
        with pytest.raises(ValueError, match=words):
            file.append(key(9), {**row(9), **change})
        file.append(key(4), row(4))
        file.flush()
    assert rows_by_key(tmp_path / "a.safetensors") == dict.fromkeys(range(5), True)


def test_a_full_file_takes_no_more(tmp_path):
    with filled(tmp_path / "a.safetensors", rows=6) as file, pytest.raises(ValueError, match="full, 6 rows"):
        file.append(key(6), row(6))


@pytest.mark.parametrize(
    ("fields", "extra"), [({"keys": Field("U8", (1,))}, {}), ({"_a": Field("U8", ())}, {})]
)
def test_names_that_would_collide_are_refused(tmp_path, fields, extra):
    with pytest.raises(ValueError, match="must not be named"):
        RowFile.create(tmp_path / "a.safetensors", 1, fields, extra=extra)


@pytest.mark.parametrize("number", [-1, 4, 6, 10**9])
def test_rows_that_are_not_written_cannot_be_read(tmp_path, number):
    with filled(tmp_path / "a.safetensors") as file, pytest.raises(IndexError, match="of 4"):
        file.read(number)


# --- keys -------------------------------------------------------------------------------------------------


def test_different_parts_give_different_keys():
    parts = [
        (),
        ("",),
        ("", ""),
        ("ab",),
        ("a", "b"),
        ("a", "", "b"),
        ("a\0b",),
        ("1", "2"),
        ("12",),
        ("\ud800",),
    ]
    assert len({row_key(*part) for part in parts}) == len(parts)
    assert all(len(row_key(*part)) == 16 for part in parts)
    assert row_key("a", 1) == row_key(b"a", "1")


def test_the_index_finds_every_key_and_no_hole():
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 256, (500, 16), dtype=np.uint8)
    keys[::7] = 0
    index = KeyIndex(keys)
    wanted = [number for number in range(500) if number % 7]
    assert len(index) == len(wanted)
    assert index.find(keys[wanted]).tolist() == wanted
    assert index.find([keys[number].tobytes() for number in wanted]).tolist() == wanted
    assert (index.find(np.zeros((3, 16), np.uint8)) == -1).all()
    assert (index.find(draw.integers(0, 256, (100, 16), dtype=np.uint8)) == -1).all()
    assert len(index.find([])) == 0 and KeyIndex(np.zeros((9, 16), np.uint8)).find([bytes(16)]).tolist() == [
        -1
    ]
