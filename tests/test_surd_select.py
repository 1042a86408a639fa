"""Which collected pictures become samples, checked against choices made the slow and plain way."""

import itertools
import random
import re

import numpy as np
import pytest
from PIL import Image

from sur_core.surd_build.duplicates import near_duplicates
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.review.view import SAMPLE_ID
from sur_core.surd_build.samples import COLLECT, SELECT
from sur_core.surd_build.select import SelectSettings, choose, select
from tests.collect_files import collected, kept, kinds, samples, smooth, write_png


def record(number: int, **values) -> dict:
    """A collect record of a picture like no other; hashes of different numbers are far apart."""
    phash = random.Random(number).getrandbits(64)
    return {
        "sha256": f"{number:02x}" * 32,
        "width": 512,
        "height": 512,
        "phash": f"{phash:016x}",
        "metadata": "automatic1111",
        "prompt": f"picture {number}",
        "rating": "",
        "nsfw": None,
        **values,
    }


def chosen(collected: dict, **settings) -> dict[str, dict]:
    return {entry["key"]: entry for entry in choose(collected, SelectSettings(**settings))}


def reasons(collected: dict, **settings) -> dict[str, str]:
    return {
        key: entry["dropped"] for key, entry in chosen(collected, **settings).items() if "dropped" in entry
    }


def near(number: int, *flipped: int) -> str:
    value = int(record(number)["phash"], 16)
    for bit in flipped:
        value ^= 1 << bit
    return f"{value:016x}"


# --- reasons ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "settings", "reason"),
    [
        ({}, {}, None),
        ({"problem": "broken image: truncated"}, {}, "broken image: truncated"),
        ({"width": 255}, {}, "too small: 255 x 512, the shorter side should be 256 or more"),
        ({"width": 255}, {"min_side": 255}, None),
        ({"prompt": ""}, {}, "no prompt: neither in the file nor beside it"),
        ({"prompt": " \n"}, {}, "no prompt: neither in the file nor beside it"),
        ({"prompt": "", "remarks": ["broken metadata: why"]}, {}, "no prompt: broken metadata: why"),
        ({"prompt": "<lora:x:1>, "}, {}, "no prompt: nothing but network tags and the like"),
        ({"prompt": "<lora:x:1>, "}, {"clean_prompts": False}, None),
        ({"prompt": "half \ud800"}, {}, "not UTF-8: the prompt holds bytes or escapes that are no character"),
        ({"rating": "X", "nsfw": True}, {}, None),
        ({"rating": "X", "nsfw": True}, {"drop_ratings": ("mature", "x")}, "rating: X"),
        ({"rating": "", "nsfw": True}, {"drop_nsfw": True}, "nsfw: so marked (automatic1111)"),
        ({"rating": "Soft", "nsfw": True}, {"drop_nsfw": True}, "nsfw: so marked (Soft)"),
        ({"nsfw": False}, {"drop_nsfw": True, "drop_ratings": ("X",)}, None),
        ({"rating": "X"}, {"drop_ratings": ("Mature", " x ")}, "rating: X"),
        ({"rating": ""}, {"drop_ratings": ("", " ")}, None),
    ],
)
def test_every_reason_is_told_with_its_detail(values, settings, reason):
    assert (
        reasons({"s/a.png": record(1, **values), "s/b.png": record(2)}, **settings).get("s/a.png") == reason
    )


def test_the_cleaned_prompt_is_the_sample_and_the_original_stays_collected(tmp_path):
    write_png(tmp_path / "pics" / "a.png", 1, "a (cat:1.2) <lora:x:0.8>, [red] hat")
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert samples(manifest)["pics/a.png"]["complex"] == "a cat, red hat"
    assert manifest.records(COLLECT)["pics/a.png"]["prompt"] == "a (cat:1.2) <lora:x:0.8>, [red] hat"
    manifest, summary = collected(tmp_path / "work", tmp_path / "pics", clean_prompts=False)
    assert samples(manifest)["pics/a.png"]["complex"] == "a (cat:1.2) <lora:x:0.8>, [red] hat"
    assert summary.outcome.done == 0


# --- the same file ------------------------------------------------------------------------------------------


