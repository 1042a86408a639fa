"""Which text encoders a Stable Diffusion base model has, and how to say so in words.

Encoders are named as ComfyUI names them. SD 1.x reads CLIP-L (768 features), SD 2.x OpenCLIP-H (1024), SDXL
CLIP-L and OpenCLIP-G side by side (768 | 1280).
"""

from __future__ import annotations

CHUNK_TOKENS = 77
"""CLIP reads a prompt in chunks of this many tokens; longer prompts are several chunks in a row."""

FAMILIES: dict[str, dict[str, int]] = {
    "sd1": {"clip_l": 768},
    "sd2": {"clip_h": 1024},
    "sdxl": {"clip_l": 768, "clip_g": 1280},
}

TOWER_NAMES = ("clip_l", "clip_g", "clip_h")
"""All text encoders an adapter can have a tower for; SDXL's two are concatenated in this order."""

_FAMILY_WORDS = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}
_WIDTH_WORDS = {768: "SD 1.x", 1024: "SD 2.x", 1280: "the SDXL refiner", 2048: "SDXL", 4096: "SD3 or Flux"}


def tower_for_width(width: int) -> str:
    """Name of the text encoder whose embeddings have ``width`` features. Raises ``ValueError`` if there is
    none.
    """
    for family in FAMILIES.values():
        for name, encoder_width in family.items():
            if encoder_width == width:
                return name
    raise ValueError(
        f"no known text encoder has {width} features; known are 768 (clip_l), 1024 (clip_h), 1280 (clip_g)"
    )


def check_towers(towers: dict[str, int]) -> None:
    """Refuse ``{tower: width}`` that no base model can have. Widths no encoder has are fine: tiny models have
    them.

    Raises:
        ValueError
    """
    if not towers:
        raise ValueError("an adapter needs at least one tower")
    unknown = sorted(set(towers) - set(TOWER_NAMES))
    if unknown:
        raise ValueError(f"unknown towers {unknown}; known are {list(TOWER_NAMES)}")
    if len(towers) > 1 and set(towers) != set(FAMILIES["sdxl"]):
        raise ValueError(f"no base model has the text encoders {sort_towers(towers)} together")
    widths = {width: name for family in FAMILIES.values() for name, width in family.items()}
    for name, width in towers.items():
        if widths.get(width, name) != name:
            raise ValueError(f"tower {name} cannot be {width} wide; that is {widths[width]}")


def family_of_towers(towers: dict[str, int]) -> str:
    """``"sd1"``, ``"sd2"``, ``"sdxl"``, or ``""`` if ``{tower: width}`` is none of them."""
    for family, encoders in FAMILIES.items():
        if dict(towers) == encoders:
            return family
    return ""


def family_words(towers: dict[str, int]) -> str:
    """What base model these towers are for, in words: ``"SD 1.x, 768 wide"``."""
    name = _FAMILY_WORDS.get(family_of_towers(towers), "+".join(sort_towers(towers)))
    return f"{name}, {sum(towers.values())} wide"


def width_words(width: int) -> str:
    """What a conditioning of this width comes from, in words: ``"SDXL, 2048 wide"``."""
    return f"{_WIDTH_WORDS[width]}, {width} wide" if width in _WIDTH_WORDS else f"{width} wide"


def sort_towers(names) -> list[str]:
    """Tower names in the order in which SDXL concatenates them."""
    return sorted(names, key=TOWER_NAMES.index)
