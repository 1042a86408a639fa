"""Apply LLMDiff in half precision: as exact as the type is, and no less."""

import copy
import dataclasses

import torch
from llmdiff_comfy import draw, module, noise, tiny_model
from llmdiff_scene import DROP, KEEP, MODEL, apply, clip, encode, load

HALVES = (torch.float16, torch.bfloat16)
FILES = {"drop.safetensors": DROP, "keep.safetensors": KEEP}
WEIGHTS = MODEL.model.diffusion_model.state_dict()


def unit(dtype):
    """Relative error of rounding to a type."""
    return torch.finfo(dtype).eps / 2


def half_model(dtype):
    """That computes in half precision, as ComfyUI has it on a GPU."""
    made = tiny_model(WEIGHTS, dtype=dtype)
    made.model.manual_cast_dtype = None
    return made


def rounded_model(dtype):
    """The same numbers in float32."""
    return tiny_model({key: value.to(dtype).float() for key, value in WEIGHTS.items()})


def rounded(name, dtype):
    """An adapter of numbers that half precision holds, in float32."""
    handle = load(name)
    handle.adapter.to(dtype).float()
    return handle


def quiet(conditioning):
    """Tokens of a root mean square of 1. Those of the tiny language model give attention logits of hundreds,
    where rounding decides which token is heard.
    """
    ((tensor, options),) = conditioning
    prompts = {
        id: dataclasses.replace(found, tokens=found.tokens / found.tokens.square().mean(1, True).sqrt())
        for id, found in options["llmdiff"].items()
    }
    return [[tensor, {**options, "llmdiff": prompts}]]


def off(found, exact):
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def case_weights_in_half_precision_that_are_cast():
    for dtype in HALVES:
        applied = apply(tiny_model(WEIGHTS, dtype=dtype), load())
        assert applied.get_additional_models()[0].model.phi.weight.dtype == torch.float32, "weights are cast"
        positive = encode(conditioning=clip(0))
        assert off(draw(applied, positive), draw(apply(rounded_model(dtype)), positive)) < 1e-6


def case_an_adapter_of_a_type_is_the_librarys():
    """Matrices are of the type, and the few single numbers float32: g of another type is another g."""
    for dtype in HALVES:
        found = apply(half_model(dtype), load()).get_additional_models()[0].model
        expected = copy.deepcopy(load().adapter).to(dtype)
        for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
            matrix = name.endswith((".weight", ".bias"))
            assert one.dtype == other.dtype == (dtype if matrix else torch.float32), name
            assert torch.equal(one, other), name
        assert found.encoding_id == DROP.adapter.encoding_id


def case_a_layer_in_half_precision_is_as_exact_as_its_steps():
    """Against float64 with the same numbers. Ten independent roundings follow one another (tokens, phi, the
    three projections, attention, scales, sum, strength, output projection).
    """
    for dtype in HALVES:
        for name, adapter in FILES.items():
            prompt = quiet(encode(adapter=adapter))[0][1]["llmdiff"][adapter.adapter.encoding_id]
            found, exact = added(half_model(dtype), name, dtype, prompt)
            assert off(found, exact) < 10**0.5 * unit(dtype), (dtype, name, off(found, exact) / unit(dtype))


def added(model, name, dtype, prompt):
    """(what a node adds to the first layer, the formula in float64)."""
    Run, Call = (getattr(module("nodes.llmdiff_run"), kind) for kind in ("Run", "Call"))
    adapter = apply(model, load(name)).get_additional_models()[0].model
    run = Run(adapter)
    run.see(model.model.diffusion_model, "")
    place, (number, attention) = next(iter(run.layers.items()))
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(3)).to(dtype)
    told = {"block": place[:2], "block_index": place[2], "uuids": [0]}
    call = Call(run, {0: prompt}, 0.6, 1.0)
    call.begin(x, x.new_zeros(2, 77, 20), told)
    found = call.finish(torch.zeros_like(x), told)
    exact, layer = copy.deepcopy(adapter).double(), copy.deepcopy(attention).double()
    tokens = exact.prepare([prompt.tokens.double()])[number].repeated(2)
    x = x.double()
    bracket = exact.layers[number](tokens, x, layer.to_q(x), layer.to_k, layer.to_v)
    return found, torch.nn.functional.linear(0.6 * bracket, layer.to_out[0].weight)


def case_pictures_in_half_precision_are_as_exact_as_the_plain_models():
    x = noise(2)
    for dtype in HALVES:
        half, exact = half_model(dtype), rounded_model(dtype)
        plain = off(draw(half, clip(0), x=x), draw(exact, clip(0), x=x))
        assert plain < 16 * unit(dtype), "the tiny model itself"
        for name, adapter in FILES.items():
            positive = quiet(encode(adapter=adapter, conditioning=clip(0)))
            for strength in (0.5, 1.0):
                found = draw(apply(half, load(name), strength), positive, x=x)
                expected = draw(apply(exact, rounded(name, dtype), strength), positive, x=x)
                assert off(found, expected) < 2 * plain, (dtype, name, strength, off(found, expected) / plain)
