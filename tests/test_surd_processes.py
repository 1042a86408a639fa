"""Several processes make what one makes, also when they are killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sur_core.knowledge import open_knowledge
from tests.knowledge_builds import PROMPTS
from tests.surd_golden import infotext, save_png
from tests.surd_models import make_blip, make_clip
from tests.tiny_models import make_tiny_llm
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "HF_HUB_OFFLINE": "1",
}
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train")
PICTURES = 11


def start(*arguments, **options) -> subprocess.Popen:
    """The command in two processes, in a process group of their own."""
    command = [*TWO, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True, **options)


def two(*arguments) -> str:
    running = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = running.communicate(timeout=400)
    assert running.returncode == 0, errors[-3000:]
    return said


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"blip": make_blip(folder / "blip"), "clip": make_clip(folder / "clip")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for number in range(PICTURES):
        save_png(folder / f"{number}.png", {"parameters": infotext(f"masterpiece, a cat, nr {number}")})
        content = (folder / f"{number}.png").read_bytes()
        (folder / f"{number}.png").write_bytes(content + bytes([number]))  # other bytes, so another picture
    return folder


def build(work: Path, pictures: Path, models: dict[str, Path]) -> list:
    where = ["surd", "build", work, pictures, "--min-side", 8, "--near-duplicates", "off", "--device", "cpu"]
    names = ["--caption-model", models["blip"], "--clean-model", models["clip"], "--max-new-tokens", 8]
    return [*where, *names, "--caption-batch-size", 1, "--clean-batch-size", 2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pictures, models) -> Path:
    work = tmp_path_factory.mktemp("alone") / "work"
    assert main(list(map(str, build(work, pictures, models)))) == 0
    return work


def test_build_in_two_processes_is_build_in_one(alone, pictures, models, tmp_path):
    two(*build(tmp_path / "work", pictures, models))
    for name in ("manifest.jsonl", "report.html"):
        assert (tmp_path / "work" / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize("step", ["caption", "clean"])
def test_killed_together_and_started_again_they_end_the_same(alone, pictures, models, tmp_path, step):
    work = tmp_path / "work"
    running = start(*build(work, pictures, models), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while running.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size for path in work.glob(f"journals/{step}-*")):
            break
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    two(*build(work, pictures, models))
    assert (work / "manifest.jsonl").read_bytes() == (alone / "manifest.jsonl").read_bytes()


def vectors(path: Path, prompts: list[str]) -> np.ndarray:
    file = open_knowledge(path)
    return np.stack([file[prompt] for prompt in prompts])


@pytest.mark.parametrize("begun", [False, True])
def test_vectors_computed_in_two_processes_are_those_of_one(tmp_path, begun):
    """With and without some of them there already."""
    llm = make_tiny_llm(tmp_path / "llm")
    tables = {"all.csv": PROMPTS, "some.csv": PROMPTS[:3]}
    for name, prompts in tables.items():
        lines = ["text,prompt", *(f'"{prompt}","{prompt}"' for prompt in prompts)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = ["--llm", str(llm), "--store", "fp32", "--device", "cpu"]
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("one", "two")}
    assert not main(["vectors", str(tmp_path / "all.csv"), str(paths["one"]), *settings])
    if begun:
        assert not main(["vectors", str(tmp_path / "some.csv"), str(paths["two"]), *settings])
    two("vectors", tmp_path / "all.csv", paths["two"], *settings)
    one, other = (vectors(path, PROMPTS) for path in paths.values())
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"one.safetensors", "two.safetensors"}


def test_the_process_group_is_ended_before_the_program(tmp_path):
    """Its threads would be torn down with the interpreter, which aborts now and then."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, torch.distributed as group\n"
        "atexit.register(lambda: print('left' if group.is_initialized() else 'ended', flush=True))\n"
        "from train.common import all_processes\n"
        "all_processes('cpu')[0].barrier()\n"
        "assert group.is_initialized()\n"
    )
    command = [*TWO[:-2], script]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "".join(done.stdout.split()) == "endedended"
