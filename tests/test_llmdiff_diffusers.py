"""An LLMDiff adapter on diffusers UNets: strength, window, stacking, other processors, whole pipelines."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from sur_core.errors import AdapterMismatchError
from sur_core.llmdiff import new_llmdiff_adapter
from sur_core.llmdiff.attention import attend
from sur_core.llmdiff.config import SD1_LAYERS, SD2_LAYERS, SDXL_LAYERS, LLMDiffConfig
from sur_core.llmdiff.diffusers_unet import attach, cross_attention_layers, unet_shape
from tests.llmdiff_parts import encoded, random_llmdiff, tiny_unet
from tests.tiny_models import make_tiny


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


def fitting(unet, seed=0, **config):
    context, layers = unet_shape(unet)
    return random_llmdiff(context, layers, seed, **config)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def call(unet, rows=2, timestep=500, context_seed=1, **more):
    with torch.no_grad():
        return unet(draw(rows, 4, 8, 8), timestep, draw(rows, 9, 20, seed=context_seed), **more).sample


class Written:
    """A processor that writes the formula of sur_core.llmdiff.attention out, for adapters of one prompt."""

    def __init__(self, place, parts):
        self.place, self.parts = place, parts  # (adapter, tokens [n, D], strength) of each adapter

    def __call__(self, attn, x, encoder_hidden_states, *_, **__):
        query, weight, added = attn.to_q(x), 1.0, 0.0
        for adapter, tokens, strength in self.parts:
            layer, c = adapter.layers[self.place], tokens[None].expand(len(x), -1, -1)
            phi = adapter.phi(c)
            frozen = attend(query, attn.to_k(phi), attn.to_v(phi), attn.heads)
            own = attend(layer.tau_q(x), layer.tau_k(c), layer.tau_v(c), attn.heads)
            bracket = layer.a1 * layer.b1.exp() * frozen + layer.a2 * layer.b2.exp() * own
            added = added + strength * bracket
            weight *= 1 - strength if adapter.config.clip == "drop" else 1
        clip = attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        return attn.to_out[0](weight * clip + added)


def written(unet, *parts, **how):
    before = dict(unet.attn_processors)
    mine = {
        f"{name}.processor": Written(place, parts) for place, name in enumerate(cross_attention_layers(unet))
    }
    unet.set_attn_processor({**before, **mine})
    try:
        return call(unet, **how)
    finally:
        unet.set_attn_processor(before)


@pytest.mark.parametrize("clip", ["drop", "keep"])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_unet_computes_the_formula(unet, clip, strength):
    adapter = fitting(unet, clip=clip)
    prompt = encoded(adapter)
    with attach(unet, adapter) as session:
        session.use([prompt], strength=strength)
        found = call(unet)
    torch.testing.assert_close(found, written(unet, (adapter, prompt.tokens, strength)), rtol=1e-4, atol=1e-4)
    assert (found - call(unet)).abs().max() > 0.01


def test_at_full_strength_the_text_encoder_is_not_heard_where_it_is_dropped(unet):
    def heard(clip):
        adapter = fitting(unet, clip=clip)
        with attach(unet, adapter) as session:
            session.use([encoded(adapter)])
            return (call(unet, context_seed=1) - call(unet, context_seed=2)).abs().max()

    assert heard("drop") == 0
    assert heard("keep") > 0.01


def test_strength_0_is_the_base_model_bit_for_bit(unet):
    adapter = fitting(unet)
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], strength=0)
        assert torch.equal(call(unet), call_plain(unet))


def call_plain(unet):
    before = dict(unet.attn_processors)
    unet.set_attn_processor(AttnProcessor2_0())
    try:
        return call(unet)
    finally:
        unet.set_attn_processor(before)


def test_untrained_and_kept_text_encoder_is_the_base_model_at_every_strength(unet):
    context, layers = unet_shape(unet)
    adapter = new_llmdiff_adapter(LLMDiffConfig(12, 3, context, layers, clip="keep"))
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], strength=0.7)
        torch.testing.assert_close(call(unet), call_plain(unet), rtol=0, atol=1e-6)


def test_untrained_and_dropped_text_encoder_is_the_base_model_with_silent_cross_attention(unet):
    context, layers = unet_shape(unet)
    adapter = new_llmdiff_adapter(LLMDiffConfig(12, 3, context, layers))
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)])
        found = call(unet)
    silent = tiny_unet()
    for layer in cross_attention_layers(silent).values():
        layer.to_v.weight.data.zero_()
    torch.testing.assert_close(found, call(silent), rtol=0, atol=1e-6)


def test_leaving_gives_the_unet_back_as_it_was(unet):
    before, first = dict(unet.attn_processors), call(unet)
    adapter = fitting(unet)
    with pytest.raises(RuntimeError, match="in between"), attach(unet, adapter) as session:
        session.use([encoded(adapter)])
        raise RuntimeError("in between")
    assert unet.attn_processors == before
    assert not unet._forward_pre_hooks
    assert torch.equal(call(unet), first)


def test_rows_of_a_batch_are_drawn_as_alone(unet):
    adapter = fitting(unet)
    prompts = [encoded(adapter, 5), encoded(adapter, 9, seed=1)]
    with attach(unet, adapter) as session:
        session.use(positive=prompts[:1], negative=prompts[1:])
        both = call(unet, rows=4)
        for rows, prompt in ((slice(0, 2), prompts[1]), (slice(2, 4), prompts[0])):
            session.use([prompt])
            alone = call(unet, rows=4)[rows]
            torch.testing.assert_close(both[rows], alone, rtol=0, atol=1e-5)


def test_a_batch_that_is_no_multiple_of_the_prompts_is_refused_in_words(unet):
    adapter = fitting(unet)
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], [encoded(adapter)])
        with pytest.raises(ValueError, match="2 encoded prompts for a batch of 3"):
            call(unet, rows=3)


@pytest.mark.parametrize(
    "window, acting",
    [
        ((0.0, 1.0), {999, 500, 499, 0}),
        ((0.0, 0.5), {999, 500}),
        ((0.5, 1.0), {499, 0}),
        ((0.0, 0.0), set()),
    ],
)
def test_the_window_is_a_share_of_the_schedule(unet, window, acting):
    adapter = fitting(unet)
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], start_percent=window[0], end_percent=window[1])
        changed = set()
        for timestep in (999, 500, 499, 0):
            found = call(unet, timestep=timestep)
            session.use([encoded(adapter)], strength=0)
            plain = call(unet, timestep=timestep)
            session.use([encoded(adapter)], start_percent=window[0], end_percent=window[1])
            changed |= {timestep} if not torch.equal(found, plain) else set()
    assert changed == acting


@pytest.mark.parametrize("window", [(0.6, 0.4), (-0.1, 1), (0, 1.1)])
def test_a_window_that_is_none_is_refused(unet, window):
    adapter = fitting(unet)
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        attach(unet, adapter).use([encoded(adapter)], start_percent=window[0], end_percent=window[1])


@pytest.mark.parametrize("clips", [("drop", "drop"), ("drop", "keep"), ("keep", "keep")])
def test_two_adapters_add_up_in_any_order(unet, clips):
    adapters = [fitting(unet, seed=number, clip=clip) for number, clip in enumerate(clips)]
    strengths = (0.4, 0.7)
    expected = written(unet, *((a, encoded(a).tokens, s) for a, s in zip(adapters, strengths, strict=True)))
    for order in ((0, 1), (1, 0)):
        with attach(unet, adapters[order[0]]) as first, attach(unet, adapters[order[1]]) as second:
            for session, place in zip((first, second), order, strict=True):
                session.use([encoded(adapters[place])], strength=strengths[place])
            torch.testing.assert_close(call(unet), expected, rtol=1e-4, atol=1e-4)


class Neighbour(AttnProcessor2_0):
    """Stands for a processor of another kind, such as IP-Adapter's: attention, and something of its own."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        return super().__call__(attn, hidden_states, *args, **kwargs) + 0.1 * hidden_states


