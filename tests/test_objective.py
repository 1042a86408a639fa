"""The gradient of Algorithm 1 is whole and right, each sample's loss is its own, and W0 can be made again."""

import math

import pytest
import torch

from sur_core import load_adapter, losses, save_adapter
from sur_core.objective import Batch, Objective, knowledge_projection
from sur_core.randomness import CountedDropout, counted_generator
from sur_core.training_config import TrainingConfig
from sur_core.training_data import open_training_data
from sur_core.training_setup import first_adapter
from tests.small_data import LLM_WIDTH, small_run, tiny_backend, trainable

FAMILIES = ["sd1", "sd2", "sdxl"]
LOSSES = {"lambda_llm": 1e-3, "lambda_cp": 1e-3, "cp_loss": "kl+mse", "eta": 0.3}


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_batch(backend, samples=(0, 1, 2), dropout=0.0, dtype=torch.float32, edge=8) -> Batch:
    """Numbers of each sample depend on its number alone."""
    widths, sdxl = sum(backend.widths.values()), backend.family == "sdxl"

    def each(seed, *shape):
        return torch.stack([draw(*shape, seed=100 * sample + seed, dtype=dtype) for sample in samples])

    return Batch(
        samples=list(samples),
        names=[str(sample) for sample in samples],
        simple=each(1, 77, widths),
        mask=torch.arange(77)[None] < torch.tensor([5 + 3 * sample for sample in samples])[:, None],
        complex=each(2, 77, widths),
        knowledge=each(3, LLM_WIDTH),
        dropout=CountedDropout([counted_generator(0, "dropout", n) for n in samples], dropout)
        if dropout
        else None,
        latents=each(4, 4, edge, edge),
        noise=each(5, 4, edge, edge),
        timesteps=torch.tensor([(137 * sample + 11) % 1000 for sample in samples]),
        pooled=each(6, backend.widths["clip_g"]) if sdxl else None,
        time_ids=torch.tensor([[64.0 + n, 80, n, 0, 64, 64] for n in samples], dtype=dtype) if sdxl else None,
    )


def objective_for(backend, **settings) -> Objective:
    config = TrainingConfig(**{**LOSSES, **settings})
    return Objective(config, backend.widths, LLM_WIDTH if config.lambda_llm else None)


# --- W0 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "llm_width"), [(768, 2048), (1280, 300)])
def test_w0_is_kaiming_normal(width, llm_width):
    """He et al. (2015), Eq. 10: zero mean, variance 2 / fan-in."""
    w0 = knowledge_projection(width, llm_width, seed=0)
    assert w0.shape == (width, llm_width) and w0.dtype == torch.float32
    scaled = w0.double() / math.sqrt(2 / llm_width)
    error = 5 / math.sqrt(w0.numel())
    assert abs(scaled.mean()) < error and abs(scaled.square().mean() - 1) < error * math.sqrt(2)
    assert abs(scaled.pow(3).mean()) < error * math.sqrt(15)
    assert abs(scaled.pow(4).mean() - 3) < error * math.sqrt(96)


