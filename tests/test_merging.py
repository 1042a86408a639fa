"""A merge is the weighted sum of its parents, tensor by tensor."""

import math

import pytest
import torch

from sur_core import AdapterMismatchError, merge_adapters
from tests.helpers import parameters_equal, random_adapter

SHAPE = {"depth": 1, "feedforward": 64}


def pair(**passport):
    return [random_adapter("sd1", seed=seed, passport=passport, **SHAPE) for seed in (1, 2)]


def test_weighted_sum_of_every_tensor():
    first, second = pair()
    merged = merge_adapters([first, second], [0.25, -0.5]).state_dict()
    for key, value in first.state_dict().items():
        expected = (0.25 * value.double() - 0.5 * second.state_dict()[key].double()).float()
        assert torch.equal(merged[key], expected), key


def test_a_merge_with_itself_or_with_weight_zero_changes_nothing():
    first, second = pair()
    assert parameters_equal(merge_adapters([first, first], [0.3, 0.7]), first)
    assert parameters_equal(merge_adapters([first, second], [1, 0]), first)
    assert parameters_equal(merge_adapters([first], [1]), first)


def test_order_does_not_matter():
    first, second = pair()
    forth, back = merge_adapters([first, second], [0.4, 0.6]), merge_adapters([second, first], [0.6, 0.4])
    assert parameters_equal(forth, back)


def test_parents_are_named_and_what_they_share_is_kept():
    first, second = pair(base_model="same/model", eta=0.2)
    second.passport = second.passport.__class__(**{**second.passport.__dict__, "eta": 0.3})
    first.source = "/somewhere/one.safetensors"
    passport = merge_adapters([first, second], [0.5, 0.5]).passport
    assert passport.parents == (
        {"name": "one.safetensors", "weight": 0.5},
        {"name": "new adapter", "weight": 0.5},
    )
    assert (passport.base_model, passport.eta, passport.source_format) == ("same/model", None, "merge")
    assert "one.safetensors x 0.5" in passport.to_text()


def test_parents_are_not_changed():
    first, second = pair()
    before = {key: value.clone() for key, value in first.state_dict().items()}
    merged = merge_adapters([first, second], [1, 0])
    with torch.no_grad():
        merged.towers["clip_l"].g.weight.zero_()
    assert all(torch.equal(first.state_dict()[key], value) for key, value in before.items())


def test_different_shapes_are_refused_in_words():
    sd1 = pair()[0]
    with pytest.raises(AdapterMismatchError, match="SD 1.x, 768 wide.*SD 2.x, 1024 wide"):
        merge_adapters([sd1, random_adapter("sd2")], [0.5, 0.5])
    with pytest.raises(AdapterMismatchError, match="inner architecture"):
        merge_adapters([sd1, random_adapter("sd1")], [0.5, 0.5])


@pytest.mark.parametrize("weights", [[1], [math.nan, 1], [math.inf, 0], []])
def test_weights_must_be_one_finite_number_for_each(weights):
    with pytest.raises(ValueError, match="weight"):
        merge_adapters(pair(), weights)
