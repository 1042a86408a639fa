"""The block-wise encoding is what Eq. 1-3 say, for every family of language models, in bounded memory."""

import pytest
import torch

from benchmarks.llmdiff_cost_parts.live_bytes import LiveBytes
from sur_core.llmdiff.blockwise import _by_name, _one_by_one, run_twice, walk
from sur_core.llmdiff.encoder import BlockwiseEncoder
from sur_core.llmdiff.llm import open_llm
from tests.llmdiff_models import FAMILIES, LAYERS, WIDTH, open_double, write_llm

PROMPTS = ["a cat sits on a mat", "two", "", "ü", "three red balls on the table near a very old dog"]
ONLY_EAGER = ("gemma2", "bloom")
CASES = [(family, "sdpa") for family in FAMILIES if family not in ONLY_EAGER]
CASES += [(family, "eager") for family in FAMILIES if not family.startswith(("falcon", "stable"))]


@pytest.fixture(autouse=True)
def softmax_in_float64(monkeypatch):
    """transformers' eager attention takes its softmax in float32, whatever the model's type."""
    softmax = torch.nn.functional.softmax

    def wide(values, *arguments, **options):
        if values.dtype == torch.float64:
            options.pop("dtype", None)
        return softmax(values, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", wide)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = write_llm(tmp_path_factory.mktemp("llm"), family)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def llama(folders):
    return open_double(folders("llama"))


# --- the oracle -------------------------------------------------------------------------------------------


def additive(visible: torch.Tensor) -> torch.Tensor:
    return torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, float("-inf"))[None, None]


def masks(config, block: int, tokens: int):
    """What a block's tokens see, as [1, 1, n, n]: with context, and alone."""
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    seen = key <= query
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * LAYERS
    if getattr(config, "sliding_window", None) and kinds[block] == "sliding_attention":
        seen &= key > query - config.sliding_window
    return additive(seen), additive(query == key)


def block_output(model, block: torch.nn.Module, ids, mask) -> torch.Tensor:
    """A whole forward of the model in which one block's attention gets another mask."""
    names = ("self_attn", "attn", "attention", "self_attention")
    attention = next(getattr(block, name) for name in names if hasattr(block, name))
    found = []

    def swap(module, args, kwargs):
        assert "attention_mask" in kwargs
        return args, kwargs | ({} if mask is None else {"attention_mask": mask})

    hooks = [
        attention.register_forward_pre_hook(swap, with_kwargs=True),
        block.register_forward_hook(lambda *call: found.append(call[2])),
    ]
    model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return found[0][0] if isinstance(found[0], tuple) else found[0]


@torch.no_grad()
def slow_updates(llm, ids: list[int]) -> torch.Tensor:
    """[T + 1, n, D]: one prompt without a batch, two whole forwards for each block, nothing shared."""
    ids = torch.tensor([ids])
    hidden = llm.model(input_ids=ids, output_hidden_states=True).hidden_states
    rows = [hidden[0][0]]
    for number, block in enumerate(llm.blocks):
        causal, identity = masks(llm.model.config, number, ids.shape[1])
        if getattr(llm.model.config, "alibi", False):
            causal = None  # Falcon's mask also carries its positions
        together = block_output(llm.model, block, ids, causal)
        alone = block_output(llm.model, block, ids, identity)
        if number + 1 < len(llm.blocks):  # the last one is given after the final norm
            torch.testing.assert_close(together, hidden[number + 1], atol=1e-9, rtol=0)
        before = hidden[number]
        rows.append(((together - before) - (alone - before))[0])
    return torch.stack(rows)


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_every_family_gives_the_updates_of_two_whole_forwards_per_block(folders, family, attention):
    llm = open_double(folders(family), attention)
    encoder = BlockwiseEncoder(llm)
    found = encoder.updates(PROMPTS)
    for ids, rows in zip(encoder.tokenize(PROMPTS), found, strict=True):
        torch.testing.assert_close(rows, slow_updates(llm, ids), atol=1e-9, rtol=0)
    deltas = found[0][1:]
    assert (deltas[:, 1:].abs().amax(-1) > 1e-3).all(), "the comparison must be of numbers that could differ"
    assert llm.model.config._attn_implementation == attention
    assert [row.shape for row in found] == [(LAYERS + 1, n, WIDTH) for n in (20, 4, 1, 3, 49)]


