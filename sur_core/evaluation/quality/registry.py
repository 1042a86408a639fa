"""Which measures are taken: settings to measures; what is missing is told before work begins.

As a table of a configuration file, each part optional:

    [quality]
    device = "cuda"                                     # cpu if not given
    clip = "openai/clip-vit-large-patch14"              # CLIP Score and cosine: a folder or a hub name
    siglip = "google/siglip-base-patch16-224"
    clip_iqa = {anchors = ["Good photo.", "Bad photo."]}    # takes clip's model if it names none
    brisque = {model = "allmodel", ranges = "allrange"}     # or {library = "piq"}, {library = "pyiqa"}
    musiq = {library = "pyiqa"}

In a study's file relative paths start from its folder (:func:`measures_beside`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...model_files import fingerprint
from ...surd_build.model_source import ModelSource, find_model
from ...training_errors import is_out_of_memory
from ..image_text import ImageTextModel, check_folder
from ..places import beside
from ..versions import marking_versions
from .brisque import FEATURES, Brisque
from .clip_measures import ANCHORS, ClipCosine, ClipIqa, ClipScore
from .libraries import LibraryMeasure, import_library
from .measure import Measure, QualityError, identity
from .siglip import SiglipScore, check_siglip, check_tokenizer
from .svr import read_svr

_MODELS = ("clip", "siglip", "clip_iqa")
_KEYS = {
    "clip": ("model", "revision"),
    "siglip": ("model", "revision"),
    "clip_iqa": ("model", "revision", "library", "anchors"),
    "brisque": ("model", "ranges", "library"),
    "musiq": ("library",),
}
_REQUIRED = {
    "clip": ("model",),
    "siglip": ("model",),
    "clip_iqa": (),
    "brisque": ("model", "ranges"),
    "musiq": ("library",),
}
"""Without a library, which brings all."""

_HINTS = {
    "brisque": "the LIBSVM files of its authors' release, allmodel and allrange; or set library",
    "musiq": 'it is taken with library = "pyiqa" only',
}
_COMMON = {"device": "cpu", "batch_size": 32, "local_files_only": False}


@dataclass
class _Plan:
    """Settings that make sense, and the models they name, found on this machine."""

    wanted: dict[str, dict]
    device: torch.device
    batch_size: int
    models: dict[str, ModelSource] = field(default_factory=dict)


def measures_beside(settings: Mapping, folder: str | Path) -> dict:
    """The same settings, with files and models that lie in ``folder`` named by their whole paths."""
    return {
        name: _beside(value, folder) if name in _KEYS else value for name, value in dict(settings).items()
    }


def _beside(given: object, folder: str | Path) -> object:
    if isinstance(given, str):
        return beside(given, folder)
    if not isinstance(given, Mapping):
        return given  # which _table refuses in words
    paths = ("model", "ranges")
    return {
        name: beside(value, folder) if name in paths and isinstance(value, str) else value
        for name, value in given.items()
    }


def check_measures(settings: Mapping) -> None:
    """Find everything the measures need, without loading weights. Models named as on the hub are downloaded.

    Args:
        settings: as :func:`make_measures`.

    Raises:
        ValueError: an unknown setting, a package that is not installed, a model of another kind, a bad file.
        OSError: a file or model is not there, or the hub cannot be reached.
    """
    _plan(settings)


def make_measures(settings: Mapping) -> list[Measure]:
    """The measures that are asked for, loaded and ready.

    Args:
        settings: a table for each measure (``clip``, ``siglip``, ``clip_iqa``, ``brisque``, ``musiq``), as
            in the example above; a plain text stands for ``{"model": text}``. ``device``, ``batch_size`` and
            ``local_files_only`` (never ask the hub) hold for all.

    Returns:
        ``clip`` gives two measures, CLIP Score and cosine; each of the others one.

    Raises:
        ValueError, OSError: as :func:`check_measures`; or weights that are missing, damaged or too large.
    """
    plan = _plan(settings)
    clips: dict[Path, ImageTextModel] = {}
    measures: list[Measure] = []
    for name, table in plan.wanted.items():
        try:
            for measure in _make(plan, name, table, clips):
                measure.conditions = identity(plan.device.type, plan.batch_size, *marking_versions())
                measure.model = _model_words(plan, name, table)
                measures.append(measure)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise QualityError(
                f"{name}: its model does not fit into the memory of {plan.device}. Set quality.device to "
                "'cpu', or take a smaller model"
            ) from error
    return measures


def _model_words(plan: _Plan, name: str, table: dict) -> str:
    if "library" in table:
        return f"the library {table['library']}"
    if name in plan.models:
        return f"{plan.models[name].name} ({plan.models[name].identity})"
    files = [(key, Path(table[key])) for key in ("model", "ranges")]
    return f"{' and '.join(path.name for _, path in files)} ({fingerprint(files)})"


def _make(plan: _Plan, name: str, table: dict, clips: dict[Path, ImageTextModel]) -> list[Measure]:
    """The measures of one table. ``clips``: models that are loaded, by folder; a new one is put in."""
    if "library" in table:
        return [LibraryMeasure(name, table["library"], plan.device)]
    if name == "brisque":
        return [Brisque(table["model"], table["ranges"])]
    source = plan.models[name]
    if name == "siglip":
        return [SiglipScore(source, plan.device, plan.batch_size)]
    if source.folder not in clips:
        clips[source.folder] = ImageTextModel(source.folder, plan.device, plan.batch_size)
    clip = clips[source.folder]
    if name == "clip_iqa":
        return [ClipIqa(clip, tuple(table.get("anchors", ANCHORS)))]
    return [ClipScore(clip), ClipCosine(clip)]


def _plan(settings: Mapping) -> _Plan:
    if unknown := [name for name in settings if name not in _KEYS and name not in _COMMON]:
        raise QualityError(
            f"quality: unknown setting {unknown[0]!r}; expected {', '.join((*_KEYS, *_COMMON))}"
        )
    wanted = {name: _table(name, settings[name]) for name in _KEYS if name in settings}
    common = _COMMON | {name: settings[name] for name in _COMMON if name in settings}
    size = common["batch_size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise QualityError(f"quality.batch_size: expected a whole number from 1, found {size!r}")
    plan = _Plan(wanted, _device(common["device"]), size)
    if "clip_iqa" in wanted and not {"model", "library"} & set(wanted["clip_iqa"]):
        if "clip" not in wanted:
            raise QualityError(
                "clip_iqa: no model; name one, or a library, or set clip, whose model it takes"
            )
        wanted["clip_iqa"] |= {
            name: wanted["clip"][name] for name in ("model", "revision") if name in wanted["clip"]
        }
    for name, table in wanted.items():
        _check(plan, name, table, bool(common["local_files_only"]))
    return plan


def _table(name: str, given: object) -> dict:
    """A measure's settings as a table. QualityError if they contradict."""
    table = {"model": str(given)} if isinstance(given, str | Path) else given
    if not isinstance(table, Mapping):
        raise QualityError(f"quality.{name}: expected a text or a table, found {given!r}")
    if unknown := sorted(set(table) - set(_KEYS[name])):
        raise QualityError(f"{name}: unknown setting {unknown[0]!r}; expected {', '.join(_KEYS[name])}")
    if "library" in table and len(table) > 1:
        others = ", ".join(sorted(set(table) - {"library"}))
        raise QualityError(f"{name}: a library brings its own weights; leave out {others}, or library")
    lacking = [key for key in _REQUIRED[name] if key not in table and "library" not in table]
    if lacking:
        hint = _HINTS.get(name, "a folder as transformers saves it, or a hub name")
        raise QualityError(f"{name}: {' and '.join(lacking)} is missing: {hint}")
    _check_anchors(table.get("anchors", ANCHORS))
    return dict(table)


