"""Apply LLMDiff next to everything else that changes a MODEL or a sampling."""

from contextlib import contextmanager

import comfy.hooks
import comfy.sd
import torch
from comfy import samplers
from comfy.cldm.cldm import ControlNet
from comfy.controlnet import ControlNet as ControlNetControl
from comfy.ldm.modules.attention import optimized_attention
from llmdiff_comfy import NODES, TINY, draw, memory, module, noise, random_weights, schedule, tiny_model
from llmdiff_scene import (
    DROP,
    KEEP,
    MODEL,
    OTHER,
    SHORT,
    apply,
    clip,
    close,
    differ,
    encode,
    load,
    words,
    write_adapter,
)

POSITIVE, NEGATIVE = encode(conditioning=clip(0)), encode(SHORT, conditioning=clip(1))
PLAIN = clip(2)


def case_strength_0_is_the_plain_model():
    for adapter in (DROP, KEEP):
        applied = apply(adapter=adapter, strength=0.0)
        assert applied is not MODEL and applied.model is MODEL.model
        assert not any(applied.wrappers.values()) and not applied.additional_models
        assert applied.model_options == MODEL.model_options and not applied.patches
        assert torch.equal(draw(applied, POSITIVE, NEGATIVE, 3.0), draw(MODEL, POSITIVE, NEGATIVE, 3.0))


def case_the_model_that_came_in_is_unchanged():
    before = draw(MODEL, POSITIVE, NEGATIVE, 3.0)
    state = {key: value.clone() for key, value in MODEL.model.state_dict().items()}
    options = repr(MODEL.model_options)
    differ(draw(apply(), POSITIVE, NEGATIVE, 3.0), before)
    assert torch.equal(draw(MODEL, POSITIVE, NEGATIVE, 3.0), before)
    assert repr(MODEL.model_options) == options and not MODEL.additional_models
    assert all(torch.equal(value, state[key]) for key, value in MODEL.model.state_dict().items())


def case_clones_stay_adapted():
    applied = apply()
    expected = draw(applied, POSITIVE)
    clone = applied.clone()
    clone.model_options["something"] = 1
    assert torch.equal(draw(clone.clone(), POSITIVE), expected)


def case_the_window_is_comfyuis_own_at_every_step_and_border():
    shares = (0.0, 0.2, 0.25, 0.5, 0.75, 1.0)
    sampling = MODEL.model.model_sampling
    borders = [sampling.percent_to_sigma(share) for share in shares[1:-1]]
    steps = [*schedule(MODEL, 6)[:-1], *map(torch.tensor, borders)]
    (positive, options), *_ = POSITIVE
    plain = {float(sigma): at(MODEL, sigma) for sigma in steps}
    full = {float(sigma): at(apply(), sigma) for sigma in steps}
    for start, end in ((0.0, 0.5), (0.25, 0.75), (0.2, 1.0), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0)):
        applied = apply(start=start, end=end)
        ends = {"timestep_start": sampling.percent_to_sigma(start)}
        ends["timestep_end"] = sampling.percent_to_sigma(end)
        for sigma in steps:
            cond = {**ends, "model_conds": {}, "uuid": 0}
            inside = samplers.get_area_and_mult(cond, noise(), sigma.reshape(1)) is not None
            expected = (full if inside else plain)[float(sigma)]
            assert torch.equal(at(applied, sigma), expected), (start, end, float(sigma))


def at(model, sigma):
    return draw(model, POSITIVE, sigmas=torch.stack([torch.as_tensor(sigma), torch.zeros(())]))


def case_a_window_in_the_middle_of_a_sampling():
    """Whole samplings: until the window begins, they are the plain model's, bit by bit."""

    def latents(model):
        seen = []

        def sampler(model, x, sigmas, extra_args=None, **_):
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
                seen.append(x.clone())
                denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
                x = x + (x - denoised) / sigma * (following - sigma)
            return x

        draw(model, POSITIVE, NEGATIVE, 3.0, sigmas=schedule(MODEL, 8), sampler=samplers.KSAMPLER(sampler))
        return seen

    plain, windowed = latents(MODEL), latents(apply(start=0.4, end=0.8))
    limit = MODEL.model.model_sampling.percent_to_sigma(0.4)
    first = next(number for number, sigma in enumerate(schedule(MODEL, 8)) if sigma <= limit)
    for number, (one, other) in enumerate(zip(plain, windowed, strict=True)):
        assert torch.equal(one, other) == (number <= first), number


