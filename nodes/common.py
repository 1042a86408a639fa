"""Pieces that every node of this pack uses: the adapter's socket type, the schema helper, the eta slider."""

from __future__ import annotations

from dataclasses import fields

from comfy_api.latest import io

CATEGORY = "SUR"
DEFAULT_ETA = 0.1
"""The strength the authors' run script trains and demonstrates with."""

SURAdapterSocket = io.Custom("SUR_ADAPTER")
"""Carries an :class:`.handle.AdapterHandle`."""


def schema(category: str = CATEGORY, **values) -> io.Schema:
    """``io.Schema``, without the fields this ComfyUI is too old to know (``search_aliases`` came after
    0.3.64).
    """
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(category=category, **{name: value for name, value in values.items() if name in known})


def adapter_input(id: str = "adapter", optional: bool = False, tooltip: str = "") -> io.Input:
    return SURAdapterSocket.Input(
        id, optional=optional, tooltip=tooltip or "The adapter, from Load SUR Adapter or Merge SUR Adapters."
    )


def eta_input(id: str = "eta", what: str = "the prompt") -> io.Input:
    return io.Float.Input(
        id,
        default=DEFAULT_ETA,
        min=0.0,
        max=1.0,
        step=0.01,
        display_mode=io.NumberDisplay.slider,
        tooltip=(
            f"Strength of the adapter on {what}: 0 leaves it exactly as it is, 1 replaces it by the "
            "adapter's reading. Start at the eta the adapter was trained with (see its passport) and move "
            "in small steps."
        ),
    )
