"""What a study compares: a TOML file with [[models]], [[methods]] and [[adapters]].

    output_dir = "study"
    prompts = ["narrative", "mine.toml"]

    [drawing]                                   # fields of EvaluationSettings, and negative_prompt
    seeds = 10
    steps = 20

    [[models]]
    name = "DM (1.5)"
    path = "stable-diffusion-v1-5/stable-diffusion-v1-5"

    [[methods]]
    kind = "none"

    [[adapters]]
    path = "adapter.safetensors"
    etas = [0.1]                                # an LLMDiff-Adapter: its strengths, and llm = "folder"

    [judge]                                     # as sur_core.evaluation's make_judge takes it
    [quality]                                   # as sur_core.evaluation.quality's make_measures takes it

Relative paths start from the file's own folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .arms import Arm, adapter_arm, amount_words, system_name, trained_amount
from .judging.settings import settled as settled_judge
from .judging.settings import with_device as judge_on
from .methods import Method, make_method
from .places import beside
from .prompt_sets import EvalPrompt, check_ids, load_prompts
from .quality.registry import measures_beside
from .settings import EvaluationSettings
from .shipped_prompts import SHIPPED
from .toml_files import read_toml_file

BASELINE = "Baseline"
_TOP = ("output_dir", "prompts", "types", "drawing", "models", "methods", "adapters", "judge", "quality")
_MODEL = ("family", "revision", "variant", "single_file_config", "prediction_type")
_ADAPTER = ("name", "path", "etas", "to_negative", "llm", "methods", "models")
_DRAWING = tuple(name for name in EvaluationSettings.__dataclass_fields__ if name != "output_dir")


class StudyError(ValueError):
    """A study cannot be made of this file; the message names it and the setting."""


@dataclass(frozen=True)
class ModelChoice:
    """A diffusion model. ``options``: further arguments of :func:`sur_core.evaluation.open_pipeline`."""

    name: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodChoice:
    """A controlled method, for the models of these names; for all if there are none."""

    method: Method
    models: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.method.name


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter of either system at some strengths, for the models and methods of these names; for all if
    there are none. ``llm``: what an LLMDiff-Adapter reads.
    """

    name: str
    path: Path
    etas: tuple[float, ...]
    to_negative: bool = False
    llm: str = ""
    methods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyConfig:
    """Everything a study needs. Every adapter is compared with the baseline without one.

    Attributes:
        settings: of all drawing; its ``output_dir`` is the study's.
        judge, quality: tables for who judges and measures; ``None`` for nobody.
        document: what the file said.
    """

    settings: EvaluationSettings
    prompts: tuple[EvalPrompt, ...]
    models: tuple[ModelChoice, ...]
    methods: tuple[MethodChoice, ...]
    adapters: tuple[AdapterChoice, ...]
    negative_prompt: str = ""
    judge: Mapping[str, Any] | None = None
    quality: Mapping[str, Any] | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    def arms(self, model: ModelChoice, method: str = "") -> list[Arm]:
        """The baseline, and each adapter of a model at each strength; those of one method, if it is given."""
        arms = [Arm(BASELINE, negative_prompt=self.negative_prompt)]
        for adapter in _of_model(self.adapters, model.name):
            if method and adapter.methods and method not in adapter.methods:
                continue
            arms += [
                adapter_arm(
                    f"{adapter.name}, {amount_words(adapter.path, eta)}",
                    adapter.path,
                    eta,
                    adapter.llm,
                    adapter.to_negative,
                    negative_prompt=self.negative_prompt,
                )
                for eta in adapter.etas
            ]
        return arms

    @property
    def quality_settings(self) -> dict[str, Any]:
        """What :func:`sur_core.evaluation.quality.make_measures` takes; on the drawing's device by itself."""
        return {"device": self.settings.device, **(self.quality or {})}

    @property
    def judge_settings(self) -> Mapping[str, Any] | None:
        """What :func:`sur_core.evaluation.judging.make_judge` takes; on the drawing's device by itself."""
        return None if self.judge is None else settled_judge(self.judge, device=self.settings.device)

    def methods_of(self, model: ModelChoice) -> list[Method]:
        """Those that a model is drawn with."""
        return [choice.method for choice in _of_model(self.methods, model.name)]


