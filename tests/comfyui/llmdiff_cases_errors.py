"""What cannot work is said in words, and as early as it can be known."""

import json
import shutil
import types

import torch
from llmdiff_cases_encode import load_encoding, save
from llmdiff_comfy import NODES, draw, tiny_model
from llmdiff_scene import (
    DROP,
    FOLDER,
    GPT,
    LLM,
    LONG,
    MODEL,
    OTHER,
    apply,
    clip,
    encode,
    llm,
    load,
    words,
    write_adapter,
)


def says(message, *parts):
    assert all(part in message for part in parts), message


def copied(name, without=(), config=None):
    """A copy of the tiny language model that lacks some files or has another config."""
    folder = FOLDER / "llm" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(FOLDER / "llm" / LLM, folder, ignore=shutil.ignore_patterns(*without))
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return name


def refused(name, text="x", adapter=DROP, **options):
    """What Encode says of a language model, which must be known before its weights are read."""
    handle = llm(name, **options)
    try:
        message = words(encode, text, adapter, None, handle)
        assert not handle.is_open
        return message
    finally:
        if name not in (LLM, GPT):
            shutil.rmtree(FOLDER / "llm" / name)


def case_a_missing_folder_or_file():
    says(words(llm, "gone"), "There is no language model 'gone'", str(FOLDER / "llm"), "press R")
    says(words(llm, "none in models/llm"), "No language model has been chosen")
    says(words(llm, "../llm/tiny-gpt2"), "There is no language model")
    says(words(load, "gone.safetensors"), "There is no LLMDiff adapter file", "llmdiff_adapters")
    says(words(load, "none in models/llmdiff_adapters"), "No LLMDiff adapter has been chosen")
    says(words(load_encoding, "gone.safetensors"), "There is no encoding file", "Save LLMDiff Encoding")


def case_another_language_model():
    says(refused(GPT), "drop.safetensors", "reads tiny-llama", "found tiny-gpt2", "Load the language model")


def case_a_missing_tokenizer():
    says(refused(copied("mute", ("token*",)), adapter=for_mute("mute")), "no tokenizer", "tokenizer.json")


def for_mute(name):
    """An adapter that reads a folder of this name."""
    return load(write_adapter("mute.safetensors", MODEL, name))


def case_a_prompt_too_long():
    says(refused(LLM, "a cat " * 12, max_tokens=64), "'a cat a cat", "tokens", "max_tokens is 64")
    says(refused(LLM, "a cat " * 30, max_tokens=4096), "reads at most 96")


def case_no_decoder_only_language_model():
    message = refused(copied("encoder", config={"model_type": "bert", "architectures": ["BertModel"]}))
    says(message, "decoder-only", "bert")


def case_missing_weights():
    name = copied("empty", ("*.safetensors",))
    says(words(encode, "x", for_mute(name), None, llm(name)), "empty", "could not read its weights")
    shutil.rmtree(FOLDER / "llm" / name)


def case_a_model_of_another_family():
    wide = tiny_model(context_dim=24)
    says(words(apply, wide), "drop.safetensors", "20 wide", "24 wide", "family the adapter was trained for")
    says(words(apply, wide, strength=0.0), "24 wide")
    shallow = tiny_model(transformer_depth=[0, 1], transformer_depth_output=[0, 0, 1, 1])
    says(words(apply, shallow), "7 cross-attention layers", "4 cross-attention layers")

    flux = types.SimpleNamespace(
        model=type("Flux", (), {})(), get_model_object=lambda _: torch.nn.Linear(1, 1)
    )
    says(words(apply, flux), "SD 1.x, SD 2.x and SDXL", "Flux")


def case_a_conditioning_of_another_family():
    says(words(encode, "x", DROP, clip(width=768)), "20 wide", "SD 1.x, 768 wide", "drop.safetensors")


def case_numbers_out_of_range():
    says(words(apply, strength=1.5), "strength must be in 0..1")
    says(words(apply, start=0.6, end=0.4), "start_percent")


def case_numbers_too_large_for_half_precision():
    model = tiny_model(MODEL.model.diffusion_model.state_dict(), dtype=torch.float16)
    model.model.manual_cast_dtype = None
    loud = encode("loud", DROP, clip(0))
    prompt = loud[0][1]["llmdiff"][DROP.adapter.encoding_id]
    prompt.tokens.mul_(1e6)
    try:
        says(words(draw, apply(model), loud), "NaN or infinite", "float16", "--fp32-unet")
    finally:
        prompt.tokens.div_(1e6)


def case_an_encoding_for_another_adapter():
    save(encode(LONG, DROP), "for_drop")
    message = words(load_encoding, "for_drop.safetensors", OTHER)
    says(message, "gpt.safetensors", "encoded for another adapter", "tiny-llama", "tiny-gpt2")


def case_what_cannot_be_saved():
    says(words(save, clip(0), "x"), "no prompt of a language model", "Encode Prompt (LLMDiff)")
    several = encode("one", DROP, clip(0)) + encode("two", DROP, clip(0))
    says(words(save, several, "x"), "'one'", "'two'", "before they are combined")
    save(encode("one"), "once")
    says(words(save, encode("one"), "once", False), "already there", "overwrite")
    for name in ("", "../up", "/etc/passwd", "con", "a/../../b"):
        says(words(save, encode("one"), name), "saved encoding", "models/llmdiff_encodings")


def case_foreign_files():
    sur = FOLDER / "sur_adapters" / "sur.safetensors"
    for folder in ("llmdiff_adapters", "llmdiff_encodings"):
        shutil.copy(sur, FOLDER / folder / "foreign.safetensors")
    says(words(load, "foreign.safetensors"), "a SUR adapter, which Load SUR Adapter reads")
    says(words(load_encoding, "foreign.safetensors"), "a file of another kind")


def case_inputs_by_wire():
    for name in ("LLMDiffLoadLLM", "LLMDiffLoadAdapter", "LLMDiffLoadEncoding"):
        assert NODES[name].validate_inputs(None) is True
    says(words(load, 3), "There is no LLMDiff adapter file 3")
    says(words(llm, 3), "There is no language model 3")
