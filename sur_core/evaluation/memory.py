"""Running out of memory, told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..training_errors import is_out_of_memory
from .settings import EvaluationSettings


@contextmanager
def room_for(what: str, device, ways: str) -> Iterator[None]:
    """Running out of memory becomes a ValueError that says what for, where, and the ``ways`` out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"{what} does not fit into the memory of {device}. {ways}") from error


@contextmanager
def memory_words(
    settings: EvaluationSettings, pictures: int, size: tuple[int, int] | None = None
) -> Iterator[None]:
    """Running out of memory becomes a ValueError that says what to lower.

    Args:
        pictures: drawn at once.
        size: their (width, height) in pixels.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = [f"lower batch_size, now {settings.batch_size}"] * (pictures > 1)
        ways += ["set dtype to bf16 or fp16"] * (settings.dtype == "fp32")
        ways += ["lower width and height"]
        of = " of {} x {} pixels".format(*size) if size else ""
        raise ValueError(
            f"out of memory while drawing {pictures} pictures{of} at once. In this order: {'; '.join(ways)}. "
            "What was drawn so far is kept, for the same settings; another batch_size or dtype draws anew"
        ) from error