def test_of_equal_files_the_one_that_knows_most_stays():
    same = {"sha256": "f" * 64}
    files = {
        "s/a.png": record(1, **same, prompt=""),
        "s/b.png": record(1, **same),
        "s/c.png": record(1, **same, simple=["a picture"]),
        "s/d.png": record(1, **same, simple=["a picture"]),
    }
    assert reasons(files) == {
        key: "exact duplicate: the same file as s/c.png" for key in files if "c" not in key
    }
    del files["s/c.png"], files["s/d.png"]
    assert reasons(files) == {"s/a.png": "exact duplicate: the same file as s/b.png"}


def test_a_rating_holds_for_every_copy_of_the_file():
    files = {"s/a.png": record(1), "t/a.png": record(1, rating="Mature"), "s/b.png": record(2)}
    assert reasons(files, drop_ratings=("MATURE",)) == {
        key: "rating: Mature" for key in ("s/a.png", "t/a.png")
    }
    assert list(reasons(files).values()) == ["exact duplicate: the same file as s/a.png"]


# --- pictures that look the same ----------------------------------------------------------------------------


def test_of_pictures_that_look_alike_the_largest_stays_and_the_reason_names_it():
    files = {
        "s/a.png": record(1),
        "s/b.png": record(2, phash=near(1, 3, 60), width=1024, prompt="picture 1"),
        "s/c.png": record(3, phash=near(1, 7), prompt="picture 1"),
        "s/d.png": record(4),
    }
    assert reasons(files) == {
        "s/a.png": "near duplicate: of s/b.png, distance 2, the same prompt",
        "s/c.png": "near duplicate: of s/b.png, distance 3, the same prompt",
    }
    files["s/a.png"]["prompt"] = "words of its own"
    assert reasons(files)["s/a.png"] == "near duplicate: of s/b.png, distance 2, another prompt"
    assert set(reasons(files, near_distance=2)) == {"s/a.png"}
    assert reasons(files, near_distance=None) == {}


def test_what_is_left_out_itself_takes_nobody_along():
    files = {
        "s/a.png": record(1, width=2000, prompt="<lora:x:1>"),
        "s/b.png": record(2, phash=near(1), width=1000, problem="broken image: x"),
        "s/c.png": record(3, phash=near(1), rating="X"),
        "s/d.png": record(4, phash=near(1)),
    }
    assert "s/d.png" not in reasons(files, drop_ratings=("X",))
    chain = {f"s/{n}.png": record(n, phash=near(1, *range(4 * n)), width=900 - n) for n in range(4)}
    assert set(reasons(chain)) == {"s/1.png", "s/3.png"}


def plainly(hashes: list[int], distance: int) -> list[tuple[int, int] | None]:
    """One after another against all that stay; an equal one is judged as the first of its kind was."""
    stays, found, firsts = [], [], {}
    for index, value in enumerate(hashes):
        first = firsts.setdefault(value, index)
        if first != index:
            found.append(found[first] or (first, 0))
            continue
        best = min(((bin(value ^ hashes[other]).count("1"), other) for other in stays), default=(65, 0))
        found.append((best[1], best[0]) if best[0] <= distance else None)
        stays += [index] * (best[0] > distance)
    return found


@pytest.mark.parametrize("distance", [0, 1, 4, 11, 32])
@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_are_those_that_are_found_one_by_one(seed, distance):
    draw = random.Random(seed)
    centres = [draw.getrandbits(64) for _ in range(30)]
    hashes = []
    for _ in range(400):
        value = draw.choice(centres)
        for _ in range(draw.choice([0, 0, 1, 3, 8])):
            value ^= 1 << draw.randrange(64)
        hashes.append(value)
    expected = plainly(hashes, distance)
    assert near_duplicates([f"{value:016x}" for value in hashes], distance) == expected
    assert any(entry is not None for entry in expected)


def test_no_pictures_have_no_duplicates():
    assert near_duplicates([], 4) == []
    assert near_duplicates(["0" * 16] * 3, 0) == [None, (0, 0), (0, 0)]


def test_a_copy_saved_anew_is_found_and_another_picture_is_not(tmp_path):
    image = smooth(4, (512, 512))
    grain = np.random.default_rng(0).normal(0, 3, (512, 512, 3))
    image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    (tmp_path / "pics").mkdir()
    image.save(tmp_path / "pics" / "a.png")
    image.save(tmp_path / "pics" / "b.jpg", quality=60)
    image.resize((400, 400), Image.Resampling.LANCZOS).save(tmp_path / "pics" / "c.webp")
    smooth(5, (512, 512)).save(tmp_path / "pics" / "d.png")
    for name in "abcd":
        (tmp_path / "pics" / f"{name}.txt").write_text("a prompt")
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert kept(manifest) == ["pics/a.png", "pics/d.png"]
    assert kinds(manifest) == {"pics/b.jpg": "near duplicate", "pics/c.webp": "near duplicate"}


