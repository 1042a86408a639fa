"""What can go wrong in a run is told in words, and what was good stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sur_core import new_adapter, read_passport, save_adapter
from sur_core.diffusers_backend import DiffusersBackend
from sur_core.objective import Objective
from tests.tiny_models import make_tiny
from tests.training_runs import flags, make_run, write_vectors
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    settings = make_run(tmp_path_factory.mktemp("world"), pictures=12)
    return settings | {"align_steps": 1, "full_steps": 3, "checkpointing_steps": 1}


def refusal(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 1
    said = capsys.readouterr().err
    line = said[said.rindex("error: ") :]
    assert "Traceback" not in said
    return line


def fit(settings: dict) -> list[str]:
    return ["fit", *flags(**settings)]


@pytest.mark.parametrize("needed", ["pretrained_model_name_or_path", "data", "output_dir", "vectors"])
def test_a_missing_setting_is_named(world, tmp_path, capsys, needed):
    settings = {**world, "output_dir": tmp_path / "run"}
    settings.pop(needed)
    said = refusal(capsys, *fit(settings))
    assert f"{needed} is not set" in said
    if needed == "vectors":
        assert "python -m train vectors" in said and "lambda_llm = 0" in said


def test_a_prompt_without_vector_is_named(world, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "new.png").write_bytes((world["data"] / "000.png").read_bytes())
    (data / "metadata.jsonl").write_text('{"file_name": "new.png", "text": "unheard of", "prompt": "x"}\n')
    said = refusal(capsys, *fit({**world, "data": data, "output_dir": tmp_path / "run"}))
    assert "no vector for 1 of 1 prompts" in said and "'unheard of'" in said and "new.png" in said


def test_vectors_of_another_width_than_the_run_began_with_are_refused(world, tmp_path, capsys):
    settings = {**world, "output_dir": tmp_path / "run"}
    assert main(fit(settings)) == 0
    wider = write_vectors(tmp_path / "wider.safetensors", world["data"], width=32)
    said = refusal(capsys, *fit({**settings, "vectors": wider}))
    assert "knowledge vectors changed" in said


def test_a_vector_that_is_not_a_number_is_named(world, tmp_path, capsys):
    tensors = load_file(world["vectors"])
    name = next(n for n, t in tensors.items() if t.dtype == torch.float16 and t.ndim == 2)
    tensors[name][5] = float("nan")
    from safetensors import safe_open

    with safe_open(world["vectors"], "pt") as file:
        metadata = file.metadata()
    bad = tmp_path / "bad.safetensors"
    save_file(tensors, bad, metadata)
    settings = {**world, "vectors": bad, "output_dir": tmp_path / "run", "full_steps": 12}
    said = refusal(capsys, *fit(settings))
    assert "bad.safetensors" in said
    prompt = json.loads((world["data"] / "metadata.jsonl").read_text().splitlines()[5])["text"]
    assert "005.png" in said or prompt in said, said


@pytest.mark.parametrize(("asked", "found"), [("sdxl", "SD 1.x"), ("sd2", "SD 1.x")])
def test_a_base_model_of_another_family_is_refused(world, tmp_path, capsys, asked, found):
    said = refusal(capsys, *fit({**world, "family": asked, "output_dir": tmp_path / "run"}))
    assert found in said and "model" in said


def test_an_adapter_to_start_from_must_fit(world, tmp_path, capsys):
    save_adapter(new_adapter("sd1"), tmp_path / "real.safetensors")
    start = {**world, "init_from": tmp_path / "real.safetensors", "output_dir": tmp_path / "run"}
    assert "real.safetensors: made for SD 1.x, 768 wide" in refusal(capsys, *fit(start))
    save_adapter(new_adapter({"clip_l": 32}, heads=2, feedforward=16), tmp_path / "small.safetensors")
    start["init_from"] = tmp_path / "small.safetensors"
    said = refusal(capsys, *fit(start))
    assert "small.safetensors" in said and "feedforward" in said


def test_training_goes_on_from_a_given_adapter(world, tmp_path):
    first = {**world, "output_dir": tmp_path / "first", "align_steps": 0, "full_steps": 2}
    assert main(fit(first)) == 0
    started = tmp_path / "first" / "adapter.safetensors"
    # A learning rate this small changes nothing that float32 can hold.
    second = {**first, "output_dir": tmp_path / "second", "init_from": started, "learning_rate": 1e-20}
    assert main(fit({**second, "adam_weight_decay": 0})) == 0
    before, after = load_file(started), load_file(tmp_path / "second" / "adapter.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_passport(tmp_path / "second" / "adapter.safetensors").steps == 2


def test_stage_full_without_images_is_refused_and_align_alone_needs_none(world, tmp_path, capsys):
    rows = (world["data"] / "metadata.jsonl").read_text().splitlines()
    pairs = [{key: row[key] for key in ("text", "prompt")} for row in map(json.loads, rows)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    settings = {**world, "data": tmp_path / "pairs.jsonl", "output_dir": tmp_path / "run"}
    assert "has an image, which stage full needs" in refusal(capsys, *fit(settings))
    model = make_tiny(tmp_path / "model")
    for part in ("unet", "vae"):  # what stage align never touches need not even be readable
        for weights in (model / part).glob("*.safetensors"):
            weights.write_bytes(b"")
    settings |= {"pretrained_model_name_or_path": model, "full_steps": 0, "align_steps": 3}
    assert main(fit(settings)) == 0
    assert read_passport(tmp_path / "run" / "adapter.safetensors").steps == 3


def test_a_broken_image_is_named_and_the_way_out_works(world, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for path in world["data"].iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "004.png").write_bytes((data / "004.png").read_bytes()[:80])
    for cached in (True, False):
        settings = {**world, "data": data, "output_dir": tmp_path / f"run{cached}", "cache_latents": cached}
        assert "004.png" in refusal(capsys, *fit(settings))
    assert main(["check", str(data)]) == 0
    assert "the data set changed" in refusal(capsys, *fit(settings))
    assert main([*fit(settings), "--restart"]) == 0


def poisoned(monkeypatch, sample: int, after: int, value: float = float("nan")) -> None:
    """Make Eq. 8 of one sample not a number, from the call number ``after`` on."""
    plain, calls = Objective._diffusion, []

    def diffusion(self, adapted, batch, backend):
        losses = plain(self, adapted, batch, backend)
        if losses.device.type == "meta":  # the plan
            return losses
        calls.append(1)
        hit = torch.tensor([number == sample and len(calls) > after for number in batch.samples])
        return torch.where(hit, torch.full_like(losses, value), losses)

    monkeypatch.setattr(Objective, "_diffusion", diffusion)


def test_a_loss_that_is_not_a_number_stops_and_names_sample_and_step(world, tmp_path, capsys, monkeypatch):
    settings = {**world, "output_dir": tmp_path / "run", "full_steps": 40, "validation_share": 0.0}
    settings |= {"checkpointing_steps": 5}
    poisoned(monkeypatch, sample=7, after=12)
    said = refusal(capsys, *fit(settings))
    step = int(said.split("step ")[1].split(":")[0])
    assert "of 007.png." in said and "lower learning_rate" in said and step > 12
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert read_passport(tmp_path / "run" / "adapter.safetensors").steps == (step - 1) // 5 * 5


def test_out_of_memory_says_what_to_lower(world, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(DiffusersBackend, "predict_noise", full)
    said = refusal(capsys, *fit({**world, "output_dir": tmp_path / "run"}))
    assert "step 2: out of memory" in said and "train_batch_size to 2" in said
    assert "gradient_accumulation_steps to 2" in said and "gradient_checkpointing" in said
    assert read_passport(tmp_path / "run" / "adapter.safetensors").steps == 1


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from train.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("limit", "file"), [(20_000, "rows-p0"), (150_000, "state.safetensors")])
def test_a_full_disk_while_caching_or_saving_loses_nothing(world, tmp_path, limit, file):
    """Files may not grow beyond a limit: to a program, the same as a disk that is full."""
    settings = {**world, "output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    if file == "state.safetensors":
        assert main(["cache", *flags(**settings)]) == 0
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *fit(settings)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert file in done.stderr.splitlines()[-1], done.stderr
    assert not list(tmp_path.rglob(".unfinished*"))
    assert main(fit(settings)) == 0, "the same command goes on when there is room again"
    assert read_passport(tmp_path / "run" / "adapter.safetensors").steps == 4


def test_two_runs_in_one_folder_are_refused(world, tmp_path, capsys):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".running.lock"):
        said = refusal(capsys, *fit({**world, "output_dir": tmp_path / "run"}))
    assert "another run is using this folder" in said


def test_a_damaged_state_is_not_repaired_silently(world, tmp_path, capsys):
    settings = {**world, "output_dir": tmp_path / "run"}
    assert main(fit(settings)) == 0
    path = tmp_path / "run" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path}: not a readable training state" in refusal(capsys, *fit(settings))
    assert main(["fit", "--restart", *flags(**settings)]) == 0


def test_images_of_every_kind_train(tmp_path):
    settings = make_run(tmp_path, pictures=4)
    data = settings["data"]
    Image.new("RGBA", (80, 70), (255, 0, 0, 90)).save(data / "000.png")
    Image.new("CMYK", (80, 70), (9, 99, 0, 9)).save(data / "001.jpg")
    (data / "001.png").unlink()
    Image.new("I;16", (80, 70), 40_000).save(data / "002.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 64), (1, 2, 3)).save(data / "003.png", exif=exif)
    text = (data / "metadata.jsonl").read_text().replace("001.png", "001.jpg")
    (data / "metadata.jsonl").write_text(text)
    for cached in (True, False):
        folder = tmp_path / f"run{cached}"
        steps = {"full_steps": 2, "cache_latents": cached, "output_dir": folder, "validation_share": 0}
        assert main(fit({**settings, **steps})) == 0
