"""Files of LLMDiff adapters and of encoded prompts: whole, honest, and refused in words otherwise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core import load_adapter, save_adapter
from sur_core.errors import AdapterFileError, AdapterMismatchError
from sur_core.llmdiff import (
    load_encodings,
    load_llmdiff,
    read_llmdiff_passport,
    save_encodings,
    save_llmdiff,
)
from sur_core.llmdiff.checkpoint import is_llmdiff_file
from sur_core.llmdiff.encodings import check_encodings, check_llm
from tests.helpers import random_adapter
from tests.llmdiff_parts import LLM_BLOCKS, LLM_WIDTH, encoded, random_llmdiff


def test_an_adapter_comes_back_as_it_was_saved(tmp_path):
    adapter = random_llmdiff(normalize="rms")
    save_llmdiff(adapter, tmp_path / "a.safetensors", steps=12, title="mine", base_model="sd15")
    found = load_llmdiff(tmp_path / "a.safetensors")
    assert all(torch.equal(found.state_dict()[key], value) for key, value in adapter.state_dict().items())
    assert (found.config, found.encoding_id) == (adapter.config, adapter.encoding_id)
    passport = found.passport
    assert (passport.steps, passport.title, passport.base_model) == (12, "mine", "sd15")
    assert passport == read_llmdiff_passport(tmp_path / "a.safetensors")
    assert not any(weight.requires_grad for weight in found.parameters())


def test_half_precision_files_keep_single_numbers_and_so_the_encoding_id(tmp_path):
    adapter = random_llmdiff()
    save_llmdiff(adapter, tmp_path / "a.safetensors", torch.float16)
    kinds = {key: value.dtype for key, value in load_file(tmp_path / "a.safetensors").items()}
    assert kinds["phi.weight"] == torch.float16 and kinds["block_weights"] == torch.float32
    found = load_llmdiff(tmp_path / "a.safetensors")
    assert found.encoding_id == adapter.encoding_id
    torch.testing.assert_close(found.phi.weight, adapter.phi.weight, rtol=1e-3, atol=1e-3)


def test_the_same_adapter_is_the_same_bytes(tmp_path):
    for name in "ab":
        save_llmdiff(random_llmdiff(), tmp_path / f"{name}.safetensors", created="2026-01-01T00:00:00")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_metadata_of_others_survives(tmp_path):
    adapter = random_llmdiff()
    adapter.passport = replace(adapter.passport, extra={"ss_tag": "x"})
    save_llmdiff(adapter, tmp_path / "a.safetensors")
    assert load_llmdiff(tmp_path / "a.safetensors").passport.extra == {"ss_tag": "x"}


def rewritten(path, change_tensors=lambda t: t, change_metadata=lambda m: m):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    save_file(change_tensors(load_file(path)), path, change_metadata(metadata))


@pytest.mark.parametrize(
    "tensors, words",
    [
        (lambda t: {k: v for k, v in t.items() if k != "phi.bias"}, r"1 tensors are missing \('phi.bias'\)"),
        (lambda t: {**t, "more": torch.zeros(1)}, "do not belong there"),
        (lambda t: {**t, "phi.bias": torch.zeros(3)}, r"phi.bias should be \(20,\), found \(3,\)"),
        (lambda t: {**t, "phi.bias": torch.full((20,), torch.nan)}, "hold NaN"),
        (lambda t: {**t, "phi.bias": torch.zeros(20, dtype=torch.int8)}, "floating-point"),
    ],
)
def test_a_file_with_other_tensors_is_refused_naming_them(tmp_path, tensors, words):
    path = tmp_path / "a.safetensors"
    save_llmdiff(random_llmdiff(), path)
    rewritten(path, tensors)
    with pytest.raises(AdapterFileError, match=words) as error:
        load_llmdiff(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"llmdiff.config": "{}"}, "architecture is damaged"),
        ({"llmdiff.config": "["}, "a.safetensors: "),
        ({"llmdiff.format_version": "99"}, "format version 99"),
        ({"llmdiff.steps": "many"}, "steps must be a whole number"),
    ],
)
@pytest.mark.parametrize("read", [load_llmdiff, read_llmdiff_passport])
def test_a_damaged_passport_is_refused_in_words(tmp_path, change, words, read):
    path = tmp_path / "a.safetensors"
    save_llmdiff(random_llmdiff(), path)
    rewritten(path, change_metadata=lambda metadata: {**metadata, **change})
    with pytest.raises(AdapterFileError, match=words):
        read(path)


def test_a_passport_that_lies_about_size_costs_no_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    save_llmdiff(random_llmdiff(), path)

    def larger(metadata):
        config = json.loads(metadata["llmdiff.config"])
        return {**metadata, "llmdiff.config": json.dumps({**config, "llm_width": 1 << 30})}

    rewritten(path, change_metadata=larger)
    with pytest.raises(AdapterFileError, match="phi.weight should be"):
        load_llmdiff(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"\x08\0\0\0\0\0\0\0{}", b"plain text"])
def test_what_is_no_safetensors_is_refused_in_words(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterFileError, match="a.safetensors: "):
        load_llmdiff(path)


def test_the_two_kinds_of_adapter_are_told_apart_in_words(tmp_path):
    sur, llmdiff = tmp_path / "sur.safetensors", tmp_path / "llmdiff.safetensors"
    save_adapter(random_adapter(), sur)
    save_llmdiff(random_llmdiff(), llmdiff)
    with pytest.raises(AdapterFileError, match="found a SUR adapter, which Load SUR Adapter reads"):
        load_llmdiff(sur)
    with pytest.raises(AdapterFileError, match="this is an LLMDiff adapter"):
        load_adapter(llmdiff)
    assert is_llmdiff_file(llmdiff) and not is_llmdiff_file(sur)


def test_nothing_is_written_where_a_weight_is_too_large_for_the_type(tmp_path):
    adapter = random_llmdiff()
    adapter.phi.weight.data[0, 0] = 1e6
    path = tmp_path / "a.safetensors"
    with pytest.raises(AdapterFileError, match="phi.weight"):
        save_llmdiff(adapter, path, torch.float16)
    assert not list(tmp_path.iterdir())


# --- which language model -----------------------------------------------------------------------------------


class Encoder:
    """What check_llm looks at of an encoder."""

    def __init__(self, name="tiny-llm", identity="0123", width=LLM_WIDTH, blocks=LLM_BLOCKS):
        self.name, self.identity, self.width, self.blocks = name, identity, width, blocks


@pytest.mark.parametrize(
    "encoder",
    [
        Encoder(),
        Encoder(name="somewhere/Tiny-LLM", identity="other files of the same name"),
        Encoder(name="renamed"),
    ],
)
def test_the_language_model_may_lie_anywhere(encoder):
    check_llm(encoder, random_llmdiff())


@pytest.mark.parametrize(
    "encoder, words",
    [
        (Encoder(width=16), r"reads tiny-llm \(3 blocks, 12 wide\), found tiny-llm \(3 blocks, 16 wide\)"),
        (Encoder(blocks=4), "found tiny-llm \\(4 blocks"),
        (Encoder(name="other", identity="9"), "of the same size, but another model"),
    ],
)
def test_another_language_model_is_refused_in_words(encoder, words):
    with pytest.raises(AdapterMismatchError, match=words):
        check_llm(encoder, random_llmdiff())


# --- encoded prompts ----------------------------------------------------------------------------------------


def test_encodings_come_back_as_they_were_saved(tmp_path):
    adapter = random_llmdiff()
    prompts = [encoded(adapter, 4, prompt="ein Bär\n在"), encoded(adapter, 2, seed=1, prompt="")]
    save_encodings(prompts, tmp_path / "e.safetensors")
    for found, given in zip(load_encodings(tmp_path / "e.safetensors"), prompts, strict=True):
        assert torch.equal(found.tokens, given.tokens)
        assert replace(found, tokens=given.tokens) == given
    check_encodings(adapter, load_encodings(tmp_path / "e.safetensors"))


def test_encodings_of_another_adapter_are_refused_in_words(tmp_path):
    save_encodings([encoded(random_llmdiff())], tmp_path / "e.safetensors")
    with pytest.raises(AdapterMismatchError, match="encoded for another adapter \\(with tiny-llm\\)"):
        check_encodings(random_llmdiff(start="zero"), load_encodings(tmp_path / "e.safetensors"))


def test_a_file_without_encodings_is_refused_in_words(tmp_path):
    save_llmdiff(random_llmdiff(), tmp_path / "a.safetensors")
    with pytest.raises(
        AdapterFileError, match="expected encoded prompts in format 1, found a file of another"
    ):
        load_encodings(tmp_path / "a.safetensors")


@pytest.mark.parametrize("prompts", ["[]", "{", '[["a", "id"]]', '[["a", "id", "llm"], ["b", "id", "llm"]]'])
def test_damaged_encodings_are_refused_in_words(tmp_path, prompts):
    path = tmp_path / "e.safetensors"
    save_encodings([encoded(random_llmdiff())], path)
    rewritten(path, change_metadata=lambda m: {**m, "llmdiff_encoding.prompts": prompts})
    with pytest.raises(AdapterFileError, match="damaged"):
        load_encodings(path)
