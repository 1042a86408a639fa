"""Adapted prompts are found again, whatever they hold."""

from __future__ import annotations

import math

import pytest
import torch

from sur_webui.memory import AdaptedPrompts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_prompt_of_nan_is_read_once_and_given_back(dtype):
    """A broken CLIP gives NaN; the host then tells its user so, and must get to it."""
    hidden = torch.randn(3, 77, 8).to(dtype)
    hidden[1, 5] = math.nan
    reads = []

    def read(rows):
        reads.extend(rows)
        return [row + 1 for row in rows]

    remembered = AdaptedPrompts(read)
    for _ in range(2):
        torch.testing.assert_close(remembered(hidden), hidden + 1, rtol=0, atol=0, equal_nan=True)
    assert len(reads) == 3


def test_prompts_that_differ_in_the_sign_of_a_zero_are_two():
    zeros = torch.zeros(2, 77, 8)
    zeros[1, 0, 0] = -0.0
    reads = []
    AdaptedPrompts(lambda rows: reads.extend(rows) or [row + 1 for row in rows])(zeros)
    assert len(reads) == 2


def test_rows_that_do_not_lie_together_in_memory():
    hidden = torch.randn(8, 77, 2).transpose(0, 2)
    assert torch.equal(AdaptedPrompts(lambda rows: [row * 2 for row in rows])(hidden), hidden * 2)