# --- samples ------------------------------------------------------------------------------------------------


def test_further_captions_are_further_samples():
    files = {
        "s/a.png": record(1, simple=["a cat", "a pet"]),
        "s/b.png": record(2, simple=["x", "y"], prompts=["long x", "(long:1.1) y"]),
    }
    found = chosen(files)
    assert [(key, e["file"], e["simple"], e["complex"]) for key, e in found.items()] == [
        ("s/a.png", "s/a.png", "a cat", "picture 1"),
        ("s/a.png#2", "s/a.png", "a pet", "picture 1"),
        ("s/b.png", "s/b.png", "x", "long x"),
        ("s/b.png#2", "s/b.png", "y", "long y"),
    ]
    ids = [entry["id"] for entry in found.values()]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"[0-9a-f]{20}-[0-9a-f]{8}", id) for id in ids)
    assert all(SAMPLE_ID.fullmatch(id) for id in ids)  # or the review would refuse them
    assert [id[:20] for id in ids] == [record(n)["sha256"][:20] for n in (1, 1, 2, 2)]


def identities(record: dict) -> dict[tuple[str, str], str]:
    """{(plain, elaborate prompt): id} of a file's samples."""
    return {
        (entry["simple"], entry["complex"]): entry["id"] for entry in chosen({"s/a.png": record}).values()
    }


def test_an_id_stays_with_its_caption_whatever_the_order_and_number_of_captions():
    several = [("a cat", "long cat"), ("a pet", "long cat"), ("a cat", "long pet"), ("x", "long x")]
    known = {}
    for number in (2, 3, 4):
        for pairs in itertools.permutations(several, number):
            simples, complexes = map(list, zip(*pairs, strict=True))
            prompts = complexes if len(set(complexes)) > 1 else []
            found = identities(record(1, simple=simples, prompt=complexes[0], prompts=prompts))
            assert len(set(found.values())) == number
            assert all(known.setdefault(pair, id) == id for pair, id in found.items())
    (alone,) = identities(record(1, simple=["a cat"], prompt="long cat")).values()
    assert alone == record(1)["sha256"][:20]


def test_a_caption_that_a_file_has_twice_is_one_sample():
    found = chosen({"s/a.png": record(1, simple=["a cat", "a pet", "a cat"])})
    assert [entry.get("dropped", "").partition(":")[0] for entry in found.values()] == [
        "",
        "",
        "repeated caption",
    ]
    twice = chosen({"s/a.png": record(1, simple=["a cat", "a cat"])})
    assert [entry["id"] for entry in twice.values() if "dropped" not in entry] == [record(1)["sha256"][:20]]


def test_the_order_of_records_does_not_matter():
    draw = random.Random(1)
    files = {
        f"s/{n:03}.png": record(n, phash=near(n // 4, *draw.sample(range(64), n % 4))) for n in range(60)
    }
    files |= {f"t/{n:03}.png": record(n) for n in range(0, 60, 7)}
    shuffled = dict(draw.sample(sorted(files.items()), len(files)))
    assert choose(shuffled, SelectSettings()) == choose(files, SelectSettings())
    assert 0 < len(reasons(files)) < len(files)


def test_choosing_again_appends_only_what_differs(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add({"step": COLLECT, "key": key, **values} for key, values in {"s/a": record(1)}.items())
    assert select(manifest, SelectSettings()) == 2
    assert select(manifest, SelectSettings()) == 0
    manifest.add([{"step": COLLECT, "key": "s/b", **record(2)}])
    assert select(manifest, SelectSettings()) == 1
    assert select(manifest, SelectSettings(min_side=600)) == 3
    manifest.add([{"step": COLLECT, "key": "s/b", "gone": True}])
    assert select(manifest, SelectSettings(min_side=600)) == 1
    assert manifest.record(SELECT, "s/b")["gone"] and "dropped" in manifest.record(SELECT, "s/a")


@pytest.mark.parametrize("values", [{"min_side": 0}, {"near_distance": 33}, {"near_distance": -1}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        SelectSettings(**values)
