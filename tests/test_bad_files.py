"""What is not an adapter is refused in words that name the file, and never run."""

import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sur_core import AdapterFileError, load_adapter, read_passport, save_adapter
from tests.helpers import authors_state_dict, random_adapter, write_authors_file


@pytest.fixture
def saved(tmp_path):
    save_adapter(random_adapter("sd1"), tmp_path / "adapter.safetensors")
    return tmp_path / "adapter.safetensors"


def refusal(path) -> str:
    """The message with which load_adapter and read_passport refuse a file; it must name the file."""
    with pytest.raises((AdapterFileError, OSError)) as caught:
        load_adapter(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value), "torch's advice to switch its protection off"
    return str(caught.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_not_a_checkpoint(tmp_path, name):
    assert "not a readable adapter file" in refusal(
        write(tmp_path / name, b"<html>404: Not Found</html>" * 50)
    )
    assert "empty" in refusal(write(tmp_path / f"empty_{name}", b""))
    assert "not a readable" in refusal(write(tmp_path / f"short_{name}", b"abc"))
    assert "not a readable" in refusal(write(tmp_path / f"noise_{name}", bytes(range(256)) * 40))


@pytest.mark.parametrize("part", [9, 100, 2000, 0.5, 0.999])
def test_truncated_safetensors(saved, tmp_path, part):
    whole = saved.read_bytes()
    cut = int(part * len(whole)) if part < 1 else part
    assert "truncated" in refusal(write(tmp_path / "cut.safetensors", whole[:cut]))
    with pytest.raises(AdapterFileError):
        read_passport(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_truncated_pt(tmp_path, part):
    whole = write_authors_file(tmp_path / "whole.pt").read_bytes()
    assert "truncated" in refusal(write(tmp_path / "cut.pt", whole[: int(part * len(whole))]))


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
def test_a_pickle_that_would_run_code_does_not(tmp_path, zipped, name):
    marker = str(tmp_path / "it_ran")
    content = {**authors_state_dict(width=8, feedforward=8), "extra": RunsCode(marker)}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / name)
    assert "refused" in message or name == "evil.safetensors"
    assert not os.path.exists(marker)
    torch.load((tmp_path / name).rename(tmp_path / "as.pt"), weights_only=False)
    assert os.path.exists(marker), "the file must be dangerous, or this test shows nothing"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_does_not_run_either(tmp_path, name, protocol):
    marker = str(tmp_path / "it_ran")
    (tmp_path / name).write_bytes(pickle.dumps(RunsCode(marker), protocol))
    refusal(tmp_path / name)
    assert not os.path.exists(marker)
    pickle.loads((tmp_path / name).read_bytes())
    assert os.path.exists(marker), "the file must be dangerous, or this test shows nothing"


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_torch_warns_about_are_refused_in_our_words(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "tar.pt", "w") as tar:
        tar.add(__file__, "sys_info")
    for name in ("script.pt", "tar.pt"):
        assert "not a readable adapter file" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(768).to_sparse(),
        lambda: torch.empty(768, 768, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.zeros(1, 1).expand(60_000, 60_000),
    ],
    ids=["sparse", "meta", "nested", "expanded"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_not_plain_are_refused(tmp_path, make):
    torch.save({**authors_state_dict(), "fc.weight": make()}, tmp_path / "odd.pt")
    assert "plain tensors" in refusal(tmp_path / "odd.pt")


def test_tensors_of_something_else(tmp_path):
    save_file({"lora_unet_down.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    message = refusal(tmp_path / "lora.safetensors")
    assert "not a SUR adapter" in message and "lora_unet_down.weight" in message
    torch.save([1, 2], tmp_path / "list.pt")
    assert "found list" in refusal(tmp_path / "list.pt")
    torch.save({"epoch": 3, "fc.weight": torch.zeros(2)}, tmp_path / "mixed.pt")
    assert "'epoch'" in refusal(tmp_path / "mixed.pt")


def tampered(saved, tmp_path, change=None, metadata=None) -> Path:
    tensors = load_file(saved)
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    if change:
        change(tensors)
    header.update(metadata or {})
    path = tmp_path / "tampered.safetensors"
    save_file(tensors, path, metadata=header)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("clip_l.g.bias"), ("1 tensors are missing", "clip_l.g.bias")),
        (lambda t: t.update({"clip_l.h9.weight": torch.zeros(1)}), ("do not belong", "clip_l.h9.weight")),
        (lambda t: t.update({"clip_l.g.bias": torch.zeros(5)}), ("clip_l.g.bias should be (768,)", "(5,)")),
        (lambda t: t.update({"clip_l.g.bias": torch.zeros(768, dtype=torch.int32)}), ("floating", "int32")),
        (lambda t: t["clip_l.g.bias"].__setitem__(3, float("nan")), ("NaN", "clip_l.g.bias")),
        (lambda t: t["clip_l.h2.weight"][0].__setitem__(0, float("inf")), ("infinite", "clip_l.h2.weight")),
    ],
)
def test_wrong_tensors_are_named(saved, tmp_path, change, words):
    message = refusal(tampered(saved, tmp_path, change))
    assert all(word in message for word in words)


CONFIG = {"clip_l": {"width": 768, "depth": 2, "heads": 8, "feedforward": 2048}}


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ({"sur.format_version": "2"}, "update"),
        ({"sur.format_version": "one"}, "format_version"),
        ({"sur.format_version": "0"}, "format_version"),
        ({"sur.config": "{"}, "config"),
        ({"sur.config": "[" * 100_000}, "config"),
        ({"sur.config": "[]"}, "config"),
        ({"sur.config": "{}"}, "at least one tower"),
        ({"sur.config": json.dumps({"t5": CONFIG["clip_l"]})}, "t5"),
        ({"sur.config": json.dumps({"clip_l": {**CONFIG["clip_l"], "depth": 100}})}, "layers"),
        ({"sur.config": json.dumps({"clip_l": {**CONFIG["clip_l"], "width": 8 * 10**9}})}, "width"),
        ({"sur.config": json.dumps({"clip_l": {**CONFIG["clip_l"], "width": 65536}})}, "should be (65536"),
        ({"sur.config": json.dumps({"clip_l": {**CONFIG["clip_l"], "magic": 1}})}, "magic"),
        ({"sur.eta": "7"}, "eta"),
        ({"sur.eta": "nan"}, "eta"),
        ({"sur.eta": "much"}, "eta"),
        ({"sur.steps": "many"}, "steps"),
        ({"sur.parents": "{}"}, "parents"),
        ({"sur.parents": '[{"name": 3, "weight": 1}]'}, "parents"),
        ({"sur.config": json.dumps({"clip_l": {**CONFIG["clip_l"], "width": 1280}})}, "1280"),
        ({"sur.config": json.dumps({"clip_l": CONFIG["clip_l"], "clip_h": CONFIG["clip_l"]})}, "together"),
    ],
)
def test_a_false_passport_is_refused(saved, tmp_path, metadata, word):
    assert word in refusal(tampered(saved, tmp_path, metadata=metadata))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("fc.bias"), "g.bias"),
        (lambda s: s.update(surprise=torch.zeros(1)), "surprise"),
        (lambda s: s.update({"fc.weight": torch.zeros(())}), "fc.weight"),
        (lambda s: s.update({"fc.weight": torch.full((768, 768), float("nan"))}), "NaN"),
        (lambda s: [s.pop(key) for key in list(s) if ".layers.0." in key], "numbered"),
        (lambda s: s.update({"attention.key_layer.weight": torch.zeros(3, 3)}), "(3, 3)"),
    ],
)
def test_a_broken_authors_file_is_refused(tmp_path, change, word):
    state = authors_state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pt")
    assert word in refusal(tmp_path / "a.pt")


def test_a_width_that_no_text_encoder_has_is_refused(tmp_path):
    assert "no known text encoder has 64 features" in refusal(write_authors_file(tmp_path / "a.pt", width=64))


def test_missing_file_and_folder(tmp_path):
    assert "no such adapter file" in refusal(tmp_path / "gone.safetensors")
    assert "found a folder" in refusal(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_adapter(tmp_path / "gone.safetensors")
