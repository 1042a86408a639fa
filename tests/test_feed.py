"""The same batches come out cached or not, by any number of threads and processes, and after a restart."""

import numpy as np
import pytest
import torch

from sur_core.feed import Feed
from sur_core.images import fit_image, to_pixels
from sur_core.training_data import open_training_data, split_validation
from tests.small_data import open_feed, open_run, small_run, tiny_backend

TENSORS = ["simple", "mask", "complex", "knowledge", "latents", "noise", "timesteps", "pooled", "time_ids"]
CACHED = {"cache_dtype": "fp32"}
UNCACHED = {"cache_latents": False, "cache_text": False}


def by_sample(feed, stage="full", steps=4) -> dict:
    """{(step, sample): its tensors and dropout masks}, taken apart from all batches of the feed."""
    found = {}
    for step, batches in feed.steps(stage, 0, steps):
        for batch in batches:
            masks = batch.dropout.masks((3, 4))[0] if batch.dropout else None
            for place, sample in enumerate(batch.samples):
                assert (step, sample) not in found
                tensors = {name: getattr(batch, name) for name in TENSORS}
                found[step, sample] = {n: t[place] for n, t in tensors.items() if t is not None}
                found[step, sample]["name"] = batch.names[place]
                if masks is not None:
                    found[step, sample]["masks"] = masks[place]
    return found


