"""Every setting can be written and read, by file and by flag; what is wrong is refused by name."""

import json
import math
import sys
from dataclasses import asdict, fields

import pytest

from sur_core.training_config import TrainingConfig, changed_settings, read_toml
from train.__main__ import parse
from train.common import read_config

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no TOML reader")

FIELDS = {spec.name: spec for spec in fields(TrainingConfig)}
STRANGE = "a \"quoted\" \\ path\\n, tab\t, line\n, \x00\x01\x08\x0c\x1f\x7f\x85, é 狗 😀 \u2028, [x] # = ''' "


def other_value(name: str):
    """A value that the field allows and that is not its default."""
    spec, config = FIELDS[name], TrainingConfig()
    default = getattr(config, name)
    if spec.metadata["choices"]:
        return next(choice for choice in reversed(spec.metadata["choices"]) if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 8
    if isinstance(default, float):
        return default / 3 + 0.0123456789
    return (STRANGE, "", "b") if isinstance(default, tuple) else STRANGE


CHANGED = {name: other_value(name) for name in FIELDS}


def parsed(*flags: str) -> TrainingConfig:
    return read_config(parse(["fit", "--data", "d", "--pretrained-model-name-or-path", "m", *flags]))


# --- TOML ---------------------------------------------------------------------------------------------------


def test_every_setting_comes_back_from_the_file_it_was_written_to(tmp_path):
    changed = TrainingConfig(**CHANGED)
    assert all(getattr(changed, name) != getattr(TrainingConfig(), name) for name in FIELDS)
    for config in (TrainingConfig(), changed):
        config.save(tmp_path / "config.toml")
        assert TrainingConfig.load(tmp_path / "config.toml") == config
        assert set(read_toml(tmp_path / "config.toml")) == set(FIELDS)


@pytest.mark.parametrize("number", [1e-20, 1e-5, 0.1, 1 / 3, 1.0, 123456.789, 1e6])
def test_numbers_come_back_to_the_last_bit(tmp_path, number):
    TrainingConfig(learning_rate=number).save(tmp_path / "c.toml")
    assert TrainingConfig.load(tmp_path / "c.toml").learning_rate == number


def test_every_character_comes_back(tmp_path):
    for start in range(0, 0x3000, 0x400):
        text = "".join(map(chr, range(start, start + 0x400)))
        TrainingConfig(title=text).save(tmp_path / "c.toml")
        assert TrainingConfig.load(tmp_path / "c.toml").title == text


def test_the_file_explains_every_setting():
    lines = TrainingConfig().to_toml().splitlines()
    for name, spec in FIELDS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} = ")]
        assert line.endswith(f"  # {spec.metadata['help']}") and spec.metadata["help"]