def test_w0_is_a_function_of_its_arguments_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = knowledge_projection(32, 20, 7, "clip_l")
    assert torch.equal(before, torch.get_rng_state()), "global random numbers were drawn"
    torch.manual_seed(2)
    assert torch.equal(first, knowledge_projection(32, 20, 7, "clip_l"))
    for other in ((32, 20, 8, "clip_l"), (32, 20, 7, "clip_g"), (48, 20, 7, "clip_l"), (32, 24, 7, "clip_l")):
        found = knowledge_projection(*other)
        assert not torch.isclose(found[:32, :20], first).any()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_w0_can_be_made_again_from_the_passport(tmp_path, family):
    config = small_run(tmp_path, family, count=3, w0_seed=9)
    data, backend = open_training_data(config), tiny_backend(family)
    save_adapter(first_adapter(config, data, backend), tmp_path / "a.safetensors", steps=0)
    passport = load_adapter(tmp_path / "a.safetensors").passport
    used = Objective(config, backend.widths, data.knowledge.width).w0
    assert used.keys() == passport.widths.keys()
    for tower, width in passport.widths.items():
        again = knowledge_projection(width, passport.llm_width, passport.w0_seed, tower)
        assert torch.equal(used[tower], again)


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mask_padding", [False, True])
def test_losses_are_put_together_as_algorithm_1_says(family, mask_padding):
    """Tower by tower: Eq. 5 on Q, Eq. 7, Eq. 9 on c', Eq. 8 on the UNet's view of all towers side by side."""
    backend = tiny_backend(family)
    adapter, batch = trainable(backend.widths, dropout=0.0), make_batch(backend)
    settings = {"mask_padding": mask_padding, "temperature": 2.0, "kl_direction": "authors", "snr_gamma": 5.0}
    objective = objective_for(backend, **settings)
    with torch.no_grad():
        found = objective(adapter, batch, backend)
        llm, cp, corrected, start = 0, 0, [], 0
        mask = batch.mask if mask_padding else None
        for name, width in backend.widths.items():
            part = slice(start, start := start + width)
            output = adapter.towers[name](batch.simple[..., part])
            corrected.append(0.3 * output.c_llm + 0.7 * batch.simple[..., part])
            known = batch.knowledge @ knowledge_projection(width, LLM_WIDTH, 0, name).T
            llm += losses.distillation_loss(known, output.query, 2.0, "authors", mask)
            cp += losses.alignment_loss(corrected[-1], batch.complex[..., part], 2.0, "kl+mse", mask)
        alphas = backend.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
        noisy = alphas.sqrt() * batch.latents + (1 - alphas).sqrt() * batch.noise
        hidden = torch.cat(corrected, -1)
        prediction = backend.predict_noise(noisy, batch.timesteps, hidden, batch.pooled, batch.time_ids)
        target, snr = batch.noise, (alphas / (1 - alphas)).flatten()
        weight = snr.clamp(max=5.0) / snr
        if family == "sd2":
            target = alphas.sqrt() * batch.noise - (1 - alphas).sqrt() * batch.latents
            weight = snr.clamp(max=5.0) / (snr + 1)
        simple = weight * (prediction - target).square().mean((1, 2, 3))
    expected = (llm, cp, simple, 1e-3 * llm + 1e-3 * cp + simple)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_eta_0_is_the_model_without_the_adapter():
    backend = tiny_backend()
    batch, adapter = make_batch(backend), trainable(backend.widths, dropout=0.0)
    with torch.no_grad():
        bare = objective_for(backend)(adapter, batch, backend, eta=0.0).simple
        fresh = objective_for(backend, eta=0.0)(trainable(backend.widths, moved=False), batch, backend).simple
    noisy = losses.add_noise(batch.latents, batch.noise, backend.alphas_cumprod, batch.timesteps)
    prediction = backend.predict_noise(noisy, batch.timesteps, batch.simple)
    assert torch.equal(bare, losses.diffusion_loss(prediction, batch.noise)) and torch.equal(bare, fresh)


def test_losses_that_are_off_are_zero_and_ask_for_nothing():
    backend = tiny_backend()
    batch = make_batch(backend)
    batch.complex = batch.knowledge = batch.latents = None
    found = objective_for(backend, lambda_llm=0.0)(trainable(backend.widths), batch, None)
    assert all(values.shape == (3,) and not values.any() for values in found)


# --- gradient -----------------------------------------------------------------------------------------------

MOVED_BY_NOTHING = "h2.bias"
"""A key bias adds the same to all of a token's scores, which Eq. 4's softmax cannot see: its gradient is zero
but for rounding."""


def gradients(family, moved=True, align=False, **settings):
    """{tower.tensor: largest gradient} after a backward pass through a real frozen model, and that model."""
    backend = tiny_backend(family)
    backend.load()
    adapter, batch = trainable(backend.widths, moved), make_batch(backend, dropout=0.1)
    batch.latents = None if align else batch.latents
    if not settings.get("lambda_llm", 1):
        batch.knowledge = None
    if not settings.get("lambda_cp", 1):
        batch.complex = None
    objective_for(backend, **settings)(adapter, batch, backend).total.sum().backward()
    sizes = {
        name.removeprefix("towers."): 0.0 if weight.grad is None else weight.grad.abs().max().item()
        for name, weight in adapter.named_parameters()
    }
    assert len(sizes) == 32 * len(backend.widths), "a tensor was forgotten"
    return sizes, backend


