"""The adapters that are trained: the default one, and others that differ from it in one thing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .costs import Costs
from .plan import Plan

STARTS = {"normal": "normal random, standard deviation 0.02", "kaiming": "Kaiming"}


@dataclass(frozen=True)
class TrainedArm:
    """An adapter to train, once for each training seed.

    Attributes:
        name: unique; its folder is named after it.
        settings: training settings that differ from the default's.
        layer: of the language model; ``None`` is the last.
        start: how phi_1 begins, of ``STARTS``; ``""`` is at zero.
        cut, mix: see :class:`~.authors.AuthorsObjective`.
    """

    name: str
    settings: dict = field(default_factory=dict, hash=False)
    layer: int | None = None
    start: str = ""
    cut: bool = False
    mix: bool = False

    @property
    def is_llmdiff(self) -> bool:
        return self.settings.get("system") == "llmdiff"

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


DEFAULT = TrainedArm("default")
_PAPERS = {"query_in_value": False}
PAPER = TrainedArm("paper value", _PAPERS)
"""Eq. 6 as it stands in the paper; the default reads the query too."""


def shown(plan: Plan) -> TrainedArm:
    """The adapter of the groups that show what the method can do."""
    return TrainedArm("long", plan.long) if plan.long else DEFAULT


Rows = dict[str, TrainedArm]


def value(plan: Plan, costs: Costs, count: int) -> Rows:
    rows = {"with the query (default)": DEFAULT, "as in the paper": PAPER}
    if plan.long:
        rows["with the query, trained longer"] = shown(plan)
        rows["as in the paper, trained longer"] = TrainedArm("long paper value", {**plan.long, **_PAPERS})
    return rows


def layers(plan: Plan, costs: Costs, count: int) -> Rows:
    """``count``: layers of the language model."""
    rows = {f"layer {number}": TrainedArm(f"layer {number}", layer=number) for number in range(count)}
    return {"layer 0 (embeddings)": rows.pop("layer 0"), **rows, f"layer {count} (last, default)": DEFAULT}


def terms(plan: Plan, costs: Costs, count: int) -> Rows:
    full = costs.full_steps_worth(plan.config)
    none = {"lambda_llm": 0.0, "lambda_cp": 0.0, "align_steps": 0, "full_steps": full}
    return {
        "neither (Eq. 8 alone, all steps full)": TrainedArm("no terms", none),
        "LLM only": TrainedArm("LLM term only", {"lambda_cp": 0.0}),
        "complex prompts only": TrainedArm("complex prompts only", {"lambda_llm": 0.0}),
        "both (default)": DEFAULT,
    }


def start(plan: Plan, costs: Costs, count: int) -> Rows:
    others = {words: TrainedArm(f"start {kind}", start=kind) for kind, words in STARTS.items()}
    return {"zero (default)": DEFAULT, **others}


def stages(plan: Plan, costs: Costs, count: int) -> Rows:
    align = {"align_steps": costs.align_steps_worth(plan.config), "full_steps": 0}
    full = {"align_steps": 0, "full_steps": costs.full_steps_worth(plan.config)}
    return {
        "align only": TrainedArm("align only", align),
        "full only": TrainedArm("full only", full),
        "both (default)": DEFAULT,
    }


def authors(plan: Plan, costs: Costs, count: int) -> Rows:
    """All rows with the paper's Eq. 6: it is the paper that their code is compared with."""
    alone, turned = {**_PAPERS, "token_mixing": "none"}, {**_PAPERS, "kl_direction": "authors"}
    return {
        "the paper's training step": PAPER,
        "gradient of Eq. 8 cut": TrainedArm("gradient cut", _PAPERS, cut=True),
        "h3 attends over the batch": TrainedArm("batch mixed", alone, mix=True),
        "Eq. 5 reversed": TrainedArm("KL reversed", turned),
        "all three, as the authors' code": TrainedArm("as authors", {**alone, **turned}, cut=True, mix=True),
    }


def llmdiff(plan: Plan, costs: Costs, count: int) -> Rows:
    """The other system, for as many full steps as the default's training is worth. In the text encoder's
    place it begins with no text at all, so that it is trained longer too.
    """
    steps = costs.full_steps_worth(plan.config)
    settings = {"system": "llmdiff", "full_steps": steps}
    keep, drop = ({**settings, "llmdiff_clip": clip} for clip in ("keep", "drop"))
    longer = TrainedArm("llmdiff drop longer", {**drop, "full_steps": 3 * steps})
    return {
        "SUR (default)": DEFAULT,
        "LLMDiff beside the text encoder": TrainedArm("llmdiff keep", keep),
        "LLMDiff in the text encoder's place": TrainedArm("llmdiff drop", drop),
        "the same, three times as long": longer,
    }


ABLATIONS = {
    "value": value,
    "layers": layers,
    "terms": terms,
    "start": start,
    "stages": stages,
    "authors": authors,
    "llmdiff": llmdiff,
}
