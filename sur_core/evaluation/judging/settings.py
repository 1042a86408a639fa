"""Makes judges from a few words or from a table of settings.

A short text is one of ``detector:MODEL``, ``vlm:MODEL`` (a folder or a hub id, everything else as usual),
the name of a ``.toml`` file with a ``[judge]`` table, or ``module:callable`` as
:func:`sur_core.evaluation.load_judge` takes it. A table has ``kind`` and the settings of that kind::

    [judge]
    kind = "by type"                        # each type of prompts to a judge of its own

    [judge.types.Counting]
    kind = "detector"
    model = "google/owlv2-base-patch16-ensemble"
    threshold = 0.35
    classes = {"hot air balloon" = ["balloon", "hot air balloon"]}

    [judge.types.Action]
    kind = "vlm"
    model = "HuggingFaceTB/SmolVLM-256M-Instruct"

    [judge.types.Color]
    kind = "my_judges:make_color_judge"

Relative paths of models start from the file's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..judges import Judge, load_judge
from ..places import beside
from ..toml_files import read_toml_file
from .by_type import JudgeByType
from .detector_judge import DetectorJudge, DetectorRules
from .detectors import open_detector
from .question_judge import VlmJudge
from .yes_or_no import open_yes_no_model

_OPENING = {"model": "text", "revision": "text", "device": "text", "dtype": "text", "batch_size": "count"}
_OPENING |= {"local_files_only": "flag"}
_RULES = {"threshold": "share", "overlap": "share", "color_share": "share", "inner_box": "share"}
_RULES |= {"classes": "classes"}
_KINDS = {
    "detector": _OPENING | _RULES,
    "vlm": _OPENING | {"threshold": "share", "prompt": "text"},
    "by type": {"types": "judges"},
}
_EXPECTED = {
    "text": "a text that is not empty",
    "count": "a whole number from 1",
    "flag": "true or false",
    "share": "a number above 0, up to 1",
    "classes": 'a table such as {"sports car" = ["car"]}',
    "judges": "a table with a table of settings for each type of prompts",
}


class JudgeSettingsError(ValueError):
    """A judge cannot be made of these settings; the message names the setting and what is expected."""


def make_judge(settings: str | Mapping[str, Any]) -> Judge:
    """The judge that the settings describe; its model comes into memory with the first mark.

    Args:
        settings: a short text or a table, as this module describes.

    Raises:
        JudgeSettingsError (a ValueError): an unknown kind or setting, or an impossible value.
        ValueError, OSError: what it needs cannot be loaded; in words.
    """
    return _make(settled(settings), "judge", {})


def settled(settings: str | Mapping[str, Any], folder: str | Path = ".", device: str = "") -> Any:
    """The settings as a table whose models are found from anywhere.

    Args:
        folder: what relative paths start from; those of a ``.toml`` file start from its own folder.
        device: for every model that names none itself.

    Raises:
        ValueError, OSError: a ``.toml`` file that cannot be read, or is no judge's.
    """
    if isinstance(settings, str) and settings.lower().endswith(".toml"):
        path = Path(folder, Path(settings).expanduser())
        return settled(_read_toml(str(path)), path.parent, device)
    return _settled(_as_table(settings), folder, device)


def with_device(settings: Any, device: str) -> Any:
    """A table of :func:`settled` with all its models on a device."""
    return _changed(settings, lambda table: {**table, "device": device})


def _settled(table: Any, folder: str | Path, device: str) -> Any:
    def change(table: Mapping[str, Any]) -> dict[str, Any]:
        found = {"device": device, **table} if device else dict(table)
        if isinstance(found.get("model"), str):
            found["model"] = beside(found["model"], folder)
        return found

    return _changed(table, change)


def _changed(table: Any, change) -> Any:
    """With every table of a model changed; what is wrong is left for :func:`_check` to name."""
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if kind == "by type" and isinstance(table.get("types"), Mapping):
        types = {name: _changed(one, change) for name, one in table["types"].items()}
        return {**table, "types": types}
    return change(table) if kind in ("detector", "vlm") else table


def _make(settings: Any, where: str, opened: dict) -> Judge:
    """``opened``: models by kind and settings, so that several types can share one in memory."""
    _check(settings, where)
    kind = settings["kind"]
    if kind == "by type":
        types = settings["types"].items()
        return JudgeByType({type: _make(table, f"{where}.types.{type}", opened) for type, table in types})
    if kind not in _KINDS:
        return load_judge(kind)
    opening = {name: value for name, value in settings.items() if name in _OPENING}
    rest = {name: value for name, value in settings.items() if name not in (*_OPENING, "kind")}
    if kind == "vlm":
        prompt = {"prompt": rest.pop("prompt")} if "prompt" in rest else {}
        return VlmJudge(_opened(opened, open_yes_no_model, opening | prompt), **rest)
    classes = {
        name: (labels,) if isinstance(labels, str) else tuple(labels)
        for name, labels in rest.pop("classes", {}).items()
    }
    return DetectorJudge(_opened(opened, open_detector, opening), DetectorRules(**rest, classes=classes))


def _opened(opened: dict, open_model, options: Mapping[str, Any]):
    key = (open_model.__name__, *sorted(options.items()))
    if key not in opened:
        opened[key] = open_model(**options)
    return opened[key]


def _as_table(settings: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(settings, str):
        return settings
    kind, _, model = settings.partition(":")
    if kind in ("detector", "vlm"):
        return {"kind": kind, "model": model}
    return {"kind": settings}


def _read_toml(path: str) -> Mapping[str, Any]:
    document = read_toml_file(path, "a [judge] table")
    if set(document) != {"judge"}:
        raise JudgeSettingsError(
            f"{path}: expected a [judge] table and nothing else, found {sorted(document) or 'nothing'}"
        )
    return document["judge"]


# --- what settings may be -----------------------------------------------------------------------------------


def _check(settings: Any, where: str) -> None:
    kinds = f"{', '.join(_KINDS)} or module:callable"
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise JudgeSettingsError(f"{where}: expected a table with kind ({kinds}), found {settings!r}")
    kind = settings["kind"]
    if kind not in _KINDS and ":" not in kind:
        raise JudgeSettingsError(f"{where}: the kind {kind!r} is unknown; known are {kinds}")
    known = _KINDS.get(kind, {})
    for name, value in settings.items():
        if name != "kind" and name not in known:
            words = f"known are {', '.join(known)}" if known else "what a callable makes takes none"
            raise JudgeSettingsError(f"{where}: {kind} has no setting {name!r}; {words}")
        if name != "kind" and not _fine(known[name], value):
            raise JudgeSettingsError(f"{where}.{name}: expected {_EXPECTED[known[name]]}, found {value!r}")
    if needed := [name for name in ("model", "types") if name in known and name not in settings]:
        raise JudgeSettingsError(f"{where}: {kind} needs the setting {needed[0]}")


def _fine(what: str, value: Any) -> bool:
    if what == "text":
        return isinstance(value, str) and bool(value.strip())
    if what == "flag":
        return isinstance(value, bool)
    if what == "classes":
        return isinstance(value, Mapping) and all(map(_labels_fine, value.values()))
    if what == "judges":
        return isinstance(value, Mapping) and bool(value)
    if isinstance(value, bool) or not isinstance(value, int if what == "count" else int | float):
        return False
    return value >= 1 if what == "count" else 0 < value <= 1


def _labels_fine(labels: Any) -> bool:
    labels = [labels] if isinstance(labels, str) else labels
    return isinstance(labels, list | tuple) and bool(labels) and all(_fine("text", one) for one in labels)
