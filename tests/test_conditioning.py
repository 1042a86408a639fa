"""adapt() is Eq. 7 on whatever a text encoder returns."""

import math
from contextlib import nullcontext

import pytest
import torch

from sur_core import AdapterMismatchError, adapt, adapt_pair_as_authors, blend, conditioning, predict
from tests.helpers import embeddings, random_adapter


@pytest.fixture(scope="module")
def sd1():
    return random_adapter("sd1")


@pytest.fixture(scope="module")
def sdxl():
    return random_adapter("sdxl", seed=7)


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_eta_zero_is_the_identity_bit_for_bit(sd1, dtype):
    hidden = embeddings(2, 154, 768, dtype=dtype)
    hidden[0, 0, :3] = torch.tensor([-0.0, math.inf, math.nan], dtype=dtype)
    adapted = adapt(sd1, hidden, eta=0)
    view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[hidden.element_size()]
    assert torch.equal(adapted.view(view), hidden.view(view))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eta", [0, 0.3, 1])
def test_the_input_is_never_changed_nor_shared(sd1, dtype, eta):
    hidden = embeddings(1, 77, 768, dtype=dtype)
    before = hidden.clone()
    adapted = adapt(sd1, hidden, eta)
    adapted.fill_(5)
    assert torch.equal(hidden, before)


def test_equation_7(sd1):
    hidden = embeddings(2, 77, 768)
    c_llm = adapt(sd1, hidden, 1)
    torch.testing.assert_close(c_llm, sd1.towers["clip_l"](hidden).c_llm)
    for eta in (0.01, 0.3, 0.99):
        torch.testing.assert_close(adapt(sd1, hidden, eta), eta * c_llm + (1 - eta) * hidden)


def test_predict_and_blend_are_the_halves_of_adapt(sd1):
    hidden = embeddings(2, 154, 768)
    assert torch.equal(blend(hidden, predict(sd1, hidden), 0.4), adapt(sd1, hidden, 0.4))


def test_each_chunk_of_77_tokens_is_adapted_on_its_own(sd1):
    hidden = embeddings(2, 231, 768)
    chunks = [adapt(sd1, chunk, 0.5) for chunk in hidden.split(77, dim=1)]
    torch.testing.assert_close(adapt(sd1, hidden, 0.5), torch.cat(chunks, dim=1), rtol=1e-5, atol=1e-5)


def test_a_sample_is_the_same_alone_and_in_a_batch(sd1):
    hidden = embeddings(5, 77, 768)
    together = adapt(sd1, hidden, 0.5)
    for sample in range(5):
        alone = adapt(sd1, hidden[sample : sample + 1], 0.5)
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=1e-5, atol=1e-5)


def test_no_sample_has_any_influence_on_another(sd1):
    hidden = embeddings(2, 154, 768).requires_grad_()
    (gradient,) = torch.autograd.grad(adapt(sd1, hidden, 0.5)[0, :77].square().sum(), hidden)
    assert not gradient[1].any()
    assert not gradient[0, 77:].any()
    assert gradient[0, :77].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(sd1, dtype):
    hidden = embeddings(1, 77, 768, dtype=dtype)
    adapted = adapt(sd1, hidden, 0.3)
    assert adapted.dtype == dtype
    assert torch.equal(adapted, adapt(sd1, hidden.float(), 0.3).to(dtype))


def test_autocast_around_it_changes_nothing(sd1):
    hidden = embeddings(1, 77, 768)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = adapt(sd1, hidden, 0.5)
    assert torch.equal(inside, adapt(sd1, hidden, 0.5))


def test_a_result_that_float16_cannot_hold_is_an_error(sd1):
    strong = random_adapter("sd1", scale=1e6)
    with pytest.raises(AdapterMismatchError, match="float16"):
        adapt(strong, embeddings(1, 77, 768, dtype=torch.float16), 1)
    assert adapt(strong, embeddings(1, 77, 768, dtype=torch.bfloat16), 1).isfinite().all()


def test_numbers_too_large_for_any_type_are_an_error(sd1):
    absurd = random_adapter("sd1", scale=3e38)
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(AdapterMismatchError, match="more than"):
            adapt(absurd, embeddings(1, 77, 768, dtype=dtype), 1)


def test_embeddings_that_were_broken_before_are_not_blamed_on_the_adapter(sd1):
    hidden = embeddings(2, 77, 768)
    hidden[0, 0, 0] = math.nan
    adapted = adapt(sd1, hidden, 0.5)
    assert adapted[0].isnan().any() and adapted[1].isfinite().all()


def test_it_runs_where_tensors_have_no_numbers_and_no_autocast():
    """The meta device stands for any device: nothing in predict() may need the CPU or autocast."""
    with torch.device("meta"):
        adapter = random_adapter_on_meta()
        hidden = torch.empty(2, 154, 768, dtype=torch.bfloat16)
    assert predict(adapter, hidden).shape == hidden.shape


