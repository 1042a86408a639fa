"""What is exported can be collected again: nothing that a source said of a picture is lost on the way."""

import json
import random

import pytest

from sur_core.surd import open_surd
from sur_core.surd_build.export import ExportSettings, export
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.samples import BuildSample, read_samples
from tests.collect_files import collected, kept, write_png
from tests.surd_works import Work, gradient
from train.__main__ import main

FACTS = ("origin", "license", "rating", "nsfw")
SAID = {
    "all.png": {"origin": "http://o/1", "license": "CC0-1.0", "rating": "Mature", "nsfw": True},
    "safe.png": {"origin": "http://o/2?a=b&c", "license": "own | words", "rating": "PG", "nsfw": False},
    "flag.png": {"nsfw": True},
    "odd.png": {"license": "猫", "rating": "five stars", "origin": "a book, p. 3"},
    "nothing.png": {},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def table(folder, said: dict):
    rows = []
    for seed, (name, more) in enumerate(said.items()):
        write_png(folder / name, seed, None)
        rows.append(
            {"file_name": name, "text": f"a thing, {name}", "prompt": f"größer, “{name}”\nfine"} | more
        )
    path = folder / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def known(manifest: Manifest) -> dict[str, tuple]:
    """{plain prompt: (elaborate prompt, what the source said)} of kept samples."""
    return {sample.simple: _known(sample) for sample in read_samples(manifest) if not sample.dropped}


def _known(sample: BuildSample) -> tuple:
    return sample.complex, {name: sample.facts[name] for name in FACTS}


@pytest.mark.parametrize("said", [SAID, {"one.png": {}, "two.png": {}}])
@pytest.mark.parametrize("clean", [True, False])
def test_prompts_and_what_the_source_said_come_back_exactly(tmp_path, said, clean):
    """The exported row's ``source``, which is a name, does not become an origin either."""
    first, _ = collected(tmp_path / "one", table(tmp_path / "pics", said), clean_prompts=clean)
    before = known(first)
    assert len(before) == len(said)
    for _ in range(2):
        export(first, tmp_path / "out", ExportSettings(64))
        second, _ = collected(
            tmp_path / "two", tmp_path / "out", min_side=64, near_distance=None, clean_prompts=clean
        )
        assert known(second) == before


def test_nsfw_is_exported_as_a_boolean_and_followed_when_collected_again(tmp_path):
    first, _ = collected(tmp_path / "one", table(tmp_path / "pics", SAID))
    export(first, tmp_path / "out", ExportSettings(64))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert {row["text"].split()[-1]: row["nsfw"] for row in rows} == {
        name: said.get("nsfw") for name, said in SAID.items()
    }
    choice = {"min_side": 64, "near_distance": None}
    second, _ = collected(tmp_path / "two", tmp_path / "out", drop_nsfw=True, **choice)
    assert len(kept(second)) == 3
    assert not any(sample.facts["nsfw"] for sample in read_samples(second) if not sample.dropped)
    third, _ = collected(
        tmp_path / "three", tmp_path / "out", drop_ratings=("mature", "five stars"), **choice
    )
    assert len(kept(third)) == 3


@pytest.mark.parametrize("layout", ["authors", "parquet", "both"])
def test_every_layout_with_marks_is_read_by_training_the_hubs_library_and_check(tmp_path, layout):
    import datasets

    first, _ = collected(tmp_path / "one", table(tmp_path / "pics", SAID))
    export(first, tmp_path / "out", ExportSettings(16, layout=layout))
    found = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert found.features["nsfw"].dtype == "bool"
    assert dict(zip(found["text"], found["nsfw"], strict=True)) == {
        f"a thing, {name}": said.get("nsfw") for name, said in SAID.items()
    }
    surd = open_surd(tmp_path / "out")
    assert len(surd) == len(SAID) and surd.quarantined == []
    assert main(["check", str(tmp_path / "out"), "--resolution", "16"]) == 0


def test_the_card_counts_marks_and_missing_ones_apart(tmp_path):
    made, draw = Work(tmp_path), random.Random(1)
    for number, nsfw in enumerate((True, False, False, None)):
        made.add(f"{number}.png", gradient(draw, (20, 20)), "c", f"s {number}", nsfw=nsfw)
    export(made.manifest(), tmp_path / "out", ExportSettings(16))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for row in ("| true | 1 |", "| false | 2 |", "| not given | 1 |"):
        assert row in card
