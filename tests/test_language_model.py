"""A language model computes what transformers itself computes; models that cannot be used are refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sur_core import knowledge_build
from sur_core.language_model import (
    SHORTENABLE,
    LanguageModel,
    PromptTokenizer,
    choose_device,
    choose_dtype,
    find_blocks,
)
from sur_core.language_model_files import find_model
from tests.knowledge_builds import LAYERS, PROMPTS, WIDTH, build, make_llms, plain_vector, refusal
from tests.tiny_models import make_tiny_llm


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    return make_llms(tmp_path_factory.mktemp("llms"))


# --- the numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4, -1, -3, -5])
def test_a_layer_is_transformers_hidden_state_averaged_over_the_prompt(tmp_path, llms, kind, layer):
    vectors = build(tmp_path / "v.safetensors", llms[kind], layer=layer)
    for prompt in PROMPTS:
        expected = plain_vector(llms[kind], prompt, layer)
        np.testing.assert_allclose(vectors[prompt], expected, atol=1e-5, rtol=0)
        assert np.abs(expected).max() > 0.05, "the comparison must be of numbers that could differ"
    assert (vectors.source.layer, vectors.source.layers, vectors.width) == (layer % 5, LAYERS, WIDTH)


@pytest.mark.parametrize("special", ["skip", "include"])
def test_the_start_token_counts_only_when_asked_for(tmp_path, llms, special):
    vectors = build(tmp_path / "v.safetensors", llms["llama"], [*PROMPTS, ""], 2, special_tokens=special)
    for prompt in [*PROMPTS, ""]:
        expected = plain_vector(llms["llama"], prompt, 2, special)
        np.testing.assert_allclose(vectors[prompt], expected, atol=1e-5, rtol=0)
    assert vectors.source.special_tokens == special


@pytest.mark.parametrize("options", [{"max_batch": 1}, {"batch_tokens": 40}, {"batch_tokens": 1}])
def test_the_batch_changes_no_vector(tmp_path, llms, options):
    together = build(tmp_path / "a.safetensors", llms["llama"], layer=3)
    apart = build(tmp_path / "b.safetensors", llms["llama"], layer=3, **options)
    for prompt in PROMPTS:
        np.testing.assert_allclose(together[prompt], apart[prompt], atol=1e-5, rtol=0)


def test_the_tokenizers_own_padding_side_does_not_matter(tmp_path, llms):
    from transformers import AutoTokenizer

    folder = make_tiny_llm(tmp_path / "gpt2", LAYERS, WIDTH, "gpt2")
    AutoTokenizer.from_pretrained(folder, padding_side="left", truncation_side="left").save_pretrained(folder)
    ours = build(tmp_path / "a.safetensors", folder, layer=2, max_tokens=20)
    theirs = build(tmp_path / "b.safetensors", llms["gpt2"], layer=2, max_tokens=20)
    for prompt in PROMPTS:
        np.testing.assert_allclose(ours[prompt], theirs[prompt], atol=1e-6)


SHAPE = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6}
SHAPE |= {"vocab_size": 300, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 0}
ODD = {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "eos_token_id": 0}


@pytest.mark.parametrize("kind", [*sorted(SHORTENABLE), "opt", "falcon", "bloom"])
def test_many_architectures_shortened_or_not(tmp_path, llms, kind):
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    extra = {
        "opt": {"word_embed_proj_dim": 64, "ffn_dim": 64},
        "falcon": {},
        "bloom": {"n_head": 4, "n_layer": 6},
    }
    shape = {**SHAPE, **extra.get(kind, ODD)}
    config = AutoConfig.for_model(kind, **shape)
    torch.manual_seed(0)
    whole = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in whole.parameters():  # a fresh model's blocks change next to nothing
            parameter.add_(torch.randn_like(parameter) * 0.1)
    whole.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llms["gpt2"]).save_pretrained(tmp_path)
    info = find_model(tmp_path)
    prompts = PromptTokenizer(info, "skip", 64)(["a dog in the sun", "two"])
    ids = torch.tensor([prompts[0].ids])
    with torch.no_grad():
        hidden = whole(input_ids=ids, output_hidden_states=True).hidden_states
    for layer in (0, 1, 3, 6):
        llm = LanguageModel(info, layer, torch.float32, torch.device("cpu"))
        expected = hidden[layer][0].mean(0)
        torch.testing.assert_close(llm.encode(prompts)[0], expected, atol=1e-5, rtol=1e-5)
        assert len(find_blocks(llm._model, max(layer, 1))) == max(layer, 1), "later blocks are in memory"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_no_block_beyond_the_layer_runs(tmp_path, llms, kind, layer):
    ran = []

    def count(module, inputs):
        if type(module).__name__ in ("LlamaDecoderLayer", "GPT2Block"):
            ran.append(module)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        build(tmp_path / "v.safetensors", llms[kind], layer=layer, max_batch=len(PROMPTS))
    finally:
        hook.remove()
    assert len(ran) == len(set(ran)) == layer


def test_layer_0_runs_no_block(tmp_path, llms, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    monkeypatch.setattr(LlamaDecoderLayer, "forward", lambda *_, **__: pytest.fail("a block ran"))
    vectors = build(tmp_path / "v.safetensors", llms["llama"], layer=0)
    monkeypatch.undo()
    np.testing.assert_allclose(vectors["keys"], plain_vector(llms["llama"], "keys", 0), atol=1e-6)


@pytest.mark.parametrize(("store", "tolerance"), [("fp16", 2e-3), ("fp32", 1e-6)])
def test_half_precision_in_the_file_is_close(tmp_path, llms, store, tolerance):
    vectors = build(tmp_path / "v.safetensors", llms["qwen2"], store_dtype=store)
    assert vectors["a cat"].dtype == np.float32
    np.testing.assert_allclose(vectors["a cat"], plain_vector(llms["qwen2"], "a cat", -1), atol=tolerance)


def test_bf16_computes_about_the_same(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["llama"], layer=2, dtype="bf16")
    expected = plain_vector(llms["llama"], "a cat", 2)
    assert 1e-6 < np.abs(vectors["a cat"] - expected).max() < 0.1


def test_auto_is_float32_on_the_cpu():
    assert choose_dtype("auto", torch.device("cpu")) == "fp32" and choose_device("cpu").type == "cpu"
    assert "cannot be used" in refusal(choose_device, "cuda:99")


# --- memory -----------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch(tmp_path, llms, monkeypatch, caplog):
    encode, failed = LanguageModel.encode, []

    def small(self, batch):
        if len(batch) * max(len(tokens.ids) for tokens in batch) > 170:
            failed.append(len(batch))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return encode(self, batch)

    monkeypatch.setattr(LanguageModel, "encode", small)
    with caplog.at_level(logging.WARNING):
        vectors = build(tmp_path / "v.safetensors", llms["llama"])
    assert failed == [7, 3] and "out of memory with 7 prompts of 76 tokens; going on with 3" in caplog.text
    for prompt in PROMPTS:
        np.testing.assert_allclose(vectors[prompt], plain_vector(llms["llama"], prompt, -1), atol=1e-5)


def test_out_of_memory_with_one_prompt_says_what_to_lower(tmp_path, llms, monkeypatch):
    def never(self, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LanguageModel, "encode", never)
    message = refusal(build, tmp_path / "v.safetensors", llms["llama"])
    assert "not even one prompt" in message and "max_tokens" in message and "4-bit" in message


# --- models, prompts and settings that cannot be ----------------------------------------------------------


@pytest.mark.parametrize("layer", [5, -6, 40])
def test_a_layer_that_is_not_there(tmp_path, llms, layer):
    message = refusal(build, tmp_path / "v.safetensors", llms["llama"], layer=layer)
    assert f"no layer {layer}" in message and "4 layers" in message and not list(tmp_path.iterdir())


def changed_llm(folder, change):
    """A Llama whose embeddings were changed."""
    from safetensors.torch import load_file

    make_tiny_llm(folder, LAYERS, WIDTH)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3] = float("nan")

    folder = changed_llm(tmp_path / "llm", spoil)
    message = refusal(build, tmp_path / "v.safetensors", folder, ["a cat"], 2)
    assert all(word in message for word in ("'a cat'", "layer 2", "in fp32", "NaN", "bf16"))
    assert not (tmp_path / "v.safetensors").exists()
    assert len(build(tmp_path / "u.safetensors", folder, ["a cat"], 1)) == 1, "the layer before is sound"


def test_numbers_too_large_for_the_file_are_refused(tmp_path):
    folder = changed_llm(tmp_path / "llm", lambda tensors: tensors["model.embed_tokens.weight"].mul_(1e6))
    message = refusal(build, tmp_path / "v.safetensors", folder, ["a cat"], 1, store_dtype="fp16")
    assert all(word in message for word in ("'a cat'", "65504", "store fp32"))
    assert np.isfinite(build(tmp_path / "w.safetensors", folder, ["a cat"], 1)["a cat"]).all()


def test_missing_weights_are_not_made_up(tmp_path):
    folder = changed_llm(tmp_path / "llm", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "1 weights are missing" in refusal(build, tmp_path / "v.safetensors", folder)


@pytest.mark.parametrize("model", ["/no/such/folder", Path("no/such/folder")])
def test_a_missing_folder(tmp_path, model):
    assert "no such folder" in refusal(build, tmp_path / "v.safetensors", model)


def test_a_hub_model_that_is_not_here(tmp_path):
    message = refusal(build, tmp_path / "v.safetensors", "nobody/no-such-model", local_files_only=True)
    assert "nobody/no-such-model" in message and "internet" in message and "folder" in message


def test_folders_that_are_no_language_model(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "found no config.json" in refusal(build, tmp_path / "v.safetensors", tmp_path / "empty")
    (tmp_path / "empty/model_index.json").write_text("{}")
    assert "an image model's folder" in refusal(build, tmp_path / "v.safetensors", tmp_path / "empty")
    (tmp_path / "own").mkdir()
    own = '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}'
    (tmp_path / "own/config.json").write_text(own)
    (tmp_path / "own/own.py").write_text("raise SystemExit('code of the model ran')")
    message = refusal(build, tmp_path / "v.safetensors", tmp_path / "own")
    assert "never run here" in message and "trust_remote_code" not in message
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/config.json").write_text('{"model_type": "t5"}')
    assert "decoder-only" in refusal(build, tmp_path / "v.safetensors", tmp_path / "t5")
    (tmp_path / "llm.gguf").write_bytes(b"GGUF")
    assert "found a file" in refusal(build, tmp_path / "v.safetensors", tmp_path / "llm.gguf")


def test_a_model_without_tokenizer(tmp_path):
    folder = make_tiny_llm(tmp_path / "llm", LAYERS, WIDTH)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refusal(build, tmp_path / "v.safetensors", folder)


@pytest.mark.parametrize(
    ("prompts", "word"),
    [([], "no prompts"), (["a", 3], "found 3"), (["a", ["b"]], "text"), (["\ud800"], "ud800")],
)
def test_prompts_that_are_none(tmp_path, llms, prompts, word):
    assert word in refusal(build, tmp_path / "v.safetensors", llms["llama"], prompts)


def test_a_prompt_without_tokens_has_no_vector(tmp_path, llms):
    assert "''" in refusal(build, tmp_path / "v.safetensors", llms["gpt2"], ["a", ""])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dtype": "fp8"}, "dtype must be one of"),
        ({"special_tokens": "maybe"}, "special_tokens must"),
        ({"store_dtype": "bf16"}, "store_dtype must"),
        ({"quantize": "2bit"}, "quantize must"),
        ({"quantize": "4bit"}, "bitsandbytes" if not knowledge_build.torch.cuda.is_available() else "4bit"),
        ({"max_tokens": 1}, "leaves no room"),
        ({"batch_tokens": 0}, "at least 1"),
        ({"device": "gpu"}, "'gpu'"),
    ],
)
def test_settings_that_cannot_be(tmp_path, llms, options, word):
    assert word in refusal(build, tmp_path / "v.safetensors", llms["llama"], **options)
    assert not (tmp_path / "v.safetensors").exists()
