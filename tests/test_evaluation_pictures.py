"""Picture files are whole or not there, in evaluations and in the small world's data sets alike."""

import os

import numpy as np
import pytest

from small_world.dataset import test_prompts as make_prompts
from small_world.dataset import write_reference, write_surd
from sur_core.evaluation.pictures import is_whole, read_picture, write_picture
from sur_core.evaluation.references import open_references
from tests.helpers import killed_at_a_rename


def test_a_picture_is_read_as_it_was_written(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    for level in (1, 6):
        write_picture(tmp_path / "deep" / "a.png", pixels, level)
        assert is_whole(tmp_path / "deep" / "a.png")
        assert np.array_equal(read_picture(tmp_path / "deep" / "a.png"), pixels)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
    assert not is_whole(tmp_path / "gone.png")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_data_set_has_no_half_pictures_and_is_finished(tmp_path):
    folder = tmp_path / "surd"
    killed_at_a_rename(5, lambda: write_surd(folder, 12, 0))
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 4 and all(map(is_whole, pictures)) and list(folder.glob(".unfinished-*"))
    kept = [path.stat().st_ino for path in pictures]
    write_surd(folder, 12, 0)
    assert [path.stat().st_ino for path in pictures] == kept
    whole = write_surd(tmp_path / "whole", 12, 0)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def test_the_small_worlds_references_are_known_by_their_prompts(tmp_path):
    prompts = make_prompts(2)
    found = open_references(write_reference(tmp_path, prompts, each=3), {prompt.id for prompt in prompts})
    assert sorted(found.prompts) == sorted(prompt.id for prompt in prompts for _ in range(3))
    assert found.words() == "18 pictures: 18 of 6 of these prompts"