@pytest.mark.parametrize(
    "text", ["eta = 0.2\ndepth = 3", "[loss]\neta = 0.2\ndepth = 3", "depth = 3\n[training]\neta = 0.2"]
)
def test_sections_are_for_people(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    config = TrainingConfig.load(tmp_path / "c.toml")
    assert (config.eta, config.depth) == (0.2, 3)
    assert TrainingConfig.load(tmp_path / "c.toml", eta=0.5).eta == 0.5


def test_whole_numbers_stand_for_numbers_with_a_point(tmp_path):
    (tmp_path / "c.toml").write_text("eta = 1\nlearning_rate = 1\nsample_prompts = ['a']")
    config = TrainingConfig.load(tmp_path / "c.toml")
    assert type(config.eta) is float and config.sample_prompts == ("a",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("etta = 0.1", "unknown setting 'etta'; did you mean 'eta'?"),
        ("[loss]\nlearning_rat = 0.1", "unknown setting 'learning_rat'; did you mean 'learning_rate'?"),
        ("zzzzzz = 1", "unknown setting 'zzzzzz'"),
        ("eta = '0.1'", "eta must be a number, found '0.1'"),
        ("eta = true", "eta must be a number, found True"),
        ("eta = nan", "eta must be a number, found nan"),
        ("depth = 2.0", "depth must be a whole number, found 2.0"),
        ("depth = true", "depth must be a whole number, found True"),
        ("random_flip = 1", "random_flip must be true or false, found 1"),
        ("data = 3", "data must be text, found 3"),
        ("sample_prompts = 'a cat'", "sample_prompts must be a list, found 'a cat'"),
        ("sample_prompts = [1]", "sample_prompts must be text, found 1"),
        ("[loss]\n[loss.eta]\nx = 1", "eta must be a number, found {'x': 1}"),
        ("[[loss]]\neta = 1", "unknown setting 'loss'"),
        ("eta = 0.1\n[loss]\neta = 0.1", "eta is set twice"),
        ("[loss]\neta = 0.1\n[model]\neta = 0.1", "eta is set twice"),
        ("eta = 0.1\neta = 0.1", "not readable as TOML"),
        ("eta = ", "not readable as TOML"),
        (b"title = '\xff'", "not readable as TOML"),
        ("cp_loss = 'mae'", "cp_loss must be one of ['kl', 'mse', 'kl+mse'], found 'mae'"),
        ("resolution = 500", "resolution must be a multiple of 8, found 500"),
        ("eta = 1.5", "eta must be in 0..1, found 1.5"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "my.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        TrainingConfig.load(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.toml"):
        TrainingConfig.load(tmp_path / "gone.toml")


# --- ranges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("eta", 0.0, 1.0),
        ("lambda_llm", 0.0, 1.0),
        ("lambda_cp", 0.0, 1.0),
        ("validation_share", 0.0, 1.0),
        ("dropout", 0.0, 0.999),
        ("ema_decay", 0.0, 0.9999),
        ("adam_beta2", 0.0, 0.99999),
        ("temperature", 1e-20, None),
        ("learning_rate", 1e-20, None),
        ("snr_gamma", 0.0, None),
        ("max_grad_norm", 0.0, None),
        ("train_batch_size", 1, None),
        ("gradient_accumulation_steps", 1, None),
        ("checkpointing_steps", 1, None),
        ("logging_steps", 1, None),
        ("clip_skip", 1, None),
        ("cache_batch_size", 1, None),
        ("validation_steps", 0, None),
        ("dataloader_num_workers", 0, None),
        ("seed", 0, (1 << 62) - 1),
        ("w0_seed", 0, (1 << 62) - 1),
    ],
)
def test_values_out_of_range_are_refused(name, low, high):
    step = 1 if isinstance(low, int) else 0.01
    assert getattr(TrainingConfig(**{name: low}), name) == low
    with pytest.raises(ValueError, match=f"{name} must be (in )?"):
        TrainingConfig(**{name: low - step})
    if high is not None:
        assert getattr(TrainingConfig(**{name: high}), name) == high
        with pytest.raises(ValueError, match=f"{name} must be (in )?"):
            TrainingConfig(**{name: high + step})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"align_steps": 0, "full_steps": 0}, "nothing to train"),
        ({"align_steps": 5, "lambda_llm": 0.0, "lambda_cp": 0.0}, "needs lambda_llm or lambda_cp"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**settings)


# --- flags --------------------------------------------------------------------------------------------------


def as_flags(name: str, value, dashes: bool) -> list[str]:
    flag = "--" + (name.replace("_", "-") if dashes else name)
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [flag, *value] if isinstance(value, tuple) else [flag, str(value)]


@pytest.mark.parametrize("dashes", [True, False])
@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_flag(name, dashes):
    found = parsed(*as_flags(name, CHANGED[name], dashes))
    assert getattr(found, name) == CHANGED[name]
    others = {"data", "pretrained_model_name_or_path", name}
    assert all(getattr(found, n) == getattr(TrainingConfig(), n) for n in FIELDS.keys() - others)


def test_switches_can_be_turned_on_and_off():
    assert parsed("--random-flip").random_flip and not parsed("--no-random-flip").random_flip


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("eta = 0.2\ndepth = 3\nrandom_flip = false")
    config = parsed("--config", str(path), "--eta", "0.4", "--random-flip")
    assert (config.eta, config.depth, config.random_flip) == (0.4, 3, True)


@pytest.mark.parametrize("missing", ["data", "pretrained_model_name_or_path"])
def test_what_every_run_needs_is_asked_for(missing):
    given = {"data": "--data", "pretrained_model_name_or_path": "--pretrained-model-name-or-path"}
    flags = [word for name, flag in given.items() if name != missing for word in (flag, "x")]
    with pytest.raises(ValueError, match=f"{missing} is not set"):
        read_config(parse(["fit", *flags]), *given)


# --- learning rate ------------------------------------------------------------------------------------------