def assert_same(left: dict, right: dict, tolerance: float = 0.0) -> None:
    assert left.keys() == right.keys()
    for place in left:
        assert left[place].keys() == right[place].keys()
        for name, value in left[place].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(
                    value,
                    right[place][name],
                    rtol=tolerance,
                    atol=tolerance,
                    msg=lambda m, n=name: f"{n}: {m}",
                )
            else:
                assert value == right[place][name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data and caches that all tests share; none changes them."""
    return tmp_path_factory.mktemp("feed")


def feed(folder, process=(0, 1), family="sd1", **settings) -> Feed:
    return open_feed(small_run(folder / family, family, **{**CACHED, **settings}), process)


# --- cached and uncached ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("crop", ["center", "squash"])
def test_cached_and_uncached_batches_are_equal(folder, family, crop):
    cached = by_sample(feed(folder, family=family, crop=crop))
    uncached = by_sample(feed(folder, family=family, crop=crop, **UNCACHED))
    assert len(cached) == 12
    assert_same(cached, uncached, 1e-5)
    expected = {*TENSORS, "name", "masks"} - (set() if family == "sdxl" else {"pooled", "time_ids"})
    assert all(tensors.keys() == expected for tensors in cached.values())


def test_a_batch_is_made_of_what_it_says(folder):
    """Text, vectors, latents, noise and timesteps of a sample against the encoders, asked one by one."""
    made = feed(folder, family="sdxl")
    surd, backend, knowledge = made.data.surd, made.backend, made.data.knowledge
    flips = set()
    for _, (batch,) in made.steps("full", 0, 4):
        assert batch.latents.dtype == batch.simple.dtype == torch.float32 and batch.mask.dtype == torch.bool
        assert batch.timesteps.dtype == torch.int64
        for place, sample in enumerate(batch.samples):
            said = backend.encode_text([surd[sample].simple, surd[sample].complex])
            hidden = torch.cat(list(said.hidden.values()), -1)
            torch.testing.assert_close(batch.simple[place], hidden[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(batch.complex[place], hidden[1], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(batch.pooled[place], said.pooled[0], rtol=1e-5, atol=1e-5)
            assert torch.equal(batch.mask[place], said.mask[0])
            assert (batch.knowledge[place].numpy() == knowledge[surd[sample].simple]).all()
            image = surd.read_image(sample)
            pixels = fit_image(image, 64, "center").pixels
            near = {}
            for flip in (False, True):
                said = backend.encode_image(to_pixels(pixels, flip)[None])
                near[flip] = ((batch.latents[place] - said.mean[0]).abs() < 6 * said.std[0]).all().item()
            assert sum(near.values()) == 1, "a latent is within six deviations of one of the posteriors"
            (flip,) = [flip for flip, fits in near.items() if fits]
            sizes = sizes_by_hand(image)
            flips.add((flip, sizes[False] == sizes[True]))
            assert batch.time_ids[place].tolist() == [*sizes[flip], 64, 64]
    assert len(flips) == 4, "mirrored and not, with crops that lie elsewhere when mirrored and that do not"


def sizes_by_hand(image) -> dict[bool, tuple]:
    """{mirrored: SDXL's original size, and place of the crop}: the short side is 64, the middle is cut."""
    width, height = image.size
    across, down = (round(64 * side / min(width, height)) for side in (width, height))
    left, top = (across - 64) // 2, (down - 64) // 2
    return {False: (height, width, top, left), True: (height, width, top, across - 64 - left)}


def test_latents_are_drawn_from_the_posterior(folder):
    """(latent - mean) / std of many draws is a standard normal."""
    made = feed(folder, random_flip=False, train_batch_size=12)
    rows = made.data.latents.rows
    deviations = []
    for _, (batch,) in made.steps("full", 0, 20):
        for place, sample in enumerate(batch.samples):
            row = rows.read(made.data.latent_rows[sample])
            deviations.append((batch.latents[place].numpy() - row["mean"]) / row["std"])
    found = np.stack(deviations)
    assert abs(found.mean()) < 5 / found.size**0.5
    assert abs((found**2).mean() - 1) < 5 * (2 / found.size) ** 0.5


def test_noise_and_timesteps_are_spread_as_the_paper_says(folder):
    """Standard normal noise, timesteps over the whole schedule, half of the images mirrored."""
    made = feed(folder, train_batch_size=12)
    drawn = [
        made._train_item("full", step, step, sample).draws for step in range(100) for sample in range(12)
    ]
    noise = torch.stack([draws["noise"] for draws in drawn])
    assert (
        abs(noise.mean()) < 5 / noise.numel() ** 0.5 and abs(noise.var() - 1) < 5 * (2 / noise.numel()) ** 0.5
    )
    times = torch.stack([draws["timestep"] for draws in drawn]).double()
    assert times.min() < 10 and times.max() > 989 and abs(times.mean() - 499.5) < 5 * 289 / 1200**0.5
    flips = torch.stack([draws["flip"] for draws in drawn]).double()
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / 1200**0.5
    posterior = torch.stack([draws["posterior"] for draws in drawn])
    assert abs((posterior * noise).mean()) < 5 / noise.numel() ** 0.5
    assert abs(torch.corrcoef(torch.stack([times, flips]))[0, 1]) < 5 / 1200**0.5


def test_a_noise_offset_shifts_each_channel_by_one_number(folder):
    plain, shifted = (by_sample(feed(folder, noise_offset=size), steps=1) for size in (0.0, 0.5))
    shifts = []
    for place in plain:
        difference = shifted[place]["noise"] - plain[place]["noise"]
        torch.testing.assert_close(
            difference, difference[:, :1, :1].expand_as(difference), rtol=1e-4, atol=1e-6
        )
        shifts += (difference[:, 0, 0] / 0.5).tolist()
        for name in ("timesteps", "latents"):
            assert torch.equal(plain[place][name], shifted[place][name])
    assert 0.3 < np.std(shifts) < 2


# --- whatever shares the work -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, UNCACHED], ids=["cached", "uncached"])
@pytest.mark.parametrize("workers", [0, 1, 5])
def test_threads_change_nothing(folder, settings, workers):
    expected = by_sample(feed(folder, **settings))
    assert_same(expected, by_sample(feed(folder, dataloader_num_workers=workers, **settings)))


@pytest.mark.parametrize("stage", ["align", "full"])
@pytest.mark.parametrize(
    ("size", "parts", "processes"), [(2, 3, 1), (1, 6, 1), (3, 1, 2), (1, 3, 2), (2, 1, 3)]
)
def test_a_batch_may_be_split_in_any_way(folder, stage, size, parts, processes):
    """Samples, noise and dropout of a step are the same: six in one batch, in parts, or over processes."""
    expected = by_sample(feed(folder, train_batch_size=6, align_steps=4), stage)
    found = {}
    for number in range(processes):
        settings = {"train_batch_size": size, "gradient_accumulation_steps": parts, "align_steps": 4}
        mine = feed(folder, (number, processes), **settings)
        assert mine.global_batch == 6
        share = by_sample(mine, stage)
        assert not share.keys() & found.keys()
        found |= share
    assert_same(expected, found)


def test_parts_and_processes_come_in_the_order_of_one_batch(folder):
    """So that a sum over them takes the samples in the same order."""
    (_, (whole,)), *_ = feed(folder, train_batch_size=8, validation_share=0.0).steps("full", 0, 1)
    order = []
    feeds = [feed(folder, (n, 2), train_batch_size=2, gradient_accumulation_steps=2) for n in range(2)]
    steps = [next(iter(f.steps("full", 0, 1)))[1] for f in feeds]
    for part in range(2):
        for process in range(2):
            order += steps[process][part].samples
    assert order == whole.samples


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_restart_goes_on_with_the_very_batches(folder, start):
    made = feed(folder, train_batch_size=5)
    whole, rest = {}, {}
    for begin, found in ((0, whole), (start, rest)):
        for step, (batch,) in made.steps("full", begin, 9):
            found[step] = (
                batch.samples,
                batch.noise,
                batch.timesteps,
                batch.latents,
                batch.dropout.masks((7,))[0],
            )
    for step, (samples, *tensors) in rest.items():
        assert samples == whole[step][0]
        assert all(torch.equal(a, b) for a, b in zip(tensors, whole[step][1:], strict=True))
    assert sorted(rest) == list(range(start, 9))


@pytest.mark.parametrize("size", [1, 5, 12, 17])
def test_every_epoch_uses_every_sample_once(folder, size):
    made = feed(folder, train_batch_size=size)
    steps = -(-36 // size)
    seen = [sample for _, (batch,) in made.steps("full", 0, steps) for sample in batch.samples]
    for epoch in range(3):
        assert sorted(seen[12 * epoch : 12 * epoch + 12]) == list(range(12))


def test_noise_differs_from_epoch_to_epoch_and_sample_to_sample(folder):
    made = feed(folder, train_batch_size=12)
    noises = [noise for _, (batch,) in made.steps("full", 0, 3) for noise in batch.noise]
    flat = torch.stack(noises).flatten(1)
    distances = torch.cdist(flat, flat) + 1e9 * torch.eye(len(flat))
    assert distances.min() > 10


def test_stages_have_orders_of_their_own(folder):
    made = feed(folder, align_steps=4, train_batch_size=12)
    align = [batch.samples for _, (batch,) in made.steps("align", 0, 4)]
    full = [batch.samples for _, (batch,) in made.steps("full", 4, 8)]
    assert not any(a == f for a, f in zip(align, full, strict=True))
    assert all(sorted(samples) == list(range(12)) for samples in align + full)


def test_stage_align_reads_no_image(tmp_path):
    config = small_run(tmp_path, count=6, align_steps=2, full_steps=0, **UNCACHED)
    for path in (tmp_path / "data").glob("*.png"):
        path.write_bytes(b"no image")
    for _, (batch,) in open_feed(config).steps("align", 0, 2):
        assert batch.latents is batch.noise is batch.timesteps is batch.pooled is batch.time_ids is None


def test_what_is_off_is_not_read(folder):
    (_, (batch,)), *_ = feed(folder, lambda_cp=0.0, lambda_llm=0.0, vectors="", dropout=0.0).steps(
        "full", 0, 1
    )
    assert batch.complex is batch.knowledge is batch.dropout is None


# --- validation ---------------------------------------------------------------------------------------------

HELD_OUT = {"validation_share": 0.5}


def test_validation_batches_are_always_the_same(folder):
    made = feed(folder, **HELD_OUT)
    first = list(made.validation("full"))
    list(made.steps("full", 0, 2))
    for left, right in zip(first, made.validation("full"), strict=True):
        assert left.samples == right.samples and left.dropout is None
        assert all(
            torch.equal(getattr(left, n), getattr(right, n)) for n in ("noise", "timesteps", "latents")
        )
    seen = [sample for batch in first for sample in batch.samples]
    assert seen == sorted(made.data.validation.tolist()) and len(seen) == 6
    assert not set(seen) & set(made.data.train.tolist())


def test_validation_draws_do_not_depend_on_how_the_work_is_shared(folder):
    whole = {}
    for batch in feed(folder, train_batch_size=6, **HELD_OUT).validation("full"):
        whole |= {
            s: (batch.noise[i], batch.timesteps[i], batch.latents[i]) for i, s in enumerate(batch.samples)
        }
    shared = {}
    for number in range(4):
        for batch in feed(folder, (number, 4), train_batch_size=1, **HELD_OUT).validation("full"):
            assert not set(batch.samples) & shared.keys()
            shared |= {
                s: (batch.noise[i], batch.timesteps[i], batch.latents[i]) for i, s in enumerate(batch.samples)
            }
    assert shared.keys() == whole.keys()
    for sample, tensors in whole.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, shared[sample], strict=True))


def test_validation_images_are_never_mirrored(folder):
    made = feed(folder, **HELD_OUT)
    for batch in made.validation("full"):
        for place, sample in enumerate(batch.samples):
            row = made.data.latents.rows.read(made.data.latent_rows[sample])
            assert (np.abs(batch.latents[place].numpy() - row["mean"]) < 6 * row["std"]).all()


def test_validation_timesteps_are_spread_over_the_schedule(folder):
    times = [t for batch in feed(folder, **HELD_OUT).validation("full") for t in batch.timesteps.tolist()]
    assert [int(time * 6 / 1000) for time in sorted(times)] == list(range(6))


def test_the_last_validation_timestep_stays_within_the_schedule(folder, monkeypatch):
    """32 bits cannot hold 4095.9999: the place of the last of many samples rounds up to the end."""
    made = feed(folder)
    monkeypatch.setattr(torch, "rand", lambda *shape, generator=None: torch.full(shape[0], 1 - 2**-24))
    samples = np.zeros(4096, np.int64)
    places = (0, 2048, 4095)
    assert [int(made._validation_item("full", samples, n).draws["timestep"]) for n in places] == [0, 500, 999]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_of_one_simple_prompt_stay_on_one_side(tmp_path, share, seed):
    config = small_run(tmp_path, count=20, repeated=6, validation_share=share, seed=seed)
    data = open_training_data(config)
    assert sorted([*data.train, *data.validation]) == list(range(20))
    sides = [{data.surd[int(i)].simple for i in part} for part in (data.train, data.validation)]
    assert not sides[0] & sides[1] and all(sides)
    assert 0 < len(data.validation) <= max(1, round(share * 20))


def test_the_split_follows_the_seed_and_not_the_order(tmp_path):
    config = small_run(tmp_path, count=20, validation_share=0.3)
    surd = open_training_data(config).surd

    def held_out(config, samples):
        return {samples[int(i)].simple for i in split_validation(samples, config)[1]}

    first = held_out(config, surd)
    assert first == held_out(config, [surd[i] for i in reversed(range(20))])
    assert first != held_out(config.with_values(seed=1), surd)


@pytest.mark.parametrize(
    ("share", "most", "expected"), [(0.0, 256, 0), (0.5, 0, 0), (0.02, 256, 1), (0.9, 3, 3)]
)
def test_as_many_are_held_out_as_asked(tmp_path, share, most, expected):
    config = small_run(tmp_path, count=20, validation_share=share, validation_max=most)
    assert len(open_training_data(config).validation) == expected


def test_holding_out_everything_is_refused(tmp_path):
    config = small_run(tmp_path, count=4, repeated=4, validation_share=0.5)
    with pytest.raises(
        ValueError, match="2 samples cannot be held out, because every simple prompt is that of 4"
    ):
        open_training_data(config)


# --- what does not fit together -----------------------------------------------------------------------------


def test_a_prompt_without_vector_is_named(tmp_path):
    small_run(tmp_path / "few", count=3)
    config = small_run(tmp_path, count=5, vectors=str(tmp_path / "few/vectors.safetensors"))
    with pytest.raises(ValueError, match=r"no vector for 2 of 5 prompts, the first is '.*' of 3\.png"):
        open_training_data(config)


def test_vectors_are_asked_for_where_equation_5_needs_them(tmp_path):
    config = small_run(tmp_path, count=3, vectors="")
    with pytest.raises(ValueError, match=r"vectors is not set.*train vectors"):
        open_training_data(config)
    assert open_training_data(config.with_values(lambda_llm=0.0)).knowledge is None


def test_stage_full_needs_images(tmp_path):
    small_run(tmp_path, count=3)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("simple,complex\na cat,a fluffy cat\n")
    config = small_run(tmp_path, data=str(pairs), lambda_llm=0.0)
    with pytest.raises(ValueError, match=r"none of its 1 samples has an image.*full_steps = 0"):
        open_training_data(config)
    data, _ = open_run(config.with_values(full_steps=0, align_steps=1), tiny_backend())
    assert len(data.samples("align")) == 1


def test_a_resolution_the_vae_cannot_take_is_refused(folder):
    config = small_run(folder / "sd1", resolution=64)
    backend = tiny_backend()
    backend.vae_factor = 48
    with pytest.raises(ValueError, match="resolution must be a multiple of 48, found 64"):
        Feed(config, open_training_data(config), backend)
