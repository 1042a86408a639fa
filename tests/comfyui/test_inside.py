"""Runs inside.py in ComfyUI's own process and reports each of its cases."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from sur_core import save_adapter
from tests.comfyui import server as comfy
from tests.comfyui.conftest import PACK
from tests.helpers import random_adapter, write_authors_file

SCRIPT = Path(__file__).with_name("inside.py")
CASES = [
    node.name
    for node in ast.parse(SCRIPT.read_text(encoding="utf8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
]


@pytest.fixture(scope="module")
def results(checkpoints, tmp_path_factory):
    work = tmp_path_factory.mktemp("inside")
    folder = work / "models" / "sur_adapters"
    save_adapter(random_adapter("sd1", seed=1), folder / "ours.safetensors")
    save_adapter(random_adapter("sdxl", seed=2), folder / "sdxl.safetensors")
    write_authors_file(folder / "authors_adapterw0.1.pt")
    command = [comfy.PYTHON, SCRIPT, PACK, comfy.COMFYUI, checkpoints, work]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_inside_comfyui(results, case):
    assert results[case] == "", results[case]
