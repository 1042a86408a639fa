"""What was compared and how it was made: models, methods, adapters, prompts, settings, versions, command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from ...page_elements import element, table
from ..arms import Arm
from ..study import Study
from ..tables import ABSENT

_TOLD_ELSEWHERE = (
    "model",
    "model path",
    "method",
    "judge",
    "judge settings",
    "versions",
)


def compared_tables(study: Study) -> list[Element]:
    """Models, methods, adapters and settings."""
    models = {cell.model: cell.evaluation.about for cell in study.cells}
    rows = [[name, about.get("model path", ABSENT)] for name, about in models.items()]
    made = [table(["Model", "Path"], rows, "Models")]
    rows = []
    for cell in study.cells:
        about = cell.evaluation.about.items()
        details = "; ".join(f"{name} {value}" for name, value in about if name not in _TOLD_ELSEWHERE)
        rows.append([cell.method, cell.model, details])
    made.append(table(["Method", "Model", "How"], rows, "Controlled methods"))
    head = ["Adapter", "File", "eta or strength", "Negative prompt", "Models"]
    made.append(table(head, _adapters(study), "Adapters"))
    return [*made, table(["What", "Which"], _settings(study), "Drawing, judging, counting")]


def _adapters(study: Study) -> list[list[str]]:
    models: dict[tuple, dict[str, None]] = {}
    for cell in study.cells:
        for arm in cell.arms:
            about = (arm.name, *_adapter(arm))
            models.setdefault(about, {})[cell.model] = None
    return [[*about, ", ".join(names)] for about, names in models.items()]


def _adapter(arm: Arm) -> tuple[str, str, str]:
    """File, eta or strength, and what becomes of the negative prompt."""
    if arm.llmdiff is not None:
        return f"{arm.llmdiff}, read by {arm.llm}", f"{arm.strength:g}", "read by the language model too"
    return str(arm.adapter), f"{arm.eta:g}", "corrected too" if arm.to_negative else "left as it is"


def _settings(study: Study) -> list[list[str]]:
    found = study.cells[0].evaluation
    drawn, counts = found.settings, {name: 0 for name in found.types}
    for prompt in found.prompts:
        counts[prompt.type] += 1
    judge_settings = found.about.get("judge settings", "")
    scheduler = "the model's own" if drawn.scheduler == "keep" else drawn.scheduler
    return [
        ["prompts", ", ".join(f"{count} {name}" for name, count in counts.items())],
        ["seeds", ", ".join(map(str, drawn.seeds))],
        ["negative prompt", found.arms[0].negative_prompt or "none"],
        ["steps", str(drawn.steps)],
        ["guidance scale", f"{drawn.guidance_scale:g}"],
        ["scheduler", scheduler],
        ["CLIP skip", str(drawn.clip_skip)],
        ["weights", drawn.dtype],
        ["judge", " ".join(filter(None, (study.about.get("judge", "nobody"), judge_settings)))],
        ["measures", ", ".join(measure.name for measure in study.measures) or "none"],
        [
            "intervals",
            f"{100 * drawn.confidence:g}%, {drawn.resamples:,} bootstrap samples of prompts, seed "
            f"{drawn.bootstrap_seed}",
        ],
        ["adapter files", study.about.get("adapters", ABSENT)],
        ["versions", study.about.get("versions", ABSENT)],
    ]


def commands(study: Study) -> list[Element]:
    """The command that made the study, with its file, and that which makes this page again."""
    made = study.about.get("command", "python -m train evaluate --config study.toml")
    lines = f"{made}\npython -m train evaluate report STUDY_FOLDER"
    parts = [element("p", "The study, and this page again:"), element("pre", lines, tabindex=0)]
    if study.config:
        words = "Its file says (relative paths start from its own folder; comments are not kept):"
        parts += [element("p", words), element("pre", to_toml(study.config), tabindex=0)]
    return parts


def to_toml(document: Mapping[str, Any]) -> str:
    """A document as TOML that reads as the same: plain values first, then tables and lists of tables."""
    document = json.loads(json.dumps(document, default=str))  # as study.json keeps it
    parts = ["\n".join(f"{_key(name)} = {_value(value)}" for name, value in _plain(document))]
    for name, value in document.items():
        tables = [value] if isinstance(value, dict) else value if _are_tables(value) else []
        head = f"[{_key(name)}]" if isinstance(value, dict) else f"[[{_key(name)}]]"
        for entries in tables:
            lines = (f"{_key(key)} = {_value(entry)}" for key, entry in entries.items())
            parts.append("\n".join([head, *lines]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _plain(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in document.items()
        if not isinstance(value, dict) and not _are_tables(value)
    ]


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # A JSON string is a TOML string, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
