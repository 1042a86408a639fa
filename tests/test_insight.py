"""What the insight says about a prompt is what was done to it."""

import json
from pathlib import Path

import pytest
import torch

from small_world.places import Models
from sur_core import adapt
from sur_core.insight import (
    END,
    PAD,
    START,
    Token,
    compare,
    compare_adapted,
    in_words,
    most_changed,
    readable,
    with_tokens,
)
from sur_core.insight.heat_map import shown_attention
from sur_core.insight.rows import rows_of
from tests.helpers import embeddings, random_adapter

WORDS = ["a", "red", "cube", "and", "a", "red", "ball"]
NAMES = (START, *map(Token, WORDS), END, *[PAD] * 68)


def prompt(tokens=77, width=768, seed=0):
    return embeddings(1, tokens, width, seed)[0]


def turned(vector, degrees):
    """``vector`` [D], turned by an angle in some plane, of the same length."""
    other = torch.randn(vector.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    vector = vector.double()
    other -= other @ vector / (vector @ vector) * vector
    other *= vector.norm() / other.norm()
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return vector * angle.cos() + other * angle.sin()


def changed(place, degrees=0.0, factor=1.0, before=None):
    before = prompt() if before is None else before
    after = before.clone()
    after[place] = (turned(before[place], degrees) * factor).to(before.dtype)
    return before, after


@pytest.mark.parametrize(
    ("degrees", "factor", "turn", "ratio", "distance"),
    [
        (60.0, 1.0, 0.5, 1.0, 1.0),
        (0.0, 1.5, 0.0, 1.5, 0.5),
        (0.0, 0.25, 0.0, 0.25, 0.75),
        (90.0, 2.0, 1.0, 2.0, 5**0.5),
        (180.0, 1.0, 2.0, 1.0, 2.0),
    ],
)
def test_angle_and_length_of_a_token_changed_by_hand(degrees, factor, turn, ratio, distance):
    (change,) = compare(*changed(2, degrees, factor))
    assert change.turn[2] == pytest.approx(turn, abs=1e-6)
    assert change.ratio[2] == pytest.approx(ratio, abs=1e-6)
    assert change.distance[2] == pytest.approx(distance, abs=1e-6)
    assert [place for place in range(77) if change.distance[place]] == [2]
    assert {change.turn[place] for place in range(77) if place != 2} == {0.0}
    assert {change.ratio[place] for place in range(77) if place != 2} == {1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", [{"degrees": 20.0}, {"factor": 1.5}])
def test_a_token_changed_by_hand_is_the_one_named(how, dtype):
    changes = with_tokens(compare(*changed(3, before=prompt().to(dtype), **how)), {"clip_l": [NAMES]})
    said = in_words(changes)
    assert said.startswith("Changed most: 'cube' (") and said.count("'") == 2


def test_the_most_changed_come_first_and_small_changes_are_not_named():
    before = prompt()
    after = before.clone()
    for place, degrees in ((3, 30.0), (7, 20.0), (4, 3.0)):
        after[place] = turned(before[place], degrees).float()
    changes = with_tokens(compare(before, after), {"clip_l": [NAMES]})
    assert [place for _, place in most_changed(changes)] == [3, 7]
    said = in_words(changes)
    assert said.index("'cube'") < said.index("'ball'") and "'and'" not in said


def test_a_word_that_stands_twice_is_told_with_its_place():
    changes = with_tokens(compare(*changed(6, 20.0)), {"clip_l": [NAMES]})
    assert "'red' at token 7 (" in in_words(changes)


def test_marks_and_padding_are_no_words_but_told():
    changes = with_tokens(compare(*changed(0, 20.0)), {"clip_l": [NAMES]})
    assert in_words(changes).startswith("No word changed; [start] changed (")
    before, after = changed(2, 1.0)
    after[9:] = -before[9:]
    said = in_words(with_tokens(compare(before, after), {"clip_l": [NAMES]}))
    assert said.startswith("Changed most: 'red'") and "More than any word, [padding] changed" in said


@pytest.mark.parametrize(("family", "width"), [("sd1", 768), ("sdxl", 2048)])
def test_eta_0_shows_no_change_and_says_so(family, width):
    changes = compare_adapted(random_adapter(family, depth=1), prompt(width=width), 0.0)
    for change in changes:
        assert set(change.turn) == {0.0} and set(change.ratio) == {1.0} and set(change.distance) == {0.0}
    assert in_words(changes) == "No change: every token is exactly as it was."


def test_equal_zeros_are_no_change_and_a_token_out_of_nothing_is_told():
    nothing = torch.zeros(77, 768)
    assert in_words(compare(nothing, nothing.clone())).startswith("No change")
    something = nothing.clone()
    something[4, 0] = 1.0
    assert "'token 5' (direction 1.000, length from 0)" in in_words(compare(nothing, something))
    assert "'token 5' (direction 1.000, length x0.00)" in in_words(compare(something, nothing))


def test_the_adapter_is_compared_with_what_it_makes_of_the_prompt():
    adapter, hidden = random_adapter("sdxl", depth=1), prompt(154, 2048)
    kept = hidden.clone()
    changes = compare_adapted(adapter, hidden, 0.3)
    plain = compare(hidden, adapt(adapter, hidden[None], 0.3)[0])
    assert torch.equal(hidden, kept)
    for change, expected in zip(changes, plain, strict=True):
        assert (change.tower, change.chunk) == (expected.tower, expected.chunk)
        assert change.distance == expected.distance and change.turn == expected.turn and change.changed
        part = slice(0, 768) if change.tower == "clip_l" else slice(768, 2048)
        chunk = hidden[77 * change.chunk : 77 * (change.chunk + 1), part]
        attention = adapter.towers[change.tower](chunk[None]).attention[0]
        torch.testing.assert_close(change.attention, attention, rtol=1e-4, atol=1e-6)


def test_a_long_prompt_is_told_chunk_by_chunk():
    before, after = changed(77 + 3, 20.0, before=prompt(154))
    changes = with_tokens(compare(before, after), {"clip_l": [NAMES, NAMES]})
    assert [(change.tower, change.chunk, change.changed) for change in changes] == [
        ("clip_l", 0, False),
        ("clip_l", 1, True),
    ]
    assert "'cube' at token 4 of chunk 2 (" in in_words(changes)
    assert "'token 81'" in in_words(compare(before, after))


def test_sdxl_is_told_tower_by_tower():
    before = prompt(width=2048)
    after = before.clone()
    after[3, 768:] *= 1.5
    changes = with_tokens(compare(before, after), {"clip_l": [NAMES], "clip_g": [NAMES]})
    first, second = in_words(changes).splitlines()
    assert first == "CLIP-L: No change."
    assert second == "CLIP-G: Changed most: 'cube' (direction 0.000, length x1.50)."


def test_embeddings_of_unknown_encoders_are_compared_as_a_whole():
    (change,) = compare(*changed(200, 20.0, before=prompt(256, 64)))
    assert change.tower == "" and len(change.tokens) == 256
    assert "'token 201'" in in_words([change])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (prompt(154), ("77 tokens", "154 tokens", "concatenated")),
        (prompt(width=1024), ("SD 1.x, 768 wide", "SD 2.x, 1024 wide")),
        (prompt() * float("nan"), ("after", "NaN or infinite")),
    ],
)
def test_what_cannot_be_compared_is_told(other, told):
    with pytest.raises(ValueError) as caught:
        compare(prompt(), other)
    assert all(words in str(caught.value) for words in told)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"clip_h": [NAMES]}, "read by clip_h; these embeddings come from clip_l"),
        ({"clip_l": [NAMES, NAMES]}, "2 chunks of tokens long, the embeddings are 1"),
        ({"clip_l": [NAMES[:70]]}, "70 tokens in chunk 1, the embeddings have 77"),
    ],
)
def test_names_of_another_prompt_are_refused(names, told):
    with pytest.raises(ValueError, match=told):
        with_tokens(compare(prompt(), prompt()), names)


