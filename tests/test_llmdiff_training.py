"""The loss is Eq. 5, its gradient reaches what is to learn and nothing else, a batch does not mix samples."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from sur_core import losses
from sur_core.llmdiff.diffusers_unet import attach
from sur_core.llmdiff.objective import LLMDiffBatch, LLMDiffObjective
from sur_core.llmdiff.training import LLMDiffSystem
from sur_core.training import Trainer
from sur_core.training_config import TrainingConfig
from sur_core.training_data import open_training_data
from tests.llmdiff_models import LAYERS, WIDTH
from tests.llmdiff_runs import InDouble, llmdiff_run, moved_adapter, open_base
from tests.small_data import tiny_backend

FAMILIES = ["sd1", "sd2", "sdxl"]
SYSTEM = LLMDiffSystem()


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_batch(backend, samples=(0, 1, 2), dtype=torch.float32, parts=LAYERS + 1, noisy=True) -> LLMDiffBatch:
    """Numbers of each sample depend on its number alone; its prompt has 3 + 2 * number tokens."""
    widths, sdxl = sum(backend.widths.values()), backend.family == "sdxl"
    lengths = [3 + 2 * sample for sample in samples]
    longest = max(lengths)

    def each(seed, *shape):
        return torch.stack([draw(*shape, seed=100 * sample + seed, dtype=dtype) for sample in samples])

    def padded(rows):
        """Padding that would be heard, if it were attended to."""
        return torch.stack(
            [torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[-2]), value=7.0) for row in rows]
        )

    pairs = list(zip(samples, lengths, strict=True))
    updates = [draw(parts, n, WIDTH, seed=100 * sample + 2, dtype=dtype) for sample, n in pairs]
    noises = [draw(n, WIDTH, seed=100 * sample + 3, dtype=dtype) for sample, n in pairs]
    return LLMDiffBatch(
        samples=list(samples),
        names=[str(sample) for sample in samples],
        simple=each(1, 77, widths),
        mask=torch.ones(len(samples), 77, dtype=torch.bool),
        latents=each(4, 4, 8, 8),
        noise=each(5, 4, 8, 8),
        timesteps=torch.tensor([(137 * sample + 11) % 1000 for sample in samples]),
        pooled=each(6, backend.widths["clip_g"]) if sdxl else None,
        time_ids=torch.tensor([[64.0 + n, 80, n, 0, 64, 64] for n in samples], dtype=dtype) if sdxl else None,
        updates=padded(updates),
        heard=(torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None]
        if len(set(lengths)) > 1
        else None,
        langevin=padded(noises) if noisy else None,
    )


def kind(name: str) -> str:
    return name.rpartition("layers.")[2].partition(".")[2] if name.startswith("layers") else name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def made(folder, family="sd1", moved=True, **settings):
    """(config, backend, adapter) of a run."""
    config = llmdiff_run(folder, family, **settings)
    data, backend = open_training_data(config), open_base(config)
    make = moved_adapter if moved else SYSTEM.first_adapter
    return config, backend, make(config, data, backend)


# --- gradient -----------------------------------------------------------------------------------------------

KINDS = {"phi.weight", "phi.bias", "block_weights", "log_noise", "tau_q.weight", "tau_k.weight"}
KINDS |= {"tau_v.weight", "a1", "b1", "a2", "b2"}


def gradients(config, backend, adapter, batch=None) -> dict[str, torch.Tensor]:
    adapter.zero_grad()
    batch = batch or make_batch(backend, parts=LAYERS + 1 if config.learn_block_weights else 1)
    objective = LLMDiffObjective(config.snr_gamma, config.learn_block_weights)
    objective(adapter, batch, backend).total.mean().backward()
    return {name: weight.grad for name, weight in adapter.named_parameters() if weight.grad is not None}


def reached(found: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, gradient in found.items() if gradient.abs().max() > 1e-9}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clip", ["drop", "keep"])
def test_the_gradient_reaches_phi_tau_a_b_g_h_and_nothing_else(folder, family, clip):
    config, backend, adapter = made(folder, family, llmdiff_clip=clip)
    backend.load()
    found = gradients(config, backend, adapter)
    assert reached(found) == {name for name, _ in adapter.named_parameters()}
    assert {kind(name) for name in found} == KINDS
    modules = [m for part in backend._parts.values() for m in part.values() if isinstance(m, torch.nn.Module)]
    assert len(modules) == (4 if family == "sdxl" else 3)
    for module in modules:
        for name, weight in module.named_parameters():
            if "processor" not in name:
                assert not weight.requires_grad and weight.grad is None, name


def test_block_weights_that_are_not_learnt_get_no_gradient_and_all_others_do(folder):
    config, backend, adapter = made(folder, learn_block_weights=False)
    assert {kind(name) for name in reached(gradients(config, backend, adapter))} == KINDS - {"block_weights"}


def test_at_the_very_start_phi_and_tau_v_are_moved(folder):
    """Both branches of Eq. 4 are silent, by their values alone."""
    config, backend, adapter = made(folder, moved=False)
    found = {kind(name) for name in reached(gradients(config, backend, adapter))}
    assert found == {"phi.weight", "phi.bias", "tau_v.weight"}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("sd1", {}),
        ("sd2", {"llmdiff_clip": "keep", "llmdiff_normalize": "rms", "snr_gamma": 5.0}),
        ("sdxl", {"llmdiff_start": "zero"}),
        ("sd1", {"learn_block_weights": False}),
    ],
)
def test_the_gradient_is_the_slope_of_the_loss(folder, family, settings):
    """Central differences of Eq. 5 in float64, at a random coordinate of every tensor, noise of Eq. 3 on."""
    config, _, adapter = made(folder, family, **settings)
    backend, adapter = InDouble(family), adapter.double()
    parts = LAYERS + 1 if config.learn_block_weights else 1
    batch = make_batch(backend, (0, 1), torch.float64, parts)
    objective = LLMDiffObjective(config.snr_gamma, config.learn_block_weights)

    def loss():
        return objective(adapter, batch, backend).total.mean()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    weights = {name: weight for name, weight in adapter.named_parameters() if weight.requires_grad}
    largest = max(weight.grad.abs().max().item() for weight in weights.values())
    for name, weight in weights.items():
        flat, gradient = weight.data.view(-1), weight.grad.view(-1)
        place = int(torch.randint(len(flat), (), generator=generator))
        before, values = flat[place].item(), []
        for shift in (1e-5, -1e-5):
            flat[place] = before + shift
            with torch.no_grad():
                values.append(loss().item())
        flat[place] = before
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(gradient[place].item(), rel=1e-5, abs=1e-8 * largest), name


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_gradient_checkpointing_changes_no_gradient(folder, family):
    config, backend, adapter = made(folder, family)
    plain = gradients(config, backend, adapter)
    plain = {name: gradient.clone() for name, gradient in plain.items()}
    backend.enable_gradient_checkpointing()
    calls, block = [], backend._part("unet")["unet"].down_blocks[0].attentions[0].transformer_blocks[0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    again = gradients(config, backend, adapter)
    assert len(calls) == 2, "the block is computed a second time in the backward pass"
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6)


# --- the loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_the_loss_is_the_error_of_the_noise_prediction(folder, family, strength):
    """Written out: c of Eq. 3, the UNet with the adapter in it, the noise or (SD 2) the velocity."""
    config, backend, adapter = made(folder, family, snr_gamma=5.0)
    batch = make_batch(backend)
    with torch.no_grad():
        found = LLMDiffObjective(5.0)(adapter, batch, backend, strength)
        summed = batch.updates[:, 0] + sum(
            g * batch.updates[:, t] for t, g in enumerate(adapter.block_weights.tolist(), 1)
        )
        summed = summed + (2 * adapter.log_noise.exp().sum()).sqrt() * batch.langevin
        lengths = batch.heard.sum(-1).flatten().tolist()
        alphas = backend.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
        noisy = alphas.sqrt() * batch.latents + (1 - alphas).sqrt() * batch.noise
        target, snr = batch.noise, (alphas / (1 - alphas)).flatten()
        weight = snr.clamp(max=5.0) / snr
        if family == "sd2":
            target = alphas.sqrt() * batch.noise - (1 - alphas).sqrt() * batch.latents
            weight = snr.clamp(max=5.0) / (snr + 1)
        other = tiny_backend(family)
        with attach(other._part("unet")["unet"], adapter) as session:
            tokens = adapter.prepare([c[:length] for c, length in zip(summed, lengths, strict=True)])
            session.use_tokens(tokens, strength)
            said = other.predict_noise(noisy, batch.timesteps, batch.simple, batch.pooled, batch.time_ids)
    expected = weight * (said - target).square().mean((1, 2, 3))
    torch.testing.assert_close(found.simple, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.total, found.simple) and not found.llm.any() and not found.cp.any()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_strength_0_is_the_base_model_bit_for_bit(folder, family):
    _, backend, adapter = made(folder, family)
    batch = make_batch(backend)
    with torch.no_grad():
        bare = LLMDiffObjective()(adapter, batch, backend, 0.0).simple
        other = tiny_backend(family)
        noisy = losses.add_noise(batch.latents, batch.noise, other.alphas_cumprod, batch.timesteps)
        said = other.predict_noise(noisy, batch.timesteps, batch.simple, batch.pooled, batch.time_ids)
        kind_of = other.alphas_cumprod, batch.timesteps, other.prediction_type
        target = losses.prediction_target(batch.latents, batch.noise, *kind_of)
    assert torch.equal(bare, losses.diffusion_loss(said, target))


def test_a_sum_that_was_cached_is_what_g_of_1_makes_of_its_parts(folder):
    _, backend, adapter = made(folder, learn_block_weights=False)
    batch = make_batch(backend)
    summed = replace(batch, updates=batch.updates.sum(1, keepdim=True))
    with torch.no_grad():
        parts, whole = (
            LLMDiffObjective()(adapter, batch, backend),
            LLMDiffObjective(0.0, False)(adapter, summed, backend),
        )
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clip", ["drop", "keep"])
def test_prompts_of_other_lengths_in_the_batch_change_no_loss_and_no_gradient(folder, family, clip):
    _, _, adapter = made(folder, family, llmdiff_clip=clip)
    backend, adapter, objective = InDouble(family), adapter.double(), LLMDiffObjective(5.0)
    parameters = list(adapter.parameters())

    def measured(samples):
        total = objective(adapter, make_batch(backend, samples, torch.float64), backend).total
        return total.detach(), torch.autograd.grad(total.sum() / 3, parameters)

    together, gradient = measured((4, 1, 2))
    alone = [measured((sample,)) for sample in (4, 1, 2)]
    torch.testing.assert_close(torch.cat([one[0] for one in alone]), together, rtol=1e-9, atol=0)
    for whole, *parts in zip(gradient, *(one[1] for one in alone), strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_stays_in_32_bits_and_about_the_same(folder, dtype):
    _, backend, adapter = made(folder)
    batch = make_batch(backend)
    exact = LLMDiffObjective()(adapter, batch, backend).total
    with torch.autocast("cpu", dtype):
        found = LLMDiffObjective()(adapter, batch, backend).total
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.05)
    found.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in adapter.parameters())


# --- what is trained ----------------------------------------------------------------------------------------


class Alone:
    """What a Trainer asks of accelerate before it runs."""

    is_main_process, process_index, num_processes, scaler = True, 0, 1, None
    device = torch.device("cpu")

    def prepare(self, optimizer):
        return optimizer


@pytest.mark.parametrize("learns", [True, False])
def test_weight_decay_acts_on_matrices_alone(folder, learns):
    """a and g would go to 0 by it, and h, by its logarithm, to 1."""
    config = llmdiff_run(folder, learn_block_weights=learns, adam_weight_decay=0.3)
    trainer = Trainer(config, open_training_data(config), open_base(config), Alone())
    names = {id(weight): name for name, weight in trainer.adapter.named_parameters()}
    decayed, others = (
        {kind(names[id(weight)]) for weight in group["params"]} for group in trainer._optimizer.param_groups
    )
    assert [group["weight_decay"] for group in trainer._optimizer.param_groups] == [0.3, 0.0]
    assert decayed == {"phi.weight", "tau_q.weight", "tau_k.weight", "tau_v.weight"}
    assert others == KINDS - decayed - (set() if learns else {"block_weights"})


def test_the_backend_keeps_one_session_and_drops_it_with_its_unet(folder):
    config, backend, adapter = made(folder)
    session = backend.attach(adapter)
    assert backend.attach(adapter) is session
    other = moved_adapter(config, open_training_data(config), backend)
    assert backend.attach(other) is not session
    unet = backend._part("unet")["unet"]
    adapters = {id(p._session.adapter) for p in unet.attn_processors.values() if hasattr(p, "_session")}
    assert adapters == {id(other)}, "the first one has left"
    backend.release("unet")
    assert backend.attach(other).unet is backend._part("unet")["unet"] is not unet


def test_every_setting_of_llmdiff_is_refused_without_it():
    from sur_core.training_sur import SurSystem

    plain = TrainingConfig()
    for spec in fields(TrainingConfig):
        if spec.metadata["section"] == "llmdiff":
            value = getattr(plain, spec.name)
            choices = [choice for choice in spec.metadata["choices"] if choice != value]
            other = choices[0] if choices else (not value) if isinstance(value, bool) else value * 2 or "x"
            with pytest.raises(ValueError, match=f"{spec.name} means nothing with system = 'sur'.*'llmdiff'"):
                SurSystem().check(plain.with_values(**{spec.name: other}))
    SurSystem().check(plain)
