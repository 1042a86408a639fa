"""Pages for people: which pictures they show, and that nothing on them tells an arm."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from sur_core.evaluation import EvalPrompt
from sur_core.evaluation.sheets import Choice, PageOptions, make_preference, make_sheet
from sur_core.evaluation.sheets.hiding import Hiding
from sur_core.evaluation.sheets.page import pictures_folder
from tests.sheet_runs import ARMS, PROMPTS, SEEDS, key_of, make_results, pictures_in, pixels_of, told_by
from train.__main__ import main

MAKERS = {"sheets": make_sheet, "preferences": make_preference}
both = pytest.mark.parametrize("kind", MAKERS)


def made(kind, tmp_path, name="page", results=None, **options):
    """(page, key as read) of a page."""
    results = results or make_results(tmp_path / f"{name}-results")
    page = tmp_path / f"{name}.html"
    done = MAKERS[kind](results, page, options=PageOptions(**{"seed": 5, **options}))
    return page, json.loads(done.key.read_text())


def chunks_of(png: bytes) -> list[bytes]:
    names, place = [], 8
    while place < len(png):
        names.append(png[place + 4 : place + 8])
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return names


# --- nothing tells the arm ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("inside", [True, False])
def test_the_page_is_the_same_to_the_byte_whichever_arm_drew_which(kind, inside, tmp_path):
    """So nothing on it, order and names and sides included, can be a sign of the arm."""
    contents, arms = [], []
    for number, drew in enumerate([("one hand", "other hand"), ("other hand", "one hand")]):
        results, folder = make_results(tmp_path / f"results-{number}", drew=drew), tmp_path / str(number)
        folder.mkdir()
        _, key = made(kind, folder, results=results, inside=inside)
        contents.append({path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()})
        arms.append([item["left"] if kind == "preferences" else item["arms"][0] for item in key["items"]])
    other = dict(zip(ARMS, ARMS[::-1], strict=True))
    assert [other[arm] for arm in arms[0]] == arms[1]
    assert contents[0] == contents[1] and len(contents[0]) == (1 if inside else 25)


@both
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_no_word_of_the_results_and_no_byte_of_their_files_gets_out(kind, inside, format, tmp_path):
    results = make_results(tmp_path / "results")
    page, key = made(kind, tmp_path, results=results, inside=inside, format=format, seed="a secret of mine")
    files = {path.name: path.read_bytes() for path in pictures_folder(page).glob("*")}
    pictures = pictures_in(page) if inside else files
    assert bool(files) is not inside and len(pictures) == 24
    everything = [page.read_bytes(), *(name.encode() for name in pictures), *pictures.values()]
    secrets = [
        *ARMS,
        *(prompt.id for prompt in PROMPTS),
        *map(str, SEEDS),
        "masterpiece",
        "key-of",
        "images/",
    ]
    secrets += ["drawn by", "results", key["secret"], str(tmp_path)]
    for part in everything:
        assert [word for word in secrets if word.encode() in part] == []
    originals = [path.read_bytes() for path in results.rglob("*.png")]
    for content in pictures.values():
        assert content not in originals
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert picture.format == format.upper()
            assert not picture.getexif() and not getattr(picture, "text", None)
            assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        if format == "png":
            assert set(chunks_of(content)) == {b"IHDR", b"IDAT", b"IEND"}
        else:
            assert b"Exif" not in content and b"\xff\xfe" not in content[:200]


def test_bytes_of_pictures_differ_even_from_files_without_metadata(tmp_path):
    """A file written as evaluations write theirs, whose pixels the page keeps exactly."""
    results = make_results(tmp_path / "results")
    for path in results.rglob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG", compress_level=6)
        path.write_bytes(content.getvalue())
    page, key = made("sheets", tmp_path, results=results, format="png")
    files = pictures_in(page)
    for item in key["items"]:
        original = (results / item["path"]).read_bytes()
        assert files[item["id"]] != original
        theirs, ours = (np.asarray(Image.open(io.BytesIO(x))) for x in (original, files[item["id"]]))
        assert np.array_equal(theirs, ours)


def test_places_and_sides_have_nothing_to_do_with_the_arm(tmp_path):
    """Over many secrets every arm comes as early as any other, and as often on the left."""
    results = make_results(tmp_path / "results", prompts=PROMPTS[:2], seeds=SEEDS[:2])
    places, lefts, tries = Counter(), Counter(), 150
    for seed in range(tries):
        _, key = made("sheets", tmp_path, f"sheet-{seed}", results, seed=seed)
        for place, item in enumerate(key["items"]):
            places[item["arms"][0]] += place
        _, key = made("preferences", tmp_path, f"pairs-{seed}", results, seed=seed)
        lefts.update(item["left"] for item in key["items"])
    # The mean place of 4 among 8 has variance (8 + 1) / 12; a side is a fair coin.
    assert abs(places[ARMS[0]] / tries / 4 - 3.5) < 5 * (9 / 12 / tries) ** 0.5
    assert abs(lefts[ARMS[0]] / (4 * tries) - 0.5) < 5 * (0.25 / 4 / tries) ** 0.5


@both
def test_prompts_and_seeds_are_shuffled_and_by_every_secret_in_another_way(kind, tmp_path):
    results = make_results(tmp_path / "results")
    orders = []
    for seed in (1, 2, None):
        _, key = made(kind, tmp_path, f"page {seed}", results, seed=seed)
        orders.append([(item["prompt_id"], item["seed"]) for item in key["items"]])
        follow = sum(one[0] == other[0] for one, other in pairwise(orders[-1]))
        assert follow < len(orders[-1]) / 2  # a fourth by chance, three of four if they were in order
        assert sorted(orders[-1]) == sorted(orders[0])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_names_say_nothing_but_the_place(tmp_path):
    pages = [told_by(made("sheets", tmp_path, name)[0]) for name in ("one", "two")]
    assert [item["id"] for item in pages[0]["items"]] == [item["id"] for item in pages[1]["items"]]
    names = [item["id"] for item in told_by(made("sheets", tmp_path, "other", seed=6)[0])["items"]]
    assert not set(names) & {item["id"] for item in pages[0]["items"]}
    assert all(re.fullmatch("[0-9a-f]{24}", name) for name in names)
    drawn = Hiding(), Hiding()
    assert drawn[0].secret != drawn[1].secret and len(drawn[0].secret) == 32
    assert drawn[0].name("item 0") != drawn[1].name("item 0")


def test_times_of_the_files_beside_a_page_follow_the_page_and_not_the_arms(tmp_path):
    page, key = made("sheets", tmp_path, inside=False)
    times = [(pictures_folder(page) / f"{item['id']}.png").stat().st_mtime_ns for item in key["items"]]
    assert all(before <= after for before, after in pairwise(times))
    assert key["items"] != sorted(key["items"], key=lambda item: item["arms"])


@both
def test_the_key_stays_with_the_results(kind, tmp_path):
    results = make_results(tmp_path / "results")
    page, key = made(kind, tmp_path, results=results)
    assert key_of(results, kind) == results / kind / told_by(page)["study"] / "key.json"
    with pytest.raises(ValueError, match="lies in the results folder.*Give a place outside with -o"):
        MAKERS[kind](results, results / "pages" / "page.html")


@both
@pytest.mark.parametrize("inside", [True, False])
def test_the_page_may_connect_to_nothing(kind, inside, tmp_path):
    text = made(kind, tmp_path, inside=inside)[0].read_text("utf-8")
    policy = dict(rule.split(" ", 1) for rule in re.search('Policy" content="(.*?)"', text)[1].split("; "))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["img-src"] == ("data:" if inside else "'self' file:")
    for tag, rule in (("style", "style-src"), ('script type="module"', "script-src")):
        content = re.search(f"<{tag}>(.*?)</{tag.split()[0]}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[rule] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script")
    text = re.sub('<script type="text/plain".*?</script>', "", text)
    assert not re.search(r"https?:|//\w|\bfetch\(|XMLHttp|sendBeacon|WebSocket|\bimport\b", text)


# --- which pictures are shown -------------------------------------------------------------------------------


def test_a_sheet_shows_every_picture_once_with_the_simple_prompt(tmp_path):
    page, key = made("sheets", tmp_path)
    shown = Counter((item["arms"][0], item["prompt_id"], item["seed"]) for item in key["items"])
    assert shown == {(arm, p.id, seed): 1 for arm in ARMS for p in PROMPTS for seed in SEEDS}
    texts = {prompt.id: prompt.prompt for prompt in PROMPTS}
    told, files = told_by(page), pictures_in(page)
    assert list(files) == [item["id"] for item in told["items"]] == [item["id"] for item in key["items"]]
    for item, asked in zip(key["items"], told["items"], strict=True):
        assert asked["prompt"] == texts[item["prompt_id"]]
        assert ("number" in told["questions"][asked["question"]]) == (item["type"] == "Counting")
        expected = pixels_of(f"{item['arms'][0]} {item['prompt_id']} {item['seed']}")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[item["id"]]))), expected)


def test_the_left_picture_is_the_left_arms(tmp_path):
    page, key = made("preferences", tmp_path)
    files = pictures_in(page)
    for item, told in zip(key["items"], told_by(page)["items"], strict=True):
        for side, name in zip(("left", "right"), told["pictures"], strict=True):
            expected = pixels_of(f"{item[side]} {item['prompt_id']} {item['seed']}")
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[name]))), expected)
        assert told["prompt"] == ""


def test_what_arms_drew_alike_is_asked_once_for_all_of_them(tmp_path):
    arms, drew = ("base", "eta 0", "other"), ("hand", "hand", "other hand")
    results = make_results(tmp_path / "results", arms, drew)
    done = make_sheet(results, tmp_path / "page.html")
    items = json.loads(done.key.read_text())["items"]
    assert done.items == len(items) == 2 * len(PROMPTS) * len(SEEDS)
    assert Counter(tuple(item["arms"]) for item in items) == {("base", "eta 0"): 12, ("other",): 12}
    assert done.remarks == ("12 pictures are the same as another arm's, and are asked once",)


def test_a_part_can_be_chosen(tmp_path):
    results = make_results(tmp_path / "results")
    choice = Choice(arms=("SUR-arm",), types=("Action",), per_prompt=2)
    items = json.loads(make_sheet(results, tmp_path / "page.html", choice).key.read_text())["items"]
    assert sorted((item["prompt_id"], item["seed"]) for item in items) == [
        (prompt, seed) for prompt in ("id-action", "id-action-2") for seed in SEEDS[:2]
    ]
    assert {arm for item in items for arm in item["arms"]} == {"SUR-arm"}


def test_with_several_pairs_of_arms_no_picture_is_shown_twice(tmp_path):
    arms = ("base", "a", "b", "c")
    results = make_results(tmp_path / "results", arms)
    done = make_preference(results, tmp_path / "page.html", options=PageOptions(seed=1))
    key = json.loads(done.key.read_text())
    shown = Counter(item[side] for item in key["items"] for side in ("left_path", "right_path"))
    assert set(shown.values()) == {1} and done.items == len(PROMPTS) * len(SEEDS)
    by_pair = Counter(frozenset((item["left"], item["right"])) for item in key["items"])
    assert by_pair == {frozenset(("base", arm)): 4 for arm in "abc"}
    by_type = Counter((item["type"], frozenset((item["left"], item["right"]))) for item in key["items"])
    assert set(by_type.values()) == {2}
    assert "no picture is shown twice" in done.remarks[0]
    again = make_preference(results, tmp_path / "reused.html", reuse=True)
    assert again.items == 3 * done.items and "people may tell the arm" in again.remarks[0]


def test_pairs_are_chosen_and_pairs_of_the_same_picture_left_out(tmp_path):
    results = make_results(tmp_path / "results", ("base", "same", "other"), ("x", "x", "y"))
    done = make_preference(results, tmp_path / "page.html", pairs=[("other", "same")])
    key = json.loads(done.key.read_text())
    assert key["pairs"] == [["other", "same"]] and key["arms"] == ["other", "same"]
    with pytest.raises(ValueError, match="'base' and 'same' drew the same pictures"):
        make_preference(results, tmp_path / "other.html", pairs=[("base", "same")])


def test_arms_with_pictures_of_another_size_are_told(tmp_path):
    results = make_results(tmp_path / "results")
    for path in results.glob("images/key-of-SUR*/*.png"):
        Image.fromarray(pixels_of(str(path), (40, 20))).save(path)
    remark = make_sheet(results, tmp_path / "page.html").remarks[0]
    assert "differ in size" in remark and "SUR-arm: 40 x 20" in remark


def test_many_pixels_become_jpeg_and_lie_beside():
    assert PageOptions().settled(1_000_000) == ("png", True)
    assert PageOptions().settled(35_000_000) == ("png", False)
    assert PageOptions().settled(50_000_000) == ("jpeg", True)
    assert PageOptions().settled(500_000_000) == ("jpeg", False)
    assert PageOptions(format="png", inside=True).settled(500_000_000) == ("png", True)


# --- bad input ----------------------------------------------------------------------------------------------


@both
def test_a_page_that_is_there_is_not_replaced(kind, tmp_path):
    results = make_results(tmp_path / "results")
    page, _ = made(kind, tmp_path, results=results)
    before = page.read_bytes()
    with pytest.raises(FileExistsError, match="people may be answering it"):
        made(kind, tmp_path, results=results, seed=9)
    assert page.read_bytes() == before
    assert len(list(results.glob(f"{kind}/*"))) == 1


@both
@pytest.mark.parametrize(
    ("damage", "words"), [("gone", "missing.*draws what is missing"), ("cut", "damaged")]
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_missing_or_damaged_picture_is_named_and_nothing_is_left(kind, damage, words, inside, tmp_path):
    results = make_results(tmp_path / "results")
    path = sorted(results.rglob("*.png"))[3]
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:60])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=words) as told:
        made(kind, tmp_path, results=results, inside=inside)
    assert path.name in str(told.value)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", [True, False])
def test_a_page_that_cannot_be_finished_leaves_nothing(inside, tmp_path, monkeypatch):
    import sur_core.evaluation.sheets.sheet as sheet

    results, left = make_results(tmp_path / "results"), [5]

    def read(found, path):
        left[0] -= 1
        if not left[0]:
            raise ValueError("the picture has gone")
        return pixels_of(path)

    monkeypatch.setattr(sheet, "read_pixels", read)
    with pytest.raises(ValueError, match="the picture has gone"):
        made("sheets", tmp_path, results=results, inside=inside)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_arms_without_common_pictures_and_too_many_pairs_are_told(tmp_path):
    results = make_results(tmp_path / "results")
    found = json.loads((results / "results.json").read_text())
    found["pictures"] = [
        picture
        for picture in found["pictures"]
        if (picture["arm"] == ARMS[0]) == (picture["type"] == "Action")
    ]
    (results / "results.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="'base-arm' and 'SUR-arm' have no prompt and seed in common"):
        make_preference(results, tmp_path / "page.html")
    few = make_results(tmp_path / "few", ("base", "a", "b"), prompts=PROMPTS[:1], seeds=SEEDS[:1])
    with pytest.raises(ValueError, match="1 prompts and seeds cannot be dealt to 2 pairs.*Choose fewer"):
        make_preference(few, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda r, p: make_sheet(r, p, Choice(arms=("nobody",))),
            "no arm 'nobody'; there are: base-arm; SUR",
        ),
        (
            lambda r, p: make_sheet(r, p, Choice(types=("Colour",))),
            "no type 'Colour'; there are: Action; Cou",
        ),
        (lambda r, p: make_preference(r, p, [("SUR-arm", "nobody")]), "no arm 'nobody'"),
        (lambda r, p: make_preference(r, p, [("SUR-arm", "SUR-arm")]), "one arm twice"),
        (lambda r, p: make_preference(r, p, [ARMS, ARMS[::-1]]), "given twice"),
        (lambda r, p: make_preference(r, p, choice=Choice(arms=ARMS[:1])), "one arm only, 'base-arm'"),
        (lambda r, p: make_preference(r, p, ask="beauty"), "expected quality or prompt"),
        (lambda r, p: make_sheet(r, p, Choice(per_prompt=-1)), "per_prompt"),
        (lambda r, p: make_sheet(r, p, options=PageOptions(format="gif")), "expected auto, png, jpeg"),
        (lambda r, p: make_sheet(r / "no", p), "expected a folder that evaluate has filled"),
    ],
)
def test_wrong_wishes_are_told_in_words(make, words, tmp_path):
    results = make_results(tmp_path / "results")
    with pytest.raises((ValueError, OSError), match=words):
        make(results, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_of_a_study_it_is_told_where_the_results_are(tmp_path):
    make_results(tmp_path / "study" / "sd15" / "none")
    (tmp_path / "study" / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="is a study; .* of one of its cells: sd15/none"):
        make_sheet(tmp_path / "study", tmp_path / "page.html")


def test_a_prompt_cannot_break_out_of_the_page(tmp_path):
    strange = "</script><script>alert(1)</script> <!-- \u2028 \U0001f600 \x07"
    prompts = (EvalPrompt("x", "Action", strange), *PROMPTS)
    page, key = made(
        "sheets", tmp_path, results=make_results(tmp_path / "r", prompts=prompts), title='<b> & "'
    )
    told = {item["prompt"] for item in told_by(page)["items"]}
    assert strange in told
    assert "alert(1)</script" not in page.read_text("utf-8")
    assert "<title>&lt;b&gt; &amp; &quot;</title>" in page.read_text("utf-8")


def test_the_command_makes_pages_beside_the_results(tmp_path, monkeypatch, capsys):
    results = make_results(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "sheet", "make", "runs", "--arm", "SUR-arm", "--per_prompt", "1"]) == 0
    assert main(["evaluate", "preference", "make", "runs", "--pair", *ARMS, "--ask", "prompt"]) == 0
    said = capsys.readouterr().out
    assert "runs-sheet.html: 4 pictures to mark" in said
    assert "runs-preference.html: 12 pairs of pictures" in said
    assert f"Which arm drew what stands in {key_of(results).relative_to(tmp_path)}" in said
    assert told_by(tmp_path / "runs-preference.html")["items"][0]["prompt"]
    assert main(["evaluate", "sheet", "make", "runs"]) == 1
    assert "people may be answering it" in capsys.readouterr().err