def test_chunks_that_the_text_does_not_reach_keep_their_numbers():
    changes = with_tokens(compare(*changed(80, 20.0, before=prompt(154))), {"clip_l": [NAMES]})
    assert changes[0].tokens == NAMES and changes[1].tokens[3] == Token("token 81")


def test_pieces_of_words_and_of_characters_are_readable():
    tokens = readable(["a</w>", "kit", "tens</w>", "ä¸", "ĥ</w>", "ä¸ĥ", "ä¸ĥ</w>", "fluf"])
    assert [token.text for token in tokens] == ["a", "kit…", "…tens", "七…", "…七", "七…", "…七", "fluf…"]
    assert [token.whole for token in tokens] == ["", "kittens", "kittens", "七", "七", "七七", "七七", ""]


@pytest.mark.parametrize("text", ["seven crimson balls , two cats", "a quixotic hippogriff", "x" * 40])
def test_the_words_of_a_prompt_are_read_back_from_its_tokens(text):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(Path(Models().root) / "base" / "tokenizer")
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids[1:-1])
    tokens = readable(pieces)
    assert len(tokens) == len(pieces)
    wholes, index = [], 0
    while index < len(tokens):
        wholes.append(tokens[index].whole or tokens[index].text)
        index += 1
        while index < len(tokens) and tokens[index].text.startswith("…"):
            index += 1
    assert "".join(wholes) == text.replace(" ", ""), json.dumps(pieces)


