"""Axes of the X/Y/Z plot script: eta, and the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

from sur_core.conditioning import check_eta

from .files import NONE
from .settings import AXIS_ATTRIBUTE

ETA_LABEL = "[SUR-adapter] Eta"
ADAPTER_LABEL = "[SUR-adapter] Adapter"


def find_plot(scripts_data: Iterable) -> ModuleType | None:
    """The X/Y/Z plot among the scripts a host has loaded, or None if the host has none."""
    for script in scripts_data:
        if getattr(script.script_class, "__module__", "") in ("xyz_grid.py", "scripts.xyz_grid"):
            return script.module
    return None


def add_axes(plot: ModuleType, names: Callable[[], list[str]]) -> None:
    """Append our axes to the plot's, once.

    Args:
        plot: the X/Y/Z plot script's module.
        names: the adapters in the list, "None" first; asked anew each time.
    """
    if any(option.label == ETA_LABEL for option in plot.axis_options):
        return

    def confirm_adapters(_p, values):
        for value in values:
            if value not in names():
                raise FileNotFoundError(
                    f"{ADAPTER_LABEL}: there is no adapter file {value!r}. Use the names of the list in "
                    f"'SUR-adapter', or {NONE} for a picture without"
                )

    plot.axis_options += [
        plot.AxisOption(ETA_LABEL, float, _apply("eta"), confirm=_confirm_etas),
        plot.AxisOption(
            ADAPTER_LABEL,
            str,
            _apply("adapter"),
            format_value=lambda _p, _option, value: value,
            confirm=confirm_adapters,
            cost=0.1,
            choices=names,
        ),
    ]


def _apply(control: str) -> Callable:
    def apply(p, value, _values):
        setattr(p, AXIS_ATTRIBUTE + control, value)

    return apply


def _confirm_etas(_p, values) -> None:
    for value in values:
        try:
            check_eta(value)
        except ValueError as error:
            raise ValueError(f"{ETA_LABEL}: {error}") from None
