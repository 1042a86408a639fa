"""The SUR-adapter network (Zhong et al., 2023, Sec. 4.2): Eq. 4 and Eq. 6 for one text encoder.

    Q    = h3(x)                     the query; Eq. 5 distils the LLM into it
    K    = h2(x)
    att  = softmax(Q K^T / sqrt(d))  Eq. 4, d = feature width
    V    = x                         left untouched on purpose, so the prompt's own meaning is not disturbed
    V'   = att V
    c_LLM = g(R + h1(R)), R = V' + V  Eq. 6, g = phi_1 starts at zero

An extension of this project, off unless asked for: R = V' + V + p(Q). In the paper what h3 makes of a prompt
decides only where each token looks; with p it is also part of what is said. It helps where features are few.

``x`` is what the text encoder says about a prompt: [B, T, D], T tokens of D features.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import torch
from torch import nn

from .randomness import CountedDropout

TOKEN_MIXINGS = ("tokens", "none")


@dataclass(frozen=True)
class SURAdapterConfig:
    """Architecture of one :class:`SURAdapter`.

    Attributes:
        width: features per token D; 768 for CLIP-L, 1024 for CLIP-H, 1280 for CLIP-G.
        depth: Transformer layers in h3.
        heads: attention heads in h3; must divide ``width``.
        feedforward: hidden width of h3's feed-forward layers.
        dropout: dropout inside h3, active in training mode only.
        token_mixing: ``"tokens"`` is the paper: h3 attends over the tokens of a prompt. ``"none"`` shows h3
            each token alone, which is how the authors' released encoder treats a single prompt.
        query_projection: a linear layer between h3 and Eq. 4. The paper has none; the authors' files do.
        query_in_value: Eq. 6 also reads the query, through a linear layer. An extension; the paper has none.
    """

    width: int
    depth: int = 2
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.1
    token_mixing: str = "tokens"
    query_projection: bool = False
    query_in_value: bool = False

    def __post_init__(self):
        for name, low, high in (
            ("width", 1, 65536),
            ("depth", 1, 128),
            ("heads", 1, 1024),
            ("feedforward", 1, 1 << 20),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(
                    f"adapter config: {name} must be an integer in {low}..{high}, found {value!r}"
                )
        if self.width % self.heads:
            raise ValueError(f"adapter config: width {self.width} is not divisible by heads {self.heads}")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"adapter config: dropout must be in [0, 1), found {self.dropout!r}")
        if self.token_mixing not in TOKEN_MIXINGS:
            raise ValueError(
                f"adapter config: token_mixing must be one of {TOKEN_MIXINGS}, found {self.token_mixing!r}"
            )
        for name in ("query_projection", "query_in_value"):
            if type(getattr(self, name)) is not bool:
                found = getattr(self, name)
                raise ValueError(f"adapter config: {name} must be true or false, found {found!r}")

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> SURAdapterConfig:
        """Inverse of :meth:`to_dict`. Raises ``ValueError`` on unknown, missing or impossible fields."""
        if not isinstance(values, dict):
            raise ValueError(f"adapter config: expected a table of fields, found {type(values).__name__}")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"adapter config: unknown fields {unknown}; the file may come from a newer version"
            )
        if "width" not in values:
            raise ValueError("adapter config: field 'width' is missing")
        return cls(**values)


class SUROutput(NamedTuple):
    """What :class:`SURAdapter` returns.

    Attributes:
        query: Q of Eq. 4, [B, T, D]; the LLM is distilled into it (Eq. 5).
        attention: att of Eq. 4, [B, T, T]; row t is how token t reads the other tokens; rows sum to 1.
        c_llm: c_LLM of Eq. 6, [B, T, D].
    """

    query: torch.Tensor
    attention: torch.Tensor
    c_llm: torch.Tensor


class SURAdapter(nn.Module):
    """One tower: g_Ada(.; phi_2) and g(.; phi_1) of the paper for one text encoder.

    Parameters are named after the paper: ``h1``, ``h2``, ``h3``, ``g`` (and ``query``, ``p`` where the config
    asks for them).
    """

    def __init__(self, config: SURAdapterConfig):
        super().__init__()
        self.config = config
        width = config.width
        # Built one by one: nn.TransformerEncoder copies its first layer, so all would start with the same
        # weights.
        self.h3 = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, config.heads, config.feedforward, config.dropout, activation="relu", batch_first=True
            )
            for _ in range(config.depth)
        )
        self.query = nn.Linear(width, width) if config.query_projection else None
        self.h2 = nn.Linear(width, width)
        self.h1 = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.g = nn.Linear(width, width)
        nn.init.zeros_(self.g.weight)
        nn.init.zeros_(self.g.bias)
        # Last, so that all other weights start as they do without it.
        self.p = nn.Linear(width, width) if config.query_in_value else None

    def forward(
        self, hidden: torch.Tensor, mix_batch: bool = False, dropout: CountedDropout | None = None
    ) -> SUROutput:
        """Read a prompt's embeddings.

        Args:
            hidden: x, the text encoder's output, [B, T, D], in the dtype and on the device of the parameters.
            mix_batch: let h3 attend over the batch instead of the tokens, as the authors' pipeline does with
                its batch [negative, positive]. It mixes samples and exists only to approach their published
                pictures.
            dropout: masks for h3 that belong to the samples, in place of the layers' own dropout, which is
                drawn for the batch as a whole. With the probability of the config, in training.
        """
        query = self._h3(hidden, mix_batch, dropout)
        if self.query is not None:
            query = self.query(query)
        key = self.h2(hidden)
        scores = query @ key.transpose(-1, -2) / math.sqrt(hidden.shape[-1])
        attention = scores.softmax(dim=-1)  # Eq. 4
        residual = attention @ hidden + hidden  # V' + V
        if self.p is not None:
            residual = residual + self.p(query)
        c_llm = self.g(residual + self.h1(residual))  # Eq. 6
        return SUROutput(query, attention, c_llm)

    def _h3(self, hidden: torch.Tensor, mix_batch: bool, dropout: CountedDropout | None) -> torch.Tensor:
        """h3 over the axis it attends to: that axis is made the sequence, all others the batch."""
        alone = self.config.token_mixing == "none" and not mix_batch
        if dropout is not None:
            for layer in self.h3:
                hidden = _layer_with_masks(layer, hidden, alone, dropout)
            return hidden
        if mix_batch:
            sequences = hidden.transpose(0, 1)  # [T, B, D]
        elif alone and self.training:
            sequences = hidden.reshape(-1, 1, hidden.shape[-1])  # [B * T, 1, D]
        else:
            sequences = hidden
        for layer in self.h3:
            sequences = _layer_alone(layer, sequences) if alone and not self.training else layer(sequences)
        return sequences.transpose(0, 1) if mix_batch else sequences.reshape(hidden.shape)


def _layer_alone(layer: nn.TransformerEncoderLayer, tokens: torch.Tensor) -> torch.Tensor:
    """What ``layer`` returns in eval mode for each token of [..., D] as a sequence of its own.

    The softmax over one token is 1, so its attention is its value: two of four projections are spared.
    """
    attention = layer.self_attn
    width = tokens.shape[-1]
    value = nn.functional.linear(tokens, attention.in_proj_weight[-width:], attention.in_proj_bias[-width:])
    tokens = layer.norm1(tokens + attention.out_proj(value))
    return layer.norm2(tokens + layer.linear2(layer.linear1(tokens).relu()))


def _layer_with_masks(
    layer: nn.TransformerEncoderLayer, tokens: torch.Tensor, alone: bool, dropout: CountedDropout
) -> torch.Tensor:
    """``layer`` on [B, T, D] in training mode with given dropout masks; ``alone``: each token by itself.

    Written out because the masks of nn.MultiheadAttention's weights cannot be given.
    """
    attention, (batch, count, width) = layer.self_attn, tokens.shape
    heads = attention.num_heads
    on_weights, on_attention, on_hidden, on_output = dropout.masks(
        (heads, count, 1 if alone else count),
        (count, width),
        (count, layer.linear1.out_features),
        (count, width),
    )
    projected = nn.functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = projected.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if alone:
        mixed = on_weights * value  # the softmax over one token is 1
    else:
        weights = (query @ key.transpose(-1, -2) / math.sqrt(width // heads)).softmax(dim=-1)
        mixed = (weights * on_weights).to(value.dtype) @ value
    mixed = mixed.transpose(1, 2).reshape(batch, count, width).to(tokens.dtype)
    tokens = layer.norm1(tokens + attention.out_proj(mixed) * on_attention)
    return layer.norm2(tokens + layer.linear2(layer.linear1(tokens).relu() * on_hidden) * on_output)
