"""A run of the web UI with the adapter, in the stand-in of AUTOMATIC1111 that ``webui_host.py`` describes.

Real here: the script, ``sur_webui``, ``sur_core``, adapter files on disk. Standing in: gradio, the web UI's
modules, its processing object, its denoiser (the documented parameters of its callback) and its text encoders
(random embeddings). ``test_webui_forge.py`` has the real classes of Forge.
"""

import copy
import gc
import weakref

import pytest
import torch

from sur_core import adapt, load_adapter, save_adapter
from sur_webui import request
from sur_webui.memory import AdaptedPrompts
from tests.helpers import embeddings, random_adapter
from tests.webui_host import DictWithShape, Processing, WebUI, sdxl

SMALL = {"depth": 1, "heads": 4, "feedforward": 64}
ETA = 0.3
WIDTHS = {"sd1": 768, "sd2": 1024, "sdxl": 2048}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for family in WIDTHS:
        save_adapter(random_adapter(family, **SMALL), folder / f"{family}.safetensors")
    return folder


@pytest.fixture
def webui(tmp_path, files, monkeypatch):
    host = WebUI(tmp_path / "models", monkeypatch)
    for file in files.iterdir():
        (host.models / "sur_adapters" / file.name).symlink_to(file)
    return host


@pytest.fixture
def readings(monkeypatch):
    """The prompts that the adapter reads, one after the other."""
    seen = []

    def counted(adapter, hidden, eta):
        seen.append(hidden)
        return adapt(adapter, hidden, eta)

    monkeypatch.setattr(request, "adapt", counted)
    return seen


def controls(adapter="sd1.safetensors", eta=ETA, negative=False, start=0.0, end=1.0, enabled=True):
    return (enabled, adapter, eta, negative, start, end)


def expected(files, family, hidden, eta=ETA):
    adapter = load_adapter(files / f"{family}.safetensors")
    return torch.cat([adapt(adapter, row[None], eta) for row in hidden])


def drawn(webui, values, *steps, p=None):
    """What the denoiser is given at each step, ``(cond, uncond, step, steps)``, in one run."""
    p = p or Processing()
    found = []
    webui.run(p, values, lambda: found.extend(webui.denoise(p, *step) for step in steps))
    assert not webui.reported
    return found


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_a_tensor_cond_is_adapted_and_the_negative_is_left(webui, files, family):
    cond, negative = embeddings(1, 77, WIDTHS[family], 1), embeddings(1, 77, WIDTHS[family], 2)
    before = cond.clone()
    (params,) = drawn(webui, controls(f"{family}.safetensors"), (cond, negative))
    assert torch.equal(params.text_cond, expected(files, family, cond))
    assert not torch.allclose(params.text_cond, cond)
    assert params.text_uncond is negative and torch.equal(cond, before)


def test_an_sdxl_cond_keeps_its_class_and_every_key(webui, files):
    cond, negative = sdxl(embeddings(2, 154, 2048, 1)), sdxl(embeddings(2, 77, 2048, 2))
    before = cond["crossattn"].clone()
    (params,) = drawn(webui, controls("sdxl.safetensors"), (cond, negative))
    assert type(params.text_cond) is DictWithShape and params.text_cond.shape == cond.shape
    assert torch.equal(params.text_cond["crossattn"], expected(files, "sdxl", before))
    assert params.text_cond["vector"] is cond["vector"]
    assert torch.equal(cond["crossattn"], before), "the host's own cond is as it was"


@pytest.mark.parametrize("family, wrap", [("sd1", lambda x: x), ("sdxl", sdxl)])
def test_the_negative_is_adapted_when_asked_and_may_be_missing(webui, files, family, wrap):
    cond, negative = embeddings(1, 77, WIDTHS[family], 1), embeddings(1, 77, WIDTHS[family], 2)
    values = controls(f"{family}.safetensors", negative=True)
    with_negative, at_cfg_1 = drawn(webui, values, (wrap(cond), wrap(negative)), (wrap(cond), None))
    found = with_negative.text_uncond
    found = found["crossattn"] if family == "sdxl" else found
    assert torch.equal(found, expected(files, family, negative))
    assert at_cfg_1.text_uncond is None


