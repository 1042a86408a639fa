"""From a folder of pictures to an adapter that learns from them; and every step killed again and again."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sur_core import read_passport
from sur_core.surd import open_surd
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.samples import read_samples
from tests.surd_golden import infotext, save_png
from tests.surd_models import make_blip, make_clip
from tests.surd_works import gradient
from tests.tiny_models import make_tiny, make_tiny_llm
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
PICTURES, WITHOUT_PROMPT, SMALL, COPIES = 200, 10, 10, 5
KILLS = 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Pictures as AUTOMATIC1111 saves them, among them some that are of no use."""
    from PIL import Image

    folder, draw = tmp_path_factory.mktemp("outputs"), random.Random(0)
    for number in range(PICTURES):
        small = number >= PICTURES - SMALL
        path = folder / f"day {number // 50}" / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        with_prompt = number >= WITHOUT_PROMPT
        words = " ".join(draw.sample(["cat", "dog", "red", "blue", "ball", "two", "on", "a"], 4))
        texts = {"parameters": infotext(f"masterpiece, (best quality:1.2), {words}, nr {number}")}
        save_png(path, texts if with_prompt else {})
        size = 40 if small else draw.choice([64, 80])
        content = gradient(draw, (size, size))
        noise = Image.effect_noise((size, size), 90).convert("RGB")  # or hashes would be alike
        _repaint(path, Image.blend(content, noise, 0.5))
    for number in range(COPIES):
        (folder / f"copy {number}.png").write_bytes((folder / "day 1" / f"{60 + number:04}.png").read_bytes())
    return folder


def _repaint(path: Path, image) -> None:
    """Other pixels under the same text."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(path) as old:
        info = PngInfo()
        for name, text in old.text.items():
            info.add_text(name, text)
    image.save(path, pnginfo=info)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    llm = make_tiny_llm(folder / "llm")
    return {"blip": make_blip(folder / "blip"), "clip": make_clip(folder / "clip"), "llm": llm}


def steps(work: Path, pictures: Path, models: dict[str, Path], out: Path) -> dict[str, list]:
    """The commands of the pipe up to the export."""
    small = ["--min-side", 48, "--near-duplicates", "off", "--workers", 2]
    return {
        "collect": ["collect", work, pictures, *small],
        "caption": ["caption", work, "--model", models["blip"], "--device", "cpu", "--batch-size", 8],
        "clean": ["clean", work, "--model", models["clip"], "--device", "cpu", "--batch-size", 8],
        "stats": ["stats", work],
        "export": ["export", work, out, "--resolution", 64, "--workers", 2, "--llm", models["llm"]],
    }


def python(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def whole(pictures, models, tmp_path_factory) -> Path:
    """A folder with ``work`` and ``out``, done without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    for name, arguments in steps(folder / "work", pictures, models, folder / "out").items():
        assert main(["surd", *map(str, arguments)]) == 0, name
    return folder


def test_what_is_of_no_use_is_left_out_with_its_reason(whole):
    samples = list(read_samples(Manifest(whole / "work")))
    assert len(samples) == PICTURES + COPIES
    reasons = [sample.dropped[1].partition(":")[0] for sample in samples if sample.dropped[:1] == ("select",)]
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "no prompt": WITHOUT_PROMPT,
        "too small": SMALL,
        "exact duplicate": COPIES,
    }


def test_the_data_set_holds_what_was_kept_and_nothing_else(whole):
    samples = [sample for sample in read_samples(Manifest(whole / "work")) if not sample.dropped]
    rows = [json.loads(line) for line in (whole / "out" / "metadata.jsonl").read_text().splitlines()]
    kept = {sample.id: sample for sample in samples}
    assert {row["id"] for row in rows} == set(kept) and len(rows) == len(kept) > 20
    for row in rows:
        number = int(re.search(r"nr (\d+)$", row["prompt"])[1])
        names = (f"/{number:04}.png", f"/copy {number - 60}.png")
        assert kept[row["id"]].name.endswith(names), "each picture has its own prompt"
        assert row["text"] == kept[row["id"]].simple != ""
        assert row["prompt"].startswith("masterpiece, best quality, "), "weights are taken out"
    assert len(open_surd(whole / "out")) == len(rows)


def test_check_passes_and_fit_learns_from_it(whole, tmp_path, capsys):
    assert main(["check", str(whole / "out"), "--resolution", "64"]) == 0
    base = make_tiny(tmp_path / "base", "sd1")
    run = ["--resolution", "64", "--align-steps", "2", "--full-steps", "2", "--train-batch-size", "2"]
    vectors = whole / "out" / "vectors" / "llm-layer-1.safetensors"
    where = ["--data", str(whole / "out"), "--output-dir", str(tmp_path / "run"), "--vectors", str(vectors)]
    plain = ["--mixed-precision", "no", "--device", "cpu"]
    model = ["--pretrained-model-name-or-path", str(base)]
    assert main(["fit", *model, *where, *run, *plain]) == 0
    assert read_passport(tmp_path / "run" / "adapter.safetensors").steps == 4


def test_done_again_nothing_is_done(whole, pictures, models, capsys):
    before = files(whole)
    for arguments in steps(whole / "work", pictures, models, whole / "out").values():
        assert main(["surd", *map(str, arguments)]) == 0
    assert files(whole) == before


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_killed_in_every_step_it_ends_the_same(whole, pictures, models, tmp_path):
    """SIGKILL at random moments and while files are being written; then the step is let end."""
    killed = Counter()
    for seed, arguments in enumerate(steps(tmp_path / "work", pictures, models, tmp_path / "out").values()):
        harness = ("tests.kill_harness", KILLS, seed, tmp_path, "--")
        done = python(*harness, "surd", *arguments, KILL_SECONDS="0.5", KILL_WRITES="4")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["code"] == 0, (tmp_path / "killed.log").read_text()[-3000:]
        killed.update(told)
    assert killed["random"] >= 3 and killed["writing"] >= 5
    (tmp_path / "killed.log").unlink()
    ended, expected = files(tmp_path), files(whole)
    assert ended.keys() == expected.keys()
    assert {name for name in expected if ended[name] != expected[name]} == set()
