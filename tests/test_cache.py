"""What is kept is what the encoders say of just this content, model and settings, and never encoded twice."""

import itertools
import os
import threading
import time

import numpy as np
import pytest

from sur_core.cache import CacheError, FileDigests, LatentCache, TextCache, read_ahead
from sur_core.diffusers_backend import open_backend
from sur_core.images import fit_image, to_pixels
from sur_core.training_data import CacheBuilder, cache_settings, open_training_data
from tests.cache_builds import Counting, asked, build
from tests.small_data import open_run, small_run, some_rows, tiny_backend, tiny_model
from tests.surd_files import encoded, picture, write_lines


@pytest.fixture
def config(tmp_path):
    return small_run(tmp_path, count=6)


# --- what is kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize(("dtype", "numbers"), [("fp32", np.float32), ("fp16", np.float16)])
def test_rows_are_what_the_encoders_say(tmp_path, family, dtype, numbers):
    config = small_run(tmp_path, family, count=4, cache_dtype=dtype, cache_batch_size=1)
    data, backend = open_run(config)
    for sample in data.surd:
        for prompt, rows in ((sample.simple, data.simple_rows), (sample.complex, data.complex_rows)):
            row = data.texts.rows.read(rows[sample.index])
            said = backend.encode_text([prompt])
            expected = {**said.hidden, "mask": said.mask}
            if family == "sdxl":
                expected["pooled"] = said.pooled
            assert row.keys() == expected.keys()
            for name, tensor in expected.items():
                kind = np.uint8 if name == "mask" else numbers
                wanted = tensor[0].numpy().astype(kind)
                assert row[name].dtype == kind
                # Prompts were encoded four at a time, which may round the last bit differently.
                tolerance = 1e-5 if dtype == "fp32" else 2e-3
                np.testing.assert_allclose(row[name], wanted, rtol=tolerance, atol=tolerance)
        row = data.latents.rows.read(data.latent_rows[sample.index])
        fitted = fit_image(data.surd.read_image(sample.index), 64, "center")
        for suffix, pixels in (("", fitted.pixels), ("_flipped", fitted.pixels[:, ::-1].copy())):
            said = backend.encode_image(to_pixels(pixels)[None])
            assert (row["mean" + suffix] == said.mean[0].numpy().astype(numbers)).all()
            assert (row["std" + suffix] == said.std[0].numpy().astype(numbers)).all()
        assert not np.allclose(row["mean"], row["mean_flipped"], atol=1e-2)
        wanted = (*fitted.original_size, *fitted.crop_top_left, *fitted.flipped_crop_top_left)
        assert tuple(row["sizes"]) == wanted


def test_a_prompt_encoded_alone_is_kept_to_the_last_bit(config):
    data, backend = open_training_data(config), tiny_backend()
    kept = TextCache(
        config.cache_folder, backend, cache_settings(config.with_values(cache_dtype="fp32"), backend), "p0"
    )
    kept.build([data.surd[0].simple], 1)
    row = kept.rows.read(kept.rows.find([kept.key(data.surd[0].simple)])[0])
    said = backend.encode_text([data.surd[0].simple])
    assert (row["clip_l"] == said.hidden["clip_l"][0].numpy()).all()
    assert (row["mask"].astype(bool) == said.mask[0].numpy()).all()


def test_without_flips_the_mirrored_image_is_not_encoded(config):
    backend = build(config.with_values(random_flip=False))
    assert asked(backend) == (12, 6)
    data, _ = open_run(config.with_values(random_flip=False), backend)
    assert set(data.latents.rows.read(0)) == {"mean", "std", "sizes"}


def test_equal_prompts_and_images_are_encoded_once(tmp_path):
    config = small_run(tmp_path, count=6, repeated=4)
    same = (tmp_path / "data/0.png").read_bytes()
    (tmp_path / "data/5.png").write_bytes(same)
    backend = build(config)
    assert asked(backend) == (3 + 6, 2 * 5)
    data, _ = open_run(config, backend)
    assert data.latent_rows[0] == data.latent_rows[5] != data.latent_rows[1]
    assert len(set(data.simple_rows[:4])) == 1


# --- what is not kept twice, and never used when stale ------------------------------------------------------


def test_a_built_cache_is_used_and_no_encoder_is_loaded(config):
    assert asked(build(config)) == (12, 12)
    backend = open_backend(config.pretrained_model_name_or_path)
    again = build(config, backend)
    assert asked(again) == (0, 0)
    assert not any(backend.loaded(part) for part in ("text", "vae", "unet"))
    assert CacheBuilder(config, open_training_data(config), backend).missing() == {
        "prompts": (0, 0),
        "images": (0, 0),
    }