@pytest.mark.parametrize("limit", [3, 8, 9, 20])
def test_every_token_is_in_one_row_and_the_padding_in_a_single_one(limit):
    before = prompt()
    (change,) = with_tokens(compare(before, before + prompt(seed=1)), {"clip_l": [NAMES]})
    rows = rows_of(change, limit)
    assert sorted(place for row in rows for place in row.places) == list(range(77))
    assert rows[-1].text == "68 padding" and rows[-1].places == tuple(range(9, 77))
    single = [row.places[0] for row in rows if len(row.places) == 1]
    assert single == sorted(single) and len(single) <= limit
    rest = [place for place in range(9) if place not in single]
    assert len(rest) != 1, "a row for one other token saves nothing"
    if rest:
        assert min(change.distance[p] for p in single) >= max(change.distance[p] for p in rest)
        assert rows[-2].text == f"{len(rest)} others"


def test_the_heat_map_loses_no_attention():
    changes = compare_adapted(random_adapter("sd1", depth=1), prompt(), 0.3)
    (change,) = with_tokens(changes, {"clip_l": [NAMES]})
    rows = rows_of(change, 5)
    shown = shown_attention(change, rows)
    for row, line in zip(rows, shown, strict=True):
        assert sum(line) == pytest.approx(1, abs=1e-5)
        for column, value in zip(rows, line, strict=True):
            if len(row.places) == len(column.places) == 1:
                assert value == pytest.approx(float(change.attention[row.places[0], column.places[0]]))


def test_of_one_chunk_among_several_no_more_is_said_than_is_known():
    before = embeddings(1, 154, 768)[0]
    after = before.clone()
    after[100] *= 2
    first, second = compare(before, after)
    assert in_words([first], some=True) == "No change in chunk 1: every token of it is exactly as it was."
    assert in_words([second], some=True).startswith("Changed most: 'token 101'")


def test_rounding_of_a_direction_is_not_told_as_a_turn():
    before = embeddings(1, 77, 768, dtype=torch.float16)[0]
    after = before.clone()
    after[3] = (after[3].float() * 1.3).half()
    assert "(direction 0.000, length x1.30)" in in_words(compare(before, after))
