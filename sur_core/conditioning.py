"""Eq. 7 on real token embeddings: c'_LLM = eta * c_LLM + (1 - eta) * f_En(p).

Any batch, any multiple of 77 tokens, any float type, any device. Each chunk of 77 tokens is a sample of its
own, as in training, and no sample sees another. All arithmetic is 32-bit: sums over 768 features in half
precision lose the small corrections that matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch

from .adapter import SURAdapter
from .bundle import SURAdapterBundle
from .errors import AdapterMismatchError
from .families import CHUNK_TOKENS, width_words


def adapt(adapter: SURAdapterBundle, hidden: torch.Tensor, eta: float) -> torch.Tensor:
    """Correct a text encoder's output (Eq. 7). The input is never changed.

    Args:
        adapter: from :func:`sur_core.load_adapter`.
        hidden: token embeddings [B, 77 * n, D], float. D equal to the towers' widths together is split among
            them (SDXL: clip_l 768 | clip_g 1280); otherwise the tower of that width is used.
        eta: strength, 0..1. 0 gives the same values bit for bit.

    Returns:
        Tensor like ``hidden``: same shape, type and device.

    Raises:
        AdapterMismatchError: no tower fits D, or the tokens are no multiple of 77, or the result leaves the
            range of ``hidden``'s type.
        ValueError: eta is not a number in 0..1.
    """
    eta = check_eta(eta)
    towers_for(adapter, hidden)
    if eta == 0:
        return hidden.clone()
    return blend(hidden, predict(adapter, hidden), eta)


def predict(adapter: SURAdapterBundle, hidden: torch.Tensor) -> torch.Tensor:
    """c_LLM of Eq. 6 for every token: float32 [B, 77 * n, D], on ``hidden``'s device. As :func:`adapt`."""
    outputs = []
    for tower, part in _parts(adapter, hidden):
        chunks = _float_chunks(tower, hidden[..., part])
        with full_precision(chunks.device):
            outputs.append(tower(chunks).c_llm.reshape(*hidden.shape[:2], tower.config.width))
    return torch.cat(outputs, dim=-1).to(hidden.device)


def blend(hidden: torch.Tensor, c_llm: torch.Tensor, eta: float) -> torch.Tensor:
    """Eq. 7 itself, computed in float32 and returned in ``hidden``'s type. Differentiable.

    Raises:
        AdapterMismatchError: the result is too large for ``hidden``'s type (float16 ends at 65504).
    """
    mixed = c_llm.float() * eta + hidden.float() * (1.0 - eta)
    result = mixed.to(hidden.dtype)
    if not result.isfinite().all() and hidden.isfinite().all():
        raise AdapterMismatchError(
            f"the adapted embedding reaches {mixed.abs().max():.4g}, more than {hidden.dtype} can hold "
            f"({torch.finfo(hidden.dtype).max:.5g}); the adapter probably belongs to another model. "
            "Lower eta or use another adapter"
        )
    return result


