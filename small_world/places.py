"""Where the small world keeps what is in the repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
PROMPT_SETS = {name: HERE / "prompt_sets" / f"{name}.jsonl" for name in ("paper", "large", "final")}
"""Test prompts. ``paper``: fifteen a type, as the paper has. ``large``: a hundred a type, for narrow
intervals, the fifteen among them. The settings of demo and benchmark were chosen with the help of these two,
so that they are for development. ``final``: another hundred a type, none of them in ``large``, that had no
part in it.
"""
JUDGE = "small_world.judge:make_judge"
DEMO_CONFIG, LLMDIFF_CONFIG = HERE / "demo.toml", HERE / "llmdiff.toml"
"""How the two systems are trained."""


@dataclass(frozen=True)
class Models:
    """The models raised in the small world, each a folder in a standard format.

    Attributes:
        root: holds the three others.
    """

    root: str | os.PathLike = MODELS

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))

    @property
    def base(self) -> Path:
        """A diffusers StableDiffusionPipeline."""
        return self.root / "base"

    @property
    def clip(self) -> Path:
        """A transformers CLIPModel with tokenizer and image processor."""
        return self.root / "clip"

    @property
    def llm(self) -> Path:
        """A transformers LlamaForCausalLM with tokenizer."""
        return self.root / "llm"

    def check(self) -> None:
        """Raises ``FileNotFoundError`` if a model is not there."""
        marks = (self.base / "model_index.json", self.clip / "config.json", self.llm / "config.json")
        if missing := [str(mark) for mark in marks if not mark.is_file()]:
            raise FileNotFoundError(
                f"{self.root}: a model of the small world is missing: no {', '.join(missing)}. They are part "
                "of the repository, but not of the pack that ComfyUI's registry installs: clone the "
                "repository, or make them anew with 'python -m train world --rebuild'"
            )