def test_a_constant_rate_warms_up_in_each_stage():
    config = TrainingConfig(
        align_steps=5, full_steps=6, learning_rate=0.1, align_learning_rate=0.4, lr_warmup_steps=4
    )
    rates = [config.learning_rate_at(step) for step in range(11)]
    expected = [0.1, 0.2, 0.3, 0.4, 0.4] + [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert [config.stage_of(step) for step in range(11)] == ["align"] * 5 + ["full"] * 6
    assert config.total_steps == 11


def test_cosine_and_linear_fall_over_each_stage():
    common = {"align_steps": 4, "full_steps": 10, "learning_rate": 0.2, "lr_warmup_steps": 2}
    cosine = TrainingConfig(lr_scheduler="cosine", **common)
    linear = TrainingConfig(lr_scheduler="linear", **common)
    for step in range(14):
        place, length = (step, 4) if step < 4 else (step - 4, 10)
        if place < 2:
            falling = curved = 0.2 * (place + 1) / 2
        else:
            done = (place - 2) / (length - 2)
            falling, curved = 0.2 * (1 - done), 0.2 * (1 + math.cos(math.pi * done)) / 2
        assert linear.learning_rate_at(step) == pytest.approx(falling, rel=1e-12)
        assert cosine.learning_rate_at(step) == pytest.approx(curved, rel=1e-12)


@pytest.mark.parametrize("scheduler", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 7, 100])
def test_the_rate_is_never_zero_nor_above_its_peak(scheduler, warmup):
    config = TrainingConfig(
        align_steps=3, full_steps=7, lr_scheduler=scheduler, lr_warmup_steps=warmup, learning_rate=0.3
    )
    assert all(0 < config.learning_rate_at(step) <= 0.3 for step in range(10))


# --- going on with changed settings -------------------------------------------------------------------------


def remembered(config: TrainingConfig) -> dict:
    """Settings as a state file has them."""
    return json.loads(json.dumps(asdict(config)))


@pytest.mark.parametrize("name", FIELDS)
def test_what_changes_the_weights_is_reported_and_nothing_else(name):
    config = TrainingConfig(lr_scheduler="cosine")
    changed = config.with_values(**{name: CHANGED[name] if name != "lr_scheduler" else "linear"})
    found = changed_settings(remembered(config), changed)
    if FIELDS[name].metadata["free"]:
        assert found == []
    else:
        assert found == [f"{name} was {getattr(config, name)!r}, now is {getattr(changed, name)!r}"]


FREE = """
pretrained_model_name_or_path data quarantine vectors llm llm_device llm_max_tokens
single_file_config cache_dir cache_batch_size train_batch_size gradient_accumulation_steps device
dataloader_num_workers output_dir title checkpointing_steps logging_steps validation_steps sample_prompts
sample_steps sample_inference_steps sample_guidance_scale sample_seed
"""


def test_only_these_settings_change_no_weight():
    assert {name for name, spec in FIELDS.items() if spec.metadata["free"]} == set(FREE.split())


def test_unchanged_settings_are_not_reported():
    config = TrainingConfig(**CHANGED)
    assert changed_settings(remembered(config), config) == []


def test_a_constant_rate_may_go_on_for_longer():
    longer = TrainingConfig(full_steps=9000)
    assert changed_settings(remembered(TrainingConfig(full_steps=5000)), longer) == []
    cosine = TrainingConfig(full_steps=9000, lr_scheduler="cosine")
    before = remembered(cosine.with_values(full_steps=5000))
    assert changed_settings(before, cosine) == ["full_steps was 5000, now is 9000"]


def test_settings_of_an_older_version_have_their_defaults():
    old = remembered(TrainingConfig())
    del old["noise_offset"], old["sample_prompts"]
    assert changed_settings(old, TrainingConfig()) == []
    assert changed_settings(old, TrainingConfig(noise_offset=0.1)) == ["noise_offset was 0.0, now is 0.1"]


def test_unknown_sections_and_flags_are_named_with_what_was_meant(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("[trainig]\nseed = 1\n")
    with pytest.raises(ValueError, match=r"c.toml: unknown section \[trainig\]; did you mean \[training\]"):
        TrainingConfig.load(tmp_path / "c.toml")
    with pytest.raises(SystemExit):
        parse(["fit", "--learnign-rate", "3"])
    said = capsys.readouterr().err
    assert "unknown argument --learnign-rate; did you mean --learning-rate?" in said
    assert len(said.splitlines()) == 2, "not a screen of usage"


def test_a_file_and_flags_are_judged_together(tmp_path):
    """What a file says need not be a whole run: a flag may say the rest."""
    path = tmp_path / "my.toml"
    path.write_text("\ufefffull_steps = 0\n", "utf8")
    assert TrainingConfig.load(path, align_steps=5).total_steps == 5
    with pytest.raises(ValueError, match="nothing to train"):
        TrainingConfig.load(path)
