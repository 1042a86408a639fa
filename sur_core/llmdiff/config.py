"""What an LLMDiff-Adapter is made of: the language model it reads, and the UNet layers it speaks to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

CLIP_CHOICES = ("drop", "keep")
STARTS = ("embedding", "zero")
NORMALIZATIONS = ("none", "rms")


@dataclass(frozen=True)
class LayerShape:
    """One cross-attention layer of a UNet.

    Attributes:
        query: features of the picture's tokens.
        heads, head_dim: attention heads, and features of each.
    """

    query: int
    heads: int
    head_dim: int

    @property
    def inner(self) -> int:
        """Features of queries, keys and values: all heads together."""
        return self.heads * self.head_dim


SD1_LAYERS = tuple(
    LayerShape(width, 8, width // 8)
    for width in (320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320)
)
SD2_LAYERS = tuple(LayerShape(shape.query, shape.query // 64, 64) for shape in SD1_LAYERS)
SDXL_LAYERS = tuple(
    LayerShape(width, width // 64, 64) for width in (*[640] * 4, *[1280] * 20, *[1280] * 40, *[640] * 6)
)
_FAMILIES = {(768, SD1_LAYERS): "sd1", (1024, SD2_LAYERS): "sd2", (2048, SDXL_LAYERS): "sdxl"}
_WORDS = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}


@dataclass(frozen=True)
class LLMDiffConfig:
    """Architecture of an adapter; equations of Dong et al. (2024), https://arxiv.org/abs/2502.04412.

    Attributes:
        llm_width, llm_blocks: features and number of blocks of the language model.
        context_width: features that the UNet's cross-attention reads (768 SD 1.x, 1024 SD 2.x, 2048 SDXL).
        layers: the UNet's cross-attention layers in the order of its forward pass.
        clip: ``"drop"``, as in the paper: at full strength the text encoder's tokens are not attended to.
            ``"keep"``: they are, and the language model is heard beside them.
        start: c^T of the Langevin sum: the language model's ``"embedding"`` of each token, or ``"zero"``. The
            paper does not say; with zero the first token, whose scores cancel, has an encoding of zeros.
        normalize: ``"none"``: the sum as it is; ``"rms"``: each token's encoding divided by its root mean
            square, which evens out the few very large features of big language models.
    """

    llm_width: int
    llm_blocks: int
    context_width: int
    layers: tuple[LayerShape, ...]
    clip: str = "drop"
    start: str = "embedding"
    normalize: str = "none"

    def __post_init__(self):
        for name in ("llm_width", "llm_blocks", "context_width"):
            _check_count(name, getattr(self, name))
        for name, known in (("clip", CLIP_CHOICES), ("start", STARTS), ("normalize", NORMALIZATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {list(known)}, found {getattr(self, name)!r}")
        if not self.layers:
            raise ValueError("an LLMDiff adapter needs at least one cross-attention layer")
        for layer in self.layers:
            for spec in fields(layer):
                _check_count(f"layers.{spec.name}", getattr(layer, spec.name))

    @property
    def family(self) -> str:
        """``"sd1"``, ``"sd2"``, ``"sdxl"``, or ``""`` for a UNet of another shape."""
        return _FAMILIES.get((self.context_width, self.layers), "")

    @property
    def family_words(self) -> str:
        return unet_words(self.context_width, self.layers)

    def to_json(self) -> str:
        values = asdict(self)
        values["layers"] = [[layer.query, layer.heads, layer.head_dim] for layer in self.layers]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> LLMDiffConfig:
        """Inverse of :meth:`to_json`. Raises ``ValueError`` saying what is wrong."""
        try:
            values = json.loads(text)
            layers = tuple(LayerShape(*shape) for shape in values.pop("layers"))
            return cls(layers=layers, **values)
        except (ValueError, RecursionError):
            raise
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the description of the architecture is damaged ({error})") from error


def unet_words(context_width: int, layers: tuple[LayerShape, ...]) -> str:
    """``"SD 1.x (16 cross-attention layers, 768 wide)"``."""
    family = _FAMILIES.get((context_width, tuple(layers)), "")
    name = _WORDS.get(family, "a UNet")
    return f"{name} ({len(layers)} cross-attention layers, {context_width} wide)"


def _check_count(name: str, value) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, found {value!r}")
