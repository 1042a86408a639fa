"""Runs llmdiff_inside.py in ComfyUI's own process and reports each of its cases."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from sur_core import save_adapter
from tests.comfyui import server as comfy
from tests.comfyui.conftest import PACK
from tests.helpers import random_adapter

SCRIPT = Path(__file__).with_name("llmdiff_inside.py")
CASES = [
    node.name
    for path in sorted(SCRIPT.parent.glob("llmdiff_cases_*.py"))
    for node in ast.parse(path.read_text(encoding="utf8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    work = tmp_path_factory.mktemp("llmdiff")
    sur = random_adapter("sd1", depth=1, feedforward=8)
    save_adapter(sur, work / "models" / "sur_adapters" / "sur.safetensors")
    command = [comfy.PYTHON, SCRIPT, PACK, comfy.COMFYUI, work]
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_every_case_ran(results):
    assert sorted(results) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_inside_comfyui(results, case):
    assert results[case] == "", results[case]