def test_half_precision_stays_half_precision(webui, files):
    cond = embeddings(1, 77, 768, 1, torch.float16)
    (params,) = drawn(webui, controls(), (cond, None))
    assert params.text_cond.dtype == torch.float16
    assert torch.equal(params.text_cond, expected(files, "sd1", cond))


def test_pictures_do_not_depend_on_the_rest_of_their_batch(webui, readings):
    prompts = embeddings(3, 77, 768, 1)
    alone, together = drawn(webui, controls(), (prompts[1:2], None), (prompts, None))
    assert torch.equal(alone.text_cond[0], together.text_cond[1])
    assert len(readings) == 3


@pytest.mark.parametrize(
    "case, rows, read",
    [("one picture", [0], 1), ("batch of one prompt", [0] * 4, 1), ("batch of four", [0, 1, 2, 3], 4)]
    + [("AND-composition in a batch of two", [0, 1, 0, 1], 2)],
)
def test_a_prompt_is_read_once_and_not_at_every_step(webui, files, readings, case, rows, read):
    prompts = embeddings(4, 77, 768, 1)
    steps = [(torch.stack([prompts[row] for row in rows]), None, step, 20) for step in range(20)]
    results = drawn(webui, controls(), *steps)
    assert len(readings) == read, case
    wanted = expected(files, "sd1", prompts[rows])
    assert all(torch.equal(params.text_cond, wanted) for params in results)


def test_prompt_editing_reads_each_stage_once(webui, files, readings):
    before, after = embeddings(1, 77, 768, 1), embeddings(1, 154, 768, 2)
    stages = [before] * 5 + [after] * 5
    results = drawn(webui, controls(), *((stage.clone(), None, i, 10) for i, stage in enumerate(stages)))
    assert len(readings) == 2
    assert torch.equal(results[4].text_cond, expected(files, "sd1", before))
    assert torch.equal(results[5].text_cond, expected(files, "sd1", after))


def test_what_is_remembered_cannot_be_changed_from_outside(webui, files):
    cond = embeddings(1, 77, 768, 1)
    wanted, p = expected(files, "sd1", cond), Processing()

    def sample():
        changed = cond.clone()
        webui.denoise(p, changed, None).text_cond.zero_()
        changed.zero_()
        assert torch.equal(webui.denoise(p, cond, None).text_cond, wanted)
        zeros = expected(files, "sd1", changed)
        assert torch.equal(webui.denoise(p, changed, None).text_cond, zeros)

    webui.run(p, controls(), sample)
    assert not webui.reported


def test_the_memory_for_prompts_is_bounded():
    row = embeddings(1, 77, 768)[0]
    reads = []
    remembered = AdaptedPrompts(
        lambda rows: reads.extend(rows) or [r + 1 for r in rows], limit=4 * row.nbytes
    )
    for number in (0, 1, 0, 2, 0, 1):  # room for two: 1 goes when 2 comes, 0 is used all the time
        assert torch.equal(remembered((row + number)[None])[0], row + number + 1)
    assert len(reads) == 4


@pytest.mark.parametrize(
    "start, end, steps, acting",
    [(0.0, 1.0, 10, range(10)), (0.3, 0.7, 10, range(3, 7)), (0.25, 0.5, 20, range(5, 10))]
    + [(0.0, 0.5, 7, range(4)), (0.1, 1.0, 10, range(1, 10)), (0.5, 0.5, 10, range(0))],
)
def test_start_and_end_are_exact_at_the_border_of_a_step(webui, start, end, steps, acting):
    cond = embeddings(1, 77, 768, 1)
    results = drawn(webui, controls(start=start, end=end), *((cond, None, i, steps) for i in range(steps)))
    assert [i for i, params in enumerate(results) if params.text_cond is not cond] == list(acting)


def test_an_end_of_one_holds_for_samplers_that_make_more_calls_than_announced(webui):
    cond = embeddings(1, 77, 768, 1)
    (params,) = drawn(webui, controls(), (cond, None, 25, 20))
    assert params.text_cond is not cond