@pytest.mark.parametrize("start", ["embedding", "zero"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_an_encoding_is_the_langevin_sum(folders, family, start):
    llm = open_double(folders(family))
    encoder, weights = BlockwiseEncoder(llm), torch.tensor([0.3, -1.5, 2.0], dtype=torch.float64)
    found = encoder.encode(PROMPTS, weights, start)
    for ids, encoding in zip(encoder.tokenize(PROMPTS), found, strict=True):
        rows = slow_updates(llm, ids)
        expected = sum(weights[t] * rows[t + 1] for t in range(LAYERS)) + (start == "embedding") * rows[0]
        torch.testing.assert_close(encoding, expected, atol=1e-9, rtol=0)


def test_the_sum_begins_with_what_the_model_feeds_its_first_block(folders):
    llm = open_double(folders("gemma"))
    (encoding,) = BlockwiseEncoder(llm).encode(["ü"], [0.0] * LAYERS)
    weight = llm.model.get_input_embeddings().weight.detach()
    (ids,) = llm.tokenizer(["ü"])
    torch.testing.assert_close(encoding, weight[ids] * WIDTH**0.5, atol=1e-6, rtol=1e-6)  # Gemma scales them


# --- promises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "mistral, window", "gemma3", "gpt2", "opt", "bloom", "mixtral"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 5000])
def test_padding_and_batch_never_change_an_encoding(folders, family, batch_tokens):
    llm = open_double(folders(family), "eager" if family in ONLY_EAGER else "sdpa")
    alone, together = BlockwiseEncoder(llm), BlockwiseEncoder(llm, batch_tokens)
    weights = [1.0, -0.5, 0.7]
    for prompt, encoding in zip(PROMPTS, together.encode(PROMPTS, weights), strict=True):
        torch.testing.assert_close(encoding, alone.encode([prompt], weights)[0], atol=1e-9, rtol=0)


def test_a_later_word_changes_no_earlier_token_and_every_later_one(llama):
    encoder, weights = BlockwiseEncoder(llama), [1.0] * LAYERS
    one, other = encoder.encode(["a cat sits", "a cow sits"], weights)
    same = (one - other).abs().amax(-1) < 1e-9
    assert same.tolist() == [True] * 4 + [False] * 7, "start, 'a', ' ' and 'c' come before the change"


def test_the_first_token_has_no_update_and_the_empty_prompt_is_its_embedding(llama):
    encoder = BlockwiseEncoder(llama)
    (rows,) = encoder.updates(["a cat"])
    assert not rows[1:, 0].any() and rows[1:, 1:].any()
    (empty,) = encoder.encode([""], [5.0] * LAYERS)
    torch.testing.assert_close(empty, rows[0, :1])
    assert not encoder.encode([""], [5.0] * LAYERS, "zero")[0].any()


def test_alone_every_token_keeps_its_own_position(llama):
    block, hidden = llama.blocks[0], torch.randn(2, 3, WIDTH)
    cos, position = torch.randn(1, 3, 8), torch.tensor([[0, 1, 2], [5, 6, 7]])
    named = {"position_ids": position, "position_embeddings": (cos, cos + 1), "use_cache": True}
    named |= {"attention_mask": torch.ones(2, 1, 3, 3), "past_key_values": object()}
    named |= {"cache_position": torch.arange(3), "both": {"a": cos, "b": None}}
    alone = _one_by_one(llama.model, _by_name(llama.model, block, (hidden,), named))
    assert torch.equal(alone["hidden_states"], hidden.reshape(6, 1, WIDTH))
    assert alone["position_ids"].tolist() == [[0], [1], [2], [5], [6], [7]]
    assert torch.equal(alone["position_embeddings"][1], torch.cat([cos, cos]).reshape(6, 1, 8) + 1)
    assert torch.equal(alone["both"]["a"], torch.cat([cos, cos]).reshape(6, 1, 8))
    assert alone["attention_mask"] is None and alone["past_key_values"] is None and not alone["use_cache"]
    assert alone["cache_position"].shape == (1,)


def test_positional_calls_are_understood(folders):
    llm = open_double(folders("gpt2"))
    seen = []
    hook = llm.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(len(args)))
    BlockwiseEncoder(llm).encode(["a"], [1.0] * LAYERS)
    hook.remove()
    assert seen == [seen[0]] and seen[0] > 2, "GPT-2's blocks are called by position, and hooked once"


def test_updates_can_be_learnt_from(llama):
    (rows,) = BlockwiseEncoder(llama).updates(["a cat"])
    weights = torch.ones(LAYERS, dtype=torch.float64, requires_grad=True)
    total = rows[0] + (weights[:, None, None] * rows[1:]).sum(0)
    total.square().sum().backward()
    assert weights.grad.abs().min() > 0 and not rows.requires_grad


def test_nothing_stays_behind_in_the_model(llama):
    ids = torch.tensor(llama.tokenizer(["a cat"]))
    with torch.no_grad():
        before = llama.model(input_ids=ids).last_hidden_state
        BlockwiseEncoder(llama).encode(PROMPTS, [1.0] * LAYERS)
        with pytest.raises(ZeroDivisionError):
            walk(llama.model, llama.blocks, ids, lambda row, value: 1 // (row - 2))
        assert torch.equal(llama.model(input_ids=ids).last_hidden_state, before)
    assert not any(block._forward_hooks for block in llama.blocks)


def test_a_hosts_autocast_changes_nothing(folders):
    encoder = BlockwiseEncoder(open_llm(folders("llama"), "fp32", "cpu"))
    (plain,) = encoder.encode(["a cat"], [1.0] * LAYERS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,) = encoder.encode(["a cat"], [1.0] * LAYERS)
    assert torch.equal(plain, inside) and plain.dtype == torch.float32 and plain.device.type == "cpu"


def test_half_precision_is_close_and_summed_in_float32(folders):
    exact = BlockwiseEncoder(open_double(folders("llama"))).encode(PROMPTS, [1.0] * LAYERS)
    half = BlockwiseEncoder(open_llm(folders("llama"), "bf16", "cpu")).encode(PROMPTS, [1.0] * LAYERS)
    for one, other in zip(exact, half, strict=True):
        assert other.dtype == torch.float32 and (one - other).norm() < 0.05 * one.norm()


# --- memory -----------------------------------------------------------------------------------------------


def peak_bytes(folder, keep=False) -> int:
    encoder = BlockwiseEncoder(open_llm(folder, "fp32", "cpu"))
    weights, kept = [1.0] * encoder.blocks, []
    ids = torch.tensor(encoder.tokenize([PROMPTS[-1]]))
    with LiveBytes() as live:
        if keep:
            walk(encoder.llm.model, encoder.llm.blocks, ids, lambda row, value: kept.append(value))
        else:
            encoder.encode([PROMPTS[-1]] * 2, weights)
    return live.peak


def test_memory_does_not_grow_with_depth(tmp_path):
    shallow, deep = (write_llm(tmp_path / str(layers), layers=layers) for layers in (2, 16))
    assert peak_bytes(deep) == peak_bytes(shallow) > 49 * WIDTH * 4
    assert peak_bytes(deep, keep=True) > peak_bytes(shallow, keep=True) + 13 * 49 * WIDTH * 4


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1.0] * (LAYERS + 1), [], 1.0, [[1.0] * LAYERS]])
def test_weights_for_another_number_of_blocks(llama, weights):
    with pytest.raises(ValueError, match=f"has {LAYERS} blocks.*another language model"):
        BlockwiseEncoder(llama).encode(["a"], weights)