def test_what_another_processor_adds_stays_as_it_is(unet):
    adapter = fitting(unet)
    layer, place = next(iter(cross_attention_layers(unet).values())), "down_blocks.0.attentions.0"
    assert unet.get_submodule(place).transformer_blocks[0].attn2 is layer
    x, context = draw(1, 6, layer.query_dim), draw(1, 9, 20, seed=1)

    def layer_alone():
        with torch.no_grad():
            return layer(x, encoder_hidden_states=context)

    base = layer_alone()
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], strength=0.6)
        session._before_forward(unet, (None, 500), {})
        plain = layer_alone()
    before = layer.processor
    layer.set_processor(Neighbour())
    try:
        with attach(unet, adapter) as session:
            session.use([encoded(adapter)], strength=0.6)
            session._before_forward(unet, (None, 500), {})
            found = layer_alone()
    finally:
        layer.set_processor(before)
    assert (plain - base).abs().max() > 0.01
    torch.testing.assert_close(found, plain + 0.1 * x, rtol=0, atol=1e-5)


def test_weights_a_lora_changes_are_used_as_changed(unet):
    """Whether LoRA is merged before or after the adapter is attached makes no difference."""
    adapter, other = fitting(unet), tiny_unet()
    for layer in cross_attention_layers(other).values():
        layer.to_k.weight.data += 0.3
    with attach(other, adapter) as session:
        session.use([encoded(adapter)])
        expected = call(other)
    late = tiny_unet()
    with attach(late, adapter) as session:
        session.use([encoded(adapter)])
        before = call(late)
        for layer in cross_attention_layers(late).values():
            layer.to_k.weight.data += 0.3
        assert torch.equal(call(late), expected)
        assert not torch.equal(before, expected)


