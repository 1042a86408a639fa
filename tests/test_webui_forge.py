"""The script in Forge's own classes. What of Forge is real and what stands in: ``forge_host.py``.

A run here is Forge's ``process_images_inner``: its script runner calls ours, its prompt parser stacks the
conds, its sampler and its CFG denoiser call the callback, its sampling function hands the result to the UNet
(which stands in), and its infotext is what is read back. AUTOMATIC1111's code is not run by any test.
"""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from sur_core import adapt, load_adapter, save_adapter
from sur_webui import request
from sur_webui.plot import ADAPTER_LABEL, ETA_LABEL
from sur_webui.settings import CONTROLS
from tests import forge_host
from tests.helpers import random_adapter

SMALL = {"depth": 1, "heads": 4, "feedforward": 64}
OFF = (False, "None", 0.1, False, 0.0, 1.0)


def controls(adapter="sd1.safetensors", eta=0.3, negative=False, start=0.0, end=1.0):
    return (True, adapter, eta, negative, start, end)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    if reason := forge_host.missing():
        forge_host.skip_or_fail(reason)
    with forge_host.Forge(tmp_path_factory.mktemp("models")) as forge:
        for family in ("sd1", "sd2", "sdxl"):
            save_adapter(random_adapter(family, **SMALL), forge.folder / f"{family}.safetensors")
        yield forge


@pytest.fixture
def forge(host):
    host.reported.clear()
    host.opts.hires_fix_refiner_pass = "second pass"
    host.opts.img2img_fix_steps = False
    host.processing.StableDiffusionProcessing.cached_c = [None, None, None]
    host.processing.StableDiffusionProcessing.cached_uc = [None, None, None]
    yield host
    assert not host.reported, "a script or a callback has failed"
    gc.collect()


@pytest.fixture
def readings(monkeypatch):
    """How many prompts the adapter reads."""
    seen = []
    monkeypatch.setattr(request, "adapt", lambda *arguments: seen.append(1) or adapt(*arguments))
    return seen


def adapted(forge, family, model, text, eta=0.3):
    hidden = model.encode(text)[None]
    return adapt(load_adapter(forge.folder / f"{family}.safetensors"), hidden, eta)[0]


def img2img(seed=0, **settings):
    """Settings of a run that draws over a picture: eight steps asked, five made."""
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8))
    return dict(init_images=[picture], denoising_strength=0.5, steps=8, cfg_scale=1) | settings


def latents(forge, p):
    forge.run(p)
    return torch.stack(p.latents_after_sampling)


def pixels(result):
    return [np.asarray(image) for image in result.images]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(pixels(left), pixels(right), strict=True))


def rows_seen(model):
    """Every prompt that the UNet was given, call after call."""
    rows = [row for cond in model.seen for row in cond]
    model.seen.clear()
    return rows


def given(rows, wanted):
    return any(torch.equal(row, wanted) for row in rows)


@pytest.mark.parametrize("family, width", [("sd1", 768), ("sd2", 1024), ("sdxl", 2048)])
def test_the_unet_draws_with_the_adapted_prompt_and_switched_off_with_its_own(forge, readings, family, width):
    model = forge.use(family, width)
    plain = forge.draw(*OFF)
    own = rows_seen(model)
    assert given(own, model.encode("seven glasses")) and given(own, model.encode("blurry"))
    changed = forge.draw(*controls(f"{family}.safetensors"))
    rows = rows_seen(model)
    assert len(rows) == 8, "four steps, positive and negative"
    assert given(rows, adapted(forge, family, model, "seven glasses")) and given(rows, model.encode("blurry"))
    assert not given(rows, model.encode("seven glasses")) and len(readings) == 1
    assert not same(plain, changed)
    assert same(plain, forge.draw(*OFF)), "to the pixel"
    assert same(plain, forge.draw(*controls(f"{family}.safetensors", eta=0.0)))
    assert all(torch.equal(a, b) for a, b in zip(own, rows_seen(model)[:8], strict=True))


def test_the_script_draws_as_a_web_ui_without_it_when_off(forge):
    model = forge.use("base", 768)
    p = forge.processing_object(*OFF)
    p.scripts = None
    without = forge.run(p)
    assert same(without, forge.draw(*OFF)) and len(model.seen) > 0


