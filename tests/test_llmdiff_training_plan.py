"""What an LLMDiff run is said to cost before anything is loaded, against what a step really takes."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sur_core.llmdiff.cache import LanguageModel
from sur_core.llmdiff.objective import LLMDiffObjective
from sur_core.training_config import TrainingConfig
from sur_core.training_data import open_training_data
from sur_core.training_plan import plan_training, step_cost
from tests.llmdiff_models import LAYERS, WIDTH
from tests.llmdiff_runs import llmdiff_run, moved_adapter, open_base, tiny_llm
from tests.test_llmdiff_training import make_batch

FAMILIES = ["sd1", "sd2", "sdxl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def really_done(config, data, backend, tokens: int) -> tuple[float, int]:
    """(multiply-adds, bytes kept) of one sample's loss and its gradient on real tensors."""
    adapter, batch = moved_adapter(config, data, backend), make_batch(backend, (0,))
    batch.updates = torch.randn(1, LAYERS + 1, tokens, WIDTH)
    batch.heard = torch.ones(1, 1, 1, tokens, dtype=torch.bool)
    batch.langevin = torch.randn(1, tokens, WIDTH)
    if config.gradient_checkpointing:
        backend.enable_gradient_checkpointing()
    frozen = backend._part("unet")["unet"].parameters()
    storages = {weight.untyped_storage().data_ptr(): 0 for weight in (*adapter.parameters(), *frozen)}
    held = []

    def keep(tensor):
        held.append(tensor.untyped_storage())
        storages.setdefault(held[-1].data_ptr(), held[-1].nbytes())
        return tensor

    def loss():
        return LLMDiffObjective()(adapter, batch, backend).total.sum()

    # The CPU's fused attention is no matrix product to the counter: it is counted written out.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return counter.get_total_flops() / 2, sum(storages.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_and_memory_are_those_of_a_real_step(folder, family):
    config = llmdiff_run(folder, family)
    data, backend = open_training_data(config), open_base(config)
    longest = max(data.llm.length(sample.simple) for sample in data.surd)
    macs, kept = step_cost(config, data, backend, "full", 64)
    assert not backend.loaded("unet")
    real_macs, real_kept = really_done(config, data, backend, longest)
    assert macs == pytest.approx(real_macs, rel=0.01)
    assert real_kept / 1.5 < kept < real_kept * 1.5


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_gradient_checkpointing_keeps_less_and_computes_more(folder, family):
    plain = llmdiff_run(folder, family)
    saving, data = plain.with_values(gradient_checkpointing=True), open_training_data(plain)
    before, after = (step_cost(config, data, open_base(plain), "full", 64) for config in (plain, saving))
    longest = max(data.llm.length(sample.simple) for sample in data.surd)
    real_macs, real_kept = really_done(saving, data, open_base(plain), longest)
    assert after[0] == pytest.approx(real_macs, rel=0.01) and after[0] > before[0]
    # Beside what the forward pass keeps, one block at a time is computed again.
    assert real_kept / 1.1 < after[1] < before[1]


def test_weights_gradients_and_optimiser_to_the_byte(folder):
    config = llmdiff_run(folder, ema_decay=0.9, train_batch_size=2)
    data, backend = open_training_data(config), open_base(config)
    plan = plan_training(config, data, backend)
    (stage,) = plan.stages
    adapter = sum(weight.numel() for weight in moved_adapter(config, data, backend).parameters())
    unet = sum(weight.numel() for weight in backend._part("unet")["unet"].parameters())
    assert stage.weight_bytes == 4 * (adapter + unet)
    assert stage.optimizer_bytes == 4 * 4 * adapter, "gradient, two moments, running mean"
    assert stage.activation_bytes == 2 * step_cost(config, data, backend, "full", 64)[1]
    assert set(plan.caches) == {"prompts", "encodings", "images"}


def test_the_language_models_weights_are_counted_without_reading_them(tmp_path):
    llm = LanguageModel(TrainingConfig(system="llmdiff", llm=str(tiny_llm())))
    encoder = llm.open(torch.device("cpu"))
    assert llm.weights() == sum(weight.numel() for weight in encoder.llm.model.parameters())
