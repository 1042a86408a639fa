"""The demo's report: one page that stands alone, says what was found and claims no more than it shows."""

import base64
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from small_world.report import write_report
from small_world.report.summary import headline, judgement, overall
from small_world.report.tokens import token_changes
from sur_core import load_adapter
from sur_core.evaluation import (
    Accuracy,
    Arm,
    EvalPrompt,
    Evaluation,
    EvaluationSettings,
    Picture,
    Verdict,
    compare,
    read_results,
)
from sur_core.evaluation.tables import INDEPENDENT_NOTE, interval_words, kid_cells
from tests.helpers import random_adapter
from tests.small_world_stand_ins import demo_settings, finished_demo, stand_in_models


@pytest.fixture(scope="module")
def models():
    return stand_in_models()


@pytest.fixture(scope="module")
def settings():
    return demo_settings()


@pytest.fixture(scope="module")
def finished():
    return finished_demo()


class Page(HTMLParser):
    """A document's elements, its text, and the text within each table cell; fails where tags do not match."""

    VOID = {"meta", "img"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.tables = [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, "unclosed tags"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("th", "td"):
            self.tables[-1]["rows"][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif {"th", "td"} & set(self.open):
            self.tables[-1]["rows"][-1][-1] += data + " "

    def table(self, words):
        return next(table["rows"] for table in self.tables if words in table["caption"])

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished[0] / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished[0] / "results.json").read_text("utf-8"))


# --- the page -----------------------------------------------------------------------------------------------


def test_the_report_is_one_file_that_asks_nothing_of_the_network(page, finished):
    text = (finished[0] / "report.html").read_text("utf-8")
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"base64,[^\"]+", "", text)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "pictures with equal ids spoil each other"
    assert {attributes["href"][1:] for _, attributes in page.elements if "href" in attributes} <= set(ids)
    assert set(re.findall(r"url\((.*?)\)", text)) <= {f"#{name}" for name in ids}


def test_pictures_have_words_and_tables_have_heads(page):
    images, drawings = page.all("img"), page.all("svg")
    assert len(images) == 3 * 2 * 6 and len(drawings) >= 3 + 3
    assert all(image["alt"].strip() for image in images)
    assert all(drawing["role"] == "img" and drawing["aria-label"].strip() for drawing in drawings)
    assert len(page.tables) >= 3 + 3 + 3 + 2 and all(table["caption"] for table in page.tables)
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_accuracy_table_says_what_the_pictures_say(page, results):
    right, drawn = Counter(), Counter()
    for picture in results["pictures"]:
        for type in (picture["type"], "all"):
            drawn[picture["arm"], type] += 1
            right[picture["arm"], type] += picture["verdict"]["right"]
    head, *rows = page.table("Table 2")
    types = [cell.split()[0] for cell in head[2:]]
    assert types == ["counting", "color", "action", "all"]
    assert [row[0].strip() for row in rows] == [arm["name"] for arm in results["arms"]]
    for row in rows:
        shares = [100 * right[row[0].strip(), type] / drawn[row[0].strip(), type] for type in types]
        assert [cell.split()[0] for cell in row[2:]] == [f"{share:.2f}" for share in shares]


def test_quality_and_strength_tables_say_what_the_results_say(page, results, finished):
    kids = {kid["arm"]: kid for kid in results["kids"]}
    scores = {score["arm"]: score for score in results["clip_scores"] if score["type"] == "all"}
    for arm, pair, cosine, _, kid, _ in page.table("Table 3")[1:]:
        arm = arm.strip()
        assert kid.split()[0] == f"{kids[arm]['value']:.5f}"
        assert cosine.strip() == f"{scores[arm]['cosine']:.4f}"
        if scores[arm]["share"] is not None:
            assert pair.strip() == f"{scores[arm]['baseline_share']:.3f}, {scores[arm]['share']:.3f}"
    rows = page.table("by strength")[1:]
    assert [row[0].strip() for row in rows] == ["0", "0.25", "0.5", "0.75", "1"]
    etas = json.loads((finished[0] / "eta/results.json").read_text("utf-8"))
    marks = [p["verdict"]["right"] for p in etas["pictures"] if p["arm"].endswith("0.5")]
    assert rows[2][-1].strip() == f"{100 * sum(marks) / len(marks):.1f}"


