"""What happened to every token of a prompt between two embeddings of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..bundle import SURAdapterBundle
from ..conditioning import adapt, full_precision, towers_for
from ..families import CHUNK_TOKENS, FAMILIES, tower_for_width, width_words
from .tokens import WORD, Token, numbered


@dataclass(frozen=True)
class ChunkChange:
    """One chunk of a prompt as one text encoder reads it, before and after.

    Attributes:
        tower: the text encoder, such as ``"clip_l"``; ``""`` if the width tells of none.
        chunk: number of the chunk, from 0.
        tokens: names of the T tokens.
        turn: [T] 1 - cosine between a token before and after: 0 the same direction, 1 a right angle, 2
            opposite.
        ratio: [T] length after / length before; inf for a token that was zero.
        distance: [T] length of the difference / length before: both in one number, which ranks the tokens.
        attention: att of Eq. 4 [T, T], row t is how token t reads the others; None without an adapter.
    """

    tower: str
    chunk: int
    tokens: tuple[Token, ...]
    turn: tuple[float, ...]
    ratio: tuple[float, ...]
    distance: tuple[float, ...]
    attention: torch.Tensor | None = None

    @property
    def changed(self) -> bool:
        return any(self.distance)

    @property
    def words(self) -> list[int]:
        """Places of the tokens that are words, rather than marks or padding."""
        return [place for place, token in enumerate(self.tokens) if token.kind == WORD]


def compare(before: torch.Tensor, after: torch.Tensor) -> list[ChunkChange]:
    """Token by token, chunk by chunk, text encoder by text encoder.

    Args:
        before, after: embeddings of the same prompt [T, D], of any float type. T of several times 77 are as
            many chunks; D of 2048 is SDXL's clip_l | clip_g.

    Raises:
        ValueError: the shapes differ, or a number is NaN or infinite.
    """
    return _compare(before, after, _parts(before.shape[-1]))


def compare_adapted(adapter: SURAdapterBundle, hidden: torch.Tensor, eta: float) -> list[ChunkChange]:
    """:func:`compare` of ``hidden`` [77 * n, D] and what :func:`sur_core.adapt` makes of it, with attention.

    Raises:
        AdapterMismatchError, ValueError: as :func:`sur_core.adapt`, and if a number is NaN or infinite.
    """
    hidden = hidden[None]
    names, widths = towers_for(adapter, hidden), adapter.passport.widths
    parts, first = {}, 0
    for name in names:
        parts[name] = slice(first, first + widths[name])
        first += widths[name]
    changes = _compare(hidden[0], adapt(adapter, hidden, eta)[0], parts)
    attention = {name: _attention(adapter.towers[name], hidden[0, :, part]) for name, part in parts.items()}
    return [replace(change, attention=attention[change.tower][change.chunk]) for change in changes]


def with_tokens(changes: list[ChunkChange], names: dict[str, list[tuple[Token, ...]]]) -> list[ChunkChange]:
    """The same changes with real names: for each text encoder one tuple of T tokens a chunk.

    Chunks beyond those named keep their numbers (a prompt concatenated behind another).

    Raises:
        ValueError: there are no names for a text encoder, more chunks of them than the changes have, or not
            as many as tokens.
    """
    named = []
    for tower in dict.fromkeys(change.tower for change in changes):
        if tower not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"the text was read by {known}; these embeddings come from {tower or 'another'}")
        found = sum(change.tower == tower for change in changes)
        if len(names[tower]) > found:
            raise ValueError(
                f"the text is {len(names[tower])} chunks of tokens long, the embeddings are {found}: it is "
                "not the text of this prompt. Give the text that was encoded"
            )
    for change in changes:
        tokens = names[change.tower][change.chunk : change.chunk + 1] or [change.tokens]
        if len(tokens[0]) != len(change.tokens):
            raise ValueError(
                f"the text has {len(tokens[0])} tokens in chunk {change.chunk + 1}, the embeddings have "
                f"{len(change.tokens)}: they come from different text encoders"
            )
        named.append(replace(change, tokens=tuple(tokens[0])))
    return named


def _parts(width: int) -> dict[str, slice]:
    """Which features come from which text encoder."""
    for family in FAMILIES.values():
        if len(family) > 1 and width == sum(family.values()):
            ends = torch.tensor([0, *family.values()]).cumsum(0).tolist()
            return {name: slice(*ends[place : place + 2]) for place, name in enumerate(family)}
    try:
        return {tower_for_width(width): slice(None)}
    except ValueError:
        return {"": slice(None)}


def _compare(before: torch.Tensor, after: torch.Tensor, parts: dict[str, slice]) -> list[ChunkChange]:
    _check(before, after)
    length = len(before) if len(before) % CHUNK_TOKENS else CHUNK_TOKENS
    changes = []
    for name, part in parts.items():
        pairs = zip(_chunks(before[:, part], length), _chunks(after[:, part], length), strict=True)
        for number, pair in enumerate(pairs):
            figures = (tuple(values.tolist()) for values in _figures(*pair))
            changes.append(ChunkChange(name, number, numbered(1 + number * length, length), *figures))
    return changes


def _chunks(part: torch.Tensor, length: int) -> tuple[torch.Tensor, ...]:
    # 64-bit: the cosine of nearly equal directions is lost in the rounding of shorter numbers.
    return part.detach().to("cpu", torch.float64).split(length)


def _figures(old: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """turn, ratio, distance, each [T], of [T, D] and [T, D]."""
    same = (old == new).all(-1)
    length_before, length_after = old.norm(dim=-1), new.norm(dim=-1)
    lengths = length_before * length_after
    # A token that is zero on one side has no direction; it counts as a right angle.
    cosine = torch.where(lengths > 0, (old * new).sum(-1) / lengths, 0.0).clamp(-1, 1)
    return (
        torch.where(same, 0.0, 1 - cosine),
        torch.where(same, 1.0, length_after / length_before),
        torch.where(same, 0.0, (new - old).norm(dim=-1) / length_before),
    )


def _check(before: torch.Tensor, after: torch.Tensor) -> None:
    if before.shape != after.shape:
        (tokens, width), (other_tokens, other_width) = before.shape, after.shape
        raise ValueError(
            "before and after must be the same prompt from the same text encoder; found "
            f"{tokens} tokens ({width_words(width)}) before and {other_tokens} tokens "
            f"({width_words(other_width)}) after. Compare prompts before they are concatenated, or "
            "concatenate the same to both"
        )
    for name, side in (("before", before), ("after", after)):
        if not side.isfinite().all():
            raise ValueError(
                f"the embeddings {name} hold NaN or infinite numbers, so nothing can be said about their "
                "tokens. Look for the node that makes them: a broken checkpoint, LoRA or adapter"
            )


def _attention(tower, part: torch.Tensor) -> torch.Tensor:
    """att of Eq. 4 for each chunk: [77 * n, D] -> [n, 77, 77] on the CPU."""
    device = next(tower.parameters()).device
    chunks = part.to(device=device, dtype=torch.float32).reshape(-1, CHUNK_TOKENS, part.shape[-1])
    with full_precision(device), torch.no_grad():
        return tower(chunks).attention.cpu()