def load_study(path: str | Path, output_dir: str | Path | None = None) -> StudyConfig:
    """The study of a TOML file.

    Args:
        output_dir: instead of the file's own, from the current folder.

    Raises:
        ValueError, OSError: the file cannot be read, a setting is unknown, missing or impossible, or a prompt
            set or adapter cannot be read; in words.
    """
    path = Path(path)
    document, folder = read_toml_file(path, "a study's settings"), path.parent
    try:
        _known("", document, _TOP)
        if output_dir is None:
            output_dir = folder / Path(_needed(document, "output_dir", str)).expanduser()
        drawing = dict(_typed(document, "drawing", dict, {}))
        negative = _typed(drawing, "negative_prompt", str, "")
        drawing.pop("negative_prompt", None)
        models = _all(document, "models", lambda table: _model(table, folder))
        _once("models", [model.name for model in models])
        names = [model.name for model in models]
        methods = _all(document, "methods", lambda table: _method(table, folder), [{"kind": "none"}])
        adapters = _all(document, "adapters", lambda table: _adapter(table, folder), [])
        _check_models("methods", methods, names)
        _check_models("adapters", adapters, names)
        _check_methods(adapters, [choice.name for choice in methods])
        return StudyConfig(
            settings=_settings(drawing, output_dir),
            prompts=_prompts(document, folder),
            models=models,
            methods=methods,
            adapters=adapters,
            negative_prompt=negative,
            judge=_judge(document, folder),
            quality=_quality(document, folder),
            document=document,
        )
    except OSError:
        raise
    except ValueError as error:
        raise StudyError(f"{path}: {error}") from error


def _settings(drawing: dict[str, Any], output_dir) -> EvaluationSettings:
    _known("drawing: ", drawing, (*_DRAWING, "negative_prompt"))
    seeds = drawing.get("seeds", 10)
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        drawing["seeds"] = tuple(range(seeds))
    elif not isinstance(seeds, list):
        raise ValueError(
            f"drawing: seeds: expected how many, from 1, or a list of whole numbers, found {seeds!r}"
        )
    try:
        return EvaluationSettings(output_dir, **drawing)
    except (ValueError, TypeError) as error:
        raise ValueError(f"drawing: {error}") from None


def _prompts(document: Mapping[str, Any], folder: Path) -> tuple[EvalPrompt, ...]:
    named = document.get("prompts")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise ValueError(f"prompts: expected files or names of sets ({', '.join(SHIPPED)}), found {named!r}")
    places = [name if name in SHIPPED else folder / Path(name).expanduser() for name in named]
    prompts = tuple(prompt for place in places for prompt in load_prompts(place))
    check_ids(prompts)
    types = _typed(document, "types", list, [])
    if unknown := [kind for kind in types if kind not in {prompt.type for prompt in prompts}]:
        raise ValueError(f"types: no prompts of type {unknown[0]!r}")
    return tuple(prompt for prompt in prompts if not types or prompt.type in types)


def _model(table: Mapping[str, Any], folder: Path) -> ModelChoice:
    _known("", table, ("name", "path", *_MODEL))
    path = _needed(table, "path", str)
    options = {name: _typed(table, name, str, "") for name in _MODEL if name in table}
    if "single_file_config" in options:
        options["single_file_config"] = beside(options["single_file_config"], folder)
    return ModelChoice(_typed(table, "name", str, path), beside(path, folder), options)


def _method(table: Mapping[str, Any], folder: Path) -> MethodChoice:
    models = tuple(_typed(table, "models", list, []))
    settings = {name: value for name, value in table.items() if name != "models"}
    return MethodChoice(make_method(settings, folder), models)


def _of_model(choices: Sequence, model: str) -> list:
    return [choice for choice in choices if not choice.models or model in choice.models]