def test_a_prompt_encoded_for_another_adapter_is_refused_in_words(unet):
    adapter, other = fitting(unet), fitting(unet, start="zero")
    with pytest.raises(AdapterMismatchError, match="'a cat' was encoded for another adapter"):
        attach(unet, adapter).use([encoded(other)])


def test_a_unet_of_another_shape_is_refused_in_words(unet):
    adapter = fitting(tiny_unet(context=28))
    with pytest.raises(AdapterMismatchError, match=r"28 wide\); UNet2DConditionModel is a UNet \(.*20 wide"):
        attach(unet, adapter)


@pytest.mark.parametrize(
    "family, layers, context",
    [("sd1", SD1_LAYERS, 768), ("sd2", SD2_LAYERS, 1024), ("sdxl", SDXL_LAYERS, 2048)],
)
def test_the_families_are_told_by_the_real_unets_shapes(family, layers, context):
    from diffusers import UNet2DConditionModel

    shapes = {"sd1": {"attention_head_dim": 8}, "sd2": {"attention_head_dim": [5, 10, 20, 20]}}
    if family == "sdxl":
        config = {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "use_linear_projection": True,
        }
    else:
        config = shapes[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=context, **config)
    assert unet_shape(unet) == (context, layers)
    assert LLMDiffConfig(64, 2, context, layers).family == family


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_pipeline_with_guidance_draws_the_adapters_picture(tmp_path, family):
    from diffusers import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(make_tiny(tmp_path / "model", family))
    pipeline.set_progress_bar_config(disable=True)
    adapter = fitting(pipeline.unet)
    positive, negative = encoded(adapter, 5), encoded(adapter, 3, seed=4, prompt="")

    def picture(prompt, **how):
        generator = torch.Generator().manual_seed(0)
        found = pipeline(
            prompt,
            num_inference_steps=2,
            generator=generator,
            guidance_scale=4.0,
            output_type="latent",
            **how,
        )
        return found.images

    plain = picture("a red cat")
    with attach(pipeline, adapter) as session:
        session.use([positive], [negative])
        found, other_words = picture("a red cat"), picture("two green dogs")
        session.use([negative], [negative])
        other_tokens = picture("a red cat")
        session.use([positive], [negative], strength=0)
        assert torch.equal(picture("a red cat"), plain)
    assert torch.equal(picture("a red cat"), plain)
    assert (found - plain).abs().max() > 1e-3
    assert (found - other_tokens).abs().max() > 1e-3
    if family != "sdxl":  # whose pooled embedding is CLIP's and does not pass through cross-attention
        torch.testing.assert_close(found, other_words, rtol=0, atol=1e-5)


# --- beside other things in the UNet ------------------------------------------------------------------------


class LoRALinear(torch.nn.Module):
    """A linear layer as PEFT wraps it: its ``weight`` is the base layer's, its forward adds the LoRA's."""

    def __init__(self, base, seed=0):
        super().__init__()
        self.base = base
        shape = base.weight.shape
        self.down, self.up = draw(2, shape[1], seed=seed), draw(shape[0], 2, seed=seed + 1)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T * 0.2


@pytest.mark.parametrize("count", [1, 2])
def test_a_lora_in_any_projection_acts_as_if_it_were_merged(count):
    def drawn(wrap):
        unet = tiny_unet()
        for layer in cross_attention_layers(unet).values():
            for owner, name in ((layer, "to_q"), (layer, "to_k"), (layer, "to_v"), (layer.to_out, "0")):
                wrap(owner, name)
        adapters = [fitting(unet, seed) for seed in range(count)]
        with ExitStack() as stack:
            for adapter in adapters:
                stack.enter_context(attach(unet, adapter)).use([encoded(adapter)], strength=0.6)
            return call(unet)

    def wrapped(owner, name):
        setattr(owner, name, LoRALinear(getattr(owner, name)))

    def merged(owner, name):
        base = getattr(owner, name)
        lora = LoRALinear(base)
        base.weight.data += 0.2 * lora.up @ lora.down

    torch.testing.assert_close(drawn(wrapped), drawn(merged), rtol=0, atol=1e-4)


