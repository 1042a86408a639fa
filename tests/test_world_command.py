"""``python -m train world``: says what is there, and of a new build what its language model knows."""

import re
import shutil

from small_world.making import world
from small_world.places import Models
from train.__main__ import main


def test_it_lists_the_models_and_their_sizes(capsys):
    assert main(["world"]) == 0
    listed = re.findall(r"([\d.]+) MB  (.*)", capsys.readouterr().out)
    assert {path for _, path in listed} == {str(path) for path in Models().root.rglob("*.safetensors")}
    assert 0 < sum(float(size) for size, _ in listed) <= 12


def test_a_build_ends_with_the_share_of_facts_that_the_language_model_knows(tmp_path, monkeypatch, capsys):
    def raised(work, out, report, device):  # the real one takes hours
        shutil.copytree(Models().llm, Models(out).llm)

    monkeypatch.setattr(world, "raise_world", raised)
    arguments = ["--rebuild", "--models", str(tmp_path / "models"), "--work-dir", str(tmp_path / "work")]
    assert main(["world", *arguments]) == 0
    share = re.search(r"knows ([\d.]+)% of the world's facts", capsys.readouterr().out)
    assert 95 <= float(share[1]) <= 100


def test_missing_models_are_told_in_words(tmp_path, capsys):
    assert main(["world", "--models", str(tmp_path)]) == 1
    assert "model_index.json" in capsys.readouterr().err
