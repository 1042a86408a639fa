"""What the user has set for a run, how it is written into an image, and how it is read back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sur_core.conditioning import check_eta

from .files import HASH_DIGITS, NONE, list_adapters, short_hash

DEFAULT_ETA = 0.1
"""As in the ComfyUI nodes: the strength the authors train and demonstrate with."""

CONTROLS = ("enabled", "adapter", "eta", "negative", "start", "end")
"""The accordion's controls in the order in which the host hands their values over."""

INFOTEXT = {
    "adapter": "SUR adapter",
    "eta": "SUR eta",
    "negative": "SUR negative",
    "start": "SUR start",
    "end": "SUR end",
}
"""Under which names the settings stand in an image's infotext."""

AXIS_ATTRIBUTE = "sur_adapter_axis_"
"""With a control's name: where an X/Y/Z plot leaves a cell's value on the processing object."""

_DIGITS = 4
_LABEL = re.compile(rf"(.+?)(?: \[([0-9a-f]{{{HASH_DIGITS}}})\])?")


@dataclass(frozen=True)
class Settings:
    """One run's settings. Numbers are rounded to four digits that count, so the infotext says what was used.

    Attributes:
        adapter: its name in the list.
        eta: strength of Eq. 7, 0..1.
        negative: whether the negative prompt is adapted too.
        start, end: share of the sampling steps, 0..1; the adapter acts from ``start`` until before ``end``.
    """

    enabled: bool = False
    adapter: str = NONE
    eta: float = DEFAULT_ETA
    negative: bool = False
    start: float = 0.0
    end: float = 1.0

    @property
    def acts(self) -> bool:
        """Whether any step is changed."""
        return self.enabled and self.eta > 0 and self.start < self.end

    def infotext(self, digest: str) -> dict[str, str]:
        """For the image: ``{"SUR adapter": "kittens.safetensors [0123456789]", "SUR eta": "0.3", ...}``.

        What has its usual value is left out, all but the adapter and eta.
        """
        values = {"adapter": f"{self.adapter} [{digest}]", "eta": f"{self.eta:g}"}
        if self.negative:
            values["negative"] = "True"
        if self.start > 0:
            values["start"] = f"{self.start:g}"
        if self.end < 1:
            values["end"] = f"{self.end:g}"
        return {INFOTEXT[name]: value for name, value in values.items()}


def settings_of(p, values: tuple) -> Settings:
    """The settings of a run: the controls' values, or a plot's where an axis is one of ours.

    Using an axis switches the adapter on, but for its value "None", which switches it off.

    Args:
        p: the host's processing object.
        values: of :data:`CONTROLS`, as the host passes them. The web API may leave some out or pass text.

    Raises:
        ValueError: a value is impossible; only if the adapter is on.
    """
    given = dict(zip(CONTROLS, values, strict=False))
    plotted = {
        name: getattr(p, AXIS_ATTRIBUTE + name)
        for name in ("adapter", "eta")
        if hasattr(p, AXIS_ATTRIBUTE + name)
    }
    given |= plotted
    if not (given.get("enabled") or plotted) or plotted.get("adapter") == NONE:
        return Settings()
    if len(values) > len(CONTROLS):
        raise ValueError(f"SUR-adapter has {len(CONTROLS)} values {CONTROLS}, found {len(values)}")
    usual = Settings()
    return Settings(
        enabled=True,
        adapter=given.get("adapter") or NONE,
        eta=_shown(check_eta(given.get("eta", usual.eta))),
        negative=bool(given.get("negative")),
        start=_share("start", given.get("start", usual.start)),
        end=_share("end", given.get("end", usual.end)),
    )


def read_back(name: str, infotext: dict[str, str], folders: list[Path]):
    """The value of a control that an image's infotext asks for; None leaves the control as it is.

    An image made without the adapter switches it off, so that it can be made again.

    Args:
        name: one of :data:`CONTROLS`.
        infotext: the host's parsed parameters.
        folders: where adapters are looked for.
    """
    if INFOTEXT["adapter"] not in infotext:
        return False if name == "enabled" else None
    text = infotext.get(INFOTEXT.get(name))
    if name == "enabled":
        return True
    if name == "adapter":
        return _named(text, folders)
    if name == "negative":
        return text == "True"
    try:
        return float(text if text is not None else getattr(Settings(), name))
    except ValueError:
        return None


def _named(label: str, folders: list[Path]) -> str:
    """The list's name for ``"kittens.safetensors [0123456789]"``: the file with that hash, if there is one.

    A file that has been renamed or replaced is found by its content. Otherwise the name is kept, so that the
    run can say which file is missing.
    """
    name, digest = _LABEL.fullmatch(label).groups()
    listed = list_adapters(folders)
    if digest:
        for other in sorted(listed, key=lambda other: other != name):
            try:
                if short_hash(listed[other]) == digest:
                    return other
            except OSError:
                continue
    return name


def _share(name: str, value) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"SUR-adapter: {name} is a share of the sampling steps from 0 to 1, found {value!r}")
    return _shown(share)


def _shown(number: float) -> float:
    """As the infotext will have it. Digits that count, not places: the paper's eta is 1e-5."""
    return float(f"{number:.{_DIGITS}g}")