def without_gradient(sizes) -> set[str]:
    """What gets none, tower names left away; sizes of rounding errors count as none."""
    largest = max(sizes.values())
    return {name.split(".", 1)[1] for name, size in sizes.items() if size < 1e-9 * largest}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings", [{"lambda_llm": 0.0, "lambda_cp": 0.0}, {}], ids=["Eq. 8 alone", "Eq. 10"]
)
def test_the_gradient_reaches_every_trainable_tensor(family, settings):
    sizes, _ = gradients(family, **settings)
    largest = max(sizes.values())
    for name, size in sizes.items():
        if name.endswith(MOVED_BY_NOTHING):
            assert size < 1e-6 * largest
        else:
            assert size > 1e-6 * largest, f"{name} gets no gradient"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{"lambda_llm": 0.0, "lambda_cp": 0.0}, {"lambda_llm": 0.0}])
def test_at_the_very_start_equations_8_and_9_move_only_g(family, settings):
    """g starts at zero, so nothing before it has an effect yet."""
    sizes, _ = gradients(family, moved=False, **settings)
    with_gradient = {name.split(".", 1)[1] for name, size in sizes.items() if size}
    assert with_gradient == {"g.weight", "g.bias"}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_at_the_very_start_equation_5_moves_h3(family):
    sizes, _ = gradients(family, moved=False)
    untouched = {"h2.weight", "h2.bias", "h1.0.weight", "h1.0.bias", "h1.2.weight", "h1.2.bias"}
    assert without_gradient(sizes) == untouched


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_model_gets_no_gradients(family):
    _, backend = gradients(family)
    modules = [m for part in backend._parts.values() for m in part.values() if isinstance(m, torch.nn.Module)]
    assert len(modules) == (4 if family == "sdxl" else 3)
    for module in modules:
        for name, weight in module.named_parameters():
            assert not weight.requires_grad and weight.grad is None, name


def test_stage_align_needs_no_unet():
    sizes, backend = gradients("sd1", align=True)
    assert without_gradient(sizes) <= {MOVED_BY_NOTHING}
    batch = make_batch(backend)
    batch.latents = None
    assert not objective_for(backend)(trainable(backend.widths), batch, None).simple.any()


class InDouble:
    """A backend whose real, tiny UNet computes in float64."""

    def __init__(self, family):
        backend = tiny_backend(family)
        for name in ("family", "widths", "prediction_type", "alphas_cumprod"):
            setattr(self, name, getattr(backend, name))
        self.unet = backend._part("unet")["unet"].double()

    def predict_noise(self, noisy, timesteps, hidden, pooled=None, time_ids=None):
        added = {"text_embeds": pooled, "time_ids": time_ids} if pooled is not None else None
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added).sample


def in_double(family, samples=(0, 1, 2), dropout=0.2, edge=8, **architecture):
    backend = InDouble(family)
    adapter = trainable(backend.widths, dropout=dropout, **architecture).double()
    return backend, adapter, lambda chosen=samples: make_batch(backend, chosen, dropout, torch.float64, edge)


@pytest.mark.parametrize(
    ("family", "architecture", "settings"),
    [
        ("sd1", {}, {}),
        ("sd1", {"token_mixing": "none", "query_projection": True}, {"mask_padding": True, "snr_gamma": 5.0}),
        ("sd2", {}, {"kl_direction": "authors", "temperature": 2.0, "cp_loss": "kl"}),
        ("sdxl", {"depth": 1}, {"cp_loss": "mse"}),
        ("sd1", {"query_in_value": True}, {}),
    ],
)
def test_the_gradient_is_the_slope_of_the_loss(family, architecture, settings):
    """Central differences of Eq. 10 in float64, at random coordinates of every tensor, dropout on."""
    backend, adapter, batch = in_double(family, (0, 1), edge=4, **architecture)
    objective = objective_for(backend, **settings)

    def loss():
        return objective(adapter, batch(), backend).total.sum()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    largest = max(weight.grad.abs().max().item() for weight in adapter.parameters())
    for name, weight in adapter.named_parameters():
        flat, gradient = weight.data.view(-1), weight.grad.view(-1)
        for place in torch.randperm(len(flat), generator=generator)[:2].tolist():
            before, values = flat[place].item(), []
            for shift in (1e-5, -1e-5):
                flat[place] = before + shift
                with torch.no_grad():
                    values.append(loss().item())
            flat[place] = before
            slope = (values[0] - values[1]) / 2e-5
            assert slope == pytest.approx(gradient[place].item(), rel=1e-5, abs=1e-8 * largest), name


