"""The groups: what each compares, as figures that tables are made of.

Figures of a group are JSON values. ``rows`` are arms; each has ``percent`` right, ``gain_points`` over the
base on simple prompts and ``gap_closed``, by type, ``clip_score``, ``cosine`` and ``kid``, and in ablations
``training`` and ``against_default``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from small_world.dataset import unseen_words
from sur_core import adapt, load_adapter
from sur_core.evaluation import ALL, Arm, EvalPrompt, Evaluation, adapter_arm
from sur_core.evaluation.text import PromptEncoder, Request
from sur_core.training_log import read_log

from .arms import ABLATIONS, DEFAULT, TrainedArm, shown
from .costs import Costs
from .gallery import Gallery
from .plan import Plan
from .scores import Marks, gains, gaps_closed, properties, spread
from .training import Workshop

BASE, COMPLEX, SUR = "base, simple prompts", "base, complex prompts", "SUR, simple prompts"
CURVE = ("loss", "llm", "cp", "simple", "validation_loss", "validation_simple")
_CURVE_POINTS = 41


@dataclass
class Bench:
    """What a group works with."""

    plan: Plan
    workshop: Workshop
    gallery: Gallery
    costs: Costs
    say: Callable[[str], None]

    def arms(self, arm: TrainedArm, label: str, eta: float | None = None) -> list[Arm]:
        """An arm for each training seed. ``eta``: if it is not given that of training, or 1 for LLMDiff."""
        llm = str(self.plan.models.llm)
        if eta is None:
            eta = 1.0 if arm.is_llmdiff else self.plan.eta
        return [
            adapter_arm(f"{label}, seed {seed}", self.workshop.adapter(arm, seed), eta, llm)
            for seed in self.plan.training_seeds
        ]


def needed(name: str, plan: Plan, costs: Costs, layers: int) -> list[TrainedArm]:
    """The adapters that a group compares."""
    return list(ABLATIONS[name](plan, costs, layers).values()) if name in ABLATIONS else [shown(plan)]


def main(bench: Bench) -> dict:
    """Base and SUR on the larger test and on the paper's prompts."""
    plan = bench.plan
    trained = {SUR: bench.arms(shown(plan), SUR)}
    _, paper = _measure(bench, plan.prompts(plan.paper), trained, plan.paper_noises)
    prompts = plan.prompts(plan.large)
    found, rows = _measure(bench, prompts, trained, plan.main_noises)
    marks = _marks(found, trained)
    unseen = np.isin(marks.prompts, [prompt.id for prompt in prompts if unseen_words(prompt.prompt)])
    parts = {"with unseen words": unseen, "with seen words only": ~unseen}
    return {
        "rows": rows,
        "prompts": len(prompts),
        "noises": plan.main_noises,
        "paper": {"rows": paper, "prompts": len(plan.prompts(plan.paper)), "noises": plan.paper_noises},
        "words": {
            words: {"rows": _rows(marks.only(chosen), plan, trained), "prompts": _count(marks.only(chosen))}
            for words, chosen in parts.items()
            if chosen.any()
        },
        "properties": {name: properties(found, arms) for name, arms in _names(trained).items()},
    }


def quality(bench: Bench) -> dict:
    """KID and CLIP on the larger test."""
    plan = bench.plan
    prompts = plan.prompts(plan.large)
    trained = {SUR: bench.arms(shown(plan), SUR)}
    _, rows = _measure(bench, prompts, trained, plan.main_noises)
    references = len(prompts) * plan.references
    return {"rows": rows, "prompts": len(prompts), "noises": plan.main_noises, "references": references}


def eta(bench: Bench) -> dict:
    """The adapters of group main at every strength; at 0 they must change nothing."""
    plan = bench.plan
    trained = {f"eta {eta:g}": bench.arms(shown(plan), f"eta {eta:g}", eta) for eta in plan.etas}
    prompts = plan.prompts(plan.large)
    found, rows = _measure(bench, prompts, trained, plan.ablation_noises)
    result = {"rows": rows, "prompts": len(prompts), "noises": plan.ablation_noises}
    if 0.0 in plan.etas:
        result["zero"] = _zero(bench, trained["eta 0"], prompts)
    return result


def ablation(bench: Bench, name: str) -> dict:
    """Adapters that differ in one thing from the default, or from the first where it is not among them."""
    plan = bench.plan
    wanted = ABLATIONS[name](plan, bench.costs, bench.workshop.layers)
    trained = {label: bench.arms(arm, label) for label, arm in wanted.items()}
    prompts = plan.prompts(plan.large)
    found, rows = _measure(bench, prompts, trained, plan.ablation_noises)
    marks = _marks(found, trained)
    default = next((label for label, arm in wanted.items() if arm is DEFAULT), next(iter(wanted)))
    for label, arm in wanted.items():
        rows[label]["training"] = _training(bench, arm)
        if label != default:
            rows[label]["against_default"] = gains(marks, label, default, plan.resamples)
    result = {"rows": rows, "default": default, "prompts": len(prompts), "noises": plan.ablation_noises}
    if name == "start":
        result["curves"] = {label: _curves(bench, arm) for label, arm in wanted.items()}
    return result


RUN = {"main": main, "quality": quality, "eta": eta}
RUN |= {name: lambda bench, name=name: ablation(bench, name) for name in ABLATIONS}


# --- rows ---------------------------------------------------------------------------------------------------


