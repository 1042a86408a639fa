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
    assert (passport.base_model, passport.eta) == ("same/model", None)
    assert "one.safetensors x 0.5" in passport.to_text()


def test_a_merge_with_itself_keeps_the_whole_passport():
    fields = {
        "eta": 0.2,
        "steps": 5,
        "w0_seed": 1,
        "lambda_llm": 0.1,
        "dataset_hash": "x",
        "extra": {"a": "b"},
    }
    first = pair(**fields)[0]
    passport = merge_adapters([first, first], [0.5, 0.5]).passport
    assert {name: getattr(passport, name) for name in fields} == fields


def test_merges_of_merges_name_the_files_they_began_with():
    first, second = pair()
    first.source, second.source = "/x/one.safetensors", "/x/two.safetensors"
    inner = merge_adapters([first, second], [0.5, 0.5])
    assert merge_adapters([inner, second], [0.5, 0.25]).passport.parents == (
        {"name": "one.safetensors", "weight": 0.25},
        {"name": "two.safetensors", "weight": 0.25},
        {"name": "two.safetensors", "weight": 0.25},
    )


def test_authors_files_are_told_apart_by_their_folders_and_keep_their_note():
    first, second = pair(source_format="authors")
    first.source, second.source = "/x/adapterw0.1/adapter.pt", "/x/adapterw0.2/adapter.pt"
    passport = merge_adapters([first, second], [0.5, 0.5]).passport
    assert [parent["name"] for parent in passport.parents] == [
        "adapterw0.1/adapter.pt",
        "adapterw0.2/adapter.pt",
    ]
    assert "Realistic Vision V2.0" in passport.to_text()


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
