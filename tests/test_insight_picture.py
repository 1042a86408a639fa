"""The picture shows the figures: bars as long as they are, in the theme's colors, legible in any script."""

import numpy as np
import pytest
import torch

from sur_core.insight import Token, compare, compare_adapted, draw_changes, with_tokens
from sur_core.lettering import Lettering
from sur_core.themes import THEMES
from tests.helpers import embeddings, random_adapter
from tests.test_insight import NAMES, prompt, turned


def pixels(picture, color) -> np.ndarray:
    """Where a picture has exactly that color, [H, W]."""
    return (np.asarray(picture) == np.array(color)).all(-1)


@pytest.mark.parametrize("theme", THEMES)
def test_bars_are_as_long_as_the_figures(theme):
    before = prompt()
    after = before.clone()
    after[2] = turned(before[2], 60.0).float()  # 0.5
    after[5] = turned(before[5], 41.4096).float()  # 0.25
    (change,) = with_tokens(compare(before, after), {"clip_l": [NAMES]})
    picture = draw_changes([change], theme)
    bars = pixels(picture, THEMES[theme].first).sum(1)
    lengths = [length for length, next in zip(bars, bars[1:], strict=False) if length and not next]
    assert len(lengths) == 2 and lengths[1] / lengths[0] == pytest.approx(0.5, abs=0.02)
    assert not pixels(picture, THEMES[theme].second).any(), "no length changed"
    assert tuple(np.asarray(picture)[0, 0]) == THEMES[theme].paper


def test_longer_and_shorter_tokens_point_to_different_sides():
    before = prompt()
    after = before.clone()
    after[2] *= 1.5
    after[5] *= 0.5
    second = pixels(draw_changes(compare(before, after)), THEMES["dark"].second)
    (longer, shorter) = (np.flatnonzero(second[y]) for y in np.flatnonzero(second.any(1))[[0, -1]])
    assert shorter.min() < shorter.max() <= longer.min() + 2 < longer.max()
    assert len(longer) == pytest.approx(len(shorter), abs=2)


@pytest.mark.parametrize("theme", THEMES)
def test_no_change_has_no_bars(theme):
    picture = draw_changes(compare(prompt(), prompt()), theme)
    assert not pixels(picture, THEMES[theme].first).any()
    assert not pixels(picture, THEMES[theme].second).any()


def test_attention_is_drawn_with_an_adapter_only():
    adapter, hidden = random_adapter("sd1", depth=1), prompt()
    with_map = with_tokens(compare_adapted(adapter, hidden, 0.0), {"clip_l": [NAMES]})
    without = with_tokens(compare(hidden, hidden), {"clip_l": [NAMES]})
    tall, low = draw_changes(with_map), draw_changes(without)
    assert tall.height > low.height + 200
    assert pixels(tall, THEMES["dark"].first).any(), "the strongest attention has the full color"


@pytest.mark.parametrize(
    ("tokens", "width", "panels"), [(77, 768, (1, 1)), (154, 768, (1, 2)), (154, 2048, (2, 2))]
)
def test_chunks_stand_below_each_other_and_towers_side_by_side(tokens, width, panels):
    one = draw_changes(compare(prompt(), prompt()))
    hidden = embeddings(1, tokens, width)[0]
    picture = draw_changes(compare(hidden, hidden.clone()))
    assert (picture.width > 1.4 * one.width) == (panels[0] == 2)
    assert (picture.height > 1.7 * one.height) == (panels[1] == 2)
    has_headings = pixels(
        picture, THEMES["dark"].first
    ).any()  # nothing else has this color when nothing changed
    assert has_headings == (panels != (1, 1))


def test_the_picture_of_a_chunk_alone_is_that_of_a_short_prompt_with_a_heading():
    hidden = prompt(154)
    changes = compare(hidden, hidden.clone())
    assert draw_changes(changes[1:]).height < 0.7 * draw_changes(changes).height


@pytest.mark.parametrize("name", ["七", "красный", "🙂", "naïve", "\u202eabc\x00", "W" * 60, "", "…"])
def test_no_token_breaks_the_picture(name):
    names = (NAMES[0], Token(name), *NAMES[2:])
    adapter = random_adapter("sd1", depth=1)
    changes = with_tokens(compare_adapted(adapter, prompt(), 0.3), {"clip_l": [names]})
    assert draw_changes(changes).width == draw_changes(compare(prompt(), prompt())).width


def test_zeros_and_infinite_ratios_are_drawn():
    something = torch.zeros(77, 768)
    something[4, 0] = 1.0
    for pair in ((torch.zeros(77, 768), something), (something, torch.zeros(77, 768))):
        assert pixels(draw_changes(compare(*pair)), THEMES["dark"].first).any()


def test_a_character_that_no_font_has_is_spelt_out():
    plain = Lettering(22, fonts=())
    assert plain.width("七 cats") == plain.width("U+4E03 cats")
    assert plain.width("cats…") < plain.width("catsU+2026"), "what the font has stays"


def test_another_font_is_taken_for_what_the_own_one_lacks():
    pytest.importorskip("matplotlib")
    assert Lettering(22).width("é") < Lettering(22, fonts=()).width("é")


def test_lines_are_no_wider_than_asked_and_lose_nothing():
    lettering = Lettering(22)
    text = "eta 0.25 with quite a long " + "label" * 20
    lines = lettering.wrap(text, 150)
    assert max(map(lettering.width, lines)) <= 150
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert lettering.wrap("one\ntwo", 150) == ["one", "two"]


def test_unknown_themes_are_refused():
    with pytest.raises(ValueError, match="no theme 'pink'; known are dark, light"):
        draw_changes(compare(prompt(), prompt()), "pink")