def test_hires_fix_draws_its_second_pass_with_its_own_prompt_and_its_own_steps(webui, files, readings):
    first, second = embeddings(1, 77, 768, 1), embeddings(1, 77, 768, 2)
    steps = [(first, None, i, 4) for i in range(4)] + [(second, None, i, 2) for i in range(2)]
    results = drawn(webui, controls(end=0.5), *steps)
    assert [params.text_cond is not cond for params, (cond, *_) in zip(results, steps, strict=True)] == [
        *(True, True, False, False),
        *(True, False),
    ]
    assert torch.equal(results[4].text_cond, expected(files, "sd1", second)) and len(readings) == 2


def test_a_refiner_of_another_kind_is_left_alone_and_said_once(webui, caplog):
    base, refiner = sdxl(embeddings(1, 77, 2048, 1)), embeddings(1, 77, 768)
    p = Processing()
    steps = [(base, None, 0, 4), (base, None, 1, 4), (refiner, None, 2, 4), (refiner, None, 3, 4)]
    results = drawn(webui, controls("sdxl.safetensors"), *steps, p=p)
    assert [params.text_cond is cond for params, (cond, *_) in zip(results, steps, strict=True)] == [
        *(False, False),
        *(True, True),
    ]
    (said,) = [record.message for record in caplog.records]
    assert "leaves a checkpoint of this run alone" in said and "768 wide" in said
    assert list(p.comments) == [said], "and under the picture"


def test_the_sdxl_refiner_is_adapted_by_the_tower_of_its_encoder(webui, files):
    base, refiner = sdxl(embeddings(1, 77, 2048, 1)), DictWithShape({"crossattn": embeddings(1, 77, 1280)})
    steps = [(base, None, 0, 2), (refiner, None, 1, 2)]
    found = drawn(webui, controls("sdxl.safetensors"), *steps)[1].text_cond["crossattn"]
    assert torch.equal(found, expected(files, "sdxl", refiner["crossattn"]))
    assert not torch.equal(found, refiner["crossattn"])


@pytest.mark.parametrize(
    "values", [controls(enabled=False), controls(eta=0.0), controls(start=0.6, end=0.4), controls(end=0.0)]
)
def test_where_nothing_acts_the_host_keeps_its_very_objects(webui, values):
    cond, negative = embeddings(1, 77, 768, 1), embeddings(1, 77, 768, 2)
    p = Processing()
    for params in drawn(webui, values, *((cond, negative, i, 10) for i in range(10)), p=p):
        assert params.text_cond is cond and params.text_uncond is negative
    assert vars(p).keys() == vars(Processing()).keys(), "nothing is left on the processing object"


def refused(webui, values, cond, match, p=None):
    """The run stops where the host uses the prompt, with these words, and nothing is left of it."""
    p = p or Processing()
    with pytest.raises((ValueError, OSError), match=match):
        webui.run(p, values, lambda: webui.denoise(p, cond, torch.zeros_like(cond)))
    assert not webui.reported, "no traceback in the console"
    return p


@pytest.mark.parametrize(
    "values, match",
    [
        (
            controls("lost.safetensors"),
            "no adapter file 'lost.safetensors' in .*sur_adapters.*refresh button",
        ),
        (controls("../sd1.safetensors"), "no adapter file '../sd1.safetensors'"),
        (controls("None"), "No adapter has been chosen"),
        (controls(None), "No adapter has been chosen"),
        (controls("broken.safetensors"), "broken.safetensors.*copy or download it again"),
        (
            controls("sdxl.safetensors"),
            "sdxl.safetensors was trained for SDXL, 2048 wide; this checkpoint is ",
        ),
        (controls(eta=2), "eta must be a number from 0"),
        (controls(start="soon"), "start is a share of the sampling steps from 0 to 1, found 'soon'"),
        ((*controls(), 1), "has 6 values"),
    ],
)
def test_what_cannot_be_done_stops_the_run_in_words(webui, values, match):
    (webui.models / "sur_adapters" / "broken.safetensors").write_bytes(b"no adapter at all")
    refused(webui, values, embeddings(1, 77, 768), match)


