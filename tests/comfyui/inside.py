"""Checks that must look inside ComfyUI's process. Run with ComfyUI's Python by test_inside.py:

    inside.py PACK COMFYUI CHECKPOINTS WORK_FOLDER

loads the pack as ComfyUI does, runs every ``case_*`` below, and prints one JSON object: {case: "" or the
traceback}.
"""

import asyncio
import dataclasses
import gc
import importlib
import json
import os
import shutil
import sys
import traceback
import types
import weakref

pack, comfyui, checkpoints, work = (os.path.abspath(argument) for argument in sys.argv[1:5])
sys.argv[1:] = ["--cpu", "--base-directory", work]
sys.path.insert(0, comfyui)
os.chdir(comfyui)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management as memory  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy import model_sampling, samplers, sd1_clip, sdxl_clip  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.text_encoders import sd3_clip  # noqa: E402

import nodes  # noqa: E402

assert asyncio.run(nodes.load_custom_node(pack)), "the pack did not load"
NODES = {
    name: nodes.NODE_CLASS_MAPPINGS[name] for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("SUR")
}
ours = {
    name: importlib.import_module(f"{NODES['SURLoadAdapter'].__module__.rpartition('.')[0]}.{name}")
    for name in ("common", "model_files", "handle", "entries", "clip_nodes")
}
core = importlib.import_module(f"{NODES['SURLoadAdapter'].__module__.rpartition('.nodes.')[0]}.sur_core")
SHORT, WEIGHTED = "a red cube", "a (red:1.5) cube"

with torch.inference_mode():
    clip_file = os.path.join(checkpoints, "sur_test_sd15.safetensors")
    CLIP = comfy.sd.load_checkpoint_guess_config(clip_file, output_vae=False, output_model=False)[1]


def load(name="ours.safetensors"):
    return NODES["SURLoadAdapter"].execute(name).result[0]


def on_clip(clip, adapter, eta=0.5):
    return NODES["SURApplyCLIP"].execute(clip, adapter, eta).result[0]


def encode(clip, text=SHORT):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def tensor(clip, text=SHORT):
    return encode(clip, text)[0][0]


def case_weights_act_on_adapted_embeddings():
    """ComfyUI's rule for weights, (z - z_empty) * weight + z_empty, with z and z_empty adapted first."""
    adapter = load()
    tokens = CLIP.tokenize(WEIGHTED)["l"][0]
    empty = CLIP.tokenize("")["l"][0]
    raw = CLIP.cond_stage_model.clip_l.encode([[t for t, _ in tokens], [t for t, _ in empty]])[0]
    z, z_empty = core.adapt(adapter.bundle, raw, 0.5)
    weights = torch.tensor([weight for _, weight in tokens])[:, None]
    expected = (z - z_empty) * weights + z_empty
    torch.testing.assert_close(tensor(on_clip(CLIP, adapter), WEIGHTED)[0], expected, rtol=1e-5, atol=1e-5)


def case_the_clip_that_came_in_is_unchanged():
    plain = tensor(CLIP)
    adapted = on_clip(CLIP, load())
    for _ in range(2):
        assert not torch.allclose(tensor(adapted), plain, atol=1e-2)
        assert torch.equal(tensor(CLIP), plain)
    assert not CLIP.patcher.object_patches


def case_clones_stay_adapted_and_share_the_weights():
    adapter = load()
    adapted = on_clip(CLIP, adapter)
    expected = tensor(adapted)
    gc.collect()
    bundles = sum(isinstance(item, core.SURAdapterBundle) for item in gc.get_objects())
    clone = adapted.clone().clone()
    clone.patcher.model_options["something"] = 1
    clone = clone.clone()
    assert torch.equal(tensor(clone), expected)
    gc.collect()
    assert sum(isinstance(item, core.SURAdapterBundle) for item in gc.get_objects()) == bundles


