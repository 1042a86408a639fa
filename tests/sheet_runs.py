"""Results of evaluations that never ran, whose pictures say on purpose who drew them; answers of people."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from sur_core.evaluation import Arm, EvalPrompt, Evaluation, EvaluationSettings, Verdict, write_results
from sur_core.evaluation.evaluation import Picture

ARMS = ("base-arm", "SUR-arm")
PROMPTS = (
    EvalPrompt("id-action", "Action", "a fox jumps over a fence", "fox, jump, masterpiece"),
    EvalPrompt("id-action-2", "Action", "a cook throws a pizza", "cook, pizza, masterpiece"),
    EvalPrompt("id-count", "Counting", "three red apples", "(3 apples:1.2), masterpiece"),
    EvalPrompt("id-count-2", "Counting", "two </script><b>birds</b> & a 'cat'", "2 birds, masterpiece"),
)
SEEDS = (70011, 70022, 70033)
SIZE = 24


def pixels_of(what: str, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """uint8 [H, W, 3], the same for the same words."""
    seed = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big")
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC))


def make_results(
    folder: Path,
    arms: Sequence[str] = ARMS,
    drew: Sequence[str] | None = None,
    prompts: Sequence[EvalPrompt] = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    size: tuple[int, int] = (SIZE, SIZE),
    right=None,
) -> Path:
    """A results folder. ``drew``: for each arm what its pictures are made of, its own name if not said;
    ``right``: (arm, prompt id, seed) -> whether a judge found it right.
    """
    pictures = []
    for arm, hand in zip(arms, drew or arms, strict=True):
        for prompt in prompts:
            for seed in seeds:
                path = f"images/key-of-{arm}-{prompt.id}/{seed}.png"
                write_telltale(folder / path, pixels_of(f"{hand} {prompt.id} {seed}", size), arm)
                verdict = right and Verdict(right(arm, prompt.id, seed))
                pictures.append(Picture(arm, prompt.id, prompt.type, seed, path, verdict))
    settings = EvaluationSettings(folder, seeds=tuple(seeds))
    found = Evaluation(
        settings, tuple(prompts), tuple(Arm(name) for name in arms), tuple(pictures), about={"judge": "exact"}
    )
    write_results(found)
    return folder


def write_telltale(path: Path, pixels: np.ndarray, arm: str) -> None:
    """A PNG that names its arm in text, EXIF, and its time."""
    told = PngImagePlugin.PngInfo()
    told.add_text("parameters", f"drawn by {arm}")
    exif = Image.Exif()
    exif[0x9286] = f"drawn by {arm}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, pnginfo=told, exif=exif)


def told_by(page: Path) -> dict:
    """What the page tells its script."""
    return json.loads(re.search(r'id="study">(.*?)</script>', page.read_text("utf-8"), re.S)[1])


def pictures_in(page: Path) -> dict[str, bytes]:
    """{name: file} of the pictures inside a page, in its order."""
    found = re.findall(r'<script type="text/plain" id="p-([^"]+)">([^<]*)</script>', page.read_text("utf-8"))
    return {name: base64.b64decode(content) for name, content in found}


def key_of(results: Path, folder: str = "sheets") -> Path:
    """The only key there."""
    (key,) = results.glob(f"{folder}/*/key.json")
    return key


def answer_file(
    path: Path, key: Path, marker: str, answers, kind: str = "sur sheet answers", changed=None
) -> Path:
    """A file as the page saves it. ``answers``: item of the key -> answer or None;
    ``changed``: what the file has instead.
    """
    found = json.loads(key.read_text("utf-8"))
    given = {item["id"]: answers(item) for item in found["items"]}
    given = {id: value for id, value in given.items() if value is not None}
    content = {
        "kind": kind,
        "version": 1,
        "study": found["study"],
        "marker": marker,
        "session": f"session of {marker}",
        "revision": len(given),
        "items": len(found["items"]),
        "answers": given,
    }
    path.write_text(json.dumps(content | (changed or {})), "utf-8")
    return path
