"""The small world's models are the same to ComfyUI's libraries, which are older than the training's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from small_world.places import Models
from tests.comfyui import server as comfy

READING = Path(__file__).with_name("read_small_world.py")


def read_with(python) -> dict:
    done = subprocess.run([python, READING, Models().root], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_older_libraries_read_the_same_models():
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    ours, theirs = read_with(sys.executable), read_with(comfy.PYTHON)
    assert ours["transformers"] != theirs["transformers"]
    for found in (ours, theirs):
        assert not any(found["not loaded"].values()), found
    assert ours["tokens"] == theirs["tokens"]
    assert ours["sums"].keys() == theirs["sums"].keys() and ours["sums"]
    for name, value in ours["sums"].items():
        assert theirs["sums"][name] == pytest.approx(value, rel=1e-2), name