def case_the_adapter_follows_the_memory_management():
    adapter = load()
    memory.unload_all_models()
    assert adapter.patcher not in memory.loaded_models()
    adapted = on_clip(CLIP, adapter)
    expected = tensor(adapted)
    assert adapter.patcher in memory.loaded_models(), "loading the CLIP must load the adapter"
    assert adapter.patcher.loaded_size() == adapter.patcher.model_size() > 50e6
    memory.unload_all_models()
    assert adapter.patcher not in memory.loaded_models() and adapter.patcher.loaded_size() == 0
    assert torch.equal(tensor(adapted), expected)
    assert adapter.patcher in memory.loaded_models()
    memory.unload_all_models()
    conditioning = NODES["SURApplyConditioning"].execute(encode(CLIP), adapter, 0.5, 0.0, 1.0).result[0]
    assert adapter.patcher in memory.loaded_models()
    assert torch.equal(conditioning[0][0], expected)


def case_short_memory_never_splits_an_adapter():
    """ComfyUI's partial loading would leave half of a plain torch module behind."""
    far = torch.device("meta")

    def places(patcher, budget):
        patcher.partially_load(far, extra_memory=budget)
        return {parameter.device.type for parameter in patcher.model.parameters()}

    plain = ModelPatcher(load().bundle, far, torch.device("cpu"))
    assert places(plain, 10e6) == {"cpu", "meta"}, "plain patchers split; else this test shows nothing"
    for budget in (1, 10e6, 1e12):
        whole = ours["handle"].AdapterPatcher(load().bundle, far, torch.device("cpu"))
        assert places(whole, budget) == {"meta"}
        assert whole.loaded_size() == whole.model_size()
        assert whole.partially_unload(torch.device("cpu"), 1) == 0


def case_nothing_is_left_behind():
    adapter = load()
    watched = weakref.ref(adapter.bundle)
    adapted = on_clip(CLIP, adapter)
    tensor(adapted)
    tensor(CLIP)
    del adapted, adapter
    memory.cleanup_models()
    gc.collect()
    memory.cleanup_models_gc()
    memory.cleanup_models()
    gc.collect()
    assert watched() is None, "the adapter's weights outlive every node that used them"


def replaced_token_weights(clip):
    """As prompt-control packs do: replace encode_token_weights of each text encoder by an object patch."""
    clone = clip.clone()
    original = clip.patcher.get_model_object("clip_l.encode_token_weights")

    def own_weights(tokens):
        plain, pooled = original([[(token, 1.0) for token, *_ in chunk] for chunk in tokens])[:2]
        return plain * 0.5, pooled

    clone.patcher.add_object_patch("clip_l.encode_token_weights", own_weights)
    return clone


def case_packs_that_replace_token_weights():
    adapter = load()
    expected = tensor(on_clip(CLIP, adapter)) * 0.5
    assert torch.equal(tensor(replaced_token_weights(on_clip(CLIP, adapter)), WEIGHTED), expected)
    assert torch.equal(tensor(on_clip(replaced_token_weights(CLIP), adapter), WEIGHTED), expected)


def snapshot(conditioning):
    return [(id(entry), id(c), c.clone(), id(o), dict(o)) for entry in conditioning for c, o in [entry]]


def case_no_conditioning_is_mutated():
    adapter, authors = load(), load("authors_adapterw0.1.pt")
    base = encode(CLIP, "a, " * 100)
    decorated = [[base[0][0], {**base[0][1], "area": (8, 8, 0, 0), "mask": torch.ones(1, 8, 8)}], base[0]]
    for eta in (0.0, 0.5, 1.0):
        runs = [
            lambda c, eta=eta: NODES["SURApplyConditioning"].execute(c, adapter, eta, 0.2, 0.6).result[:1],
            lambda c, eta=eta: NODES["SURApplyConditioning"].execute(c, adapter, eta, 0.0, 1.0).result[:1],
            lambda c, eta=eta: NODES["SURApplyPair"].execute(c, c, adapter, eta, eta, False).result,
            lambda c, eta=eta: NODES["SURApplyPair"].execute(c[:1], c[:1], authors, eta, eta, True).result,
            lambda c, eta=eta: NODES["SUREtaSweep"].execute(c, adapter, f"0, {eta}").result[0],
        ]
        for run in runs:
            before = snapshot(decorated)
            for made in run(decorated):
                assert made is not decorated
                for c, o in made:
                    assert all(o is not old for _, old in decorated)
                    o["touched"] = True
                    del c
            for (entry, c, kept, o, options), now in zip(before, decorated, strict=True):
                assert (entry, c, o) == (id(now), id(now[0]), id(now[1]))
                assert torch.equal(kept, now[0]) and options.keys() == now[1].keys()