def test_encoders_leave_memory_after_building(config):
    backend = build(config)
    assert asked(backend) == (12, 12)
    assert not backend.loaded("text") and not backend.loaded("vae")


def test_what_is_missing_is_counted_without_encoding(config):
    backend = Counting(tiny_backend())
    missing = CacheBuilder(config, open_training_data(config), backend).missing()
    assert {name: rows for name, (rows, _) in missing.items()} == {"prompts": 12, "images": 6}
    build(config)
    sizes = {name: 0 for name in missing}
    for path in config.cache_folder.glob("*/rows-*.safetensors"):
        data, _ = open_run(config)
        rows = data.texts.rows if path.parent.name.startswith("text") else data.latents.rows
        sizes["prompts" if rows is data.texts.rows else "images"] += rows.row_bytes * len(rows)
    assert sizes == {name: size for name, (_, size) in missing.items()}
    assert asked(backend) == (0, 0)


STALE = {
    "another resolution": {"resolution": 32},
    "another crop": {"crop": "squash"},
    "another type on disk": {"cache_dtype": "fp32"},
    "another type of the VAE": {"vae_dtype": "bf16"},
    "no flips": {"random_flip": False},
}


@pytest.mark.parametrize("changes", STALE.values(), ids=STALE)
def test_latents_of_other_settings_are_never_used(config, changes):
    before, _ = open_run(config)
    other = config.with_values(**changes)
    backend = open_backend(config.pretrained_model_name_or_path, vae_dtype=other.vae_dtype)
    used = build(other, backend)
    assert used.images == 6 * (1 + other.random_flip)
    assert len(used.prompts) == (12 if "cache_dtype" in changes else 0)
    data, _ = open_run(other, used)
    fitted = fit_image(data.surd.read_image(2), other.resolution or 64, other.crop)
    said = backend.encode_image(to_pixels(fitted.pixels)[None]).mean[0].numpy()
    row = data.latents.rows.read(data.latent_rows[2])
    np.testing.assert_allclose(row["mean"], said, rtol=2e-3, atol=2e-3)
    assert asked(build(config)) == (0, 0), "the first settings' rows are still there"
    again, _ = open_run(config)
    assert (
        again.latents.rows.read(again.latent_rows[2])["mean"]
        == before.latents.rows.read(before.latent_rows[2])["mean"]
    ).all()


def test_embeddings_computed_in_another_type_are_never_used(config):
    """Half precision's embeddings are others than those of 32 bits, whatever type they are kept in."""
    build(config)
    half = config.with_values(mixed_precision="bf16")
    backend = open_backend(config.pretrained_model_name_or_path, dtype="bf16")
    assert asked(build(half, backend))[0] == 12


def test_embeddings_of_another_clip_skip_are_never_used(config):
    build(config)
    other = config.with_values(clip_skip=2)
    backend = open_backend(config.pretrained_model_name_or_path, clip_skip=2)
    assert asked(build(other, backend)) == (12, 0)
    data, _ = open_run(other, backend)
    said = backend.encode_text([data.surd[0].simple]).hidden["clip_l"][0].numpy()
    found = data.texts.rows.read(data.simple_rows[0])["clip_l"]
    np.testing.assert_allclose(found, said, rtol=2e-3, atol=2e-3)


def test_rows_of_another_model_are_never_used(config):
    build(config)
    other = config.with_values(pretrained_model_name_or_path=str(tiny_model("sd1", seed=1)))
    assert asked(build(other)) == (12, 12)
    data, backend = open_run(other)
    said = backend.encode_text([data.surd[0].simple]).hidden["clip_l"][0].numpy()
    found = data.texts.rows.read(data.simple_rows[0])["clip_l"]
    np.testing.assert_allclose(found, said, rtol=2e-3, atol=2e-3)


def test_a_changed_image_is_encoded_again_and_a_touched_one_is_not(config, tmp_path):
    before, _ = open_run(config)
    kept = before.latents.rows.read(before.latent_rows[3])["mean"]
    (tmp_path / "data/3.png").write_bytes(encoded(picture(99, (70, 70))))
    os.utime(tmp_path / "data/4.png", ns=(1, 1))
    assert asked(build(config)) == (0, 2)
    data, backend = open_run(config)
    fitted = fit_image(data.surd.read_image(3), 64, "center")
    said = backend.encode_image(to_pixels(fitted.pixels)[None]).mean[0].numpy()
    found = data.latents.rows.read(data.latent_rows[3])["mean"]
    np.testing.assert_allclose(found, said, rtol=2e-3, atol=2e-3)
    assert not np.allclose(found, kept, atol=1e-2)
    first, last = (d.latents.rows.read(d.latent_rows[4]) for d in (before, data))
    assert all((first[name] == last[name]).all() for name in first), "the touched image's row is the same"


