"""Knowledge vectors: what transformers itself computes, found by prompt, safe to stop and to start again."""

import functools
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sur_core import knowledge_build
from sur_core.knowledge import KnowledgeError, build_knowledge, import_authors_vectors, open_knowledge
from sur_core.language_model import (
    SHORTENABLE,
    LanguageModel,
    PromptTokenizer,
    choose_device,
    choose_dtype,
    find_blocks,
)
from sur_core.language_model_files import find_model
from sur_core.row_store import Field, RowFile
from tests.tiny_models import make_tiny_llm
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
LAYERS, WIDTH = 4, 48
PROMPTS = [
    "a cat",
    "three red balls on the table, in the style of a very old and detailed photo",
    "ü",
    "a dog and a horse near a tree",
    "__metadata__",
    "keys",
    "a <s> b",
]


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llms")
    return {kind: make_tiny_llm(folder / kind, LAYERS, WIDTH, kind) for kind in ("llama", "gpt2", "qwen2")}


@functools.cache
def plain_model(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


def plain_vector(folder: Path, prompt: str, layer: int, special: str = "skip") -> np.ndarray:
    """The prompt alone through the whole model, as transformers' users would do it."""
    tokenizer, model = plain_model(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
    has_start = folder.name == "llama"
    return hidden[has_start and special == "skip" and len(hidden) > 1 :].mean(0).numpy()


def build(path, llm, prompts=PROMPTS, layer=-1, **options):
    options = {"device": "cpu", "store_dtype": "fp32", **options}
    return build_knowledge(prompts, path, llm, layer, **options)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises((KnowledgeError, OSError)) as caught:
        call(*arguments, **options)
    return str(caught.value)


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


# --- the file ---------------------------------------------------------------------------------------------


def test_prompts_are_found_whatever_they_say(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["llama"], [*PROMPTS, *PROMPTS[::-1], "keys "])
    assert len(vectors) == len(PROMPTS) + 1 and set(vectors.prompts()) == {*PROMPTS, "keys "}
    rows = vectors.find(iter([*PROMPTS, "nowhere", "A cat"]))
    assert rows.dtype == np.int64 and sorted(rows)[:2] == [-1, -1] and len(set(rows)) == len(PROMPTS) + 1
    for prompt, row in zip(PROMPTS, rows, strict=False):
        assert np.array_equal(vectors.read(int(row)), vectors[prompt])
        assert list(vectors.prompts())[row] == prompt
    assert "keys" in vectors and "nowhere" not in vectors
    message = refusal(vectors.__getitem__, "nowhere")
    assert "'nowhere'" in message and "v.safetensors" in message and "train vectors" in message
    assert vectors.find([]).tolist() == []


def test_it_is_a_safetensors_file_that_says_where_it_is_from(tmp_path, llms):
    build(tmp_path / "v.safetensors", llms["llama"], layer=2)
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        assert file.get_tensor("vectors").shape == (len(PROMPTS), WIDTH)
        metadata = file.metadata()
    said = {name.removeprefix("sur.vectors."): value for name, value in metadata.items()}
    assert (said["llm"], said["layer"], said["layers"], said["width"]) == ("llama", "2", "4", "48")
    assert (said["special_tokens"], said["compute_dtype"], said["dtype"]) == ("skip", "fp32", "fp32")


def test_the_fingerprint_follows_prompts_and_settings(tmp_path, llms):
    first = build(tmp_path / "a.safetensors", llms["llama"])
    assert open_knowledge(tmp_path / "a.safetensors").fingerprint == first.fingerprint
    others = [
        build(tmp_path / "b.safetensors", llms["llama"], PROMPTS[:-1]),
        build(tmp_path / "c.safetensors", llms["llama"], layer=1),
        build(tmp_path / "d.safetensors", llms["gpt2"]),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_long_prompts_are_cut_and_counted(tmp_path, llms, caplog):
    long = [f"{prompt} " + "tree " * 30 for prompt in PROMPTS[:2]]
    with caplog.at_level(logging.WARNING):
        vectors = build(tmp_path / "v.safetensors", llms["llama"], [*PROMPTS, *long], 2, max_tokens=100)
    assert "2 of 9 prompts are longer than 100 tokens and were cut" in caplog.text
    assert vectors.count_cut() == 2
    # One token a byte, and the start token: 99 bytes are left.
    expected = plain_vector(llms["llama"], long[0][:99], 2)
    np.testing.assert_allclose(vectors[long[0]], expected, atol=1e-5)


def test_no_prompt_is_longer_than_the_model_can_read(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["gpt2"], ["x" * 2000], max_tokens=5000)
    assert vectors.max_tokens == 512 and vectors.count_cut() == 1


# --- stopping and going on --------------------------------------------------------------------------------


class Progress:
    """Notes the calls; raises at the n-th."""

    def __init__(self, stop_at: int | None = None):
        self.calls, self._stop_at = [], stop_at

    def __call__(self, done, total):
        self.calls.append((done, total))
        if len(self.calls) == self._stop_at:
            raise KeyboardInterrupt


def test_the_same_call_goes_on_where_it_stopped(tmp_path, llms, monkeypatch):
    monkeypatch.setattr(knowledge_build, "FLUSH_SECONDS", 0.0)
    path = tmp_path / "v.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build(path, llms["llama"], max_batch=2, progress=Progress(stop_at=3))
    assert not path.exists()
    progress = Progress()
    vectors = build(path, llms["llama"], reversed(PROMPTS), max_batch=2, progress=progress)
    assert progress.calls[0] == (4, 7) and progress.calls[-1] == (7, 7)
    for prompt in PROMPTS:
        np.testing.assert_allclose(vectors[prompt], plain_vector(llms["llama"], prompt, -1), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]


KILLED = """
import sys
from sur_core import knowledge_build
knowledge_build.FLUSH_SECONDS = 0
prompts = [f"prompt number {number}" for number in range(600)]
knowledge_build.build_knowledge(
    prompts, sys.argv[1], sys.argv[2], 2, device="cpu", max_batch=1,
    progress=lambda done, total: print(done, flush=True)
)
"""


def test_sigkill_costs_what_was_not_flushed(tmp_path, llms):
    path = tmp_path / "v.safetensors"
    command = [sys.executable, "-c", KILLED, path, llms["llama"]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        told = [int(child.stdout.readline()) for _ in range(40)]
        child.kill()
    assert not path.exists()
    prompts, progress = [f"prompt number {number}" for number in range(600)], Progress()
    vectors = build(path, llms["llama"], prompts, 2, store_dtype="fp16", progress=progress)
    assert 600 > progress.calls[0][0] >= told[-1] > 20, "what was flushed is computed again"
    whole = build(tmp_path / "w.safetensors", llms["llama"], prompts, 2, store_dtype="fp16")
    for prompt in prompts[::7]:
        np.testing.assert_allclose(vectors[prompt], whole[prompt], atol=1e-2)


def test_a_finished_file_is_left_alone(tmp_path, llms):
    path = tmp_path / "v.safetensors"
    build(path, llms["llama"])
    before = path.stat()
    vectors = build(path, llms["llama"], PROMPTS[::2], progress=lambda *_: pytest.fail("worked"))
    assert len(vectors) == len(PROMPTS)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_new_prompts_are_added_and_old_vectors_kept(tmp_path, llms):
    path, progress = tmp_path / "v.safetensors", Progress()
    old = build(path, llms["llama"], PROMPTS[:3])
    kept = {prompt: old[prompt] for prompt in PROMPTS[:3]}
    vectors = build(path, llms["llama"], PROMPTS[2:], progress=progress)
    assert progress.calls[0] == (3, 7), "old ones are copied"
    assert len(vectors) == 7 and all(np.array_equal(vectors[prompt], kept[prompt]) for prompt in kept)
    np.testing.assert_allclose(vectors["keys"], plain_vector(llms["llama"], "keys", -1), atol=1e-5)


def test_a_data_set_changed_half_way_loses_no_work(tmp_path, llms, monkeypatch):
    monkeypatch.setattr(knowledge_build, "FLUSH_SECONDS", 0.0)
    path, progress = tmp_path / "v.safetensors", Progress()
    with pytest.raises(KeyboardInterrupt):
        build(path, llms["llama"], max_batch=1, progress=Progress(stop_at=5))
    vectors = build(path, llms["llama"], [*PROMPTS, "one more"], progress=progress)
    assert progress.calls[0] == (4, 8) and len(vectors) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layer": 1}, "layer '4', now '1'"),
        ({"special_tokens": "include"}, "special_tokens"),
        ({"store_dtype": "fp16"}, "dtype"),
        ({"dtype": "bf16"}, "compute_dtype"),
        ({"max_tokens": 9}, "max_tokens"),
    ],
)
def test_other_settings_are_refused_until_restarted(tmp_path, llms, finished, options, word):
    path = tmp_path / "v.safetensors"
    if finished:
        build(path, llms["llama"])
    else:
        with pytest.raises(KeyboardInterrupt):
            build(path, llms["llama"], progress=Progress(stop_at=1))
    message = refusal(build, path, llms["llama"], **options)
    assert word in message and "--restart" in message and str(tmp_path) in message
    assert len(build(path, llms["llama"], restart=True, **options)) == len(PROMPTS)


@pytest.mark.parametrize("change", ["weights", "tokenizer"])
def test_another_model_under_the_same_name_is_noticed(tmp_path, change):
    folder = make_tiny_llm(tmp_path / "llm", LAYERS, WIDTH)
    build(tmp_path / "v.safetensors", folder)
    (folder / "new").mkdir()
    if change == "weights":
        make_tiny_llm(folder, LAYERS, WIDTH, seed=1)
    else:
        (folder / "tokenizer_config.json").write_bytes(b" " + (folder / "tokenizer_config.json").read_bytes())
    assert "model" in refusal(build, tmp_path / "v.safetensors", folder)


def test_a_moved_model_is_the_same(tmp_path):
    build(tmp_path / "v.safetensors", make_tiny_llm(tmp_path / "one", LAYERS, WIDTH))
    moved = (tmp_path / "one").rename(tmp_path / "two")
    build(tmp_path / "v.safetensors", moved, progress=lambda *_: pytest.fail("worked"))


def test_names_alike_are_not_mixed_up(tmp_path, llms):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a.b[1].safetensors", llms["llama"], progress=Progress(stop_at=1))
    (left,) = tmp_path.iterdir()
    build(tmp_path / "a.safetensors", llms["gpt2"])
    build(tmp_path / "a.b1.safetensors", llms["gpt2"])
    assert left.exists()


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


# --- bad input --------------------------------------------------------------------------------------------


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
    assert "could not read its configuration" in refusal(
        build, tmp_path / "v.safetensors", tmp_path / "empty"
    )
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


def test_the_name_must_say_safetensors(tmp_path, llms):
    assert ".safetensors" in refusal(build, tmp_path / "v.pt", llms["llama"])


@pytest.mark.parametrize("part", [3, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path, llms, part):
    build(tmp_path / "v.safetensors", llms["llama"])
    whole = (tmp_path / "v.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(part * len(whole)) if part < 1 else part])
    assert "cut.safetensors" in refusal(open_knowledge, cut)


def test_files_that_are_no_knowledge_vectors(tmp_path, llms):
    assert "no such file" in refusal(open_knowledge, tmp_path / "gone.safetensors")
    assert "found a folder" in refusal(open_knowledge, tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "not one of rows" in refusal(open_knowledge, tmp_path / "lora.safetensors")
    RowFile.create(tmp_path / "rows.safetensors", 1, {"v": Field("F32", (2,))}).close()
    assert "not knowledge vectors" in refusal(open_knowledge, tmp_path / "rows.safetensors")
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "v.safetensors", llms["llama"], progress=Progress(stop_at=1))
    (partial,) = tmp_path.glob("v.*.partial.safetensors")
    assert "unfinished, 0 of 7" in refusal(open_knowledge, partial)


@pytest.mark.parametrize(
    ("metadata", "word"),
    [({"format_version": "2"}, "update"), ({"width": "47"}, "47 features"), ({"layer": "two"}, "two")],
)
def test_a_false_description_is_refused(tmp_path, llms, metadata, word):
    build(tmp_path / "v.safetensors", llms["llama"])
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = file.metadata() | {f"sur.vectors.{name}": value for name, value in metadata.items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata=said)
    assert word in refusal(open_knowledge, tmp_path / "w.safetensors")


def test_a_damaged_vector_is_named_when_read(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["llama"])
    row = int(vectors.find(["keys"])[0])
    vectors.close()
    with RowFile.open(tmp_path / "v.safetensors", writable=True) as file:
        file._write(file._offsets["vectors"] + row * WIDTH * 4, np.float32("nan").tobytes())
    message = refusal(open_knowledge(tmp_path / "v.safetensors").read, row)
    assert "'keys'" in message and "v.safetensors" in message


# --- the authors' files -----------------------------------------------------------------------------------


def authors_file(path, **changes) -> Path:
    generator = torch.Generator().manual_seed(0)
    content = {prompt: torch.randn(20, generator=generator) for prompt in PROMPTS}
    torch.save({**content, **changes}, path)
    return path


def test_the_authors_vectors_are_imported(tmp_path):
    source = authors_file(tmp_path / "39.pt", wide=torch.ones(1, 20), half=torch.ones(20).half())
    vectors = import_authors_vectors(source, tmp_path / "v.safetensors", "llama-13b", store_dtype="fp32")
    assert (vectors.source.llm, vectors.source.layer, vectors.width) == ("llama-13b", 40, 20)
    for prompt, vector in torch.load(source, weights_only=True).items():
        assert np.array_equal(vectors[prompt], vector.float().reshape(20).numpy())
    assert "already there" in refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (torch.ones(19), ("'bad'", "20 numbers", "(19,)")),
        (torch.ones(2, 20), ("'bad'", "(2, 20)")),
        (torch.ones(2, 10), ("'bad'", "(2, 10)")),
        (torch.ones(0), ("'bad'", "(0,)")),
        (torch.tensor(1.0), ("'bad'", "()")),
        (torch.ones(20, dtype=torch.int64), ("'bad'",)),
        (torch.eye(20).to_sparse(), ("'bad'",)),
        (torch.empty(20, device="meta"), ("'bad'",)),
        ("text", ("'bad'", "'text'")),
        (torch.full((20,), float("nan")), ("'bad'", "NaN")),
        (torch.full((20,), 1e6), ("'bad'", "65504")),
    ],
)
def test_bad_entries_of_the_authors_file_are_named(tmp_path, vector, words):
    source = authors_file(tmp_path / "39.pt", bad=vector)
    message = refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert all(word in message for word in (*words, "39.pt"))
    assert [file.name for file in tmp_path.iterdir()] == ["39.pt"], "something was left behind"


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    marker = str(tmp_path / "it_ran")
    source = authors_file(tmp_path / "39.pt", bad=RunsCode(marker))
    message = refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert "refused" in message and "weights_only" not in message and not os.path.exists(marker)
    torch.load(source, weights_only=False)
    assert os.path.exists(marker), "the file must be dangerous, or this test shows nothing"


@pytest.mark.parametrize("content", [b"", b"no pickle", [1, 2], {}])
def test_other_files_are_not_imported(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "39.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "39.pt")
    assert "39.pt" in refusal(import_authors_vectors, tmp_path / "39.pt", tmp_path / "v.safetensors", "x")


def test_a_truncated_authors_file(tmp_path):
    whole = authors_file(tmp_path / "39.pt").read_bytes()
    (tmp_path / "38.pt").write_bytes(whole[: len(whole) // 2])
    assert "38.pt" in refusal(import_authors_vectors, tmp_path / "38.pt", tmp_path / "v.safetensors", "x")


def test_the_layer_must_be_known(tmp_path):
    source = authors_file(tmp_path / "vectors.pt")
    assert "which layer" in refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert import_authors_vectors(source, tmp_path / "v.safetensors", "x", 7).source.layer == 7


def test_the_authors_file_itself_is_not_opened_but_explained(tmp_path):
    for name in ("39.pt", "39.safetensors"):
        message = refusal(open_knowledge, authors_file(tmp_path / name))
        assert "--import-authors" in message and name in message


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "pairs.csv"
    rows = [f'"{prompt.replace(chr(34), "")}","a detailed {number}"' for number, prompt in enumerate(PROMPTS)]
    path.write_text("\n".join(["simple,complex", *rows, *rows[:1]]) + "\n", encoding="utf-8")
    return path


def command(data, target, *options) -> list[str]:
    return ["vectors", str(data), str(target), *map(str, options)]


def test_the_command_plans_computes_and_sums_up(tmp_path, llms, data, capsys):
    target = tmp_path / "v.safetensors"
    arguments = command(
        data, target, "--llm", llms["llama"], "--layer", 2, "--device", "cpu", "--store", "fp32"
    )
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "7 of them different" in shown and "layer 2 of 4, 48 wide, fp32 on cpu" in shown
    assert "computed 7" in shown and "7 vectors of llama" in shown
    expected = plain_vector(llms["llama"], "a cat", 2)
    np.testing.assert_allclose(open_knowledge(target)["a cat"], expected, atol=1e-5)
    assert main(arguments) == 0 and "computed 0" in capsys.readouterr().out
    assert main([*arguments, "--special-tokens", "include"]) == 1
    assert "--restart" in capsys.readouterr().err


def test_the_command_imports(tmp_path, data, capsys):
    source = authors_file(tmp_path / "39.pt")
    data.write_text(data.read_text(encoding="utf-8") + "new one,detailed\n", encoding="utf-8")
    target = tmp_path / "v.safetensors"
    assert main(command(data, target, "--llm", "llama-13b", "--import-authors", source)) == 0
    shown = capsys.readouterr().out
    assert "layer 40" in shown and "1 prompts of the data set have no vector, such as 'new one'" in shown
    assert main(command(data, target, "--llm", "x", "--import-authors", source)) == 1
    assert "already there" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_sigterm_ends_the_command_with_a_sentence(tmp_path, llms):
    data, target = tmp_path / "pairs.csv", tmp_path / "v.safetensors"
    data.write_text("simple,complex\n" + "".join(f"prompt number {n},b {n}\n" for n in range(5000)))
    arguments = command(data, target, "--llm", llms["llama"], "--device", "cpu", "--max-batch", 1)
    with subprocess.Popen(
        [sys.executable, "-m", "train", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        while b"vectors:" not in child.stderr.readline(200):  # the bar has begun
            pass
        child.terminate()
        out, error = child.communicate(timeout=30)
    assert child.returncode == 130 and b"the same command goes on" in out and b"Traceback" not in error
    assert not target.exists()


def test_ctrl_c_ends_the_command_and_it_goes_on(tmp_path, llms, data, monkeypatch, capsys):
    encode = LanguageModel.encode
    arguments = command(data, tmp_path / "v.safetensors", "--llm", llms["llama"], "--device", "cpu")
    monkeypatch.setattr(LanguageModel, "encode", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().out
    monkeypatch.setattr(LanguageModel, "encode", encode)
    assert main(arguments) == 0 and len(open_knowledge(tmp_path / "v.safetensors")) == len(PROMPTS)