def case_stacked_adapters():
    both = encode(adapter=OTHER, conditioning=POSITIVE)
    one, two = apply(apply(), OTHER, 0.5), apply(apply(adapter=OTHER, strength=0.5))
    close(draw(one, both), draw(two, both))
    differ(draw(one, both), draw(apply(), both))
    same_twice = apply(apply(strength=0.5), strength=0.5)
    assert len(same_twice.get_additional_models()) == 1
    differ(draw(same_twice, POSITIVE), draw(apply(strength=0.5), POSITIVE))
    assert torch.equal(draw(apply(), both), draw(apply(), POSITIVE)), "tokens of the other are not heard"


LORA_LAYERS = [f"input_blocks_1_1_transformer_blocks_0_attn2_to_{name}" for name in ("q", "v", "out_0")]


def lora():
    generator = torch.Generator().manual_seed(9)
    made = {}
    for layer in LORA_LAYERS:
        inside = 20 if layer.endswith("_v") else 32
        made[f"lora_unet_{layer}.lora_down.weight"] = torch.randn(4, inside, generator=generator)
        made[f"lora_unet_{layer}.lora_up.weight"] = torch.randn(32, 4, generator=generator) * 0.3
    return made


def with_lora(model):
    return comfy.sd.load_lora_for_models(model, None, lora(), 1.0, 0.0)[0]


def case_the_order_with_a_lora_does_not_matter():
    one, two = draw(apply(with_lora(MODEL)), POSITIVE), draw(with_lora(apply()), POSITIVE)
    assert torch.equal(one, two)
    differ(one, draw(apply(), POSITIVE))
    for share in (0.0, 0.5):
        applied = apply(strength=share) if share else MODEL
        differ(draw(with_lora(applied), POSITIVE), draw(applied, POSITIVE))


def case_a_lora_that_low_memory_applies_on_the_fly():
    """Then layers fetch and change their weights at every call, and only calling them gives the true ones."""
    expected = draw(apply(with_lora(MODEL)), POSITIVE)
    memory.unload_all_models()
    applied = apply(with_lora(tiny_model()))
    real, memory.load_models_gpu = memory.load_models_gpu, lambda *_, **__: None
    applied.patch_model(torch.device("cpu"), lowvram_model_memory=1)
    try:
        close(draw(applied, POSITIVE), expected)
    finally:
        memory.load_models_gpu = real
        applied.detach()


def case_a_lora_by_hooks_of_the_conditioning():
    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    positive = [[POSITIVE[0][0], {**POSITIVE[0][1], "hooks": hooks}]]
    close(draw(apply(), positive), draw(apply(with_lora(MODEL)), POSITIVE))
    mixed = draw(apply(), positive, NEGATIVE, 3.0)
    plus, minus = draw(apply(with_lora(MODEL)), POSITIVE), draw(apply(), NEGATIVE)
    close(mixed, minus + 3.0 * (plus - minus))


