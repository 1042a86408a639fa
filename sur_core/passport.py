"""What an adapter file says about itself: typed here, stored as the strings of a safetensors header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields

from .adapter import SURAdapterConfig
from .families import check_towers, family_of_towers, family_words, sort_towers
from .passport_fields import as_number, as_text, as_whole_number, read_whole_number, shown

FORMAT_VERSION = 1
_PREFIX = "sur."
_MODELSPEC = "modelspec."
_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sdxl": "stable-diffusion-xl-v1-base",
}


@dataclass(frozen=True)
class Passport:
    """Everything known about an adapter besides its weights. ``None`` and ``""`` mean: not known.

    Attributes:
        towers: architecture of each tower, by text encoder (``clip_l``, ``clip_g``, ``clip_h``).
        source_format: ``"sur"`` for our own files, ``"authors"`` for weights that began as the authors'
            ``.pt``.
        base_model: the model it was trained on, by name or hub id.
        eta: strength of Eq. 7 used in training, 0..1.
        llm_name, llm_layer, llm_width: the language model that was distilled, its layer and its features.
        w0_seed: seed of the frozen W0 of Eq. 5.
        lambda_llm, lambda_cp, temperature, kl_direction, cp_loss: weights and form of Eq. 5, 9 and 10.
        steps: optimiser steps taken.
        dataset_name, dataset_size, dataset_hash: what it was trained on; size in samples.
        created: ISO 8601 date and time.
        title: a name for people.
        parents: what a merge was made of: ``{"name", "weight"}`` for each.
        extra: metadata this version has no field for; kept as it was.
    """

    towers: dict[str, SURAdapterConfig]
    source_format: str = "sur"
    base_model: str = ""
    eta: float | None = None
    llm_name: str = ""
    llm_layer: int | None = None
    llm_width: int | None = None
    w0_seed: int | None = None
    lambda_llm: float | None = None
    lambda_cp: float | None = None
    temperature: float | None = None
    kl_direction: str = ""
    cp_loss: str = ""
    steps: int | None = None
    dataset_name: str = ""
    dataset_size: int | None = None
    dataset_hash: str = ""
    created: str = ""
    title: str = ""
    parents: tuple[dict, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        """Bring every field to its type, so that what can be built can be saved and read back."""
        check_towers({name: config.width for name, config in self.towers.items()})
        converters = {_STRINGS: as_text, _INTEGERS: as_whole_number, _NUMBERS: as_number}
        for names, convert in converters.items():
            for name in names:
                object.__setattr__(self, name, convert(name, getattr(self, name)))
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError(f"passport field eta must be in 0..1, found {self.eta}")
        object.__setattr__(self, "parents", tuple(_as_parent(parent) for parent in self.parents))
        extra = {as_text("extra", key): as_text(f"extra {key}", text) for key, text in self.extra.items()}
        object.__setattr__(self, "extra", extra)

    @property
    def widths(self) -> dict[str, int]:
        """Features of each tower, ``{"clip_l": 768}``."""
        return {name: self.towers[name].width for name in sort_towers(self.towers)}

    @property
    def family(self) -> str:
        """Base model family: ``"sd1"``, ``"sd2"``, ``"sdxl"``, or ``""`` for anything else."""
        return family_of_towers(self.widths)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before using the adapter, as sentences."""
        found = []
        if self.source_format == "authors" and self.family == "sd1" and not self.base_model:
            found.append(
                "the authors' format does not name the base model; their public files belong to Realistic "
                "Vision V2.0"
            )
        if self.eta is None:
            found.append("the eta used in training is not known; start low (0.1) and move up")
        return tuple(found)

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata: strings under ``sur.*`` and ``modelspec.*``; unknown ones are left out."""
        metadata = dict(self.extra)
        metadata[_PREFIX + "format_version"] = str(FORMAT_VERSION)
        metadata[_PREFIX + "base_family"] = self.family
        metadata[_PREFIX + "base_width"] = str(sum(self.widths.values()))
        configs = {name: self.towers[name].to_dict() for name in sort_towers(self.towers)}
        metadata[_PREFIX + "config"] = json.dumps(configs, sort_keys=True)
        for name in (*_STRINGS, *_INTEGERS, *_NUMBERS):
            value = getattr(self, name)
            if value not in (None, ""):
                metadata[_PREFIX + name] = value if isinstance(value, str) else repr(value)
        if self.parents:
            metadata[_PREFIX + "parents"] = json.dumps(list(self.parents), sort_keys=True)
        metadata[_MODELSPEC + "sai_model_spec"] = "1.0.0"
        metadata[_MODELSPEC + "architecture"] = f"{_ARCHITECTURES.get(self.family, 'unknown')}/sur-adapter"
        metadata[_MODELSPEC + "implementation"] = "https://arxiv.org/abs/2305.05189"
        metadata[_MODELSPEC + "title"] = self.title or "SUR-adapter"
        if self.created:
            metadata[_MODELSPEC + "date"] = self.created
        return metadata

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Passport:
        """Inverse of :meth:`to_metadata`. Raises ``ValueError`` saying which field is missing or wrong."""
        version = read_whole_number("format_version", metadata.get(_PREFIX + "format_version"))
        if version is None or version < 1:
            raise ValueError("passport field format_version is missing")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"the file has format version {version}, this program reads up to {FORMAT_VERSION}; update it"
            )
        configs = _json("config", metadata.get(_PREFIX + "config"), dict)
        values = {"towers": {name: SURAdapterConfig.from_dict(config) for name, config in configs.items()}}
        for name in _STRINGS:
            values[name] = metadata.get(_PREFIX + name, "")
        values["source_format"] = values["source_format"] or "sur"
        for name in _INTEGERS:
            values[name] = read_whole_number(name, metadata.get(_PREFIX + name))
        for name in _NUMBERS:
            values[name] = metadata.get(_PREFIX + name)
        if _PREFIX + "parents" in metadata:
            values["parents"] = tuple(_json("parents", metadata[_PREFIX + "parents"], list))
        values["extra"] = {key: text for key, text in metadata.items() if not _is_ours(key)}
        return cls(**values)

    def to_text(self) -> str:
        """The passport as lines for people. Only what is known is shown."""
        rows = [
            ("made for", family_words(self.widths)),
            ("trained on", self.base_model),
            ("eta in training", shown(self.eta)),
            (
                "language model",
                _join(self.llm_name, self.llm_layer is not None and f"layer {self.llm_layer}"),
            ),
            ("steps", shown(self.steps)),
            (
                "data set",
                _join(self.dataset_name, self.dataset_size is not None and f"{self.dataset_size:,} samples"),
            ),
            ("loss weights", self._loss_words()),
            ("format", {"authors": "authors' released format"}.get(self.source_format, self.source_format)),
            ("merged from", f"{len(self.parents)} adapters" if self.parents else ""),
            ("created", self.created),
        ]
        lines = [self.title] if self.title else []
        lines += [f"{name}: {value}" for name, value in rows if value]
        for name in sort_towers(self.towers):
            config = self.towers[name]
            lines.append(
                f"tower {name}: {config.width} wide, {config.depth} layers, {config.heads} heads, "
                f"feed-forward {config.feedforward}, token mixing {config.token_mixing}"
                f"{', query in value' if config.query_in_value else ''}"
            )
        lines += [f"parent: {parent['name']} x {parent['weight']:.4g}" for parent in self.parents]
        lines += [f"note: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _loss_words(self) -> str:
        names = {"lambda_llm": "LLM", "lambda_cp": "complex prompt", "temperature": "temperature"}
        return ", ".join(
            f"{word} {getattr(self, n):g}" for n, word in names.items() if getattr(self, n) is not None
        )


_STRINGS = (
    "source_format",
    "base_model",
    "llm_name",
    "kl_direction",
    "cp_loss",
    "dataset_name",
    "dataset_hash",
    "created",
    "title",
)
_INTEGERS = ("llm_layer", "llm_width", "w0_seed", "steps", "dataset_size")
_NUMBERS = ("eta", "lambda_llm", "lambda_cp", "temperature")
_DERIVED = ("format_version", "base_family", "base_width", "config", "parents")
assert {f.name for f in fields(Passport)} == {*_STRINGS, *_INTEGERS, *_NUMBERS, "towers", "parents", "extra"}


def _is_ours(key: str) -> bool:
    """Whether :meth:`Passport.to_metadata` writes this key itself."""
    known = {*_STRINGS, *_INTEGERS, *_NUMBERS, *_DERIVED}
    if key.startswith(_PREFIX):
        return key[len(_PREFIX) :] in known
    return key in {
        _MODELSPEC + name for name in ("sai_model_spec", "architecture", "implementation", "title", "date")
    }


def _as_parent(parent) -> dict:
    if not isinstance(parent, dict) or set(parent) != {"name", "weight"}:
        raise ValueError(f"passport field parents must hold a name and a weight for each, found {parent!r}")
    return {"name": as_text("parents", parent["name"]), "weight": as_number("parents", parent["weight"])}


def _json(name: str, text: str | None, kind: type):
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"passport field {name} is missing or is not JSON of the expected form")
    return value


def _join(*parts) -> str:
    return ", ".join(str(part) for part in parts if part)