def test_intervals_and_kid_are_told_as_in_the_evaluations_own_tables(page, finished):
    found = read_results(finished[0])
    for arm, *_, kid, difference in page.table("Table 3")[1:]:
        assert [kid.strip(), difference.strip()] == kid_cells(found.kid(arm.strip()))
    cell = page.table("Table 2")[-1][-1]
    arm = found.arms[-1].name
    assert interval_words(found.comparison(arm).over_prompts, "+.1f", 100) in cell


def test_beside_the_papers_p_stands_what_is_wrong_with_it(page):
    notes = re.findall(r"p of the independent t-test as in the paper\. (.{40})", page.text)
    assert notes == [INDEPENDENT_NOTE[:40]] * 2


def test_the_grid_shows_the_first_prompts_in_order_with_the_judges_marks(page, results, finished):
    folder = finished[0]
    etas = json.loads((folder / "eta/results.json").read_text("utf-8"))
    columns = [(results, "base", folder)]
    columns += [(etas, f"SUR, eta {eta}", folder / "eta") for eta in ("0.25", "0.5", "0.75")]
    columns += [(results, "SUR, eta 1", folder), (results, "base, complex prompt", folder)]
    expected = []
    for prompt in results["prompts"]:
        for found, arm, place in columns:
            picture = next(
                p
                for p in found["pictures"]
                if (p["arm"], p["prompt_id"], p["seed"]) == (arm, prompt["id"], 0)
            )
            right = picture["verdict"]["right"]
            expected.append(((place / picture["path"]).read_bytes(), "right" if right else "wrong: "))
    shown = [(base64.b64decode(image["src"].partition(",")[2]), image["alt"]) for image in page.all("img")]
    assert [content for content, _ in shown] == [content for content, _ in expected]
    assert all(mark in alt for (_, alt), (_, mark) in zip(shown, expected, strict=True))
    heads = [
        row[0].strip() for table in page.tables if "of type" in table["caption"] for row in table["rows"]
    ]
    texts = [re.sub(r"\s+", " ", head) for head in heads]
    assert [text for text in texts if text in {p["prompt"] for p in results["prompts"]}] == [
        prompt["prompt"] for prompt in results["prompts"]
    ]


def test_curves_end_where_the_log_ends(page, finished):
    rows = (finished[0] / "fit/log.csv").read_text().splitlines()
    header, last = rows[0].split(","), rows[-1].split(",")
    for column in ("llm", "cp", "simple"):
        value = float(last[header.index(column)])
        assert f"to {value:.4g} at step {last[0]}" in page.text