def case_an_output_projections_weights_are_fetched_twice():
    """For the layer itself and for the adapter's part; under low memory each time moves and patches them."""
    layers = module("nodes.llmdiff_unet").cross_attention_layers(MODEL.model.diffusion_model, "").values()
    calls = []
    hooks = [layer.to_out[0].register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
    try:
        draw(apply(), POSITIVE)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 2 * len(layers)


def case_a_patch_of_the_output_projections_bias_is_not_added_twice():
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_out.0.bias"
    change = 3 * torch.randn(32, generator=torch.Generator().manual_seed(5))
    changed = apply().clone()
    changed.add_patches({name: ("diff", (change,))})
    weights = MODEL.model.diffusion_model.state_dict()
    key = name.removeprefix("diffusion_model.")
    expected = draw(apply(tiny_model({**weights, key: weights[key] + change})), POSITIVE)
    close(draw(changed, POSITIVE), expected)
    differ(expected, draw(apply(), POSITIVE))


def guided(model, positive, negative):
    """Positive and negative drawn apart, and put together as guidance does."""
    heard = any(options.get("llmdiff") for _, options in negative)
    plus, minus = draw(model, positive), draw(model if heard else MODEL, negative)
    return minus + 3.0 * (plus - minus)


def case_positive_and_negative_together_are_as_one_by_one():
    for adapter in (DROP, KEEP):
        positive, negative = encode(adapter=adapter, conditioning=clip(0)), encode(SHORT, adapter, clip(1))
        for strength in (0.4, 1.0):
            applied = apply(adapter=adapter, strength=strength)
            for other in (negative, PLAIN, clip(3, tokens=154)):
                close(draw(applied, positive, other, 3.0), guided(applied, positive, other), 1e-3)


@contextmanager
def short_of_memory():
    """ComfyUI then runs one conditioning at a time."""
    real, MODEL.model.memory_required = MODEL.model.memory_required, lambda *_, **__: 1e30
    try:
        yield
    finally:
        MODEL.model.memory_required = real


def case_memory_that_holds_one_prompt_at_a_time():
    applied = apply()
    together = draw(applied, POSITIVE, NEGATIVE, 3.0)
    with short_of_memory():
        close(draw(applied, POSITIVE, NEGATIVE, 3.0), together)


def case_prompts_without_an_encoding_are_drawn_with_clip_alone():
    close(draw(apply(), POSITIVE, PLAIN, 0.0), draw(MODEL, PLAIN))
    with short_of_memory():  # at guidance 0 the negative prompt alone is seen
        assert torch.equal(draw(apply(), POSITIVE, PLAIN, 0.0), draw(MODEL, PLAIN))
        differ(draw(apply(), POSITIVE, NEGATIVE, 0.0), draw(MODEL, NEGATIVE))


def case_a_batch_is_its_pictures_one_by_one():
    for strength in (0.4, 1.0):
        applied, x = apply(strength=strength), noise(3)
        for negative in (NEGATIVE, PLAIN):
            together = draw(applied, POSITIVE, negative, 3.0, x=x)
            for number in range(3):
                one = draw(applied, POSITIVE, negative, 3.0, x=x[number : number + 1])
                close(together[number : number + 1], one)


def case_masks():
    applied, second = apply(), encode(SHORT, conditioning=clip(4))
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    masked = [[POSITIVE[0][0], {**POSITIVE[0][1], "mask": left}]]
    masked += [[second[0][0], {**second[0][1], "mask": 1 - left}]]
    found = draw(applied, masked)
    close(found[..., :4], draw(applied, POSITIVE)[..., :4])
    close(found[..., 4:], draw(applied, second)[..., 4:])


def case_ranges_of_conditionings():
    applied, second = apply(), encode(SHORT, conditioning=clip(4))
    early = [[POSITIVE[0][0], {**POSITIVE[0][1], "start_percent": 0.0, "end_percent": 0.3}]]
    late = [[second[0][0], {**second[0][1], "start_percent": 0.3, "end_percent": 1.0}]]
    assert torch.equal(draw(applied, [*early, *late]), draw(applied, second))


def tiny_control():
    with torch.inference_mode(False):
        sizes = {key: value for key, value in TINY.items() if key not in ("out_channels",)}
        network = ControlNet(**sizes, hint_channels=3, dtype=torch.float32, operations=comfy.ops.manual_cast)
        network.load_state_dict(random_weights(network.state_dict(), 5))
    said = []
    network.register_forward_hook(lambda _, __, output: said.append(output))
    control = ControlNetControl(network, load_device=torch.device("cpu"))
    return control.set_cond_hint(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))), said


