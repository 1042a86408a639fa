"""Apply LLMDiff and memory: what is held, moved and freed."""

import gc
import weakref

import torch
from llmdiff_cases_model import NEGATIVE, POSITIVE
from llmdiff_comfy import draw, memory, module, tiny_model
from llmdiff_scene import MODEL, apply, load


def case_nothing_is_left_behind():
    model, handle = tiny_model(), load()
    applied = apply(model, handle)
    draw(applied, POSITIVE, NEGATIVE, 3.0)
    adapter = applied.get_additional_models()[0].model
    watched = [weakref.ref(thing) for thing in (model.model, adapter, handle.adapter)]
    del model, handle, applied, adapter
    memory.cleanup_models()
    gc.collect()
    memory.cleanup_models_gc()
    memory.cleanup_models()
    gc.collect()
    assert [thing() for thing in watched] == [None, None, None], "outlives every node that used it"


def case_a_sampling_leaves_nothing_in_the_options():
    applied = apply()
    before = repr(applied.model_options)
    draw(applied, POSITIVE)
    assert repr(applied.model_options) == before


def case_no_model_is_part_of_a_circle():
    """ComfyUI reports a model that only the garbage collector could free as a leak."""
    model = tiny_model()
    applied = apply(model)
    draw(applied, POSITIVE)
    watched = weakref.ref(applied)
    gc.collect()
    gc.disable()
    try:
        del applied
        assert watched() is None
    finally:
        gc.enable()


def case_the_adapter_follows_the_memory_management():
    applied = apply()
    (patcher,) = applied.get_additional_models()
    memory.unload_all_models()
    expected = draw(applied, POSITIVE)
    assert any(patcher.is_clone(other) for other in memory.loaded_models()), "sampling must load the adapter"
    memory.unload_all_models()
    assert not memory.loaded_models()
    assert torch.equal(draw(applied, POSITIVE), expected)


def adapters_alive():
    gc.collect()
    kind = module("sur_core.llmdiff.adapter").LLMDiffAdapter
    return [one for one in gc.get_objects() if type(one) is kind]


def case_an_adapters_weights_are_in_memory_once():
    before = {id(one) for one in adapters_alive()}
    for dtype in (torch.float32, torch.float16):
        model = tiny_model(dtype=dtype)
        model.model.manual_cast_dtype = None
        handle = load()
        draw(apply(apply(model, handle, 0.5), handle, 0.5), POSITIVE)
        (one,) = (found for found in adapters_alive() if id(found) not in before)
        assert one is handle.adapter and one.phi.weight.dtype == dtype
        del one, handle, model
        memory.cleanup_models()
    gc.collect()


def case_an_adapter_on_models_of_two_types_is_exact_on_both():
    handle, half = load(), tiny_model(MODEL.model.diffusion_model.state_dict(), dtype=torch.float16)
    half.model.manual_cast_dtype = None
    first = draw(apply(half, handle), POSITIVE)
    assert torch.equal(draw(apply(adapter=handle), POSITIVE), draw(apply(), POSITIVE))
    assert torch.equal(draw(apply(half, handle), POSITIVE), first)
