"""A folder of row files grows, is shared by writers and outlives killed ones without losing a flushed row."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sur_core.row_store import Field, RowFileError, RowFolder, row_key
from tests.row_files import key

ROOT = Path(__file__).resolve().parents[1]
ONE = {"v": Field("F32", (1000,))}


def fill_folder(folder, writer: str, numbers, file_bytes: int = 80_000) -> RowFolder:
    store = RowFolder(folder, ONE, writer=writer, file_bytes=file_bytes)
    for number in numbers:
        store.append(key(number), {"v": np.full(1000, number, np.float32)})
    store.flush()
    return store


def folder_holds(folder, numbers) -> None:
    store = RowFolder(folder, ONE)
    assert len(store) == len(numbers)
    for number, place in zip(numbers, store.find([key(number) for number in numbers]), strict=True):
        assert (store.read(int(place))["v"] == number).all()
    assert store.find([key(10**6)]).tolist() == [-1]
    store.close()


def test_a_folder_grows_over_several_files_and_goes_on(tmp_path):
    fill_folder(tmp_path, "a", range(50)).close()
    fill_folder(tmp_path, "a", range(50, 55)).close()
    assert len(list(tmp_path.iterdir())) == 3
    folder_holds(tmp_path, range(55))


def test_two_writers_at_once_lose_nothing(tmp_path):
    left, right = (RowFolder(tmp_path, ONE, writer=name, file_bytes=80_000) for name in ("a", "a-1"))
    for number in range(60):
        store = (left, right)[number % 2]
        store.append(key(number), {"v": np.full(1000, number, np.float32)})
        if number % 5 == 0:
            store.flush()
    left.flush(), right.flush()
    assert len(left) == len(right) == 30
    left.close(), right.close()
    folder_holds(tmp_path, range(60))
    fill_folder(tmp_path, "a", range(60, 80)).close()
    folder_holds(tmp_path, range(80))


def test_a_deleted_file_costs_its_own_rows_only(tmp_path):
    fill_folder(tmp_path, "a", range(60)).close()
    first, *others = sorted(tmp_path.iterdir())
    first.unlink()
    kept = {path: path.read_bytes() for path in others[:-1]}
    fill_folder(tmp_path, "a", range(100, 160)).close()
    assert all(path.read_bytes() == content for path, content in kept.items())
    folder_holds(tmp_path, [*range(20, 60), *range(100, 160)])


def test_a_folder_of_other_rows_is_refused(tmp_path):
    fill_folder(tmp_path, "a", range(3)).close()
    with pytest.raises(RowFileError, match="another form.*Delete"):
        RowFolder(tmp_path, {"v": Field("F16", (1000,))})


def test_a_reader_makes_no_folder(tmp_path):
    store = RowFolder(tmp_path / "none", ONE)
    assert len(store) == 0 and store.find([key(0)]).tolist() == [-1]
    assert not (tmp_path / "none").exists()


# --- crashes ----------------------------------------------------------------------------------------------


ENDLESS = """
import sys, numpy as np
from sur_core.row_store import Field, RowFolder, row_key
store = RowFolder(sys.argv[1], {"v": Field("F32", (300,))}, writer="w", file_bytes=40_000)
for number in range(len(store), 10_000_000):
    store.append(row_key(number), {"v": np.full(300, number, np.float32)})
    if number % 3 == 0:
        store.flush()
        print(number, flush=True)
"""


def test_a_folder_survives_sigkill_again_and_again(tmp_path):
    draw = random.Random(1)
    for _ in range(4):
        command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(draw.randrange(5, 60)):
                told = int(child.stdout.readline())
            child.kill()
        store = RowFolder(tmp_path, {"v": Field("F32", (300,))})
        places = store.find([row_key(number) for number in range(len(store))])
        assert len(store) > told, "a flushed row was lost"
        for number, place in enumerate(places):
            assert (store.read(int(place))["v"] == number).all()
        store.close()
