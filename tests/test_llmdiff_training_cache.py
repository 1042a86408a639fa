"""What a language model makes of prompts is kept as it says it, never computed twice, and reaches the batch
whole.
"""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

from sur_core.cache import CacheError
from sur_core.llmdiff.cache import EncodingCache, LanguageModel, size_for, sizes_up_to
from sur_core.llmdiff.encoder import BlockwiseEncoder
from sur_core.randomness import counted_generator
from sur_core.training_data import CacheBuilder, open_training_data
from sur_core.training_system import system_of
from tests.llmdiff_models import LAYERS, WIDTH, write_llm
from tests.llmdiff_runs import llmdiff_run, llmdiff_settings, open_base
from tests.training_runs import flags
from train.__main__ import main

CPU = torch.device("cpu")


def opened(config, process=(0, 1)):
    """(data, backend, builder) with caches built and opened."""
    data, backend = open_training_data(config), open_base(config)
    builder = CacheBuilder(config, data, backend, process)
    builder.build()
    builder.open()
    return data, backend, builder


def feed_of(config, process=(0, 1)):
    data, backend, _ = opened(config)
    return system_of(config).feed(config, data, backend, process=process)


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Every prompt that a language model is asked for from here on."""
    asked, plain = [], BlockwiseEncoder.updates

    def updates(self, prompts):
        asked.extend(prompts)
        return plain(self, prompts)

    monkeypatch.setattr(BlockwiseEncoder, "updates", updates)
    return asked


# --- sizes --------------------------------------------------------------------------------------------------


def test_a_prompt_fits_its_size_and_wastes_little():
    for length in range(1, 3000):
        size = size_for(length)
        assert size % 8 == 0 and length <= size < max(length + 8, 1.5 * length)
        assert size_for(size) == size
    assert sizes_up_to(256) == [8, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    assert set(map(size_for, range(1, 700))) == set(sizes_up_to(699))


# --- what is kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "numbers"), [("fp32", np.float32), ("fp16", np.float16)])
@pytest.mark.parametrize("prompt", ["simple", "complex", "both"])
def test_rows_are_what_the_language_model_says_of_the_prompt(tmp_path, dtype, numbers, prompt):
    """Encoded alone, at their own length, whatever lay beside them in the batch."""
    config = llmdiff_run(tmp_path, count=5, cache_dtype=dtype, llmdiff_prompt=prompt, cache_batch_size=3)
    data, _, _ = opened(config)
    encoder = data.llm.open(CPU)
    columns = {"simple", "complex"} if prompt == "both" else {prompt}
    assert data.encodings.places.keys() == data.text_rows.keys() == columns
    pairs = [(getattr(s, c), data.encodings.places[c][s.index]) for s in data.surd for c in columns]
    lengths = set()
    for text, place in [*pairs, ("", data.encodings.more[""])]:
        row, (said,) = data.encodings.read(int(place)), encoder.updates([text])
        assert row.dtype == numbers and row.shape == said.shape == (LAYERS + 1, len(text.encode()) + 1, WIDTH)
        tolerance = 1e-5 if dtype == "fp32" else 2e-3
        np.testing.assert_allclose(row, said.numpy(), rtol=tolerance, atol=tolerance * 10)
        lengths.add(row.shape[1])
    assert len(lengths) > 2, "prompts of several lengths"


@pytest.mark.parametrize("start", ["embedding", "zero"])
def test_with_block_weights_fixed_one_sum_is_kept(tmp_path, start):
    config = llmdiff_run(
        tmp_path, count=3, learn_block_weights=False, llmdiff_start=start, cache_dtype="fp32"
    )
    data, _, _ = opened(config)
    encoder = data.llm.open(CPU)
    for sample in data.surd:
        row = data.encodings.read(int(data.encodings.places["simple"][sample.index]))
        (said,) = encoder.encode([sample.simple], [1.0] * LAYERS, start)
        np.testing.assert_allclose(row, said.numpy()[None], rtol=1e-4, atol=1e-4)


def test_nothing_is_encoded_twice(tmp_path, counted):
    config = llmdiff_run(tmp_path, count=6)
    opened(config)
    data = open_training_data(config)
    assert sorted(counted) == sorted({sample.simple for sample in data.surd} | {""})
    counted.clear()
    opened(config)
    assert counted == []
    opened(config.with_values(llmdiff_prompt="both", sample_prompts=("a house",)))
    assert sorted(counted) == sorted({sample.complex for sample in data.surd} | {"a house"})


def test_what_is_missing_is_counted_to_the_byte_without_encoding(tmp_path, counted):
    config = llmdiff_run(tmp_path, count=6)
    builder = CacheBuilder(config, open_training_data(config), open_base(config))
    count, size = builder.missing()["encodings"]
    assert counted == [] and not (tmp_path / "cache").exists()
    data, _, _ = opened(config)
    lengths = [len(text.encode()) + 1 for text in {sample.simple for sample in data.surd} | {""}]
    assert count == len(lengths) == len(data.encodings)
    assert size == sum((LAYERS + 1) * size_for(length) * WIDTH * 2 + 4 for length in lengths)
    assert builder.missing()["encodings"] == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"llm": "other"},
        {"llm_dtype": "bf16"},
        {"cache_dtype": "fp32"},
        {"learn_block_weights": False},
    ],
)
def test_another_model_or_type_has_other_keys(tmp_path, change):
    config = llmdiff_run(tmp_path, count=2)
    if change == {"llm": "other"}:
        change = {"llm": str(write_llm(tmp_path / "other", initializer_range=0.5, vocab_size=301))}
    before, after = (
        EncodingCache(config.cache_folder, LanguageModel(c), CPU).key("a cat")
        for c in (config, config.with_values(**change))
    )
    assert before != after


def test_of_a_sum_the_start_is_part_of_the_key(tmp_path):
    config = llmdiff_run(tmp_path, count=2, learn_block_weights=False)
    keys = {
        EncodingCache(tmp_path, LanguageModel(config.with_values(llmdiff_start=start)), CPU).key("a cat")
        for start in ("embedding", "zero")
    }
    assert len(keys) == 2


def rows_of(data) -> dict[str, bytes]:
    cache = data.encodings
    return {
        sample.simple: cache.read(int(cache.places["simple"][sample.index])).tobytes() for sample in data.surd
    }


@pytest.mark.parametrize("calls", [1, 3, 5])
def test_building_that_was_stopped_goes_on_to_the_very_same_rows(tmp_path, monkeypatch, calls):
    settings = {"count": 14, "cache_batch_size": 2}
    whole = rows_of(opened(llmdiff_run(tmp_path / "whole", **settings))[0])
    config, plain = llmdiff_run(tmp_path / "stopped", **settings), BlockwiseEncoder.updates
    left, asked = itertools.count(), []

    def stopping(self, prompts):
        if next(left) == calls:
            raise KeyboardInterrupt
        asked.extend(prompts)
        return plain(self, prompts)

    monkeypatch.setattr(BlockwiseEncoder, "updates", stopping)
    with pytest.raises(KeyboardInterrupt):
        opened(config)
    data, _, _ = opened(config)
    assert rows_of(data) == whole


def test_two_processes_share_the_work_and_find_all_of_it(tmp_path, counted):
    config = llmdiff_run(tmp_path, count=12)
    for process in ((0, 2), (1, 2)):
        before = len(counted)
        CacheBuilder(config, open_training_data(config), open_base(config), process).build()
        assert len(counted) > before
    assert len(counted) == len(set(counted))
    counted.clear()
    opened(config, (1, 2))
    assert counted == []


def test_a_value_that_float16_cannot_hold_is_told_in_words(tmp_path, monkeypatch):
    plain = BlockwiseEncoder.updates
    monkeypatch.setattr(BlockwiseEncoder, "updates", lambda *given: [row * 1e6 for row in plain(*given)])
    config = llmdiff_run(tmp_path, count=2)
    with pytest.raises(CacheError, match="too large for fp16. Set cache_dtype = 'fp32'"):
        opened(config)
    opened(config.with_values(cache_dtype="fp32"))


def test_the_language_model_is_gone_before_the_unet_comes(tmp_path, monkeypatch):
    kept, plain = [], LanguageModel.open

    def opening(self, training):
        encoder = plain(self, training)
        kept.append(weakref.ref(encoder.llm.model))
        return encoder

    monkeypatch.setattr(LanguageModel, "open", opening)
    _, backend, _ = opened(llmdiff_run(tmp_path, count=2))
    gc.collect()
    assert len(kept) == 1 and kept[0]() is None
    assert not any(backend.loaded(part) for part in ("text", "vae", "unet"))


def test_the_cache_command_keeps_encodings_too(tmp_path, capsys, counted):
    settings = llmdiff_settings(tmp_path, count=4, sample_prompts=["a house"])
    assert main(["cache", *flags(**settings)]) == 0
    assert "encodings: 6 of this data set, 6 in all" in capsys.readouterr().out
    assert len(counted) == 6
    assert main(["cache", *flags(**settings)]) == 0
    assert len(counted) == 6


# --- batches ------------------------------------------------------------------------------------------------


def by_sample(feed, steps=6) -> dict[tuple[int, int], dict[str, torch.Tensor]]:
    """{(step, sample): its tensors without padding}, taken apart from all batches of the feed."""
    found = {}
    for step, batches in feed.steps("full", 0, steps):
        for batch in batches:
            for place, sample in enumerate(batch.samples):
                heard = slice(None) if batch.heard is None else batch.heard[place, 0, 0]
                parts = {"updates": batch.updates[place][:, heard], "langevin": batch.langevin[place][heard]}
                parts |= {name: getattr(batch, name)[place] for name in ("simple", "noise", "timesteps")}
                found[step, sample] = parts
    return found


def assert_same(left, right) -> None:
    assert left.keys() == right.keys()
    for key, tensors in left.items():
        assert all(torch.equal(tensors[name], right[key][name]) for name in tensors), key


def test_a_sample_is_the_same_whatever_the_batch_threads_and_processes(tmp_path):
    settings = {"count": 12, "llmdiff_prompt": "both", "prompt_dropout": 0.3, "cache_dtype": "fp32"}
    whole = by_sample(feed_of(llmdiff_run(tmp_path, **settings, train_batch_size=4)))
    split = {"train_batch_size": 1, "gradient_accumulation_steps": 4, "dataloader_num_workers": 0}
    assert_same(whole, by_sample(feed_of(llmdiff_run(tmp_path, **settings, **split))))
    config, shares = llmdiff_run(tmp_path, **settings, train_batch_size=2), {}
    for number in range(2):
        shares |= by_sample(feed_of(config, (number, 2)))
    assert_same(whole, shares)


@pytest.mark.parametrize("cached", [True, False])
def test_both_encoders_read_the_prompt_that_was_drawn(tmp_path, cached):
    """Simple, complex or empty, by counted chance; the text encoder reads the same one."""
    config = llmdiff_run(
        tmp_path, count=12, llmdiff_prompt="both", prompt_dropout=0.3, cache_dtype="fp32", cache_text=cached
    )
    feed = feed_of(config)
    surd, backend, encoder = feed.data.surd, feed.backend, feed.data.llm.open(CPU)
    seen = {"simple": 0, "complex": 0, "": 0}
    for (step, sample), tensors in by_sample(feed, 8).items():
        generator = counted_generator(config.seed, "prompt train", step, (step * 3) // 12, sample)
        empty, either = torch.rand(2, generator=generator).tolist()
        column = "" if empty < 0.3 else ("simple", "complex")[either >= 0.5]
        text = getattr(surd[sample], column) if column else ""
        seen[column] += 1
        (said,) = encoder.updates([text])
        torch.testing.assert_close(tensors["updates"], said, rtol=1e-4, atol=1e-4)
        hidden = torch.cat(list(backend.encode_text([text]).hidden.values()), -1)[0]
        torch.testing.assert_close(tensors["simple"], hidden, rtol=1e-4, atol=1e-4)
    assert all(seen.values()), seen


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_empty_prompt_is_as_frequent_as_asked_for(tmp_path, share):
    config = llmdiff_run(tmp_path, count=12, prompt_dropout=share)
    feed, drawn = feed_of(config), []
    for step in range(200):
        item = feed._train_item("full", step, step // 4, step % 12)
        drawn.append(item.encoding.shape[1] == 1)
    assert sum(drawn) / 200 == pytest.approx(share, abs=0.06)


def test_validation_reads_real_prompts_without_noise_and_always_the_same(tmp_path):
    config = llmdiff_run(
        tmp_path, count=12, validation_share=0.5, prompt_dropout=1.0, llmdiff_prompt="both", validation_max=6
    )
    feed = feed_of(config)
    first, second = list(feed.validation("full")), list(feed.validation("full"))
    assert sum(map(len, first)) == 6
    for left, right in zip(first, second, strict=True):
        assert left.langevin is None and left.updates.shape[2] > 1
        assert torch.equal(left.updates, right.updates) and torch.equal(left.noise, right.noise)


def test_padding_is_marked_and_only_padding(tmp_path):
    feed = feed_of(llmdiff_run(tmp_path, count=12, prompt_dropout=0.0))
    masks = 0
    for _, (batch,) in feed.steps("full", 0, 4):
        lengths = [len(feed.data.surd[sample].simple.encode()) + 1 for sample in batch.samples]
        assert batch.updates.shape == (3, LAYERS + 1, max(lengths), WIDTH)
        assert batch.langevin.shape == (3, max(lengths), WIDTH)
        if batch.heard is None:
            assert len(set(lengths)) == 1
            continue
        masks += 1
        assert batch.heard.shape == (3, 1, 1, max(lengths)) and batch.heard.dtype == torch.bool
        assert batch.heard.sum(-1).flatten().tolist() == lengths
    assert masks