def complaint(name):
    try:
        load(name)
    except FileNotFoundError as error:
        return str(error)
    raise AssertionError(f"{name} was loaded")


def case_the_dropdown_never_raises():
    files = ours["model_files"]
    folder = folder_paths.get_folder_paths("sur_adapters")[0]
    assert "ours.safetensors" in files.list_adapters()
    shutil.move(folder, folder + "_moved")
    try:
        assert files.list_adapters() == [files.NOTHING_FOUND]
        assert "There is no adapter file 'ours.safetensors'" in complaint("ours.safetensors")
        os.mkdir(folder)
        assert files.list_adapters() == [files.NOTHING_FOUND]
        message = complaint(files.NOTHING_FOUND)
        assert "No adapter has been chosen" in message and folder in message
        os.rmdir(folder)
    finally:
        shutil.move(folder + "_moved", folder)
    assert "ours.safetensors" in files.list_adapters()
    options = NODES["SURLoadAdapter"].INPUT_TYPES()["required"]["adapter_name"][1]["options"]
    assert "ours.safetensors" in options


def refused(model, adapter):
    class Holder:
        cond_stage_model = model

    try:
        on_clip(Holder, adapter, 0.0)
    except core.AdapterMismatchError as error:
        return str(error)
    return ""


def case_text_encoders_of_another_kind_are_refused():
    meta = {"device": "meta", "dtype": torch.float16}
    sd1, sdxl = load(), load("sdxl.safetensors")
    for model, adapter in (
        (sd3_clip.SD3ClipModel(clip_l=True, clip_g=True, t5=False, **meta), sdxl),
        (sd3_clip.SD3ClipModel(clip_l=True, clip_g=False, t5=False, **meta), sd1),
        (sdxl_clip.StableCascadeClipModel(**meta), sdxl),
        (sdxl_clip.SDXLRefinerClipModel(**meta), sd1),
        (sdxl_clip.SDXLClipModel(**meta), sd1),
        (sd1_clip.SD1ClipModel(**meta), sdxl),
    ):
        message = refused(model, adapter)
        assert type(model).__name__ in message and adapter.bundle.source in message, message


def case_the_refiner_takes_the_clip_g_tower():
    adapter = load("sdxl.safetensors")

    class Holder:
        cond_stage_model = sdxl_clip.SDXLRefinerClipModel(device="meta", dtype=torch.float16)

    ours["clip_nodes"].check_encoders(Holder, adapter, ["clip_g"])
    conditioning = [[torch.randn(1, 77, 1280), {}]]
    (after, _), *_ = NODES["SURApplyConditioning"].execute(conditioning, adapter, 0.5, 0.0, 1.0).result[0]
    expected = adapter.bundle.towers["clip_g"](conditioning[0][0]).c_llm * 0.5 + conditioning[0][0] * 0.5
    torch.testing.assert_close(after, expected)


def case_nothing_is_loaded_when_there_is_nothing_to_do():
    conditioning = encode(CLIP)
    memory.unload_all_models()
    adapter = load()
    apply = NODES["SURApplyConditioning"].execute
    for result in (
        apply(conditioning, adapter, 0.0, 0.0, 1.0).result[0],
        apply(conditioning, adapter, 0.5, 0.4, 0.4).result[0],
        NODES["SURApplyPair"].execute(conditioning, conditioning, adapter, 0.0, 0.0, False).result[0],
    ):
        assert len(result) == 1 and torch.equal(result[0][0], conditioning[0][0])
        assert result[0][1].keys() == conditioning[0][1].keys()
    assert not memory.loaded_models()


