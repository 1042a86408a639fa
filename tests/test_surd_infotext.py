"""AUTOMATIC1111's infotext comes apart into the parts it was made of."""

import random

import pytest

from sur_core.surd_build.metadata.infotext import parse_infotext
from tests.surd_golden import PROMPTS, infotext, random_settings, random_text

CASES = 600
STEPS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


def test_random_infotext_parses_back_to_its_parts():
    for seed in range(CASES):
        chance = random.Random(seed)
        prompt = random_text(chance, chance.randint(0, 5))
        negative = random_text(chance, chance.randint(0, 3))
        settings = random_settings(chance) if chance.random() < 0.8 else {}
        if (
            not settings
        ):  # else its last line may be one that only looks like settings, and its end is stripped
            prompt, negative = f"{prompt}\nthe end", negative and f"{negative}\nthe end"
        text = infotext(prompt, negative, settings)
        found = parse_infotext(text)
        # White space around the whole is stripped by the tools that write it.
        expected = (prompt.lstrip(), negative, settings)
        parameters = {name: str(value) for name, value in found.parameters.items()}
        assert (found.prompt, found.negative, parameters) == expected, f"seed {seed}, infotext:\n{text}"


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("negative", ["", "ugly", *list(PROMPTS.values())[2:6]], ids=range(6))
def test_prompts_come_back_as_they_went_in(prompt, negative):
    found = parse_infotext(infotext(prompt, negative))
    assert (found.prompt, found.negative) == (prompt, negative)
    assert found.parameters["Seed"] == 965400086 and found.parameters["Model"] == "dream, shaper: 8"


def test_of_several_negative_prompts_the_first_counts_and_a_remark_says_so():
    found = parse_infotext(f"a cat\nNegative prompt: a dog\nNegative prompt: ugly\n{STEPS}")
    assert (found.prompt, found.negative) == ("a cat", "a dog\nNegative prompt: ugly")
    assert found.remarks[0].startswith("ambiguous infotext: 2 lines")


def test_a_negative_prompt_that_was_indented_is_found_only_where_no_other_is():
    assert parse_infotext(f"a cat\n    Negative prompt: ugly\n    {STEPS}").negative == "ugly"
    found = parse_infotext(f"a cat\n  Negative prompt: is on the sign\nNegative prompt: ugly\n{STEPS}")
    assert (found.prompt, found.negative) == ("a cat\n  Negative prompt: is on the sign", "ugly")


def test_without_settings_all_is_prompt_unless_the_last_line_is_one_of_settings():
    text = "time: night, place: Rome, mood: calm"
    assert parse_infotext(text).prompt == text and not parse_infotext(text).is_certain
    assert parse_infotext(f"{STEPS}\nmore").prompt == f"{STEPS}\nmore"
    assert parse_infotext(STEPS).prompt == "" and parse_infotext(STEPS).parameters["Steps"] == 20


def test_templates_below_the_settings_belong_to_neither_prompt():
    found = parse_infotext(f"a cat\nNegative prompt: ugly\n{STEPS}\nTemplate: a {{cat|dog}}\nof two lines")
    assert (found.prompt, found.negative, found.parameters["Seed"]) == ("a cat", "ugly", 1)
    assert found.parameters["Template"] == "Template: a {cat|dog}\nof two lines"


def test_lists_without_quotes_do_not_spill_into_other_settings():
    resources = '[{"type":"lora","weight":0.8,"modelVersionName":"x, Steps: 9"}]'
    found = parse_infotext(f"a cat\n{STEPS}, Civitai resources: {resources}, Version: v1")
    assert found.parameters["Civitai resources"] == resources
    assert (found.parameters["Steps"], found.parameters["Version"]) == (20, "v1")


@pytest.mark.parametrize("value", ["12345678901234567890123", "1e999", "6e3", "007f", "nan"])
def test_numbers_are_only_plain_ones(value):
    assert parse_infotext(f"a\n{STEPS}, ENSD: {value}").parameters["ENSD"] == value


@pytest.mark.parametrize("part", ["word ", "a: b, ", 'a: "[, ', "a: [", "a: [{", 'a: "'])
def test_a_very_long_line_is_read_in_one_go(part):
    """Where every place is tried to the end, as by a naive expression, this takes hours."""
    line = part * 400_000
    assert parse_infotext(f"{line}\n{STEPS}").prompt == line
    assert parse_infotext(line).prompt == line.strip()