def test_runs_one_after_the_other_all_act(forge):
    """Forge keeps callbacks in a sorted copy: a callback made for a run could miss the next one."""
    forge.use("base", 768)
    images = [forge.draw(*controls(eta=eta)) for eta in (0.2, 0.4, 0.2)]
    assert not same(images[0], images[1]) and same(images[0], images[2])
    assert len(forge.script_callbacks.callback_map["callbacks_cfg_denoiser"]) == 1


def test_the_negative_is_adapted_when_asked_and_missing_at_cfg_1(forge):
    model = forge.use("base", 768)
    forge.draw(*controls(negative=True))
    rows = rows_seen(model)
    assert given(rows, adapted(forge, "sd1", model, "blurry")) and not given(rows, model.encode("blurry"))
    forge.draw(*controls(negative=True), cfg_scale=1)
    rows = rows_seen(model)
    assert len(rows) == 4 and given(rows, adapted(forge, "sd1", model, "seven glasses"))


def test_batches_of_different_prompts(forge, readings):
    model = forge.use("base", 768)
    prompts = ["one glass", "two glasses", "three glasses"]
    together = forge.draw(*controls(), prompt=prompts, batch_size=3)
    rows = rows_seen(model)
    assert all(given(rows, adapted(forge, "sd1", model, prompt)) for prompt in prompts)
    assert len(readings) == 3 and len(together.images) == 3
    forge.draw(*controls(), batch_size=2, n_iter=2)
    assert len(readings) == 4, "one prompt in two batches of two"


@pytest.mark.parametrize("family, width", [("sd1", 768), ("sdxl", 2048)])
def test_and_composition_with_parts_of_different_length(forge, readings, family, width):
    model = forge.use("base", width)
    short, long = "a glass", "x" * 100
    forge.draw(*controls(f"{family}.safetensors"), prompt=f"{short} AND {long} :0.5")
    rows = rows_seen(model)
    assert given(rows, adapted(forge, family, model, f" {long}"))
    wanted = adapted(forge, family, model, short)
    assert any(torch.equal(row[:77], wanted) for row in rows), "Forge fills the shorter one up"
    assert len(readings) == 2


def test_prompt_editing(forge, readings):
    model = forge.use("base", 768)
    forge.draw(*controls(), prompt="[one glass:two glasses:0.5]", cfg_scale=1, steps=8)
    rows = rows_seen(model)
    first, second = (adapted(forge, "sd1", model, text) for text in ("one glass", "two glasses"))
    stages = [torch.equal(row, first) for row in rows]
    assert stages == sorted(stages, reverse=True) and 0 < sum(stages) < 8
    assert all(torch.equal(row, second) for row in rows[sum(stages) :])
    assert len(readings) == 2


@pytest.mark.parametrize("sampler, calls", [("Euler", 1), ("Heun", 2)])
def test_start_and_end_are_steps_of_the_sampler(forge, sampler, calls):
    model = forge.use("base", 768)
    forge.draw(*controls(start=0.25, end=0.5), cfg_scale=1, steps=8, sampler_name=sampler)
    wanted = adapted(forge, "sd1", model, "seven glasses")
    acting = [torch.equal(row, wanted) for row in rows_seen(model)]
    assert len(acting) == 8 * calls - (calls - 1), "Heun's last step is a plain one"
    assert acting == [2 * calls <= i < 4 * calls for i in range(len(acting))]


def test_hires_fix_adapts_its_second_pass_with_its_own_prompt(forge, readings):
    model = forge.use("base", 768)
    hires = dict(enable_hr=True, hr_prompt="a tall glass", hr_upscaler="Latent", hr_second_pass_steps=2)
    hires |= dict(denoising_strength=0.7, hr_scale=2.0, cfg_scale=1, hr_cfg=1, hr_additional_modules=[])
    forge.draw(*controls(), **hires)
    rows = rows_seen(model)
    first, second = (adapted(forge, "sd1", model, text) for text in ("seven glasses", "a tall glass"))
    assert [torch.equal(row, first) for row in rows] == [True] * 4 + [False] * (len(rows) - 4)
    assert len(rows) > 4 and all(torch.equal(row, second) for row in rows[4:])
    assert len(readings) == 2


def refined(forge, base, refiner, adapter):
    refiner = forge.use("refiner", refiner)
    base = forge.use("base", base)
    forge.draw(*controls(adapter), refiner_checkpoint="refiner", refiner_switch_at=0.5, cfg_scale=1, steps=8)
    rows = rows_seen(base), rows_seen(refiner)
    assert all(rows)
    return base, refiner, *rows


