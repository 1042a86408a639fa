"""Where the small world keeps what is in the repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
PROMPT_SETS = {name: HERE / "prompt_sets" / f"{name}.jsonl" for name in ("paper", "large")}
"""``paper``: fifteen prompts a type, as the paper has; ``large``: a hundred a type, for narrow intervals."""
JUDGE = "small_world.judge:make_judge"
DEMO_CONFIG = HERE / "demo.toml"


@dataclass(frozen=True)
class Models:
    """The models raised in the small world, each a folder in a standard format.

    Attributes:
        root: holds the three others.
    """

    root: Path = MODELS

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
