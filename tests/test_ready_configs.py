"""The settings that come with the program can be used as they are, and are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sur_core.training_config import TrainingConfig

FOLDER = Path(__file__).resolve().parents[1] / "train" / "configs"
FILES = sorted(path for path in FOLDER.glob("*.toml") if not path.stem.startswith("study_"))
"""Of training; a study's are read in test_evaluation_study_config."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_ready_config_loads_and_survives_being_saved(path, tmp_path):
    config = TrainingConfig.load(path)
    config.save(tmp_path / "again.toml")
    assert TrainingConfig.load(tmp_path / "again.toml") == config


def test_the_papers_settings_are_those_of_its_appendix():
    config = TrainingConfig.load(FOLDER / "sd15_paper.toml")
    batch = config.train_batch_size * config.gradient_accumulation_steps
    assert (config.full_steps, config.align_steps, batch, config.resolution) == (5000, 0, 16, 512)
    assert {config.eta, config.learning_rate, config.lambda_llm, config.lambda_cp} == {1e-5}
    assert (config.kl_direction, config.cp_loss, config.token_mixing) == ("paper", "kl", "tokens")
    assert config.random_flip and config.crop == "center" and not config.mask_padding


def test_the_authors_settings_are_those_of_their_run_script():
    config = TrainingConfig.load(FOLDER / "sd15_authors_script.toml")
    assert (config.train_batch_size, config.gradient_accumulation_steps) == (1, 4)
    assert (config.eta, config.learning_rate, config.full_steps) == (0.1, 1e-5, 5000)
    assert (config.kl_direction, config.token_mixing, config.query_projection) == ("authors", "none", True)


@pytest.mark.parametrize("size", ["8gb", "12gb", "24gb"])
def test_memory_presets_differ_in_how_a_step_is_split_only(size):
    config = TrainingConfig.load(FOLDER / f"sd15_{size}.toml")
    assert config.train_batch_size * config.gradient_accumulation_steps == 16
    ways = {"train_batch_size": 1, "gradient_accumulation_steps": 1, "gradient_checkpointing": False}
    reference = TrainingConfig.load(FOLDER / "sd15_24gb.toml")
    assert config.with_values(**ways) == reference.with_values(**ways)


def test_prompt_pairs_need_no_pictures():
    config = TrainingConfig.load(FOLDER / "prompt_pairs.toml")
    assert config.full_steps == 0 and config.align_steps and "mse" in config.cp_loss