def test_token_changes_are_those_of_the_adapter(models, tmp_path):
    from transformers import CLIPTextModel, CLIPTokenizer

    from sur_core import save_adapter

    save_adapter(random_adapter({"clip_l": 32}, heads=4, feedforward=32), tmp_path / "a.safetensors")
    found = token_changes(models.base, tmp_path / "a.safetensors", ["a red ball", "two cats"], 0.4)[1]
    tokenizer = CLIPTokenizer.from_pretrained(models.base / "tokenizer")
    ids = tokenizer(["two cats"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        before = CLIPTextModel.from_pretrained(models.base / "text_encoder")(ids).last_hidden_state
        output = load_adapter(tmp_path / "a.safetensors").towers["clip_l"](before)
    after = 0.6 * before[0] + 0.4 * output.c_llm[0]
    assert found.tokens[:2] == ("[start]", "two") and found.tokens[-1] == "[end]"
    for place in range(len(found.tokens)):
        old, new = before[0, place], after[place]
        cosine = (old @ new / (old.norm() * new.norm())).item()
        assert found.change[place] == pytest.approx(1 - cosine, abs=1e-4)
        assert found.ratio[place] == pytest.approx((new.norm() / old.norm()).item(), abs=1e-4)
        real = output.attention[0, place, : len(found.tokens)]
        assert found.attention[place] == pytest.approx(real.tolist(), abs=1e-5)
        assert found.padding[place] == pytest.approx(1 - real.sum().item(), abs=1e-5)


def test_every_text_is_escaped(finished, settings, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    nasty = '<script>alert("1")</script> & <img src=x>'
    for path in (tmp_path / "run/results.json", tmp_path / "run/eta/results.json"):
        found = json.loads(path.read_text("utf-8"))
        found["prompts"][0]["prompt"] = nasty
        found["remarks"] = [nasty]
        for picture in found["pictures"]:
            picture["verdict"] |= {"right": False, "why": nasty}
        path.write_text(json.dumps(found), "utf-8")
    page = Page(write_report(tmp_path / "run", settings, {}, {"fit": [nasty]}).read_text("utf-8"))
    assert not page.all("script") and len(page.all("img")) == 36
    assert page.text.count(nasty) > 36 and all(nasty in image["alt"] for image in page.all("img"))


# --- what the sentences say ---------------------------------------------------------------------------------


def made_results(base, ours, best, prompts=6):
    """Results of one type in which so many of each prompt's four pictures are right."""
    arms = (Arm("base"), Arm("complex", text="complex"), Arm("SUR", adapter="a", eta=1.0))
    right = {"base": base, "complex": best, "SUR": ours}
    asked = tuple(EvalPrompt(f"p{number}", "color", "x", "y") for number in range(prompts))
    pictures = tuple(
        Picture(arm.name, prompt.id, "color", seed, "", Verdict(seed < right[arm.name](number)))
        for arm in arms
        for number, prompt in enumerate(asked)
        for seed in range(4)
    )
    settings = EvaluationSettings("", seeds=range(4), resamples=500)
    found = Evaluation(settings, asked, arms, pictures)
    ids, types = ([getattr(p, name) for p in found.of("base")] for name in ("prompt_id", "type"))
    return replace(
        found,
        accuracies=tuple(
            Accuracy(arm.name, type, int(found.marks(arm.name).sum()), 4 * prompts)
            for arm in arms
            for type in ("color", "all")
        ),
        comparisons=tuple(
            compare(arm.name, "base", found.marks(arm.name), found.marks("base"), ids, types, type=type)
            for arm in arms[1:]
            for type in ("color", "all")
        ),
    )


@pytest.mark.parametrize(
    "base, ours, said, verdict, words",
    [
        (lambda n: 1, lambda n: 3, "rose from 25.0% to 75.0%", "gain", "; a gain."),
        (lambda n: 3, lambda n: 1, "fell from 75.0% to 25.0%", "loss", "does harm"),
        (
            lambda n: 2,
            lambda n: 2,
            "stayed at 50.0%",
            "unclear",
            "includes zero: these pictures show no gain",
        ),
        (lambda n: 2, lambda n: 4 * (n % 2) + (n == 0), "rose from", "unclear", "includes zero"),
    ],
)
def test_sentences_claim_no_more_than_the_interval(base, ours, said, verdict, words):
    found = made_results(base, ours, lambda n: 4)
    assert said in headline(found) and "6 prompts it never saw" in headline(found)
    assert overall(found) == verdict
    assert all(words in sentence for sentence in judgement(found)[:2])


def test_without_an_interval_nothing_is_claimed():
    found = made_results(lambda n: 1, lambda n: 3, lambda n: 4, prompts=1)
    assert overall(found) == "unclear" and "not defined" in headline(found)
    assert "cannot be said" in judgement(found)[0]


def test_the_gap_to_complex_prompts_is_told_or_that_there_is_none():
    assert "closes 67% of that gap (95% interval 67% to 67%)" in judgement(
        made_results(lambda n: 1, lambda n: 3, lambda n: 4)
    )[-1].replace("66.7", "67")
    assert "no gap to close" in judgement(made_results(lambda n: 3, lambda n: 3, lambda n: 2))[-1]
