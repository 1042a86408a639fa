"""What is drawn depends on where a sample stands, never on what was drawn before or beside it."""

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sur_core.adapter import SURAdapter, SURAdapterConfig
from sur_core.randomness import CountedDropout, SampleOrder, counted_generator

SHAPE = {"width": 16, "depth": 2, "heads": 4, "feedforward": 12}


def generators(*counts, seed=0):
    return [counted_generator(seed, "dropout", count) for count in counts]


def test_the_same_arguments_draw_the_same():
    first = torch.randn(8, generator=counted_generator(3, "noise", 1, 2))
    torch.randn(100)
    assert torch.equal(first, torch.randn(8, generator=counted_generator(3, "noise", 1, 2)))


def test_no_two_draws_are_related():
    """Other seeds, purposes and counts, also such as only look alike when written one after another."""
    arguments = [
        (0, "noise"),
        (0, "noise", 0),
        (0, "noise", 0, 0),
        (0, "noise", 1, 23),
        (0, "noise", 12, 3),
        (0, "noise", 23, 1),
        (0, "noise", 1 << 40),
        (0, "noise", -1),
        (1, "noise", 0),
        ((1 << 62) - 1, "noise", 0),
        (0, "noise1", 23),
        (0, "order", 0),
    ]
    draws = [torch.randn(4000, generator=counted_generator(*given)) for given in arguments]
    for left, right in combinations(draws, 2):
        assert abs(torch.corrcoef(torch.stack([left, right]))[0, 1]) < 0.08  # five standard deviations


def test_first_numbers_of_neighbouring_samples_are_normal_and_independent():
    """A generator seeded badly shows it in its first numbers."""
    draws = torch.stack([torch.randn(4, generator=counted_generator(0, "noise", 7, n)) for n in range(4000)])
    assert (draws.mean(0).abs() < 5 / 4000**0.5).all()
    assert ((draws.square().mean(0) - 1).abs() < 5 * (2 / 4000) ** 0.5).all()
    neighbours = (draws[:-1] * draws[1:]).mean(0)
    assert (neighbours.abs() < 5 / 4000**0.5).all()


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    CountedDropout(generators(1, 2), 0.5).masks((3,))
    SampleOrder(10, 0)[25]
    assert torch.equal(before, torch.get_rng_state())


def test_threads_do_not_disturb_each_other():
    def draw(count):
        return torch.randn(50, generator=counted_generator(0, "noise", count)).tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(200))) == list(map(draw, range(200)))


# --- the order of samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_every_epoch_uses_every_sample_once(size):
    order = SampleOrder(size, seed=4)
    for epoch in range(5):
        drawn = [order[epoch * size + place] for place in range(size)]
        assert {number for number, _ in drawn} == {epoch}
        assert sorted(sample for _, sample in drawn) == list(range(size))


def test_the_order_is_a_function_of_seed_and_epoch():
    whole = [SampleOrder(10, seed=4)[place] for place in range(50)]
    jumping = SampleOrder(10, seed=4)
    assert [jumping[place] for place in (47, 3, 20, 49, 0)] == [whole[place] for place in (47, 3, 20, 49, 0)]
    epochs = [tuple(sample for _, sample in whole[start : start + 10]) for start in range(0, 50, 10)]
    assert len(set(epochs)) == 5, "each epoch has an order of its own"
    for other in (SampleOrder(10, seed=5), SampleOrder(10, seed=4, purpose="order align")):
        assert [other[place] for place in range(50)] != whole


def test_every_sample_is_as_likely_at_every_place():
    counts = torch.zeros(6, 6)
    order = SampleOrder(6, seed=0)
    for position in range(6 * 3000):
        counts[position % 6, order[position][1]] += 1
    assert ((counts - 500).abs() < 5 * (3000 * 5 / 36) ** 0.5).all()


def test_no_samples_have_no_order():
    with pytest.raises(ValueError, match="no samples"):
        SampleOrder(0, 0)


# --- dropout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_masks_drop_at_the_asked_rate_and_keep_the_mean(probability):
    (masks,) = CountedDropout(generators(*range(40)), probability).masks((50, 50))
    assert masks.shape == (40, 50, 50) and masks.dtype == torch.float32
    kept = masks != 0
    assert torch.allclose(masks[kept], torch.tensor(1 / (1 - probability)))
    spread = (probability * (1 - probability) / masks.numel()) ** 0.5
    assert abs((~kept).float().mean() - probability) < 5 * spread
    assert abs(masks.mean() - 1) < 5 * spread / (1 - probability)


