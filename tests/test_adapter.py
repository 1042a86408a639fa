"""The network is the paper's Eq. 4 and 6, and samples never meet."""

import pytest
import torch
from torch.nn import functional as F

from sur_core import SURAdapter, SURAdapterConfig, new_adapter
from tests.helpers import embeddings, random_adapter

TINY = SURAdapterConfig(width=32, depth=2, heads=4, feedforward=48)


def tiny(**changes) -> SURAdapter:
    torch.manual_seed(0)
    tower = SURAdapter(SURAdapterConfig(**{**TINY.to_dict(), **changes}))
    torch.nn.init.normal_(tower.g.weight)
    torch.nn.init.normal_(tower.g.bias)
    return tower.eval().double()


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def encoder_layer(x, weights, prefix, heads):
    """A post-norm Transformer layer with ReLU, written out for one sequence [T, D]."""
    tokens, width = x.shape
    q, k, v = (
        x @ weights[f"{prefix}.self_attn.in_proj_weight"].T + weights[f"{prefix}.self_attn.in_proj_bias"]
    ).chunk(3, dim=-1)
    q, k, v = (part.reshape(tokens, heads, width // heads).transpose(0, 1) for part in (q, k, v))
    scores = (q @ k.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
    mixed = (scores @ v).transpose(0, 1).reshape(tokens, width)
    x = x + linear(mixed, weights, f"{prefix}.self_attn.out_proj")
    x = F.layer_norm(x, (width,), weights[f"{prefix}.norm1.weight"], weights[f"{prefix}.norm1.bias"])
    x = x + linear(linear(x, weights, f"{prefix}.linear1").relu(), weights, f"{prefix}.linear2")
    return F.layer_norm(x, (width,), weights[f"{prefix}.norm2.weight"], weights[f"{prefix}.norm2.bias"])


def equations(x, weights, config):
    """Eq. 4 and 6 written out for one prompt [T, D]: (Q, att, c_LLM)."""
    query = x
    for layer in range(config.depth):
        if config.token_mixing == "none":
            alone = [encoder_layer(token[None], weights, f"h3.{layer}", config.heads) for token in query]
            query = torch.cat(alone)
        else:
            query = encoder_layer(query, weights, f"h3.{layer}", config.heads)
    if config.query_projection:
        query = linear(query, weights, "query")
    key = linear(x, weights, "h2")
    attention = (query @ key.T / x.shape[-1] ** 0.5).softmax(-1)
    value = attention @ x + x
    if config.query_in_value:
        value = value + linear(query, weights, "p")
    h1 = linear(linear(value, weights, "h1.0").relu(), weights, "h1.2")
    return query, attention, linear(value + h1, weights, "g")


@pytest.mark.parametrize("mixing", ["tokens", "none"])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("in_value", [False, True])
def test_forward_is_equations_4_and_6(mixing, projection, in_value):
    tower = tiny(token_mixing=mixing, query_projection=projection, query_in_value=in_value)
    batch = embeddings(3, 11, 32).double()
    output = tower(batch)
    for sample in range(3):
        expected = equations(batch[sample], tower.state_dict(), tower.config)
        for found, wanted in zip(output, expected, strict=True):
            torch.testing.assert_close(found[sample], wanted, rtol=1e-9, atol=1e-9)


def test_a_fresh_adapter_says_nothing():
    adapter = new_adapter("sd1")
    assert not adapter.towers["clip_l"](embeddings(1, 77, 768)).c_llm.any()
    assert not adapter.towers["clip_l"].g.weight.any() and not adapter.towers["clip_l"].g.bias.any()


def test_attention_rows_sum_to_one():
    attention = tiny()(embeddings(2, 9, 32).double()).attention
    assert attention.shape == (2, 9, 9)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 9, dtype=torch.float64))


def influence(tower, source, target, mix_batch=False, output="c_llm"):
    """Largest change of ``output[target]`` by a small change of ``input[source]``; indices are (sample,
    token).
    """
    hidden = embeddings(2, 5, 32).double().requires_grad_()
    result = getattr(tower(hidden, mix_batch=mix_batch), output)[target]
    # Squared, because a layer norm makes the plain sum of its outputs constant.
    (gradient,) = torch.autograd.grad(result.square().sum(), hidden)
    return gradient[source].abs().max().item()


def test_no_sample_sees_another():
    for mixing in ("tokens", "none"):
        assert influence(tiny(token_mixing=mixing), source=(1,), target=(0,)) == 0


def test_attention_across_the_batch_only_on_request():
    tower = tiny(token_mixing="none", query_projection=True)
    assert influence(tower, (1,), (0,), mix_batch=True) > 1e-6
    assert influence(tower, (1,), (0,), mix_batch=False) == 0


def test_token_mixing_decides_whether_the_query_reads_other_tokens():
    assert influence(tiny(token_mixing="tokens"), (0, 3), (0, 1), output="query") > 1e-6
    assert influence(tiny(token_mixing="none"), (0, 3), (0, 1), output="query") == 0
    assert influence(tiny(token_mixing="none"), (0, 1), (0, 1), output="query") > 1e-6


def test_tokens_alone_are_the_same_in_training_and_evaluation():
    tower = tiny(token_mixing="none", dropout=0.0)
    hidden = embeddings(2, 7, 32).double()
    torch.testing.assert_close(tower.train()(hidden).c_llm, tower.eval()(hidden).c_llm)


def test_every_parameter_is_trained():
    tower = tiny(query_projection=True, query_in_value=True).train()
    tower(embeddings(2, 7, 32).double()).c_llm.square().sum().backward()
    # Keys' bias moves all scores of a row alike, so the softmax cannot see it; nothing can train it.
    blind = {"h2.bias"}
    for name, parameter in tower.named_parameters():
        if name not in blind and not name.endswith("in_proj_bias"):
            assert parameter.grad.abs().max() > 1e-9, name


def test_the_extension_leaves_the_other_weights_and_a_fresh_adapters_silence_alone():
    plain, extended = (new_adapter("sd1", seed=1, query_in_value=on).towers["clip_l"] for on in (False, True))
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, extended.state_dict()[name]), name
    assert not extended(embeddings(1, 77, 768)).c_llm.any()


