"""What stays of a prompt when its tool's syntax is taken out."""

import random

import pytest

from sur_core.surd_build.cleaning import clean_prompt

CASES = {
    "a cat, <lora:more_details:0.5> a hat": "a cat, a hat",
    "<lora:a:1><lyco:b:0.3:MIDD><hypernet:c>x": "x",
    "a <3 b > c": "a <3 b > c",
    "(word:1.2)": "word",
    "(word: 1.2 )": "word",
    "((word)), (((other)))": "word, other",
    "[word], [[word]]": "word, word",
    "(a cat:1.2, (red:0.9) hat)": "a cat:1.2, red hat",
    "(two (nested:1.3) words:1.1)": "two nested words",
    "(masterpiece, [detailed]:.8)": "masterpiece, detailed",
    "[a:b:0.5]": "b",
    "a [red:blue:12] hat": "a blue hat",
    "a [hat:0.5]": "a hat",
    "a [hat::0.5]": "a hat",
    "[cow|horse] in a field": "cow, horse in a field",
    "[(red:1.2):(blue:1.3):0.3] hat": "blue hat",
    "time: 12:30, ratio 16:9": "time: 12:30, ratio 16:9",
    "one BREAK two": "one, two",
    "one,\nBREAK\n, two": "one, two",
    "BREAK one BREAK": "one",
    "BREAKFAST at BREAK's": "BREAKFAST at BREAK's",
    "embedding:easynegative, a cat": "a cat",
    "a cat (embedding:some/style.pt:1.1), fur": "a cat, fur",
    "the embedding: a story": "the embedding: a story",
    r"miku \(vocaloid\), star \[x\]": "miku (vocaloid), star [x]",
    r"(miku \(vocaloid\):1.3)": "miku (vocaloid)",
    r"C:\pictures": r"C:\pictures",
    "a smile :) and a frown :(": "a smile :) and a frown :(",
    "open (bracket": "open (bracket",
    "wrong (order] here)": "wrong order] here",
    "(a [b c)": "a [b c",
    "{kept} as text": "{kept} as text",
    "a,,  b ,\n\n, c,": "a, b, c",
    "猫, (赤い:1.2) 帽子": "猫, 赤い 帽子",
    "": "",
    " , ": "",
    "(:1.2)": "",
}


@pytest.mark.parametrize("prompt", CASES)
def test_syntax_goes_and_words_stay(prompt):
    assert clean_prompt(prompt, "automatic1111") == CASES[prompt]


@pytest.mark.parametrize(
    ("metadata", "prompt", "words"),
    [
        ("novelai", "{{best}}, [old], 1.3::red hat::, -1::hat::", "best, old, red hat, hat"),
        ("invokeai", "(a cat)1.3, (fur)++, red-- hat, C++", "a cat, fur, red hat, C"),
        ("automatic1111", "{best}, a++ 1.3::x", "{best}, a++ 1.3::x"),
    ],
)
def test_a_tool_has_its_own_syntax(metadata, prompt, words):
    assert clean_prompt(prompt, metadata) == words


WORDS = [
    "cat",
    "red hat",
    "oil painting",
    "8k",
    "it's",
    "f/1.8",
    "Ölbild",
    "猫",
    "half-timbered",
    "a; b",
    "50%",
]


@pytest.mark.parametrize("seed", range(20))
def test_words_dressed_in_syntax_come_out_as_they_went_in(seed):
    draw = random.Random(seed)
    words = [draw.choice(WORDS) for _ in range(draw.randint(1, 30))]
    dress = [
        "{}",
        "({})",
        "(({}))",
        "[{}]",
        "({}:1.25)",
        "([{}]:.5)",
        "{} <lora:x_y-z:0.8>",
        "<hypernet:q:1> {}",
        "[old: {}:0.4]",
        "[{}::7]",
        "({} embedding:bad_hands:0.7)",
    ]
    prompt = ", ".join(draw.choice(dress).format(word) for word in words)
    assert clean_prompt(prompt) == ", ".join(words)


@pytest.mark.parametrize("seed", range(20))
def test_a_prompt_without_syntax_is_only_tidied(seed):
    draw = random.Random(seed)
    prompt = ", ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 30)))
    assert clean_prompt(prompt) == prompt
    assert clean_prompt("\n " + prompt.replace(", ", " ,\n") + ", ") == prompt


@pytest.mark.parametrize("part", ["(", ")", "[", "]", "\\", "(a:1.1", "<lora:", "|", "BREAK "])
def test_however_broken_and_long_it_ends(part):
    assert isinstance(clean_prompt(part * 20_000), str)
