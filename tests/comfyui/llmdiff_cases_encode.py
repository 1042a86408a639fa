"""Prompts: encoded, remembered, carried, saved and loaded."""

import shutil
from contextlib import contextmanager

import torch
from llmdiff_comfy import NODES, core, draw, memory, module
from llmdiff_scene import DROP, FOLDER, GPT, LLM, LONG, OTHER, apply, clip, encode, llm, load

import nodes as comfyui

Prompts = module("nodes.llmdiff_prompts")


def prompt_of(conditioning, adapter=DROP):
    return conditioning[0][1]["llmdiff"][adapter.adapter.encoding_id]


def case_an_encoding_is_the_librarys():
    opened = module("sur_core.llmdiff.llm").open_llm(FOLDER / "llm" / LLM, "fp32", "cpu", 64)
    encoder = module("sur_core.llmdiff.encoder").BlockwiseEncoder(opened)
    (expected,) = core.encode_prompts(encoder, DROP.adapter, [LONG])
    found = prompt_of(encode(LONG))
    assert torch.equal(found.tokens, expected.tokens) and found.prompt == LONG
    assert (found.encoding_id, found.llm_name) == (expected.encoding_id, expected.llm_name)


def case_the_language_model_is_read_for_the_first_new_prompt_and_not_before():
    Prompts._remembered.clear()
    handle = llm()
    assert not handle.is_open
    first = prompt_of(encode("one", language_model=handle))
    assert handle.is_open
    again = llm()
    assert prompt_of(encode("one", language_model=again)) is first and not again.is_open
    encode("two", language_model=again)
    assert again.is_open
    other = llm()
    encode("one", load("keep.safetensors"), language_model=other)
    assert other.is_open, "another adapter sums the blocks with other weights"


def case_remembered_prompts_are_bounded():
    Prompts._remembered.clear()
    handle, limit = llm(), Prompts.REMEMBERED
    Prompts.REMEMBERED = 3
    try:
        for text in ("a", "b", "a", "c", "d"):
            encode(text, language_model=handle)
        assert [key[-1] for key in Prompts._remembered] == ["a", "c", "d"]
    finally:
        Prompts.REMEMBERED = limit


def case_the_language_model_follows_the_memory_management():
    handle = llm()
    expected = prompt_of(encode("to be encoded twice", language_model=handle)).tokens
    (patcher,) = [other for other in memory.loaded_models() if other is handle._patcher]
    assert patcher.loaded_size() == patcher.model_size() > 0
    assert patcher.partially_unload(torch.device("cpu"), 1) == 0, "never in part"
    memory.unload_all_models()
    assert handle._patcher not in memory.loaded_models()
    Prompts._remembered.clear()
    assert torch.equal(prompt_of(encode("to be encoded twice", language_model=handle)).tokens, expected)
    assert handle._patcher in memory.loaded_models()


@contextmanager
def devices(text_encoders, pictures):
    """A machine on which ComfyUI has chosen these devices; nothing is moved to them here."""
    real = memory.text_encoder_device, memory.get_torch_device
    memory.text_encoder_device, memory.get_torch_device = lambda: text_encoders, lambda: pictures
    try:
        yield
    finally:
        memory.text_encoder_device, memory.get_torch_device = real


def case_the_device_of_a_language_model():
    """With --lowvram, ComfyUI has text encoders on the CPU; the user can choose otherwise."""
    cpu, gpu = torch.device("cpu"), torch.device("meta")
    for text_encoders in (cpu, gpu):
        with devices(text_encoders, gpu):
            chosen = {name: llm(device=name, dtype="auto") for name in ("auto", "gpu", "cpu")}
            assert {name: one.key[-1] for name, one in chosen.items()} == {
                "auto": text_encoders.type,
                "gpu": gpu.type,
                "cpu": "cpu",
            }
            assert chosen["cpu"].dtype == "fp32" and chosen["gpu"].dtype == "fp16"
    text = "on whichever device"
    same = [
        prompt_of(encode(text, language_model=llm(device=name))).tokens for name in ("auto", "gpu", "cpu")
    ]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def case_types_of_numbers():
    exact = prompt_of(encode(LONG, language_model=llm(dtype="fp32"))).tokens
    for dtype, share in (("auto", 1e-6), ("bf16", 0.1), ("fp16", 0.02)):
        found = prompt_of(encode(LONG, language_model=llm(dtype=dtype))).tokens
        assert found.dtype == torch.float32 and found.device.type == "cpu"
        assert (found - exact).norm() < share * exact.norm(), dtype
    assert llm(dtype="auto").dtype == "fp32", "on a CPU"


def case_an_empty_prompt_is_a_start_token():
    assert len(prompt_of(encode("")).tokens) == 1
    assert len(prompt_of(encode(" ")).tokens) == 2


def case_without_clip_there_are_zeros():
    (tensor, options), *more = encode("x")
    assert not more and tensor.shape == (1, 77, 20) and not tensor.any() and set(options) == {"llmdiff"}
    shape = core.LayerShape(64, 1, 64)
    wide = core.new_llmdiff_adapter(core.LLMDiffConfig(8, 2, 2048, (shape,)))
    ((tensor, options),) = Prompts.with_prompts(None, [], wide)
    assert tensor.shape == (1, 77, 2048) and options["pooled_output"].shape == (1, 1280)


