"""What a cache keeps through interruptions, several writers, full disks and damaged files."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from sur_core import cache as cache_module
from sur_core.cache import CacheError, writing_lock
from sur_core.images import fit_image, to_pixels
from sur_core.training_data import CacheBuilder, open_training_data
from tests.cache_builds import Counting, asked, build
from tests.small_data import open_run, small_run, tiny_backend


@pytest.fixture
def config(tmp_path):
    return small_run(tmp_path, count=6)


# --- interruptions ------------------------------------------------------------------------------------------


def test_a_stopped_build_goes_on_where_it_was(tmp_path, monkeypatch):
    """Stopped after every number of encoder calls, over and over: what was flushed is never encoded again."""
    monkeypatch.setattr(cache_module, "_FLUSH_ROWS", 1)
    config = small_run(tmp_path, count=8, cache_batch_size=1)
    seen, calls = [], 0
    for stop in itertools.count(1):
        backend = Counting(tiny_backend(), fail_after=2)
        try:
            CacheBuilder(config, open_training_data(config), backend).build()
        except KeyboardInterrupt:
            assert stop < 40, "no progress"
        seen += backend.prompts
        calls += backend.images
        if not backend.prompts and not backend.images:
            break
    assert len(seen) == len(set(seen)) == 16
    assert calls == 16
    data, backend = open_run(config)
    said = backend.encode_text([data.surd[7].complex]).hidden["clip_l"][0].numpy()
    np.testing.assert_allclose(
        data.texts.rows.read(data.complex_rows[7])["clip_l"], said, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("alone", [False, True])
def test_two_processes_each_build_a_share(tmp_path, alone):
    """Together all and nothing twice; ``alone``: the other process's share is missed, not invented."""
    config = small_run(tmp_path, count=12)
    parts = [build(config, process=(number, 2)) for number in range(1 if alone else 2)]
    if alone:
        assert 0 < len(parts[0].prompts) < 24 and 0 < parts[0].images < 24
        with pytest.raises(ValueError, match="the cache lacks"):
            CacheBuilder(config, open_training_data(config), parts[0], (0, 2)).open()
        return
    first, second = parts
    assert len(first.prompts) + len(second.prompts) == 24 and not set(first.prompts) & set(second.prompts)
    assert first.images + second.images == 24 and min(first.images, second.images) > 0
    data, backend = open_run(config)
    for sample in data.surd:
        row = data.latents.rows.read(data.latent_rows[sample.index])
        fitted = fit_image(data.surd.read_image(sample.index), 64, "center")
        said = backend.encode_image(to_pixels(fitted.pixels)[None]).mean[0].numpy()
        np.testing.assert_allclose(row["mean"], said, rtol=2e-3, atol=2e-3)


def test_processes_that_see_the_cache_at_different_moments_leave_nothing_out(tmp_path):
    config = small_run(tmp_path, count=12)
    build(config, process=(1, 2))
    build(config, process=(0, 2))
    open_run(config, Counting(tiny_backend(), fail_after=0))


def test_a_second_writer_is_refused(tmp_path, config):
    with writing_lock(config.cache_folder, "p0"):
        with pytest.raises(CacheError, match="another program is writing to this cache"):
            build(config)
        with writing_lock(config.cache_folder, "p1"):
            pass
    assert asked(build(config)) == (12, 12)


def test_the_lock_of_a_killed_program_does_not_stay(config):
    script = (
        "import sys, time; from pathlib import Path; from sur_core.cache import writing_lock\n"
        "with writing_lock(Path(sys.argv[1]), 'p0'): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, config.cache_dir], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CacheError, match="another program"):
            writing_lock(config.cache_folder, "p0")
    finally:
        other.kill()
        other.wait()
    with writing_lock(config.cache_folder, "p0"):
        pass


# --- disks --------------------------------------------------------------------------------------------------


def test_a_disk_too_small_is_refused_before_anything_is_encoded(config, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10**6, 10**6, 10)
    monkeypatch.setattr("sur_core.cache.shutil.disk_usage", lambda folder: usage)
    backend = Counting(tiny_backend())
    with pytest.raises(CacheError, match=r"needs .* GB, the disk has 0\.00 GB left.*cache_dir"):
        CacheBuilder(config, open_training_data(config), backend).build()
    assert asked(backend) == (0, 0)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from sur_core import cache
from sur_core.training_config import TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from sur_core.diffusers_backend import open_backend
import sur_core.row_store as row_store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing beyond the limit is then an OSError
cache._FLUSH_ROWS = 1
config = TrainingConfig.load(sys.argv[1])
backend = open_backend(config.pretrained_model_name_or_path)
limit = int(sys.argv[2])
real = row_store.RowFile._write

def write(self, offset, data):  # the file's whole length is set aside when it is made, before the disk fills
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    real(self, offset, data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

row_store.RowFile._write = write
try:
    CacheBuilder(config, open_training_data(config), backend).build(latents=False)
except OSError as error:
    print("OSError:", error)
"""


@pytest.mark.skipif(not hasattr(os, "pread"), reason="file size limits are POSIX's")
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_rest(tmp_path):
    config = small_run(tmp_path, count=8, cache_batch_size=1)
    config.save(tmp_path / "c.toml")
    row_bytes = 77 * 32 * 2 + 77
    capacity = (1 << 28) // row_bytes
    limit = capacity * (16 + 77 * 32 * 2) + 700  # keys, embeddings, then masks of 77 bytes: some fit
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "c.toml"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    (path,) = config.cache_folder.glob("text-*/rows-*.safetensors")
    assert done.stdout.startswith("OSError:") and str(path) in done.stdout, done.stderr
    backend = build(config)
    assert 8 < len(backend.prompts) < 16, "what was kept before is used"
    open_run(config, Counting(tiny_backend(), fail_after=0))


def test_trouble_with_the_file_of_hashes_is_told_in_words(config):
    config.cache_folder.mkdir()
    path = config.cache_folder / "files.sqlite"
    path.write_bytes(b"this is no database, but it is long enough to look at" * 40)
    with pytest.raises(CacheError, match=r"files\.sqlite: .*not a database.*delete this file"):
        build(config)
    path.unlink()
    assert build(config).images == 12