def test_a_refiner_of_the_same_kind_is_adapted_too(forge):
    base, refiner, first, second = refined(forge, 768, 768, "sd1.safetensors")
    wanted = adapted(forge, "sd1", base, "seven glasses")
    assert all(torch.equal(row, wanted) for row in [*first, *second])


def test_the_sdxl_refiner_is_adapted_by_the_tower_of_its_encoder(forge):
    base, refiner, first, second = refined(forge, 2048, 1280, "sdxl.safetensors")
    assert all(torch.equal(row, adapted(forge, "sdxl", base, "seven glasses")) for row in first)
    assert all(torch.equal(row, adapted(forge, "sdxl", refiner, "seven glasses")) for row in second)


def test_a_refiner_of_another_kind_is_left_alone_and_said_once(forge, caplog):
    base, refiner, first, second = refined(forge, 2048, 768, "sdxl.safetensors")
    assert all(torch.equal(row, adapted(forge, "sdxl", base, "seven glasses")) for row in first)
    assert all(torch.equal(row, refiner.encode("seven glasses")) for row in second)
    assert caplog.text.count("leaves a checkpoint of this run alone") == 1


@pytest.mark.parametrize("width", [768, 2048])
@pytest.mark.parametrize("cfg_scale", [1, 5])
def test_an_error_stops_the_run_with_its_message_and_leaves_forge_as_it_was(forge, width, cfg_scale):
    forge.use("base", width)
    before = forge.draw(*OFF)
    with pytest.raises(FileNotFoundError, match="no adapter file 'lost.pt'"):
        forge.draw(*controls("lost.pt"), cfg_scale=cfg_scale)
    with pytest.raises(ValueError, match="sd2.safetensors was trained for SD 2.x.*this checkpoint is SD"):
        forge.draw(*controls("sd2.safetensors"), cfg_scale=cfg_scale)
    assert same(before, forge.draw(*OFF))


def test_what_a_run_has_held_is_gone_after_it_even_if_it_was_broken_off(forge, monkeypatch):
    model = forge.use("base", 768)
    held = []
    load = request.load_adapter
    monkeypatch.setattr(request, "load_adapter", lambda path: held.append(load(path)) or held[-1])
    forge.draw(*controls())
    model.forge_objects.unet.model.apply_model = lambda *_arguments, **_more: 1 / 0
    with pytest.raises(ZeroDivisionError):
        forge.draw(*controls())
    held = [weakref.ref(held.pop()) for _ in range(len(held))]
    gc.collect()
    assert [adapter() for adapter in held] == [None, None]


def test_an_interrupted_run_ends_as_any_other(forge):
    model = forge.use("base", 768)
    unet = model.forge_objects.unet.model

    def stop(*arguments, **more):
        forge.shared.state.interrupted = True
        return model._unet(*arguments, **more)

    unet.apply_model = stop
    p = forge.processing_object(*controls())
    try:
        forge.run(p)
    finally:
        forge.shared.state.interrupted = False
    assert len(model.seen) == 1 and not hasattr(p, request.ATTRIBUTE)


@pytest.mark.parametrize("family, width", [("sd1", 768), ("sdxl", 2048)])
def test_img2img_is_adapted_and_switched_off_it_is_that_of_a_web_ui_without_the_script(forge, family, width):
    model = forge.use(family, width)
    p = forge.processing_object(*OFF, **img2img())
    p.scripts = None
    plain = latents(forge, p)
    assert all(torch.equal(row, model.encode("seven glasses")) for row in rows_seen(model))
    file = f"{family}.safetensors"
    for values in (OFF, controls(file, eta=0.0)):
        p = forge.processing_object(*values, **img2img())
        assert torch.equal(plain, latents(forge, p)), "to the bit"
        assert len(rows_seen(model)) == 5
    changed = latents(forge, forge.processing_object(*controls(file), **img2img()))
    wanted = adapted(forge, family, model, "seven glasses")
    rows = rows_seen(model)
    assert len(rows) == 5 and all(torch.equal(row, wanted) for row in rows)
    assert not torch.equal(plain, changed)
    other = latents(forge, forge.processing_object(*controls(file), **img2img(seed=1)))
    assert not torch.equal(changed, other), "the picture counts"
    assert torch.equal(plain, latents(forge, forge.processing_object(*OFF, **img2img())))


