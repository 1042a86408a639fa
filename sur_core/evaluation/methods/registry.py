"""Methods by the tables of a study's configuration."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..places import beside
from .controlnet import CannyControlNet, SegmentationControlNet
from .method import Method
from .multidiffusion import MultiDiffusion
from .self_attention import SelfAttentionGuidance
from .weighting import PromptWeighting

KINDS: dict[str, type[Method]] = {
    kind.kind: kind
    for kind in (
        Method,
        CannyControlNet,
        SegmentationControlNet,
        PromptWeighting,
        MultiDiffusion,
        SelfAttentionGuidance,
    )
}
_PATHS = ("conditions", "pictures", "texts")
_MODELS = ("controlnet", "segmentation_model", "scheduler_of")


def make_method(table: Mapping[str, Any], folder: str | Path = ".") -> Method:
    """The method of a ``[[methods]]`` table: its ``kind``, and the arguments of that class.

    Args:
        folder: what relative paths start from.

    Raises:
        ValueError: no such kind, an unknown or missing setting, or an impossible value.
    """
    settings = dict(table)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected {_or(list(KINDS))}{_hint(kind, KINDS)}")
    known = _settings_of(KINDS[kind])
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"{kind}: unknown setting {name!r}; known are {', '.join(known)}{_hint(name, known)}"
            )
        _check_type(kind, name, value, known[name].default)
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in settings:
            raise ValueError(f"{kind}: {name} is missing")
    for name in _PATHS:
        if settings.get(name):
            settings[name] = Path(folder, Path(settings[name]).expanduser())
    for name in _MODELS:
        if settings.get(name):
            settings[name] = beside(settings[name], folder)
    try:
        return KINDS[kind](**settings)
    except ValueError as error:
        raise ValueError(f"{kind}: {error}") from None


def _settings_of(kind: type[Method]) -> dict[str, inspect.Parameter]:
    """Of a class and of those whose settings it takes over by ``**others``."""
    found: dict[str, inspect.Parameter] = {}
    for part in kind.__mro__:
        if "__init__" not in vars(part):
            continue
        parameters = list(inspect.signature(part.__init__).parameters.values())[1:]
        named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        found |= {p.name: p for p in named if p.name not in found}
        if len(named) == len(parameters):
            break
    return found


def _check_type(kind: str, name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        fine, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fine, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        fine, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    elif isinstance(default, tuple):
        fine, expected = isinstance(value, list | tuple), "a list"
    else:
        fine, expected = isinstance(value, str), "a text"
    if not fine:
        raise ValueError(f"{kind}: {name}: expected {expected}, found {value!r}")


def _or(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"


def _hint(name: Any, known) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