def _check_anchors(anchors: object) -> None:
    pair = isinstance(anchors, list | tuple) and len(anchors) == 2
    if not pair or not all(isinstance(anchor, str) and anchor for anchor in anchors):
        raise QualityError(
            f"clip_iqa.anchors: expected two texts, the good one first, such as {list(ANCHORS)}; "
            f"found {anchors!r}"
        )


def _check(plan: _Plan, name: str, table: dict, local_files_only: bool) -> None:
    if "library" in table:
        import_library(table["library"], name)
    elif name in _MODELS:
        kind = check_siglip if name == "siglip" else _check_clip
        revision = table.get("revision", "")
        source = find_model(str(table["model"]), kind, revision, local_files_only)
        (check_tokenizer if name == "siglip" else _check_clip_files)(source.folder)
        plan.models[name] = source
    else:
        read_svr(Path(table["model"]), Path(table["ranges"]), FEATURES)
        _require_scipy(name)


def _check_clip(name: str, config: object) -> None:
    kind = getattr(config, "model_type", "")
    if kind != "clip" or getattr(config, "vision_config", None) is None:
        hint = "; name it under siglip" if kind == "siglip" else ""
        raise QualityError(
            f"clip: {name} is a model of type {kind!r}; expected 'clip' with both its towers, such as "
            f"openai/clip-vit-large-patch14{hint}"
        )


def _check_clip_files(folder: Path) -> None:
    check_folder(folder)
    if not any(folder.glob("*.safetensors")):
        raise QualityError(
            f"{folder}: expected this CLIP's weights as model.safetensors, found none; load it with "
            "transformers and save it again, or take a model that has them"
        )


def _require_scipy(name: str) -> None:
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise QualityError(f"{name}: scipy is not installed; pip install -r requirements-train.txt") from None


def _device(name: object) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        words = str(error).splitlines()[0]
        raise QualityError(f"quality.device: {name!r} is not usable here ({words}); try 'cpu'") from error
    return device