def case_a_conditioning_is_carried_whole_and_not_changed():
    more = ["of another pack"]
    base = [[*clip(0, mask=torch.ones(1, 8, 8), strength=0.7)[0], more], [*clip(1)[0], more]]
    before = [(id(c), id(o), dict(o)) for c, o, _ in base]
    once = encode("x", DROP, base)
    twice = encode("y", OTHER, once)
    assert before == [(id(c), id(o), dict(o)) for c, o, _ in base]
    for (tensor, options, rest), old, first in zip(twice, base, once, strict=True):
        assert tensor is old[0] and rest is more
        kept = {key: value for key, value in options.items() if key != "llmdiff"}
        assert kept.keys() == old[1].keys() and all(kept[key] is old[1][key] for key in kept)
        carried = {id: prompt.prompt for id, prompt in options["llmdiff"].items()}
        assert carried == {DROP.adapter.encoding_id: "x", OTHER.adapter.encoding_id: "y"}
        assert set(first[1]["llmdiff"]) == {DROP.adapter.encoding_id}
    assert prompt_of(encode("z", DROP, twice)).prompt == "z"


def case_nodes_that_mix_conditionings_act_on_clips_part_only():
    """As the help page says: the prompt goes through as it was, and of two it is the one changed."""
    one, two = encode("one", conditioning=clip(0)), encode("two", conditioning=clip(1))
    (averaged,) = comfyui.ConditioningAverage().addWeighted(one, two, 0.5)
    (joined,) = comfyui.ConditioningConcat().concat(one, two)
    (silenced,) = comfyui.ConditioningZeroOut().zero_out(one)
    for found in (averaged, joined, silenced):
        assert prompt_of(found) is prompt_of(one) and not torch.equal(found[0][0], one[0][0])


def save(conditioning, name, overwrite=True):
    return NODES["LLMDiffSaveEncoding"].execute(conditioning, name, overwrite).result[0]


def load_encoding(name, adapter=DROP, conditioning=None):
    return NODES["LLMDiffLoadEncoding"].execute(name, adapter, conditioning).result


def case_a_saved_encoding_without_the_language_model_is_the_live_one():
    live = encode("a dog in a boat", DROP, clip(0))
    path = save(live, "mine/dog")
    assert path == str(FOLDER / "llmdiff_encodings" / "mine" / "dog.safetensors")
    shutil.move(FOLDER / "llm", FOLDER / "moved")
    try:
        loaded, text = load_encoding("mine/dog.safetensors", conditioning=clip(0))
    finally:
        shutil.move(FOLDER / "moved", FOLDER / "llm")
    assert text == "a dog in a boat"
    assert torch.equal(prompt_of(loaded).tokens, prompt_of(live).tokens)
    assert torch.equal(draw(apply(), loaded), draw(apply(), live))


def case_a_prompt_for_two_adapters_is_saved_whole():
    both = encode("two", OTHER, encode("two", DROP, clip(0)))
    save(both, "both")
    loaded, text = load_encoding("both.safetensors", OTHER, clip(0))
    assert text == "two"
    stacked = apply(apply(), OTHER)
    assert torch.equal(draw(stacked, loaded), draw(stacked, both))


def case_one_prompt_on_several_entries_is_saved_once():
    entry = encode("three", DROP, clip(0) + clip(1))
    save(entry, "entries")
    assert len(core.load_encodings(FOLDER / "llmdiff_encodings" / "entries.safetensors")) == 1


def case_the_list_of_language_models():
    files = module("nodes.llmdiff_files")
    assert files.list_llms() == [LLM, GPT]
    (FOLDER / "llm" / "notes").mkdir(exist_ok=True)
    (FOLDER / "LLM" / "capital").mkdir(parents=True, exist_ok=True)
    (FOLDER / "LLM" / "capital" / "config.json").write_text("{}")
    try:
        assert files.list_llms() == ["capital", LLM, GPT]
        assert files.llm_path("capital") == FOLDER / "LLM" / "capital"
    finally:
        shutil.rmtree(FOLDER / "LLM")
    shutil.move(FOLDER / "llm", FOLDER / "moved")
    try:
        assert files.list_llms() == [files.NO_LLM]
    finally:
        shutil.move(FOLDER / "moved", FOLDER / "llm")


def case_what_other_packs_said_of_their_folder_stays():
    import folder_paths

    known = folder_paths.folder_names_and_paths
    before = known["llm"]
    known["llm"] = (["/of/another/pack"], {".gguf"})
    try:
        module("nodes.llmdiff_files").register_folders()
        paths, endings = known["llm"]
        assert paths == ["/of/another/pack", str(FOLDER / "llm")] and endings == {".gguf"}
    finally:
        known["llm"] = before


def case_a_fingerprint_changes_with_the_files():
    node, values = NODES["LLMDiffLoadLLM"], ("auto", "auto", 256)
    before = node.fingerprint_inputs(LLM, *values)
    assert before == node.fingerprint_inputs(LLM, *values) and before != node.fingerprint_inputs(GPT, *values)
    extra = FOLDER / "llm" / LLM / "added.txt"
    extra.write_text("x")
    try:
        assert before != node.fingerprint_inputs(LLM, *values)
    finally:
        extra.unlink()
    assert node.fingerprint_inputs("gone", *values) and node.fingerprint_inputs(None, *values) is None
    for name in ("LLMDiffLoadAdapter", "LLMDiffLoadEncoding"):
        assert NODES[name].fingerprint_inputs(None) is None
        assert NODES[name].fingerprint_inputs("gone.safetensors") == "gone.safetensors"