# --- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mixing", ["tokens", "none"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_samples_losses_and_gradients_do_not_depend_on_its_batch(family, mixing, dropout):
    backend, adapter, batch = in_double(family, (4, 7, 2), dropout=dropout, token_mixing=mixing)
    objective = objective_for(backend, mask_padding=True, snr_gamma=5.0)
    together = objective(adapter, batch(), backend)
    gradient = torch.autograd.grad(together.total.mean(), list(adapter.parameters()))
    sums = [torch.zeros_like(weight) for weight in adapter.parameters()]
    for place, sample in enumerate((4, 7, 2)):
        alone = objective(adapter, batch((sample,)), backend)
        for name, one, whole in zip(alone._fields, alone, together, strict=True):
            torch.testing.assert_close(one[0], whole[place], rtol=1e-9, atol=0, msg=name)
        for total, part in zip(
            sums, torch.autograd.grad(alone.total[0] / 3, list(adapter.parameters())), strict=True
        ):
            total += part
    for whole, total in zip(gradient, sums, strict=True):
        torch.testing.assert_close(whole, total, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_single_precision_too(family):
    backend = tiny_backend(family)
    adapter, objective = trainable(backend.widths, dropout=0.3), objective_for(backend)
    with torch.no_grad():
        together = objective(adapter, make_batch(backend, (4, 7, 2), 0.3), backend)
        for place, sample in enumerate((4, 7, 2)):
            alone = objective(adapter, make_batch(backend, (sample,), 0.3), backend)
            for one, whole in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], whole[place], rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_losses_in_32_bits(dtype):
    """Knowledge beyond float16's range, as real language models have it, gives a finite loss."""
    backend = tiny_backend()
    batch = make_batch(backend)
    batch.knowledge *= 1e5
    adapter = trainable(backend.widths, dropout=0.0)
    exact = objective_for(backend)(adapter, batch, backend)
    with torch.autocast("cpu", dtype):
        found = objective_for(backend)(adapter, batch, backend)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0)


# --- half precision -----------------------------------------------------------------------------------------


class HalfUNet:
    """Stands in for a frozen model that computes in half precision: a matrix."""

    prediction_type, alphas_cumprod = "epsilon", torch.linspace(0.99, 0.01, 50)

    def __init__(self, width: int):
        self.matrix = torch.randn(width, 16, generator=torch.Generator().manual_seed(0)) / width**0.5

    def predict_noise(self, noisy, timesteps, hidden, pooled=None, time_ids=None):
        mixed = hidden.mean(1).to(torch.float16) @ self.matrix.to(torch.float16)
        return mixed.float().view(-1, 1, 4, 4)


def test_a_small_eta_is_not_lost_in_half_precision():
    """The paper's eta of 1e-5 with mixed precision: the towers must see gradients of 32 bits."""
    found = {}
    for precise in (True, False):
        adapter = trainable({"clip_l": 32}, moved=True, dropout=0.0)
        config = TrainingConfig(eta=1e-5, lambda_llm=0.0, lambda_cp=0.0)
        generator = torch.Generator().manual_seed(1)
        hidden, noise = (torch.randn(2, *s, generator=generator) for s in ((77, 32), (1, 4, 4)))
        batch = Batch([0, 1], ["a", "b"], hidden, torch.ones(2, 77, dtype=torch.bool))
        batch.latents = batch.noise = noise
        batch.timesteps = torch.tensor([10, 30])
        objective = Objective(config, {"clip_l": 32}, None)
        with torch.autocast("cpu", torch.float16, enabled=not precise):
            losses = objective(adapter, batch, HalfUNet(32))
        (losses.total.mean() * 65536).backward()
        found[precise] = {n: p.grad for n, p in adapter.named_parameters() if p.grad is not None}
    assert found[True].keys() == found[False].keys()
    for name, gradient in found[True].items():
        assert torch.allclose(
            found[False][name], gradient, rtol=1e-3, atol=float(gradient.abs().max()) * 1e-3
        ), name