def test_an_ip_adapter_keeps_its_part_and_its_masks(unet):
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    adapter = fitting(unet)
    layer = next(iter(cross_attention_layers(unet).values()))
    torch.manual_seed(0)
    pictures = IPAdapterAttnProcessor2_0(layer.inner_dim, 20, num_tokens=(4,), scale=1.0).requires_grad_(
        False
    )
    x, text, picture = draw(1, 16, layer.query_dim), draw(1, 9, 20, seed=1), draw(1, 1, 4, 20, seed=2)
    masks = [torch.tensor([[[[1.0, 0, 0, 0]] * 4]])]

    def layer_alone(processor, attached, masks=None):
        before = layer.processor
        layer.set_processor(processor)
        try:
            context = (text, [picture]) if processor is pictures else text
            with torch.no_grad(), ExitStack() as stack:
                if attached:
                    session = stack.enter_context(attach(unet, adapter))
                    session.use([encoded(adapter)], strength=0.6)
                    session._before_forward(unet, (None, 500), {})
                more = {"ip_adapter_masks": masks} if masks else {}
                return layer(x, encoder_hidden_states=context, **more)
        finally:
            layer.set_processor(before)

    plain = AttnProcessor2_0()
    ours = layer_alone(plain, True) - layer_alone(plain, False)
    assert ours.abs().max() > 0.01
    for given in (None, masks):
        alone = layer_alone(pictures, False, given)
        torch.testing.assert_close(layer_alone(pictures, True, given), alone + ours, rtol=0, atol=1e-5)
    difference = layer_alone(pictures, True, masks) - layer_alone(pictures, True)
    assert difference.abs().max() > 1e-3, "the test would not see a lost mask"


def test_a_controlnet_adds_what_it_adds_and_reads_the_text_encoder_itself(unet):
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16)).eval()
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.3)  # its own start adds nothing
        torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.3)

    def control():
        with torch.no_grad():
            down, mid = net(
                draw(2, 4, 8, 8), 500, draw(2, 9, 20, seed=1), draw(2, 3, 64, 64, seed=3), return_dict=False
            )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    adapter, given = fitting(unet), control()
    with attach(unet, adapter) as session:
        session.use([encoded(adapter)], strength=0.7)
        beside = control()
        found = call(unet, **beside)
    for left, right in zip(
        given["down_block_additional_residuals"], beside["down_block_additional_residuals"], strict=True
    ):
        assert torch.equal(left, right)
    expected = written(unet, (adapter, encoded(adapter).tokens, 0.7), **given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - call(unet, **given)).abs().max() > 0.01
    assert (found - written(unet, (adapter, encoded(adapter).tokens, 0.7))).abs().max() > 0.01


@pytest.mark.parametrize("count", [1, 2])
def test_tokens_that_are_masked_out_are_not_heard(unet, count):
    """With one adapter on a plain layer, and with one above another."""
    mask = torch.ones(2, 9)
    mask[:, 5:] = 0

    def masked(seed):
        context = draw(2, 9, 20, seed=1)
        context[:, 5:] = draw(2, 4, 20, seed=seed)
        with torch.no_grad():
            return unet(draw(2, 4, 8, 8), 500, context, encoder_attention_mask=mask).sample

    adapters = [fitting(unet, seed) for seed in range(count)]
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(attach(unet, adapter)).use([encoded(adapter)], strength=0.6)
        first, second = masked(7), masked(8)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_moved_to_half_precision_still_reads_its_encodings(dtype):
    unet = tiny_unet().to(dtype)
    adapter = fitting(unet)
    assert (adapter.block_weights != adapter.block_weights.to(dtype).float()).any(), (
        "g must not be exact in it"
    )
    before, prompt = adapter.encoding_id, encoded(adapter)
    adapter.to(dtype)
    assert adapter.encoding_id == before
    assert adapter.layers[0].tau_q.weight.dtype == dtype
    with attach(unet, adapter) as session, torch.no_grad():
        session.use([prompt])
        found = unet(draw(2, 4, 8, 8).to(dtype), 500, draw(2, 9, 20, seed=1).to(dtype)).sample
    assert found.dtype == dtype and found.isfinite().all()