def random_adapter_on_meta():
    from sur_core import Passport, SURAdapterBundle, SURAdapterConfig

    return SURAdapterBundle(Passport({"clip_l": SURAdapterConfig(width=768)})).freeze()


@pytest.mark.parametrize("device", ["privateuseone", "meta", "cpu"])
def test_devices_without_autocast_are_not_asked_to_leave_it(device):
    """``privateuseone`` is DirectML."""
    assert isinstance(conditioning.full_precision(torch.device(device)), nullcontext)


def test_before_torch_2_4_autocast_is_asked_about_in_the_old_way(sd1, monkeypatch):
    """AUTOMATIC1111 1.10 brings torch 2.1, Forge 2.3: there the function takes no argument."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda: False)
    monkeypatch.setattr(torch, "is_autocast_cpu_enabled", lambda: False, raising=False)
    assert adapt(sd1, embeddings(1, 77, 768), 0.5).shape == (1, 77, 768)
    monkeypatch.setattr(torch, "is_autocast_cpu_enabled", lambda: True, raising=False)
    assert isinstance(conditioning.full_precision(torch.device("cpu")), torch.autocast)
    assert isinstance(conditioning.full_precision(torch.device("meta")), nullcontext)


def test_sdxl_is_split_among_its_encoders(sdxl):
    hidden = embeddings(2, 154, 2048)
    parts = [adapt(sdxl, hidden[..., :768], 0.6), adapt(sdxl, hidden[..., 768:], 0.6)]
    assert torch.equal(adapt(sdxl, hidden, 0.6), torch.cat(parts, dim=-1))
    swapped = adapt(sdxl, hidden.flip(0), 0.6).flip(0)
    torch.testing.assert_close(swapped, adapt(sdxl, hidden, 0.6), rtol=1e-5, atol=1e-5)


def test_an_empty_batch_is_fine(sd1):
    assert adapt(sd1, embeddings(0, 77, 768), 0.5).shape == (0, 77, 768)


def test_inputs_that_are_not_contiguous(sd1):
    hidden = embeddings(768, 77, 2).transpose(0, 2)
    assert not hidden.is_contiguous()
    torch.testing.assert_close(adapt(sd1, hidden, 0.5), adapt(sd1, hidden.contiguous(), 0.5))


@pytest.mark.parametrize("eta", [-0.01, 1.01, math.nan, math.inf, "strong", None])
def test_eta_outside_0_to_1_is_refused(sd1, eta):
    with pytest.raises(ValueError, match="eta must be a number"):
        adapt(sd1, embeddings(1, 77, 768), eta)


@pytest.mark.parametrize("tokens", [0, 1, 76, 78, 248])
def test_tokens_that_are_no_multiple_of_77_are_refused(sd1, tokens):
    for eta in (0, 0.5):
        with pytest.raises(AdapterMismatchError, match=f"multiple of 77.*found {tokens}"):
            adapt(sd1, embeddings(1, tokens, 768), eta)


@pytest.mark.parametrize(
    ("width", "words"),
    [(2048, "SDXL, 2048 wide"), (1024, "SD 2.x, 1024 wide"), (4096, "SD3 or Flux"), (1000, "1000 wide")],
)
def test_another_models_conditioning_is_refused_in_words(sd1, width, words):
    with pytest.raises(AdapterMismatchError) as caught:
        adapt(sd1, embeddings(1, 77, width), 0.5)
    assert "trained for SD 1.x, 768 wide" in str(caught.value) and words in str(caught.value)
    assert sd1.source in str(caught.value)


def test_what_is_no_embedding_is_refused(sd1):
    for wrong in (torch.zeros(77, 768), torch.zeros(1, 77, 768, dtype=torch.int64), [[1.0]], None):
        with pytest.raises(AdapterMismatchError, match="expected float token embeddings"):
            adapt(sd1, wrong, 0.5)


def test_pair_refuses_what_the_authors_pipeline_never_does(sd1):
    x = embeddings(1, 77, 768)
    with pytest.raises(AdapterMismatchError, match="as the paper says"):
        adapt_pair_as_authors(sd1, x, x, 0.1, 0.1)
    authors = random_adapter("sd1", token_mixing="none", query_projection=True)
    with pytest.raises(AdapterMismatchError, match="same length"):
        adapt_pair_as_authors(authors, embeddings(1, 154, 768), x, 0.1, 0.1)
    with pytest.raises(ValueError, match="eta"):
        adapt_pair_as_authors(authors, x, x, 2, 0.1)


def test_pair_strengths_are_separate():
    authors = random_adapter("sd1", token_mixing="none", query_projection=True)
    negative, positive = embeddings(1, 77, 768, seed=1), embeddings(1, 77, 768, seed=2)
    new_negative, new_positive = adapt_pair_as_authors(authors, negative, positive, 0, 0.5)
    assert torch.equal(new_negative, negative) and new_negative is not negative
    assert not torch.allclose(new_positive, positive)