def adapt_pair_as_authors(
    adapter: SURAdapterBundle,
    negative: torch.Tensor,
    positive: torch.Tensor,
    eta_negative: float,
    eta_positive: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative and positive prompt as one batch of two whose encoder attends across that batch.

    The authors' released pipeline runs [negative; positive] through an encoder that takes the batch for the
    sequence, so each prompt's embedding depends on the other's. This repeats it (without their dropout, which
    their demo leaves on) so that their published pictures can be approached. Chunk i of one prompt meets
    chunk i of the other.

    Args:
        adapter: in the authors' format (token mixing "none").
        negative, positive: [1, 77 * n, D], both of one shape.
        eta_negative, eta_positive: strength for each, 0..1.

    Returns:
        Adapted (negative, positive), each like its input.

    Raises:
        AdapterMismatchError: as :func:`adapt`; also if the shapes differ or the adapter mixes tokens itself.
    """
    eta_negative, eta_positive = check_eta(eta_negative), check_eta(eta_positive)
    if any(tower.config.token_mixing != "none" for tower in adapter.towers.values()):
        raise AdapterMismatchError(
            f"{adapter.source}: this adapter attends over the tokens of one prompt, as the paper says; only "
            "files in the authors' released format were used with attention across the batch. Adapt "
            "each prompt on its own (in ComfyUI: as_authors_pipeline off)"
        )
    if negative.shape != positive.shape or negative.shape[0] != 1:
        raise AdapterMismatchError(
            "the authors' pipeline adapts one negative and one positive prompt of the same length together; "
            f"found shapes {tuple(negative.shape)} and {tuple(positive.shape)}. Shorten the longer prompt "
            "or turn the switch off"
        )
    predicted = []
    for tower, part in _parts(adapter, positive):
        sides = [_float_chunks(tower, hidden[..., part]) for hidden in (negative, positive)]  # 2 x [n, 77, D]
        with full_precision(sides[0].device):
            batches = [tower(torch.stack(pair), mix_batch=True).c_llm for pair in zip(*sides, strict=True)]
        predicted.append(torch.cat(batches, dim=1))  # [2, 77 * n, D]
    c_llm = torch.cat(predicted, dim=-1).to(positive.device)
    prompts = ((negative, c_llm[:1], eta_negative), (positive, c_llm[1:], eta_positive))
    return tuple(blend(x, c, eta) if eta else x.clone() for x, c, eta in prompts)


def towers_for(adapter: SURAdapterBundle, hidden: torch.Tensor) -> list[str]:
    """The towers that together read ``hidden`` [B, 77 * n, D], in the order of its features.

    Raises:
        AdapterMismatchError: ``hidden`` is not of that form or no tower has its width.
    """
    if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3 or not hidden.is_floating_point():
        found = (
            f"{tuple(hidden.shape)} {hidden.dtype}"
            if isinstance(hidden, torch.Tensor)
            else type(hidden).__name__
        )
        raise AdapterMismatchError(
            f"expected float token embeddings [batch, tokens, features], found {found}"
        )
    tokens, width = hidden.shape[1:]
    if tokens == 0 or tokens % CHUNK_TOKENS:
        raise AdapterMismatchError(
            f"expected a multiple of {CHUNK_TOKENS} tokens (CLIP's chunks), found {tokens}; "
            "this conditioning does not come from an SD 1.x, SD 2.x or SDXL text encoder"
        )
    widths = adapter.passport.widths
    if width == sum(widths.values()):
        return list(widths)
    fitting = [name for name, tower_width in widths.items() if tower_width == width]
    if not fitting:
        raise mismatch(adapter, f"this CONDITIONING is {width_words(width)}")
    return fitting[:1]


def mismatch(adapter: SURAdapterBundle, found: str) -> AdapterMismatchError:
    """The error for an adapter on the wrong model; ``found`` says what the model is."""
    return AdapterMismatchError(
        f"{adapter.source} was trained for {adapter.family_words}; {found}. Load an adapter made for this "
        "base model, or use the checkpoint the adapter was made for"
    )


def check_eta(eta: float) -> float:
    """``eta`` as a float. Raises ``ValueError`` unless it is a number in 0..1."""
    try:
        value = float(eta)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"eta must be a number from 0 (prompt unchanged) to 1 (adapter only), found {eta!r}")
    return value


def _parts(adapter: SURAdapterBundle, hidden: torch.Tensor) -> Iterator[tuple[SURAdapter, slice]]:
    """Each tower that reads ``hidden``, and which of its features."""
    first = 0
    for name in towers_for(adapter, hidden):
        tower = adapter.towers[name]
        yield tower, slice(first, first + tower.config.width)
        first += tower.config.width


def _float_chunks(tower, part: torch.Tensor) -> torch.Tensor:
    """[B, 77 * n, D] -> float32 [B * n, 77, D] on the tower's device.

    Contiguous, because a matrix product of a strided slice may round differently: SDXL's halves must give the
    same whether they come from a CONDITIONING or straight from their encoders.
    """
    device = next(tower.parameters()).device
    return part.to(device=device, dtype=torch.float32).contiguous().view(-1, CHUNK_TOKENS, part.shape[-1])


def full_precision(device: torch.device):
    """A host's autocast (AUTOMATIC1111 samples under it) would quietly run the towers in half precision."""
    return torch.autocast(device.type, enabled=False) if _autocasts(device.type) else nullcontext()


def _autocasts(kind: str) -> bool:
    try:
        return torch.is_autocast_enabled(kind)
    except TypeError:  # before torch 2.4 it takes no argument and speaks of CUDA; others have their own
        asked = {"cuda": "is_autocast_enabled"}.get(kind, f"is_autocast_{kind}_enabled")
        return getattr(torch, asked, lambda: False)()
    except (RuntimeError, AssertionError):  # some devices, such as DirectML's, know no autocast
        return False