def test_weights_and_starts_that_are_none(llama):
    with pytest.raises(ValueError, match="NaN"):
        BlockwiseEncoder(llama).encode(["a"], [1.0, float("nan"), 1.0])
    with pytest.raises(ValueError, match="embedding, zero.*'noise'"):
        BlockwiseEncoder(llama).encode(["a"], [1.0] * LAYERS, "noise")


def test_numbers_beyond_half_precision_name_the_prompt(folders):
    llm = open_llm(folders("llama"), "fp16", "cpu")
    with torch.no_grad():
        llm.model.get_input_embeddings().weight[llm.tokenizer(["ü"])[0][1]] = float("inf")
    encoder = BlockwiseEncoder(llm)
    with pytest.raises(ValueError, match="prompt 'ü' gives NaN or infinite numbers in fp16.*bf16"):
        encoder.encode(["a cat", "ü"], [1.0] * LAYERS)
    assert encoder.encode(["a cat"], [1.0] * LAYERS)[0].isfinite().all(), "others are not concerned"


def test_blocks_that_take_something_else_are_refused(llama):
    ids, block = torch.tensor(llama.tokenizer(["a"])), llama.blocks[1]

    def refused(**more):
        hook = block.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | more), with_kwargs=True
        )
        try:
            with pytest.raises(ValueError, match="architecture is not supported") as caught:
                run_twice(llama.model, llama.blocks, ids, lambda *call: None)
        finally:
            hook.remove()
        return str(caught.value)

    assert "window_mask, a tensor of shape (1, 1, 2, 2)" in refused(window_mask=torch.zeros(1, 1, 2, 2))
    assert "state, of type object" in refused(state=object())
    with pytest.raises(ValueError, match="block 2 ran after 0 others"):
        run_twice(llama.model, list(llama.blocks)[::-1][1:], ids, lambda *call: None)