def _check_models(what: str, choices: Sequence, models: Sequence[str]) -> None:
    """ValueError if a choice is for an unknown model, or two of a model share a name."""
    for choice in choices:
        if unknown := [name for name in choice.models if name not in models]:
            raise ValueError(
                f"{what}: {choice.name}: models names {unknown[0]!r}; expected names of [[models]], which "
                f"are {', '.join(models)}"
            )
    for model in models:
        _once(what, [choice.name for choice in _of_model(choices, model)])


def _check_methods(adapters: Sequence[AdapterChoice], methods: Sequence[str]) -> None:
    for adapter in adapters:
        if unknown := [name for name in adapter.methods if name not in methods]:
            raise ValueError(
                f"adapters: {adapter.name}: methods names {unknown[0]!r}; expected names of [[methods]], "
                f"which are {', '.join(methods)}"
            )


def _adapter(table: Mapping[str, Any], folder: Path) -> AdapterChoice:
    _known("", table, _ADAPTER)
    path = folder / Path(_needed(table, "path", str)).expanduser()
    trained, llm = trained_amount(path), _typed(table, "llm", str, "")
    etas = _typed(table, "etas", list, [] if trained is None else [trained])
    if not etas:
        raise ValueError(f"{path}: does not say with which eta it was trained; set etas")
    models = _typed(table, "models", list, [])
    methods = _typed(table, "methods", list, [])
    name = _typed(table, "name", str, system_name(path))
    to_negative = _typed(table, "to_negative", bool, False)
    llm = beside(llm, folder) if llm else ""
    for eta in etas:
        adapter_arm(name, path, eta, llm, to_negative)
    _once("etas", etas)
    return AdapterChoice(name, path, tuple(map(float, etas)), to_negative, llm, tuple(methods), tuple(models))


def _judge(document: Mapping[str, Any], folder: Path):
    judge = document.get("judge")
    if judge is not None and not isinstance(judge, str | dict):
        raise ValueError(f"judge: expected a table or a text, found {judge!r}")
    return None if judge is None else settled_judge(judge, folder)


def _quality(document: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    quality = _typed(document, "quality", dict, None)
    return None if quality is None else measures_beside(quality, folder)


# --- tables -------------------------------------------------------------------------------------------------


def _all(document: Mapping[str, Any], name: str, make, default=None) -> tuple:
    """An object of every table of that name."""
    tables = _tables(document, name, default)
    return tuple(_numbered(name, number, make, table) for number, table in enumerate(tables, start=1))


def _numbered(name: str, number: int, make, table):
    try:
        return make(table)
    except OSError:
        raise
    except ValueError as error:
        raise ValueError(f"[[{name}]] {number}: {error}") from None


def _tables(document: Mapping[str, Any], name: str, default) -> list[dict]:
    tables = document.get(name, default)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"expected one or more [[{name}]] tables, found {tables!r}")
    if default is None and not tables:
        raise ValueError(f"expected one or more [[{name}]] tables, found none")
    return tables


def _once(what: str, names: Sequence) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{what}: {twice[0]!r} is there twice; give each a name of its own")


def _known(where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}unknown setting {name!r}; known are {', '.join(known)}{hint}")


def _needed(table: Mapping[str, Any], name: str, kind: type):
    if name not in table:
        raise ValueError(f"{name} is missing")
    return _typed(table, name, kind, None)


def _typed(table: Mapping[str, Any], name: str, kind: type, default):
    value = table.get(name, default)
    if value is not default and not isinstance(value, kind):
        words = {str: "a text", bool: "true or false", list: "a list", dict: "a table"}[kind]
        raise ValueError(f"{name}: expected {words}, found {value!r}")
    return value


def with_device(config: StudyConfig, device: str) -> StudyConfig:
    """The same study drawn, judged and measured elsewhere, whatever its file says."""
    return replace(
        config,
        settings=replace(config.settings, device=device),
        judge=None if config.judge is None else judge_on(config.judge, device),
        quality=None if config.quality is None else {**config.quality, "device": device},
    )