def _names(trained: dict[str, list[Arm]]) -> dict[str, list[str]]:
    of = {label: [arm.name for arm in arms] for label, arms in trained.items()}
    return {BASE: [BASE], COMPLEX: [COMPLEX], **of}


def _marks(found: Evaluation, trained: dict[str, list[Arm]]) -> Marks:
    return Marks.read(found, _names(trained))


def _measure(
    bench: Bench, prompts: tuple[EvalPrompt, ...], trained: dict[str, list[Arm]], noises: int
) -> tuple[Evaluation, dict]:
    """The evaluation and the row of every arm."""
    arms = [Arm(BASE), Arm(COMPLEX, text="complex"), *(arm for each in trained.values() for arm in each)]
    bench.say(f"{len(arms)} arms, {len(prompts)} prompts, {noises} pictures of each")
    found = bench.gallery.show(prompts, arms, noises)
    rows = _rows(_marks(found, trained), bench.plan, trained)
    for label, names in _names(trained).items():
        rows[label] |= _clip(found, names)
    return found, rows


def _count(marks: Marks) -> int:
    return len(set(marks.prompts.tolist()))


def _rows(marks: Marks, plan: Plan, trained: dict) -> dict:
    """Rows of the pictures that ``marks`` holds, without CLIP."""
    rows = {name: {"percent": marks.percent(name)} for name in marks.of}
    for name in (COMPLEX, *trained):
        rows[name]["gain_points"] = gains(marks, name, BASE, plan.resamples)
    for name in trained:
        rows[name]["gap_closed"] = gaps_closed(marks, name, BASE, COMPLEX, plan.resamples)
    return rows


def _clip(found: Evaluation, names: list[str]) -> dict:
    """CLIP's figures of the arms of one row."""
    scores, kids = [found.clip_score(name) for name in names], [found.kid(name) for name in names]
    result = {"cosine": spread([score.cosine for score in scores])}
    result["kid"] = spread([kid.value for kid in kids])
    if names != [found.baseline]:
        result["clip_score"] = spread([score.share for score in scores])
        ends = [kid.difference_interval for kid in kids]
        known = all(end.low is not None for end in ends)
        result["kid_minus_base"] = spread([kid.difference for kid in kids]) | {
            "low": float(np.mean([end.low for end in ends])) if known else None,
            "high": float(np.mean([end.high for end in ends])) if known else None,
        }
        tests = [found.comparison(name, ALL, "cosine").independent.p for name in names]
        result["cosine_t_test_p"] = tests
    return result


def _training(bench: Bench, arm: TrainedArm) -> dict:
    seeds = bench.plan.training_seeds
    config = bench.workshop.config(arm, seeds[0])
    seconds = [bench.workshop.counters(arm, seed).seconds for seed in seeds]
    return {"align_steps": config.align_steps, "full_steps": config.full_steps, "seconds": seconds}


def _curves(bench: Bench, arm: TrainedArm) -> dict:
    """Losses of some logged steps, means over the training seeds: {column: [[step, value]]}."""
    logs = [
        read_log(bench.workshop.adapter(arm, seed).parent / "log.csv") for seed in bench.plan.training_seeds
    ]
    curves = {}
    for column in CURVE:
        values: dict[int, list[float]] = {}
        for row in (row for rows in logs for row in rows):
            if row.get(column):
                values.setdefault(int(row["step"]), []).append(float(row[column]))
        points = [[step, float(np.mean(each))] for step, each in sorted(values.items())]
        chosen = np.linspace(0, len(points) - 1, min(_CURVE_POINTS, len(points))).round().astype(int)
        curves[column] = [points[place] for place in chosen]
    return curves


# --- eta 0 --------------------------------------------------------------------------------------------------


def _zero(bench: Bench, arms: list[Arm], prompts: tuple[EvalPrompt, ...]) -> dict:
    """How much eta 0 changes: pictures that differ from the base's, and embeddings that differ by a bit.

    Arms of eta 0 never ask the adapter, so their pictures would prove nothing: here Eq. 7 is written out, and
    its embeddings are drawn. The base is drawn anew in the same batches, whose shape decides the rounding.
    """
    noises = bench.plan.ablation_noises
    base = bench.gallery.draw_changed(prompts, noises, lambda hidden: hidden)
    encoder, moved, differing = PromptEncoder(bench.gallery.pipeline), 0, 0
    for arm in arms:
        adapter = load_adapter(arm.adapter).to(bench.gallery.pipeline._execution_device)

        @torch.no_grad()
        def at_zero(hidden: torch.Tensor, adapter=adapter) -> torch.Tensor:
            return 0.0 * next(iter(adapter.towers.values()))(hidden).c_llm + 1.0 * hidden

        for prompt in prompts:
            hidden = encoder.embeddings(Request(prompt.prompt, "", None, 0.0, False))["prompt_embeds"]
            both = adapt(adapter, hidden, 0.0), at_zero(hidden)
            moved += not all(torch.equal(result, hidden) for result in both)
        drawn = bench.gallery.draw_changed(prompts, noises, at_zero)
        differing += sum(not np.array_equal(pixels, base[place]) for place, pixels in drawn.items())
    return {
        "pictures": len(arms) * len(prompts) * noises,
        "differing_pictures": differing,
        "embeddings": len(arms) * len(prompts),
        "differing_embeddings": moved,
    }


def as_json(figures: dict) -> dict:
    """Floats to six significant digits: more is noise, and a committed file should not change by it."""
    return json.loads(json.dumps(figures), parse_float=lambda text: float(f"{float(text):.6g}"))