def test_layers_start_different():
    tower = new_adapter("sd1").towers["clip_l"]
    assert not torch.equal(tower.h3[0].linear1.weight, tower.h3[1].linear1.weight)


def test_a_new_adapter_is_reproducible_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = new_adapter("sd1", seed=1).state_dict()
    assert torch.equal(torch.rand(1), expected)
    second = new_adapter("sd1", seed=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_defaults_are_the_papers():
    config = SURAdapterConfig(width=768)
    assert (config.depth, config.heads, config.feedforward) == (2, 8, 2048)
    assert (config.token_mixing, config.query_projection, config.query_in_value) == ("tokens", False, False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 0}, "width"),
        ({"width": 30}, "divisible"),
        ({"width": 32.0}, "width"),
        ({"depth": 0}, "depth"),
        ({"depth": 10**9}, "depth"),
        ({"heads": True}, "heads"),
        ({"feedforward": -1}, "feedforward"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"token_mixing": "batch"}, "token_mixing"),
        ({"query_projection": 1}, "query_projection"),
        ({"query_in_value": "yes"}, "query_in_value"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_impossible_config_is_refused_in_words(change, word):
    with pytest.raises(ValueError, match=word):
        SURAdapterConfig.from_dict({**TINY.to_dict(), **change})


def test_config_round_trip():
    assert SURAdapterConfig.from_dict(TINY.to_dict()) == TINY


def test_unknown_family_is_refused():
    with pytest.raises(ValueError, match="flux"):
        new_adapter("flux")


def test_towers_of_each_family():
    assert random_adapter("sdxl").passport.widths == {"clip_l": 768, "clip_g": 1280}
    assert random_adapter("sd2").passport.widths == {"clip_h": 1024}