def case_a_controlnet_says_what_it_always_says_and_is_heard():
    answers = {}
    for name, model in (("plain", MODEL), ("applied", apply())):
        control, said = tiny_control()
        positive = [[POSITIVE[0][0], {**POSITIVE[0][1], "control": control}]]
        answers[name] = draw(model, positive), said
    (plain, before), (applied, after) = answers["plain"], answers["applied"]
    assert before and [len(part) for part in before] == [len(part) for part in after]
    for one, other in zip(before, after, strict=True):
        tensors = [(one[key], other[key]) for key in one] if isinstance(one, dict) else [(one, other)]
        for left, right in tensors:
            for a, b in zip(left, right, strict=True):
                assert torch.equal(a, b)
    differ(applied, plain)
    differ(applied, draw(apply(), POSITIVE))


def replaced(model, extra):
    """As image-prompt packs do: they fill the only slot for attention itself and add to what it gives."""
    clone = model.clone()

    def attention(q, k, v, options):
        return optimized_attention(q, k, v, options["n_heads"]) + extra

    for place in module("nodes.llmdiff_unet").cross_attention_layers(MODEL.model.diffusion_model, ""):
        clone.set_model_attn2_replace(attention, *place)
    return clone


def case_packs_that_replace_attention_keep_their_place_and_what_they_add():
    for strength in (0.4, 1.0):
        assert torch.equal(
            draw(apply(replaced(MODEL, 0.5), strength=strength), POSITIVE),
            draw(replaced(apply(strength=strength), 0.5), POSITIVE),
        )
        close(
            draw(replaced(apply(strength=strength), 0.0), POSITIVE), draw(apply(strength=strength), POSITIVE)
        )
        differ(
            draw(replaced(apply(strength=strength), 0.5), POSITIVE), draw(apply(strength=strength), POSITIVE)
        )


def case_a_node_that_draws_the_negative_prompt_once_more():
    """As Self-Attention Guidance does: a step of one conditioning, which may have no encoding."""

    def again(args):
        conds = [args["uncond"]]
        (found,) = samplers.calc_cond_batch(
            args["model"], conds, args["input"], args["sigma"], args["model_options"]
        )
        return args["denoised"] + 0.5 * found

    results = []
    for model in (MODEL, apply()):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(again)
        results.append(draw(model, POSITIVE, PLAIN, 3.0))
    differ(*results)


def case_prompts_are_prepared_once_for_a_sampling():
    applied = apply()
    adapter = applied.get_additional_models()[0].model
    calls, real = [], adapter.prepare
    adapter.prepare = lambda encodings: calls.append(len(encodings)) or real(encodings)
    try:
        sampler = samplers.sampler_object("euler")
        draw(applied, POSITIVE, NEGATIVE, 3.0, sigmas=schedule(MODEL, 6), sampler=sampler)
    finally:
        del adapter.prepare
    assert calls == [2]


def case_sampling_without_a_prompt_for_the_adapter():
    assert "no prompt was encoded" in words(draw, apply(), PLAIN)
    message = words(draw, apply(), encode(adapter=OTHER, conditioning=clip(0)))
    for word in ("tiny-gpt2", "tiny-llama", "drop.safetensors", "another adapter"):
        assert word in message, message
    draw(apply(), PLAIN, POSITIVE, 3.0)  # the negative alone is enough


def case_sur_and_llmdiff_together():
    model, adapter = tiny_model(context_dim=768), "wide.safetensors"
    wide = load(write_adapter(adapter, model))
    sur = NODES["SURLoadAdapter"].execute("sur.safetensors").result[0]

    def corrected(conditioning, end=1.0):
        return NODES["SURApplyConditioning"].execute(conditioning, sur, 0.5, 0.0, end).result[0]

    plain = clip(0, width=768)
    before, after = encode(adapter=wide, conditioning=corrected(plain)), corrected(encode("x", wide, plain))
    after = encode(adapter=wide, conditioning=after)
    applied = apply(model, wide, 0.5)
    both = draw(applied, before)
    assert torch.equal(both, draw(applied, after))
    differ(both, draw(applied, encode(adapter=wide, conditioning=plain)))
    differ(both, draw(model, corrected(plain)))
    split = corrected(encode(adapter=wide, conditioning=plain), end=0.1)
    assert len(split) == 2 and all(wide.adapter.encoding_id in options["llmdiff"] for _, options in split)
    assert torch.equal(draw(applied, split), draw(applied, encode(adapter=wide, conditioning=plain)))