def test_an_image_of_the_same_length_and_name_is_told_apart(config, tmp_path):
    build(config)
    path = tmp_path / "data/3.png"
    pixels = np.asarray(picture(3, (73, 91)))
    path.write_bytes(encoded(picture(3, (73, 91)), "BMP"))
    assert build(config).images == 2
    length = path.stat().st_size
    from PIL import Image

    path.write_bytes(encoded(Image.fromarray(255 - pixels), "BMP"))
    assert path.stat().st_size == length
    assert build(config).images == 2


def test_a_changed_prompt_is_encoded_alone(config, tmp_path):
    build(config)
    rows = some_rows(6)
    rows[2]["prompt"] = "something else"
    write_lines(tmp_path / "data/metadata.jsonl", rows)
    backend = build(config)
    assert backend.prompts == ["something else"] and backend.images == 0


def test_data_that_changed_after_building_are_refused(config, tmp_path):
    backend = build(config)
    (tmp_path / "data/3.png").write_bytes(encoded(picture(99, (70, 70))))
    with pytest.raises(ValueError, match=r"lacks 1 images, the first of 3\.png.*run the same command again"):
        CacheBuilder(config, open_training_data(config), backend).open()


def test_file_hashes_are_remembered(config, tmp_path, monkeypatch):
    data = open_training_data(config)
    read = []
    original = type(data.surd).image_bytes
    monkeypatch.setattr(type(data.surd), "image_bytes", lambda self, i: read.append(i) or original(self, i))
    everything = np.arange(6)
    first = FileDigests(tmp_path / "files.sqlite")
    digests = first.of(data.surd, everything)
    assert sorted(read) == list(range(6)) and len({d.tobytes() for d in digests}) == 6
    assert (FileDigests(tmp_path / "files.sqlite").of(data.surd, everything) == digests).all()
    assert len(read) == 6
    first.close()


# --- numbers ------------------------------------------------------------------------------------------------


class Loud:
    """A backend whose encoders say something beyond float16's range."""

    def __init__(self, value):
        self.backend, self.value = tiny_backend(), value

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_text(self, prompts):
        said = self.backend.encode_text(prompts)
        said.hidden["clip_l"][-1, 5, 3] = self.value
        return said

    def encode_image(self, pixels):
        said = self.backend.encode_image(pixels)
        said.mean[-1, 0, 0, 0] = self.value
        return said


@pytest.mark.parametrize("value", [1e5, float("nan"), float("-inf")])
def test_numbers_that_float16_cannot_hold_are_refused(config, value):
    data = open_training_data(config)
    with pytest.raises(
        CacheError, match=r"the prompt '.*its clip_l holds values .* too large for fp16.*'fp32'"
    ):
        CacheBuilder(config, data, Loud(value)).build()
    with pytest.raises(CacheError, match=r"the image 5\.png: its mean .*VAE overflows in fp16"):
        CacheBuilder(config.with_values(cache_text=False), data, Loud(value)).build()


def test_fp32_holds_what_fp16_cannot(config):
    config = config.with_values(cache_dtype="fp32")
    data = open_training_data(config)
    CacheBuilder(config, data, Loud(1e5)).build()
    with pytest.raises(CacheError, match="NaN or too large for fp32"):
        CacheBuilder(config.with_values(resolution=32), data, Loud(float("nan"))).build()


# --- threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_reading_ahead_keeps_the_order_and_passes_errors_on(workers):
    def slow(item):
        time.sleep(0.002 * (item % 3))
        if item == 40:
            raise OSError("item 40")
        return item * item

    results = read_ahead(slow, range(60), workers)
    assert list(itertools.islice(results, 40)) == [item * item for item in range(40)]
    with pytest.raises(OSError, match="item 40"):
        next(results)


def test_reading_ahead_stays_a_few_items_ahead():
    begun = []
    results = read_ahead(begun.append, range(1000), 3)
    next(results)
    results.close()
    assert len(begun) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_latents_need_images_that_can_be_read(config, tmp_path):
    from sur_core.images import ImageError

    whole = (tmp_path / "data/2.png").read_bytes()
    (tmp_path / "data/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"2\.png.*truncated"):
        build(config)
    (tmp_path / "data/2.png").write_bytes(whole)
    assert build(config).prompts == [], "prompts were kept"


def test_the_same_row_form_is_shared_by_data_sets(tmp_path):
    """An image or prompt known from one data set is not encoded for another."""
    first = small_run(tmp_path / "one", count=6, cache_dir=str(tmp_path / "cache"))
    second = small_run(tmp_path / "two", count=8, cache_dir=str(tmp_path / "cache"))
    build(first)
    assert asked(build(second)) == (4, 4)
    backend = tiny_backend()
    settings = cache_settings(second, backend)
    assert len(LatentCache(second.cache_folder, backend, settings).rows) == 8
