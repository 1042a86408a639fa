"""Eq. 1-3: what every block of a language model adds to a token because of the tokens before it.

A block with its residual connection is one denoising step, and its score is its update: output minus input.
For block t, counted from the input,

    Delta_t = S_ctx(t) - S_solo(t) = (block(x with its context) - x) - (block(x alone) - x),

so that the input cancels. A token is alone when the same block reads it as a text of one token at its own
position, which is what an attention mask that is the identity does. Both runs take the input the model's
ordinary forward brings, x with context: the second one starts anew at every block. (The paper could also be
read as one forward of the whole model on each token alone. Both scores of Eq. 2 are taken at the same x_d^t,
however, and without context x_d^t would be another.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch
from torch import nn

from ..conditioning import full_precision
from ..language_model_files import KnowledgeError

_LEFT_OUT = frozenset(
    ("attention_mask", "causal_mask", "encoder_attention_mask", "head_mask")
    + ("layer_past", "past_key_value", "past_key_values")
)
_OFF = frozenset(("use_cache", "output_attentions"))


def walk(
    model: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor, visit: Callable[[int, torch.Tensor], None]
) -> None:
    """Run ``model`` once over ``ids``, and every block once more on each token alone.

    Nothing is kept from one block to the next, so the memory needed does not grow with their number.

    Args:
        model: base model (without a head) of a decoder-only language model, in eval mode.
        blocks: its T blocks, in the order they run.
        ids: token numbers [B, n], shorter rows padded on the right with any token; the real tokens, being
            before it, never see the padding.
        visit: called T + 1 times with a tensor [B, n, D]: first ``visit(0, c^T)``, the first block's input (a
            view of the model's own: do not change it), then ``visit(t, Delta_t)`` for t = 1, ..., T. float64
            for a float64 model, else float32.

    Raises:
        KnowledgeError: the blocks cannot be run one by one.
    """

    def after(number: int, before: torch.Tensor, together: torch.Tensor, alone: torch.Tensor) -> None:
        if number == 1:
            visit(0, _wide(before))
        visit(number, _wide(together) - _wide(alone))

    run_twice(model, blocks, ids, after)


@torch.no_grad()
def run_twice(
    model: nn.Module,
    blocks: nn.ModuleList,
    ids: torch.Tensor,
    visit: Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None],
) -> None:
    """As :func:`walk`, with ``visit(t, input, output in context, output alone)`` for t = 1, ..., T, each
    [B, n, D] in the model's type.
    """
    done: list[int] = []

    def after(number: int, block: nn.Module, args: tuple, named: dict, output: object) -> None:
        if number != len(done) + 1:
            raise _unsupported(model, f"block {number} ran after {len(done)} others")
        done.append(number)
        given = _by_name(model, block, args, named)
        before, together = next(iter(given.values())), _hidden(output)
        if not _same_shape(before, ids) or not _same_shape(together, ids) or before.shape != together.shape:
            raise _unsupported(model, f"block {number} does not take and give [batch, tokens, features]")
        alone = _hidden(block.forward(**_one_by_one(model, given)))  # forward: without this hook
        visit(number, before, together, alone.reshape(together.shape))

    hooks = [
        block.register_forward_hook(functools.partial(after, number), with_kwargs=True)
        for number, block in enumerate(blocks, start=1)
    ]
    try:
        with full_precision(ids.device):
            # All ones, not None: transformers would look for padding tokens itself, and warn.
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(done) != len(blocks):
        raise _unsupported(model, f"{len(done)} of its {len(blocks)} blocks ran")


def _by_name(model: nn.Module, block: nn.Module, args: tuple, named: dict) -> dict[str, object]:
    """A call's arguments under their names, the hidden states first."""
    signature = inspect.signature(block.forward)
    given = dict(signature.bind(*args, **named).arguments)
    for name in list(given):
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name)
        elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise _unsupported(model, f"its blocks take arguments without names (*{name})")
    return given


def _one_by_one(model: nn.Module, given: dict[str, object]) -> dict[str, object]:
    """The arguments with which a block reads [B * n] texts of one token each: no mask, no cache, and to every
    token its own position.
    """
    first, hidden = next(iter(given.items()))
    batch, tokens, width = hidden.shape
    alone = {first: hidden.reshape(batch * tokens, 1, width)}
    for name, value in given.items():
        if name in _LEFT_OUT:
            alone[name] = None
        elif name in _OFF:
            alone[name] = False
        elif name == "cache_position" and value is not None:
            alone[name] = value[:1]  # a place in the cache, of which there is none; one for the whole batch
        elif name == "alibi" and value is not None:  # [B * heads, 1, n]; on an only key it changes nothing
            alone[name] = value.new_zeros(batch * tokens * (value.shape[0] // batch), 1, 1)
        elif name != first:
            alone[name] = _per_token(model, name, value, batch, tokens)
    return alone


def _per_token(model: nn.Module, name: str, value: object, batch: int, tokens: int) -> object:
    """[1 or B, n, ...] -> [B * n, 1, ...], also inside tuples, lists and dicts."""
    again = functools.partial(_per_token, model, name, batch=batch, tokens=tokens)
    if isinstance(value, torch.Tensor):
        if value.ndim < 2 or value.shape[0] not in (1, batch) or value.shape[1] != tokens:
            raise _unsupported(model, f"its blocks take {name}, a tensor of shape {tuple(value.shape)}")
        return value.expand(batch, *value.shape[1:]).reshape(batch * tokens, 1, *value.shape[2:])
    if isinstance(value, tuple | list):
        return type(value)(again(part) for part in value)
    if isinstance(value, dict):
        return {key: again(part) for key, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _unsupported(model, f"its blocks take {name}, of type {type(value).__name__}")


def _hidden(output: object) -> object:
    return output[0] if isinstance(output, tuple) else output


def _same_shape(hidden: object, ids: torch.Tensor) -> bool:
    return isinstance(hidden, torch.Tensor) and hidden.ndim == 3 and hidden.shape[:2] == ids.shape


def _wide(hidden: torch.Tensor) -> torch.Tensor:
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def _unsupported(model: nn.Module, reason: str) -> KnowledgeError:
    return KnowledgeError(
        f"{type(model).__name__}: this architecture is not supported ({reason}). Choose a model such as "
        "Llama, Mistral, Qwen or Gemma"
    )
