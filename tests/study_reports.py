"""Studies whose pictures are made by the test: no model draws them, marks and scores are known."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sur_core.evaluation import Arm, EvalPrompt, Evaluation, EvaluationSettings, Picture, Verdict
from sur_core.evaluation.image_text import clip_score_share
from sur_core.evaluation.marking import add_comparisons, add_verdicts
from sur_core.evaluation.pictures import write_picture
from sur_core.evaluation.results import write_results
from sur_core.evaluation.study import Cell, MeasureInfo, Study, accuracy_rows, quality_rows
from sur_core.evaluation.study_files import write_study

HOSTILE = "</style><script>alert(1)</script><img src=x onerror='a'> & \"two\" <b>dogs</b>\x00\u202e"
PROMPTS = (
    EvalPrompt("a1", "Action", "an old man pours tea for his granddaughter"),
    EvalPrompt("a2", "Action", HOSTILE),
    EvalPrompt("k1", "Color", "a red apple lies on a blue plate"),
    EvalPrompt("k2", "Color", "the yellow bird looks at a green frog"),
    EvalPrompt("n1", "Counting", "a trio of cats sleeps upon two chairs"),
    EvalPrompt("n2", "Counting", "four candles on a cake"),
)
MODELS, METHODS = ("DM (1.5)", "DM <cartoon>"), ("none", "controlnet-canny", "sag")
ARMS = (
    Arm("Baseline", negative_prompt="blurry"),
    Arm("SUR, eta 0.1", adapter="adapter.safetensors", eta=0.1, negative_prompt="blurry"),
    Arm("SUR, eta 0.5", adapter="adapter.safetensors", eta=0.5, negative_prompt="blurry"),
)
SEEDS = (7, 11, 13)
CONFIG = {
    "output_dir": "study",
    "prompts": ["narrative", 'my "own".toml'],
    "drawing": {"seeds": list(SEEDS), "steps": 20, "guidance_scale": 7.5, "negative_prompt": "blurry"},
    "models": [{"name": name, "path": f"models/{name}"} for name in MODELS],
    "methods": [{"kind": name} for name in METHODS],
    "adapters": [{"path": "adapter.safetensors", "etas": [0.1, 0.5], "name": "</pre><script>\x7f"}],
    "judge": {"kind": "detector", "classes": {"cat": ["cat", "kitten"]}},
}
NOTE = "Marks of this judge are not comparable with the paper's hand counts <or> GenEval."


class KnownMeasure:
    """Scores are drawn by lot, once for each picture; some are not defined. Adapters change SigLIP's."""

    note = "By lot & <nothing> else."

    def __init__(self, name: str, higher_is_better: bool):
        self.name, self.higher_is_better = name, higher_is_better

    def scores(self, cell: Cell) -> tuple[float, ...]:
        return tuple(self._score(cell, picture) for picture in cell.evaluation.pictures)

    def _score(self, cell: Cell, picture: Picture) -> float:
        value = _lot(self.name, cell.model, cell.method, picture.path)
        if self.name == "brisque" and value > 0.95:
            return np.nan
        return value + (self.name == "siglip" and picture.arm != ARMS[0].name)


class KnownClipScore(KnownMeasure):
    def shares(self, scores, baseline):
        return clip_score_share(scores, baseline, 1.0)


MEASURES = (
    KnownClipScore("clip_score", True),
    KnownMeasure("clip_cosine", True),
    KnownMeasure("brisque", False),
    KnownMeasure("clip_iqa", True),
    KnownMeasure("siglip", True),
)


class LotJudge:
    """Right by lot; more often at higher strengths of the adapter, but for one prompt."""

    name, note, about = "lot", NOTE, {"threshold": 0.5}

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        strength = int(pixels[0, 0, 0]) / 100
        chance = 0.2 + 0.7 * strength if prompt.id != "n2" else 0.9 - 1.6 * strength
        right = _lot("judge", pixels[1, 1].tolist()) < chance
        return Verdict(right, "" if right else "saw <i>nothing</i> of it")


def make_study(
    folder: Path, judged=True, measures=MEASURES, models=MODELS, methods=METHODS, prompts=PROMPTS, side=96
) -> Study:
    """A study with all its files, written into a folder."""
    cells = [
        _cell(folder, number, model, method, prompts, judged, side)
        for number, (model, method) in enumerate((m, n) for m in models for n in methods)
    ]
    cells = [replace(cell, scores={m.name: m.scores(cell) for m in measures}) for cell in cells]
    remarks = dict.fromkeys(remark for cell in cells for remark in cell.evaluation.remarks)
    study = Study(
        folder=folder,
        cells=tuple(cells),
        measures=tuple(MeasureInfo(m.name, m.higher_is_better, m.note) for m in measures),
        accuracies=accuracy_rows(cells),
        qualities=quality_rows(cells, measures),
        config=CONFIG,
        about={"versions": "torch 2.8, diffusers 0.42"} | ({"judge": "lot"} if judged else {}),
        remarks=tuple(remarks),
    )
    write_study(study)
    return study


def _cell(folder: Path, number: int, model: str, method: str, prompts, judged: bool, side: int) -> Cell:
    own = f"cells/{number}"
    settings = EvaluationSettings(folder / own, seeds=SEEDS, resamples=100)
    pictures = []
    for arm in ARMS:
        for prompt in prompts:
            for seed in SEEDS:
                path = f"images/{arm.eta:g}-{prompt.id}/{seed}.png"
                write_picture(folder / own / path, _pixels(arm, side, number, prompt.id, seed))
                pictures.append(Picture(arm.name, prompt.id, prompt.type, seed, path))
    about = {
        "model": model,
        "model fingerprint": "0123456789abcdef",
        "size": f"{side} x {side}",
        "versions": "torch 2.8, diffusers 0.42",
        "model path": f"models/{model}",
        "method": method,
    }
    found = Evaluation(settings, prompts, ARMS, tuple(pictures), about=about)
    if judged:
        found = add_verdicts(found, LotJudge(), lambda *_: None, lambda: None)
    found = add_comparisons(found)
    write_results(found)
    return Cell(model, method, own, found)


def _pixels(arm: Arm, side: int, *what) -> np.ndarray:
    """A soft picture; its first pixel tells the adapter's strength."""
    draw = np.random.default_rng(zlib.crc32(repr(what).encode()))
    down, right = np.mgrid[0:side, 0:side] / side
    levels = draw.uniform(40, 200, 3) + 50 * arm.eta
    waves = np.sin(6 * (down * draw.uniform(-1, 1) + right * draw.uniform(-1, 1)) + draw.uniform(0, 6))
    pixels = (levels + 40 * waves[..., None]).clip(0, 255).astype(np.uint8)
    pixels[0, 0, 0] = round(100 * arm.eta)
    pixels[1, 1] = draw.integers(0, 256, 3) ^ round(100 * arm.eta)
    return pixels


def _lot(*what) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(what).encode())).random())


def entries_of(study):
    """(cell, arm) of every row of a table."""
    return [(cell, arm.name) for cell in study.cells for arm in cell.arms]