def test_embeddings_that_come_from_no_clip_are_refused(webui):
    refused(webui, controls(), embeddings(1, 78, 768), "multiple of 77 tokens")
    refused(webui, controls(), torch.zeros(1, 77), "for others untick 'Enable'")


def test_a_refusal_says_why_wherever_the_host_touches_it():
    refusal = request.Refusal(ValueError("because"))
    for touch in (lambda: refusal.shape, lambda: refusal[0], lambda: hasattr(refusal, "advanced_indexing")):
        with pytest.raises(ValueError, match="because"):
            touch()
    assert not isinstance(refusal, (dict, torch.Tensor))


def test_a_failed_run_keeps_no_adapter_and_does_not_touch_the_next(webui):
    cond = embeddings(1, 77, 768, 1)
    failed = refused(webui, controls("sdxl.safetensors"), cond, "this checkpoint is SD 1.x")
    assert getattr(failed, request.ATTRIBUTE)._adapter is None
    (params,) = drawn(webui, controls(enabled=False), (cond, None))
    assert params.text_cond is cond
    (params,) = drawn(webui, controls(), (cond, None))
    assert params.text_cond is not cond


def test_a_run_that_the_host_breaks_off_dies_with_its_processing_object(webui):
    cond, owners = embeddings(1, 77, 768, 1), [Processing()]

    def out_of_memory():
        webui.denoise(owners[0], cond, None)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        webui.run(owners[0], controls(), out_of_memory)
    adapter = weakref.ref(getattr(owners[0], request.ATTRIBUTE)._adapter)
    assert webui.denoise(Processing(), cond, None).text_cond is cond
    owners.clear()
    gc.collect()
    assert adapter() is None


def test_a_run_leaves_nothing_behind(webui):
    cond, p = embeddings(1, 77, 768, 1), Processing()
    before = {name: list(registered) for name, registered in webui.callbacks.items()}
    adapters = []

    def sample():
        webui.denoise(p, cond, None)
        adapters.append(weakref.ref(getattr(p, request.ATTRIBUTE)._adapter))

    webui.run(p, controls(), sample)
    gc.collect()
    assert adapters[0]() is None
    assert webui.denoise(p, cond, None).text_cond is cond
    assert vars(p).keys() == vars(Processing()).keys()
    assert webui.callbacks == before


def test_a_second_run_with_the_same_processing_object_takes_the_new_settings(webui, files):
    cond, p = embeddings(1, 77, 768, 1), Processing()
    for eta in (0.2, 0.7):
        (params,) = drawn(webui, controls(eta=eta), (cond, None), p=p)
        assert torch.equal(params.text_cond, expected(files, "sd1", cond, eta))
        assert p.extra_generation_params["SUR eta"] == str(eta)
    drawn(webui, controls(enabled=False), (cond, None), p=p)
    assert p.extra_generation_params == {}


def test_other_processing_objects_are_not_touched_during_a_run(webui):
    """Other extensions draw pictures of their own in the middle of a run, with new objects or with copies."""
    cond, p = embeddings(1, 77, 768, 1), Processing()

    def sample():
        for other in (Processing(), copy.copy(p)):
            assert webui.denoise(other, cond, None).text_cond is cond
        assert webui.denoise(p, cond, None).text_cond is not cond

    webui.run(p, controls(), sample)


def test_weights_are_where_the_prompts_are_only_while_they_are_read(webui, monkeypatch):
    """Without a second device here, the moves are only counted."""
    moves = []
    monkeypatch.setattr(request, "_move", lambda _adapter, device: moves.append(str(device)))
    adapter = random_adapter("sd1", **SMALL)
    with request._on(adapter, torch.device("cuda")):
        assert moves == ["cuda"]
    with pytest.raises(RuntimeError), request._on(adapter, torch.device("cuda")):
        raise RuntimeError
    with request._on(adapter, torch.device("cpu")):
        pass
    assert moves == ["cuda", "cpu"] * 2