def case_ranges_of_no_length_and_longer_entries():
    """An entry that is never active stays one entry; what packs append to an entry stays."""
    embeddings, more = encode(CLIP)[0][0], ["of another pack"]
    conditioning = [[embeddings, {"start_percent": 0.5, "end_percent": 0.5}, more], [embeddings, {}, more]]
    result = NODES["SURApplyConditioning"].execute(conditioning, load(), 0.5, 0.5, 1.0).result[0]
    ranges = [(options.get("start_percent"), options.get("end_percent")) for _, options, _ in result]
    assert ranges == [(0.5, 0.5), (0.0, 0.5), (0.5, 1.0)]
    assert all(rest is more for *_, rest in result)
    for made in NODES["SUREtaSweep"].execute(conditioning, load(), "0, 0.5").result[0]:
        assert len(made) == 2 and all(rest is more for *_, rest in made)


def case_every_step_of_every_schedule_has_a_prompt():
    """A split range leaves no step without a prompt, and both prompts only where a step is on the border."""
    sampling = type("Sampling", (model_sampling.ModelSamplingDiscrete, model_sampling.EPS), {})()
    conditioning, adapter = encode(CLIP), load()
    for border in (0.25, 0.5, 0.333):
        entries = NODES["SURApplyConditioning"].execute(conditioning, adapter, 0.5, border, 1.0).result[0]
        spans = [
            [sampling.percent_to_sigma(options[end]) for end in ("start_percent", "end_percent")]
            for _, options in entries
        ]
        for scheduler in samplers.SCHEDULER_NAMES:
            for steps in (4, 8, 20, 25):
                for sigma in samplers.calculate_sigmas(sampling, scheduler, steps)[:-1]:
                    active = [start >= sigma >= end for start, end in spans]
                    assert any(active), (scheduler, steps, border)
                    on_border = abs(sigma / sampling.percent_to_sigma(border) - 1) < 1e-6
                    assert on_border or not all(active), (scheduler, steps, border)


def case_a_wired_file_name_does_not_rerun_everything():
    """ComfyUI asks for the fingerprint of a wired input with None; an error there would rerun all, always."""
    assert NODES["SURLoadAdapter"].fingerprint_inputs(None) is NODES["SURLoadAdapter"].fingerprint_inputs(
        None
    )
    assert NODES["SURLoadAdapter"].validate_inputs(None) is True
    assert "There is no adapter file 3" in complaint(3)


def case_a_title_survives_saving():
    folder = folder_paths.get_folder_paths("sur_adapters")[0]
    for title, expected in (("", "plain"), ("A name", "A name")):
        core.save_adapter(load().bundle, os.path.join(folder, "titled.safetensors"), title=title)
        NODES["SURSaveAdapter"].execute(load("titled.safetensors"), "plain", True)
        assert core.read_passport(os.path.join(folder, "plain.safetensors")).title == expected


def case_search_aliases_reach_every_comfyui_that_knows_them():
    common = ours["common"]
    known = {field.name for field in dataclasses.fields(common.io.Schema)}

    @dataclasses.dataclass
    class NewerSchema(common.io.Schema):
        search_aliases: list = None

    values = {"node_id": "X", "display_name": "Y", "search_aliases": ["a", "b"]}
    real, common.io = common.io, types.SimpleNamespace(Schema=NewerSchema)
    try:
        assert common.schema(**values).search_aliases == ["a", "b"]
    finally:
        common.io = real
    made = common.schema(**values)
    assert made.category == "SUR" and hasattr(made, "search_aliases") == ("search_aliases" in known)


def case_no_clip_is_told_in_words():
    try:
        on_clip(None, load())
    except ValueError as error:
        assert "no text encoder" in str(error)
    else:
        raise AssertionError("None was taken for a CLIP")


def main():
    results = {}
    with torch.inference_mode():
        for name, case in list(globals().items()):
            if name.startswith("case_"):
                try:
                    case()
                    results[name] = ""
                except Exception:
                    results[name] = traceback.format_exc()
    print("\n" + json.dumps(results))


main()
