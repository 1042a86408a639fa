"""An LLMDiff adapter on a diffusers UNet: in any pipeline, next to ControlNet and LoRA.

    with attach(pipeline, adapter) as session:
        session.use(positive=encode_prompts(encoder, adapter, [prompt]), negative=..., strength=1.0)
        image = pipeline(prompt, ...).images[0]

Outside ``with`` the UNet is as it was; load an IP-Adapter and set its scale before. The layers' frozen
projections are called as modules, so that LoRA, quantisation and offloading of the UNet act as they do
without the adapter.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from ..errors import AdapterMismatchError
from .adapter import LLMDiffAdapter
from .attention import LayerTokens, attend, check_strength, clip_weight
from .config import LayerShape, unet_words
from .encodings import EncodedPrompt, check_encodings

_PLAIN = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor")
"""Processors that compute softmax attention and nothing else."""


def cross_attention_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """Name -> cross-attention module of a ``UNet2DConditionModel``, in the order of its forward pass.

    Raises:
        AdapterMismatchError: the model has none.
    """
    stages = [f"down_blocks.{n}." for n in range(len(getattr(unet, "down_blocks", ())))]
    stages += ["mid_block."] + [f"up_blocks.{n}." for n in range(len(getattr(unet, "up_blocks", ())))]
    found = {
        name: module
        for stage in stages
        for name, module in unet.named_modules()
        if name.startswith(stage) and name.endswith(".attn2") and hasattr(module, "to_q")
    }
    if not found:
        raise AdapterMismatchError(
            f"{type(unet).__name__}: has no cross-attention layers; LLMDiff acts on the UNets of SD 1.x, "
            "SD 2.x and SDXL"
        )
    return found


def unet_shape(unet: nn.Module) -> tuple[int, tuple[LayerShape, ...]]:
    """(features of the context, the cross-attention layers) of a diffusers UNet. Errors as above."""
    layers = cross_attention_layers(unet).values()
    shapes = tuple(
        LayerShape(layer.query_dim, layer.heads, layer.inner_dim // layer.heads) for layer in layers
    )
    return int(next(iter(layers)).cross_attention_dim), shapes


def check_fit(adapter: LLMDiffAdapter, context_width: int, layers: tuple[LayerShape, ...], name: str) -> None:
    """Refuse a UNet the adapter was not made for, with an ``AdapterMismatchError``."""
    config = adapter.config
    if (config.context_width, config.layers) != (context_width, tuple(layers)):
        found = unet_words(context_width, layers)
        raise AdapterMismatchError(
            f"{adapter.source}: made for {config.family_words}; {name} is {found}. "
            "Choose a model of the family the adapter was trained for"
        )


@dataclass
class _Active:
    """What the processors read at a call of the UNet."""

    tokens: list[LayerTokens]
    strength: float


class LLMDiffSession:
    """An adapter attached to a UNet; made by :func:`attach`. More than one can be: each adds its own part,
    and where both drop the text encoder its weight is the product of theirs.
    """

    def __init__(self, unet: nn.Module, adapter: LLMDiffAdapter, train_timesteps: int = 1000):
        """
        Args:
            train_timesteps: of the model's noise schedule, to tell which share of sampling a timestep is.

        Raises:
            AdapterMismatchError: the UNet is of another shape.
        """
        check_fit(adapter, *unet_shape(unet), type(unet).__name__)
        self.unet, self.adapter = unet, adapter
        self._last = train_timesteps - 1
        self._tokens: list[LayerTokens] | None = None
        self._strength, self._window = 1.0, (0.0, 1.0)
        self._before: dict[str, object] = {}
        self._hook = None
        self.active: _Active | None = None

    def __enter__(self) -> LLMDiffSession:
        self._before = dict(self.unet.attn_processors)
        mine = {}
        for place, name in enumerate(cross_attention_layers(self.unet)):
            previous = self._before[f"{name}.processor"]
            mine[f"{name}.processor"] = _class_like(type(previous))(previous, self, place)
        self.unet.set_attn_processor({**self._before, **mine})
        self._hook = self.unet.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        return self

    def __exit__(self, *_) -> None:
        self._hook.remove()
        self.unet.set_attn_processor(self._before)
        self.active = None

    def use(
        self,
        positive: Sequence[EncodedPrompt],
        negative: Sequence[EncodedPrompt] | None = None,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ) -> None:
        """What the next calls of the pipeline draw.

        Args:
            positive: one for each prompt of the pipeline's call.
            negative: as many, with guidance; ``None`` without guidance.
            strength: 0..1; 0 leaves the UNet exactly as it is.
            start_percent, end_percent: share of sampling in which the adapter acts.

        Raises:
            AdapterMismatchError: a prompt was encoded for another adapter.
            ValueError: a number out of its range, or not as many negative prompts as positive ones.
        """
        positive, negative = list(positive), list(negative or ())
        if negative and len(negative) != len(positive):
            raise ValueError(
                f"LLMDiff: {len(positive)} positive prompts and {len(negative)} negative; give as many"
            )
        if not 0 <= start_percent <= end_percent <= 1:
            raise ValueError(
                f"LLMDiff: expected 0 <= start <= end <= 1, found {start_percent}, {end_percent}"
            )
        check_encodings(self.adapter, [*negative, *positive])
        with torch.no_grad():  # diffusers puts the negative prompts first
            tokens = self.adapter.prepare([encoded.tokens for encoded in (*negative, *positive)])
        self.use_tokens(tokens, strength)
        self._window = start_percent, end_percent

    def use_tokens(self, tokens: list[LayerTokens] | None, strength: float = 1.0) -> None:
        """As :meth:`use` over all of sampling, with tokens prepared elsewhere; gradient goes through them.
        ``None``: none.
        """
        self._tokens, self._strength, self._window = tokens, check_strength(strength), (0.0, 1.0)

    @property
    def prepared(self) -> list[LayerTokens] | None:
        """What :meth:`use` made of its prompts, for :meth:`use_tokens`; without strength and window."""
        return self._tokens

    def _before_forward(self, unet: nn.Module, args: tuple, kwargs: dict) -> None:
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        acts = self._tokens is not None and self._strength > 0 and self._in_window(timestep)
        self.active = _Active(self._tokens, self._strength) if acts else None

    def _in_window(self, timestep) -> bool:
        """As ComfyUI has it: both ends belong to it, and the very first and last moments are open."""
        start, end = self._window
        if (start, end) == (0.0, 1.0):  # in training: reading a timestep would wait for the GPU
            return True
        now = float(torch.as_tensor(timestep).flatten()[0])
        begun = start == 0 or now <= (1 - start) * self._last
        return begun and (end == 1 or end > 0 and now >= (1 - end) * self._last)


class LLMDiffAttnProcessor:
    """One layer's processor: the one that was there, and the formula of :mod:`.attention` around it."""

    def __init__(self, previous, session: LLMDiffSession, place: int):
        self.previous, self._session, self._place = previous, session, place

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs
    ) -> torch.Tensor:
        active = self._session.active
        inputs = (attn, hidden_states, encoder_hidden_states, attention_mask, *args)
        if active is None:
            return self.previous(*inputs, **kwargs)
        tokens = active.tokens[self._place].repeated(hidden_states.shape[0])
        query = attn.to_q(hidden_states)
        added = self._bracket(attn, tokens, hidden_states, query) * active.strength
        if type(self.previous).__name__ in _PLAIN and _is_plain(attn, hidden_states):
            found = _attend_clip(attn, query, encoder_hidden_states, attention_mask)
            return attn.to_out[1](attn.to_out[0](self._own_weight() * found + added))
        # An adapter of another kind stands here (IP-Adapter, or one more of ours): its part stays as it is.
        taken_away = self._weight_before() * (1 - self._own_weight())
        if taken_away:
            clip = _attend_clip(attn, query, encoder_hidden_states, attention_mask)
            added = added - taken_away * clip
        # As a module, so that LoRA, quantisation and offloading of its weights act. The other part has the
        # bias already: one more token of zeros tells it.
        projected = attn.to_out[0](nn.functional.pad(added, (0, 0, 0, 1)))
        return self.previous(*inputs, **kwargs) + projected[:, :-1] - projected[:, -1:]

    def _own_weight(self) -> float:
        active = self._session.active
        return clip_weight(self._session.adapter.config.clip, active.strength) if active else 1.0

    def _weight_before(self) -> float:
        """What further adapters of ours underneath leave of the text encoder's part."""
        below = self.previous
        inside = isinstance(below, LLMDiffAttnProcessor)
        return below._own_weight() * below._weight_before() if inside else 1.0

    def _bracket(self, attn, tokens: LayerTokens, x: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        layer = self._session.adapter.layers[self._place]
        dtype = layer.tau_q.weight.dtype
        found = layer(
            _to(tokens, dtype),
            x.to(dtype),
            query.to(dtype),
            lambda context: attn.to_k(context.to(x.dtype)).to(dtype),
            lambda context: attn.to_v(context.to(x.dtype)).to(dtype),
        )
        return found.to(x.dtype)


def attach(target, adapter: LLMDiffAdapter) -> LLMDiffSession:
    """A session, to be entered with ``with``, over a diffusers pipeline or its UNet.

    The adapter computes in its own type and on its own device: move it to the UNet's first, with
    ``adapter.to(unet.device, unet.dtype)``. Encodings made before stay those of this adapter.

    Raises:
        AdapterMismatchError: the UNet is of another shape than the adapter's.
    """
    unet = getattr(target, "unet", target)
    config = getattr(getattr(target, "scheduler", None), "config", None)
    return LLMDiffSession(unet, adapter, int(getattr(config, "num_train_timesteps", 1000)))


@cache
def _class_like(kind: type) -> type[LLMDiffAttnProcessor]:
    """Our processor with the signature of another, by which diffusers chooses what to hand a processor."""

    def call(self, *args, **kwargs):
        return LLMDiffAttnProcessor.__call__(self, *args, **kwargs)

    call.__signature__ = inspect.signature(kind.__call__)
    return type(LLMDiffAttnProcessor.__name__, (LLMDiffAttnProcessor,), {"__call__": call})


def _attend_clip(attn, query: torch.Tensor, context, mask: torch.Tensor | None) -> torch.Tensor:
    """What the base model's own attention gives, before its output projection. With an IP-Adapter, the
    context is the text's and the pictures'.
    """
    if isinstance(context, tuple):
        context = context[0]
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, context.shape[1], len(query))
        mask = mask.view(len(query), attn.heads, -1, mask.shape[-1])
    return attend(query, attn.to_k(context), attn.to_v(context), attn.heads, mask)


def _is_plain(attn, hidden_states: torch.Tensor) -> bool:
    """Whether the layer does nothing besides attention, as those of SD 1.x, SD 2.x and SDXL do."""
    nothing_else = attn.group_norm is None and attn.spatial_norm is None and not attn.norm_cross
    alone = not attn.residual_connection and attn.rescale_output_factor == 1
    return hidden_states.dim() == 3 and nothing_else and alone


def _to(tokens: LayerTokens, dtype: torch.dtype) -> LayerTokens:
    parts = (tokens.context, tokens.key, tokens.value)
    return LayerTokens(*(part.to(dtype) for part in parts), tokens.mask)
