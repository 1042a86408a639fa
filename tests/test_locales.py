"""Every word of the nodes and of the card has its Chinese; nothing is translated that is no longer there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sur_core.families import FAMILIES
from sur_core.passport_card import WARNINGS

PACK = Path(__file__).resolve().parents[1]
LANGUAGES = ["en", "zh"]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SCRIPTS = sorted((PACK / "web" / "js").glob("*.js"))
SAME_IN_CHINESE = {"eta", "CLIP"}


def words(language: str) -> dict[str, str]:
    return json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf8"))["surAdapter"]


def node_words() -> dict:
    return json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf8"))


def texts(value) -> list[str]:
    return [value] if isinstance(value, str) else [text for part in value.values() for text in texts(part)]


def test_both_languages_have_the_same_words_with_the_same_gaps():
    def gaps(language):
        return {key: sorted(re.findall(r"\{(\w+)\}", text)) for key, text in words(language).items()}

    assert gaps("en") == gaps("zh")


def test_the_card_has_words_for_every_warning_and_family():
    assert {*WARNINGS, *FAMILIES} <= set(words("en"))


def test_the_scripts_use_every_word_and_no_other():
    code = "\n".join(path.read_text(encoding="utf8") for path in SCRIPTS)
    asked = set(re.findall(r'say\("(\w+)"', code))
    assert asked <= set(words("en"))
    quoted = set(re.findall(r'"(\w+)"', code)) | {*WARNINGS, *FAMILIES}
    assert set(words("en")) <= quoted


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_is_empty(language):
    assert all(text.strip() for text in words(language).values())


def test_the_chinese_is_chinese():
    names = re.compile(r"\{\w+\}|eta|MiB|SD \d\.x|SDXL|[,，\s]")
    for key, text in words("zh").items():
        assert CHINESE.search(text) or not names.sub("", text), key
    for text in texts(node_words()):
        assert CHINESE.search(text) or text in SAME_IN_CHINESE, text


def test_no_text_of_a_node_has_a_sign_that_the_translator_reads_as_its_own():
    """vue-i18n takes {}, @ and | for gaps, links and plurals."""
    for text in texts(node_words()):
        assert not re.search(r"[{}@|]", text), text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_nothing_out_of_a_file_can_become_part_of_the_page(path):
    assert not re.search(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", path.read_text()
    )