@pytest.mark.parametrize(
    "start, end, settings, acting",
    [
        (0.0, 1.0, {}, [True] * 5),
        (0.2, 0.6, {}, [False, True, True, False, False]),
        (0.5, 1.0, {}, [False, False, False, True, True]),
        (0.2, 0.6, {"sampler_name": "Heun"}, [False] * 2 + [True] * 4 + [False] * 3),
        (0.25, 0.5, {"denoising_strength": 1.0}, [False] * 2 + [True] * 2 + [False] * 4),
    ],
)
def test_start_and_end_are_shares_of_the_steps_that_img2img_makes(forge, start, end, settings, acting):
    model = forge.use("base", 768)
    forge.draw(*controls(start=start, end=end), **img2img(**settings))
    wanted = adapted(forge, "sd1", model, "seven glasses")
    assert [torch.equal(row, wanted) for row in rows_seen(model)] == acting


def test_start_and_end_where_img2img_makes_all_steps_that_are_asked_for(forge):
    """Forge's setting "With img2img, do exactly the amount of steps the slider specifies"."""
    forge.opts.img2img_fix_steps = True
    model = forge.use("base", 768)
    forge.draw(*controls(start=0.25, end=0.5), **img2img())
    wanted = adapted(forge, "sd1", model, "seven glasses")
    acting = [torch.equal(row, wanted) for row in rows_seen(model)]
    assert acting == [False] * 2 + [True] * 2 + [False] * 4


def test_img2img_of_a_batch_with_the_negative_adapted(forge, readings):
    model = forge.use("base", 768)
    together = forge.draw(*controls(negative=True), **img2img(batch_size=2, cfg_scale=5))
    rows = rows_seen(model)
    assert len(rows) == 5 * 4 and len(together.images) == len(readings) == 2
    texts = [adapted(forge, "sd1", model, text) for text in ("seven glasses", "blurry")]
    assert all(given(texts, row) for row in rows) and all(given(rows, text) for text in texts)


def test_inpainting_changes_nothing_outside_the_mask(forge):
    forge.use("base", 768)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    settings = img2img(mask=mask, mask_blur=0, inpaint_full_res=False, inpainting_fill=1)
    plain, changed = (
        latents(forge, forge.processing_object(*values, **settings)) for values in (OFF, controls())
    )
    differs = (plain != changed).any(0).any(0).any(0)
    assert differs.tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
@pytest.mark.parametrize("values", [controls(), controls("deep/a, b: c.safetensors", 0.25, True, 0.1, 0.9)])
def test_the_infotext_goes_through_forge_and_comes_back(forge, values, tab):
    save_adapter(random_adapter("sd1", seed=9, **SMALL), forge.folder / "deep" / "a, b: c.safetensors")
    forge.use("base", 768)
    settings = img2img() if tab == "img2img" else {}
    text = forge.draw(*values, **settings).infotexts[0]
    parsed = forge.infotext_utils.parse_generation_parameters(text)
    assert parsed.get("Denoising strength") == ("0.5" if tab == "img2img" else None)
    fields = [forge.infotext_utils.PasteField(*field) for field in forge.script(tab).infotext_fields]
    found = [field.function(parsed) for field in fields]
    found[1] = found[1]["value"]
    assert dict(zip(CONTROLS, found, strict=True)) == dict(zip(CONTROLS, values, strict=True))
    off = forge.draw(*OFF, **settings).infotexts[0]
    without = forge.infotext_utils.parse_generation_parameters(off)
    assert fields[0].function(without) is False and not [key for key in without if key.startswith("SUR")]


def test_the_axes_of_forges_plot(forge):
    forge.use("base", 768)
    options = {option.label: option for option in forge.axes.axis_options}
    eta, adapter = options[ETA_LABEL], options[ADAPTER_LABEL]
    assert adapter.choices()[0] == "None" and "sd1.safetensors" in adapter.choices()
    assert eta.format_value(None, eta, 0.3) == f"{ETA_LABEL}: 0.3"
    assert adapter.format_value(None, adapter, "a.pt") == "a.pt"
    p = forge.processing_object(*OFF[:1], "sd1.safetensors", *OFF[2:])
    cells = []
    for value in (0.0, 0.5, 0.5):  # as the plot's own cell() does
        cell = copy.copy(p)
        eta.apply(cell, value, [])
        adapter.apply(cell, "None" if len(cells) == 2 else "sd1.safetensors", [])
        cells.append(forge.run(cell))
    assert not same(cells[0], cells[1]) and same(cells[0], cells[2])
    assert ["SUR eta: 0," in cells[0].info, "SUR eta: 0.5" in cells[1].info, "SUR" in cells[2].info] == [
        *(True, True, False),
    ]
