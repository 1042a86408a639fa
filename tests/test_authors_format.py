"""Files of the authors' public code load and give what their module gives for one prompt in eval mode."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sur_core import (
    AdapterMismatchError,
    adapt,
    adapt_pair_as_authors,
    convert_adapter,
    join_towers,
    load_adapter,
    read_passport,
    save_adapter,
)
from sur_core.authors_format import eta_in_path
from tests.helpers import authors_state_dict, embeddings, parameters_equal, write_authors_file


def described_forward(state: dict, x: torch.Tensor, eta: float) -> torch.Tensor:
    """The described forward, composed of plain torch. x: [B, T, D], attention over axis 0."""
    width = x.shape[-1]
    layer = nn.TransformerEncoderLayer(width, 8, state["encoder_layer.linear1.weight"].shape[0])
    depth = len({key.split(".")[2] for key in state if key.startswith("transformer_encoder.layers.")})
    encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).eval()
    encoder.load_state_dict(
        {k.removeprefix("transformer_encoder."): v for k, v in state.items() if k.startswith("transformer_")}
    )

    def linear(name, value):
        return F.linear(value, state[f"{name}.weight"], state[f"{name}.bias"])

    with torch.no_grad():
        t = encoder(x)
        q, k = linear("attention.query_layer", t), linear("attention.key_layer", x)
        w = (q @ k.transpose(1, 2) / width**0.5).softmax(-1) @ x + x
        r = linear("attention.output_layer.2", linear("attention.output_layer.0", w).relu()) + w
        return eta * linear("fc", r) + (1 - eta) * x


def test_the_test_file_is_as_described(tmp_path):
    state = authors_state_dict()
    assert len(state) == 48
    assert sum(tensor.numel() for tensor in state.values()) == 20_085_504


@pytest.mark.parametrize("shape", [{}, {"depth": 3}, {"feedforward": 512}, {"width": 1024}, {"width": 1280}])
def test_output_is_that_of_the_described_module(tmp_path, shape):
    path = write_authors_file(tmp_path / "adapter.pt", **shape)
    adapter = load_adapter(path)
    width = shape.get("width", 768)
    x = embeddings(1, 77, width)
    for eta in (1.0, 0.1):
        expected = described_forward(authors_state_dict(**shape), x, eta)
        torch.testing.assert_close(adapt(adapter, x, eta), expected, rtol=1e-4, atol=1e-4)


def test_pair_is_their_batch_of_two_with_attention_across_it(tmp_path):
    adapter = load_adapter(write_authors_file(tmp_path / "adapter.pt"))
    negative, positive = embeddings(1, 77, 768, seed=1), embeddings(1, 77, 768, seed=2)
    expected = described_forward(authors_state_dict(), torch.cat([negative, positive]), 0.3)
    found = adapt_pair_as_authors(adapter, negative, positive, 0.3, 0.3)
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-4)
    alone = torch.cat([adapt(adapter, negative, 0.3), adapt(adapter, positive, 0.3)])
    assert (alone - expected).abs().max() > 1e-3, "the mode must matter, or this test shows nothing"


def test_pair_treats_each_chunk_on_its_own(tmp_path):
    adapter = load_adapter(write_authors_file(tmp_path / "adapter.pt"))
    negative, positive = embeddings(1, 154, 768, seed=1), embeddings(1, 154, 768, seed=2)
    whole = adapt_pair_as_authors(adapter, negative, positive, 0.3, 0.6)
    for part in (slice(0, 77), slice(77, 154)):
        chunk = adapt_pair_as_authors(adapter, negative[:, part], positive[:, part], 0.3, 0.6)
        for side in (0, 1):
            torch.testing.assert_close(whole[side][:, part], chunk[side], rtol=1e-5, atol=1e-5)


def test_architecture_is_read_from_the_shapes(tmp_path):
    config = load_adapter(write_authors_file(tmp_path / "a.pt", depth=3, feedforward=1024, width=1280))
    tower = config.passport.towers["clip_g"]
    assert (tower.width, tower.depth, tower.feedforward, tower.heads) == (1280, 3, 1024, 8)
    assert (tower.token_mixing, tower.query_projection) == ("none", True)
    assert load_adapter(write_authors_file(tmp_path / "b.pt", width=1024)).passport.family == "sd2"


def test_unused_tensors_are_dropped(tmp_path):
    adapter = load_adapter(write_authors_file(tmp_path / "adapter.pt"))
    unused = 5_513_984 + 768 * 768 + 768  # the encoder_layer template and value_layer
    assert sum(p.numel() for p in adapter.parameters()) == 20_085_504 - unused


def test_eta_comes_from_the_caller_or_the_path(tmp_path):
    path = write_authors_file(tmp_path / "test_llm13B_llml39_lr1e-05_promptw1e-05_adapterw0.1" / "adapter.pt")
    assert load_adapter(path).passport.eta == 0.1
    assert load_adapter(path, eta=0.4).passport.eta == 0.4
    assert load_adapter(write_authors_file(tmp_path / "plain.pt")).passport.eta is None
    with pytest.raises(ValueError, match="eta"):
        load_adapter(path, eta=3)


@pytest.mark.parametrize(
    ("path", "eta"),
    [
        ("x_adapterw0.1/adapter.pt", 0.1),
        ("x_adapterw1e-05/adapter.pt", 1e-5),
        ("x_adapterw.5.pt", 0.5),
        ("a_adapterw0.1/b_adapterw0.2/c.pt", 0.2),
        ("x_adapterw7/adapter.pt", None),
        ("adapter_weights/adapter.pt", None),
        ("x_adapterw0,1/adapter.pt", None),
        ("x_adapterw0.1/y_adapterw7/adapter.pt", 0.1),
    ],
)
def test_eta_in_path(path, eta):
    assert eta_in_path(Path(path)) == eta


def test_the_passport_says_what_is_not_known(tmp_path):
    text = load_adapter(write_authors_file(tmp_path / "adapter.pt")).passport.to_text()
    assert "Realistic Vision V2.0" in text and "authors' released format" in text and "not known" in text


def test_conversion_keeps_the_adapter_and_adds_a_passport(tmp_path):
    source = write_authors_file(tmp_path / "x_adapterw0.1" / "adapter.pt")
    target = tmp_path / "converted.safetensors"
    convert_adapter(source, target, base_model="Realistic Vision V2.0")
    assert parameters_equal(load_adapter(source), load_adapter(target))
    passport = read_passport(target)
    assert (passport.eta, passport.base_model, passport.source_format) == (
        0.1,
        "Realistic Vision V2.0",
        "authors",
    )
    assert passport.warnings == ()


def test_two_files_join_into_an_adapter_for_sdxl(tmp_path):
    small = load_adapter(write_authors_file(tmp_path / "l_adapterw0.1.pt", width=768))
    large = load_adapter(write_authors_file(tmp_path / "g_adapterw0.1.pt", width=1280))
    joined = join_towers([large, small])
    assert (joined.passport.family, joined.passport.eta, joined.passport.source_format) == (
        "sdxl",
        0.1,
        "authors",
    )
    x = embeddings(1, 154, 2048)
    expected = torch.cat([adapt(small, x[..., :768], 0.3), adapt(large, x[..., 768:], 0.3)], dim=-1)
    assert torch.equal(adapt(joined, x, 0.3), expected)
    save_adapter(joined, tmp_path / "sdxl.safetensors")
    assert parameters_equal(load_adapter(tmp_path / "sdxl.safetensors"), joined)


def test_what_does_not_belong_together_is_not_joined(tmp_path):
    small = load_adapter(write_authors_file(tmp_path / "a.pt", width=768))
    middle = load_adapter(write_authors_file(tmp_path / "b.pt", width=1024))
    with pytest.raises(AdapterMismatchError, match="there twice"):
        join_towers([small, small])
    with pytest.raises(AdapterMismatchError, match="clip_l', 'clip_h'"):
        join_towers([small, middle])


def test_their_tensors_in_a_safetensors_file_load_too(tmp_path):
    save_file(authors_state_dict(), tmp_path / "theirs.safetensors")
    torch.save(authors_state_dict(), tmp_path / "theirs.pt", _use_new_zipfile_serialization=False)
    torch.save({k: v.half() for k, v in authors_state_dict().items()}, tmp_path / "half.pt")
    original = load_adapter(write_authors_file(tmp_path / "adapter.pt"))
    assert parameters_equal(load_adapter(tmp_path / "theirs.safetensors"), original)
    assert parameters_equal(load_adapter(tmp_path / "theirs.pt"), original)
    half = load_adapter(tmp_path / "half.pt")
    assert all(p.dtype == torch.float32 for p in half.parameters())
