"""The LLMDiff adapter by itself: Eq. 3 and 4 of Dong et al. (2024) against slow and obvious ones."""

from __future__ import annotations

import math

import pytest
import torch

from sur_core.llmdiff import LayerShape, LLMDiffConfig, new_llmdiff_adapter
from sur_core.llmdiff.adapter import FIRST_NOISE
from sur_core.llmdiff.attention import ExtraCrossAttention, attend, check_strength
from tests.llmdiff_parts import LLM_BLOCKS, LLM_WIDTH, encoded, random_llmdiff

SHAPE = LayerShape(query=10, heads=2, head_dim=3)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_attention(query, key, value, heads):
    """One query, one head and one key at a time."""
    width = query.shape[1] // heads
    out = torch.zeros_like(query)
    for row in range(len(query)):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = [math.exp(float((query[row, part] @ k[part]).detach()) / math.sqrt(width)) for k in key]
            for score, v in zip(scores, value, strict=True):
                out[row, part] += score / sum(scores) * v[part].detach()
    return out


def test_attention_is_softmax_of_scaled_products():
    query, key, value = draw(4, 6), draw(5, 6, seed=1), draw(5, 6, seed=2)
    found = attend(query[None], key[None], value[None], heads=2)[0]
    torch.testing.assert_close(found, softmax_attention(query, key, value, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["embedding", "zero"])
def test_an_encoding_is_the_langevin_sum_over_the_blocks(start):
    adapter = random_llmdiff(start=start).double()
    updates, noise = draw(LLM_BLOCKS + 1, 4, LLM_WIDTH), draw(4, LLM_WIDTH, seed=1)
    expected = updates[0].clone() if start == "embedding" else torch.zeros(4, LLM_WIDTH).double()
    variance = 0.0
    for block in range(LLM_BLOCKS):
        expected += adapter.block_weights[block] * updates[1 + block]
        variance += 2 * math.exp(adapter.log_noise[block])
    torch.testing.assert_close(adapter.combine(updates), expected, rtol=0, atol=1e-12)
    noisy = adapter.combine(updates, noise)
    torch.testing.assert_close(noisy, expected + math.sqrt(variance) * noise, rtol=0, atol=1e-12)


def test_prompts_are_combined_side_by_side_as_one_by_one():
    adapter, updates = random_llmdiff().double(), draw(2, LLM_BLOCKS + 1, 4, LLM_WIDTH)
    found = adapter.combine(updates)
    for row in range(2):
        torch.testing.assert_close(found[row], adapter.combine(updates[row]), rtol=0, atol=1e-12)


def test_a_layer_adds_both_branches_of_equation_four():
    layer = ExtraCrossAttention(SHAPE, LLM_WIDTH).double()
    with torch.no_grad():
        for number, weight in enumerate(layer.parameters()):
            weight.copy_(draw(*weight.shape, seed=number))
    adapter = random_llmdiff(context=7, layers=(SHAPE,)).double()
    adapter.layers[0] = layer
    frozen = {name: draw(size, 6, seed=9) for name, size in (("q", 10), ("k", 7), ("v", 7))}
    x, c = draw(4, 10, seed=20), draw(5, LLM_WIDTH, seed=21)

    (tokens,) = adapter.prepare([c])
    query = x @ frozen["q"]
    found = layer(tokens, x[None], query[None], lambda e: e @ frozen["k"], lambda e: e @ frozen["v"])[0]

    phi = c @ adapter.phi.weight.T + adapter.phi.bias
    first = softmax_attention(query, phi @ frozen["k"], phi @ frozen["v"], 2)
    own = [part @ weight.T for part, weight in ((x, layer.tau_q.weight), (c, layer.tau_k.weight))]
    second = softmax_attention(own[0], own[1], c @ layer.tau_v.weight.T, 2)
    expected = first * layer.a1 * layer.b1.exp() + second * layer.a2 * layer.b2.exp()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_prompts_of_other_lengths_in_a_batch_change_nothing():
    adapter = random_llmdiff(layers=(SHAPE,)).double()
    prompts = [draw(length, LLM_WIDTH, seed=length) for length in (1, 6, 3)]
    x, query = draw(3, 4, 10), draw(3, 4, 6, seed=1)
    frozen = draw(20, 6)
    (tokens,) = adapter.prepare(prompts)
    found = adapter.layers[0](tokens, x, query, lambda e: e @ frozen, lambda e: e @ frozen)
    for row, prompt in enumerate(prompts):
        (alone,) = adapter.prepare([prompt])
        some = slice(row, row + 1)
        expected = adapter.layers[0](alone, x[some], query[some], lambda e: e @ frozen, lambda e: e @ frozen)
        torch.testing.assert_close(found[some], expected, rtol=0, atol=1e-12)


def test_rms_normalisation_gives_every_token_the_size_one_whatever_its_scale():
    plain, evened = random_llmdiff(), random_llmdiff(normalize="rms")
    prompt = encoded(plain).tokens
    scaled = evened.prepare([1000 * prompt])[0].context
    torch.testing.assert_close(evened.prepare([prompt])[0].context, scaled, rtol=1e-4, atol=1e-5)
    unit = prompt / prompt.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(scaled, plain.prepare([unit])[0].context, rtol=1e-4, atol=1e-5)


def test_an_untrained_adapter_adds_nothing():
    config = LLMDiffConfig(LLM_WIDTH, LLM_BLOCKS, 7, (SHAPE,))
    adapter = new_llmdiff_adapter(config).double()
    (tokens,) = adapter.prepare([draw(5, LLM_WIDTH)])
    found = adapter.layers[0](
        tokens, draw(1, 4, 10), draw(1, 4, 6), lambda e: e[..., :6], lambda e: e[..., :6]
    )
    assert not found.any()
    assert torch.allclose(adapter.log_noise.exp(), torch.tensor(FIRST_NOISE).double())
    assert bool((adapter.block_weights == 1).all())


def test_the_seed_alone_decides_the_first_weights_and_the_callers_randomness_stays():
    config = LLMDiffConfig(LLM_WIDTH, LLM_BLOCKS, 7, (SHAPE,))
    before = torch.get_rng_state()
    first, same, other = (new_llmdiff_adapter(config, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["layers.0.tau_q.weight"], other["layers.0.tau_q.weight"])


def test_every_weight_gets_the_gradient_that_finite_differences_give():
    adapter = random_llmdiff(context=7, layers=(SHAPE,)).double().requires_grad_(True)
    updates, noise = draw(LLM_BLOCKS + 1, 5, LLM_WIDTH), draw(5, LLM_WIDTH, seed=3)
    x, query, frozen = draw(1, 4, 10), draw(1, 4, 6, seed=1), draw(7, 6, seed=2)
    probe = draw(1, 4, 6, seed=4)

    def loss():
        tokens = adapter.prepare_padded(adapter.combine(updates, noise)[None], None)[0]
        found = adapter.layers[0](tokens, x, query, lambda e: e @ frozen, lambda e: e @ frozen)
        return (found * probe).sum()

    loss().backward()
    for name, weight in adapter.named_parameters():
        place, step = (-1,) * weight.dim(), 1e-6
        with torch.no_grad():
            weight[place] += step
            above = loss()
            weight[place] -= 2 * step
            below = loss()
            weight[place] += step
        expected = float(above - below) / (2 * step)
        assert abs(expected) > 1e-9, f"{name}: the test would see nothing"
        assert float(weight.grad[place]) == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_the_encoding_id_follows_what_encodings_depend_on_and_nothing_else():
    adapter, same = random_llmdiff(), random_llmdiff()
    assert adapter.encoding_id == same.encoding_id
    with torch.no_grad():
        same.layers[0].tau_q.weight.add_(1)
        same.phi.bias.add_(1)
    assert adapter.encoding_id == same.encoding_id
    with torch.no_grad():
        same.block_weights[1] += 1e-3
    assert adapter.encoding_id != same.encoding_id
    assert adapter.encoding_id != random_llmdiff(start="zero").encoding_id


@pytest.mark.parametrize("shape", [(5, LLM_WIDTH + 1), (0, LLM_WIDTH), (1, 5, LLM_WIDTH)])
def test_an_encoding_of_another_shape_is_refused_in_words(shape):
    with pytest.raises(ValueError, match=r"expected \[tokens, 12\] of tiny-llm \(3 blocks, 12 wide\)"):
        random_llmdiff().prepare([torch.zeros(shape)])


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, math.inf])
def test_a_strength_outside_0_to_1_is_refused(strength):
    with pytest.raises(ValueError, match="strength must be in 0..1"):
        check_strength(strength)


@pytest.mark.parametrize(
    "change",
    [
        {"clip": "both"},
        {"start": "noise"},
        {"normalize": "layer"},
        {"layers": ()},
        {"llm_width": 0},
        {"llm_blocks": 2.0},
    ],
)
def test_an_impossible_architecture_is_refused_naming_the_field(change):
    values = {"llm_width": 4, "llm_blocks": 2, "context_width": 7, "layers": (SHAPE,), **change}
    with pytest.raises(ValueError, match="at least one" if "layers" in change else next(iter(change))):
        LLMDiffConfig(**values)