def test_a_sample_meets_its_masks_in_any_batch():
    shapes = [(2, 3, 3), (3, 4)]
    dropout = CountedDropout(generators(5, 8, 2), 0.5)
    first, second = dropout.masks(*shapes), dropout.masks(*shapes)
    assert not torch.equal(first[0], second[0]), "each layer has masks of its own"
    for place, count in enumerate((5, 8, 2)):
        alone = CountedDropout(generators(count), 0.5)
        for together in (first, second):
            for mask, expected in zip(alone.masks(*shapes), together, strict=True):
                assert torch.equal(mask[0], expected[place])


def tower(mixing="tokens", dropout=0.0) -> SURAdapter:
    torch.manual_seed(0)
    made = SURAdapter(SURAdapterConfig(**SHAPE, dropout=dropout, token_mixing=mixing))
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made.double().train()


def prompts(batch=3, tokens=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, tokens, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("mixing", ["tokens", "none"])
def test_probability_0_is_torchs_own_layer(mixing):
    adapter, hidden = tower(mixing), prompts()
    given = adapter(hidden, dropout=CountedDropout(generators(1, 2, 3), 0.0)).query
    expected = hidden if mixing == "tokens" else hidden.reshape(15, 1, 16)
    for layer in adapter.h3:
        expected = nn.TransformerEncoderLayer.forward(layer, expected)
    torch.testing.assert_close(given, expected.reshape(3, 5, 16), rtol=1e-12, atol=1e-12)


class Remembered(CountedDropout):
    """Keeps the masks it hands out, layer by layer."""

    def masks(self, *shapes):
        self.given = [*getattr(self, "given", []), super().masks(*shapes)]
        return self.given[-1]


def layer_for_one_prompt(layer, tokens, masks):
    """A post-norm layer with ReLU, one head after another; dropout where torch's layer has it: on the
    attention weights, on what attention returns, inside the feed-forward net, and on what that returns.
    """
    on_weights, on_attention, on_hidden, on_output = masks
    weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    heads = []
    for head in range(4):
        rows = [torch.arange(4) + 4 * head + 16 * kind for kind in range(3)]
        query, key, value = (tokens @ weight[chosen].T + bias[chosen] for chosen in rows)
        heads.append(((query @ key.T / 2).softmax(-1) * on_weights[head]) @ value)
    attended = F.linear(torch.cat(heads, -1), layer.self_attn.out_proj.weight, layer.self_attn.out_proj.bias)
    tokens = F.layer_norm(tokens + attended * on_attention, (16,), layer.norm1.weight, layer.norm1.bias)
    hidden = F.linear(tokens, layer.linear1.weight, layer.linear1.bias).relu() * on_hidden
    output = F.linear(hidden, layer.linear2.weight, layer.linear2.bias) * on_output
    return F.layer_norm(tokens + output, (16,), layer.norm2.weight, layer.norm2.bias)


@pytest.mark.parametrize("mixing", ["tokens", "none"])
def test_masks_act_where_torchs_layer_drops(mixing):
    adapter, hidden = tower(mixing, dropout=0.4), prompts()
    dropout = Remembered(generators(1, 2, 3), 0.4)
    found = adapter(hidden, dropout=dropout).query
    assert len(dropout.given) == 2 and all((mask == 0).any() for masks in dropout.given for mask in masks)
    for sample in range(3):
        tokens = hidden[sample]
        for layer, masks in zip(adapter.h3, dropout.given, strict=True):
            own = [mask[sample].double() for mask in masks]
            if mixing == "tokens":
                tokens = layer_for_one_prompt(layer, tokens, own)
            else:
                alone = [
                    layer_for_one_prompt(layer, tokens[[t]], [own[0][:, [t]], *(m[[t]] for m in own[1:])])
                    for t in range(5)
                ]
                tokens = torch.cat(alone)
        torch.testing.assert_close(found[sample], tokens, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixing", ["tokens", "none"])
def test_counted_dropout_drops_as_torchs_own_does(mixing):
    """The same mean and spread of the query over many draws as with the layers' own dropout."""
    adapter, hidden = tower(mixing, dropout=0.3).float(), prompts(1).float()
    many = hidden.expand(3000, 5, 16)
    with torch.no_grad():
        torch.manual_seed(0)
        theirs = adapter(many).query
        ours = adapter(many, dropout=CountedDropout(generators(*range(3000)), 0.3)).query
    error = (theirs.var(0) / 3000 + ours.var(0) / 3000).sqrt()
    assert ((theirs.mean(0) - ours.mean(0)).abs() < 5 * error).all()
    assert ((theirs.std(0) / ours.std(0) - 1).abs() < 0.15).all()
