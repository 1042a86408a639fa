"""The plan is right before anything is loaded: operations, memory, steps and disk, against what is done."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sur_core.objective import Objective
from sur_core.training_config import TrainingConfig
from sur_core.training_data import open_training_data
from sur_core.training_plan import plan_training, step_cost
from tests.small_data import LLM_WIDTH, open_run, small_run, tiny_backend, trainable
from tests.test_objective import make_batch

FAMILIES = ["sd1", "sd2", "sdxl"]
SMALL = {"heads": 4, "feedforward": 24}
DATA = SimpleNamespace(knowledge=SimpleNamespace(width=LLM_WIDTH))


class BigBackend:
    """SD 1.5's UNet at its true size, without storage."""

    family, widths, prediction_type = "sd1", {"clip_l": 768}, "epsilon"
    alphas_cumprod = torch.linspace(0.999, 0.005, 1000)

    def __init__(self, dtype=torch.float32):
        self.dtype = dtype

    def unet_on_meta(self):
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            return UNet2DConditionModel(
                sample_size=64, cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280)
            ).to(self.dtype)

    def meta_inputs(self, batch, resolution):
        shapes = {
            "sample": (batch, 4, resolution // 8, resolution // 8),
            "encoder_hidden_states": (batch, 77, 768),
        }
        inputs = {name: torch.empty(shape, device="meta", dtype=self.dtype) for name, shape in shapes.items()}
        return {**inputs, "timestep": torch.empty(batch, device="meta", dtype=torch.int64)}


def big_cost(stage, dtype=torch.float32, **settings):
    data = SimpleNamespace(knowledge=SimpleNamespace(width=5120))  # LLaMA-13B
    return step_cost(TrainingConfig(**settings), data, BigBackend(dtype), stage, 512)


# --- operations ---------------------------------------------------------------------------------------------


def products_of_an_adapter(width, feedforward, depth, llm_width, tokens=77):
    """Multiply-adds of the matrix products of Eq. 4 to 6 and W0 and their derivatives, counted on paper."""
    square, hidden, attention = tokens * width**2, tokens * width * feedforward, tokens**2 * width
    forward_linear = depth * (4 * square + 2 * hidden) + square + 2 * square + square  # h3, h2, h1, g
    of_weights = forward_linear
    of_inputs = forward_linear - 3 * square - square  # the first projections of h3, and h2, read the prompt
    in_h3 = depth * (2 + 4) * attention
    equation_4 = (2 + 3) * attention  # V is the prompt itself and needs no derivative
    return forward_linear + of_weights + of_inputs + in_h3 + equation_4 + width * llm_width


def test_stage_align_costs_what_its_matrix_products_do():
    macs, _ = big_cost("align")
    assert macs == pytest.approx(products_of_an_adapter(768, 2048, 2, 5120), rel=0.01)
    assert macs == pytest.approx(3e9, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_small_adapters_too(family):
    backend = tiny_backend(family)
    macs, _ = step_cost(TrainingConfig(depth=3, **SMALL), DATA, backend, "align", 64)
    expected = sum(products_of_an_adapter(width, 24, 3, LLM_WIDTH) for width in backend.widths.values())
    assert macs == pytest.approx(expected, rel=0.01)


def test_a_full_step_at_the_size_of_sd_1_5():
    full, align = big_cost("full")[0], big_cost("align")[0]
    assert full == pytest.approx(838e9, rel=0.01)
    checkpointed, _ = big_cost("full", gradient_checkpointing=True)
    assert 1.2 * full < checkpointed < 1.5 * full, "one more forward pass"
    assert 250 < full / align < 300


def really_done(backend, stage, dropout, checkpointing=False):
    """(multiply-adds, bytes kept) of one sample's losses and their gradient on real tensors."""
    adapter = trainable(backend.widths, dropout=dropout, **SMALL)
    batch = make_batch(backend, (0,), dropout)
    if stage == "align":
        batch.latents = None
    if checkpointing:
        backend.enable_gradient_checkpointing()
    objective = Objective(TrainingConfig(**SMALL), backend.widths, LLM_WIDTH)
    weights = [*adapter.parameters(), *objective.w0.values(), *backend._part("unet")["unet"].parameters()]
    storages = {weight.untyped_storage().data_ptr(): 0 for weight in weights}
    held = []

    def keep(tensor):
        held.append(tensor.untyped_storage())
        storages.setdefault(held[-1].data_ptr(), held[-1].nbytes())
        return tensor

    def run():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective(adapter, batch, backend).total.sum()
        return loss, sum(storages.values())

    # The CPU's fused attention is no matrix product to the counter: it is counted written out.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()[0].backward()
    storages = {weight.untyped_storage().data_ptr(): 0 for weight in weights}
    held.clear()
    return counter.get_total_flops() / 2, run()[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("stage", ["align", "full"])
def test_operations_and_memory_are_those_of_a_real_step(family, dropout, stage):
    config = TrainingConfig(dropout=dropout, **SMALL)
    macs, kept = step_cost(config, DATA, tiny_backend(family), stage, 64)
    real_macs, real_kept = really_done(tiny_backend(family), stage, dropout)
    assert macs == pytest.approx(real_macs, rel=0.01)
    assert real_kept / 1.5 < kept < real_kept * 1.5


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_frozen_model_in_half_precision_keeps_less(dtype):
    config = TrainingConfig(dropout=0.0, **SMALL)
    whole, half = (step_cost(config, DATA, tiny_backend(dtype=d), "full", 64) for d in ("fp32", dtype))
    assert half[0] == whole[0] and half[1] < whole[1]
    if dtype == "bf16":  # the CPU computes no fp16 convolutions worth waiting for
        real = really_done(tiny_backend(dtype=dtype), "full", 0.0)[1]
        assert real / 1.5 < half[1] < real * 1.5


def test_gradient_checkpointing_keeps_less_and_computes_more():
    plain, saving = (TrainingConfig(gradient_checkpointing=on, dropout=0.0, **SMALL) for on in (False, True))
    before, after = (step_cost(config, DATA, tiny_backend(), "full", 64) for config in (plain, saving))
    real = really_done(tiny_backend(), "full", 0.0, checkpointing=True)
    assert after[0] > before[0] and after[1] < before[1]
    assert after[0] == pytest.approx(real[0], rel=0.01) and real[1] / 1.5 < after[1] < real[1] * 1.5


def test_attention_maps_and_weights_are_no_activations():
    """No GPU keeps T x T maps, and weights are not kept once for each sample."""
    whole, half = (big_cost("full", dtype)[1] for dtype in (torch.float32, torch.float16))
    assert 1.2e9 < whole < 1.7e9 and 0.45 < half / whole < 0.6
    assert big_cost("full", gradient_checkpointing=True)[1] < whole / 3


@pytest.mark.parametrize(
    "settings",
    [
        {"lambda_llm": 0.0, "lambda_cp": 0.0},
        {"snr_gamma": 5.0, "mask_padding": True, "cp_loss": "kl+mse"},
        {"token_mixing": "none", "query_projection": True},
        {"query_in_value": True},
    ],
)
@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_every_kind_of_run_can_be_planned(family, settings):
    data = DATA if settings.get("lambda_llm", 1) else SimpleNamespace(knowledge=None)
    macs, kept = step_cost(TrainingConfig(**SMALL, **settings), data, tiny_backend(family), "full", 64)
    assert macs > 0 and kept > 0


def test_planning_leaves_torchs_attention_as_it_was():
    before = torch.nn.functional.scaled_dot_product_attention
    big_cost("align")
    assert torch.nn.functional.scaled_dot_product_attention is before


# --- the whole plan -----------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    return small_run(
        tmp_path,
        count=10,
        align_steps=4,
        full_steps=6,
        train_batch_size=2,
        gradient_accumulation_steps=2,
        validation_share=0.2,
        ema_decay=0.9,
    )


def test_steps_samples_and_bytes(config):
    data, backend = open_training_data(config), tiny_backend()
    plan = plan_training(config, data, backend, processes=2)
    assert (plan.global_batch, plan.resolution, plan.left_out) == (8, 64, 0)
    assert plan.train + plan.validation == 10 and plan.validation == 2
    align, full = plan.stages
    assert (align.stage, align.steps, align.samples) == ("align", 4, 8)
    assert (full.stage, full.steps, full.samples) == ("full", 6, 8)
    backend.load("unet")
    unet = sum(weight.numel() for weight in backend._part("unet")["unet"].parameters())
    adapter = sum(weight.numel() for weight in trainable(backend.widths).parameters())
    assert align.weight_bytes == 4 * adapter and full.weight_bytes == 4 * (adapter + unet)
    assert full.optimizer_bytes == 4 * 4 * adapter, "gradient, two moments, running mean"
    assert full.activation_bytes == 2 * step_cost(config, data, backend, "full", 64)[1]
    text = "\n".join(plan.lines())
    assert "stage align: 4 steps (4.00 epochs)" in text and "stage full: 6 steps (6.00 epochs)" in text
    assert "8 samples a step, 2 at a time" in text and "to cache: up to 20 prompts" in text


def test_what_is_left_to_cache_is_what_is_then_cached(config):
    data, backend = open_training_data(config), tiny_backend()
    plan = plan_training(config, data, backend)
    open_run(config, backend)
    assert {name: count for name, (count, _) in plan.caches.items()} == {"prompts": 20, "images": 10}
    assert {name: count for name, (count, _) in plan_training(config, data, backend).caches.items()} == {
        "prompts": 0,
        "images": 0,
    }


def test_planning_loads_and_writes_nothing(config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    backend = tiny_backend()
    plan_training(config, open_training_data(config), backend)
    assert not any(backend.loaded(part) for part in ("text", "vae", "unet"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_can_be_planned(config, precision):
    whole = plan_training(config, open_training_data(config), tiny_backend())
    half_config, backend = config.with_values(mixed_precision=precision), tiny_backend(dtype=precision)
    half = plan_training(half_config, open_training_data(config), backend)
    for before, after in zip(whole.stages, half.stages, strict=True):
        assert after.macs_per_sample == before.macs_per_sample
    assert half.stages[1].activation_bytes < whole.stages[1].activation_bytes
    assert half.stages[1].weight_bytes < whole.stages[1].weight_bytes
