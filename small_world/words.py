"""The words of SURD-Shapes, and what each of them means.

Every entry is (words the training triplets show, words they never show). CLIP and the language model know
both; how a word came to its meaning they were told elsewhere, as the real ones were.
"""

from __future__ import annotations

Words = tuple[tuple[str, ...], tuple[str, ...]]

COLOR_WORDS: dict[str, Words] = {
    "black": (("black", "ebony"), ("inky",)),
    "blue": (("blue", "azure"), ("sapphire",)),
    "green": (("green", "emerald"), ("jade",)),
    "orange": (("orange", "tangerine"), ("apricot",)),
    "pink": (("pink", "rosy"), ("fuchsia",)),
    "purple": (("purple", "violet"), ("lilac",)),
    "red": (("red", "crimson"), ("scarlet",)),
    "yellow": (("yellow", "golden"), ("canary",)),
}

# "the color of ..."
COLOR_OF: dict[str, Words] = {
    "black": (("coal",), ("a raven",)),
    "blue": (("a clear sky",), ("the deep sea",)),
    "green": (("fresh grass", "a frog"), ("a pea",)),
    "orange": (("a carrot",), ("a pumpkin",)),
    "pink": (("a flamingo",), ("a piglet",)),
    "purple": (("an eggplant",), ("a ripe plum",)),
    "red": (("a ripe tomato", "a fire engine"), ("fresh blood",)),
    "yellow": (("a ripe banana", "a sunflower"), ("a lemon",)),
}

KIND_WORDS: dict[str, Words] = {
    "ball": (("ball", "sphere"), ("orb",)),
    "box": (("box", "block"), ("cube",)),
    "cone": (("cone", "triangle"), ("pyramid",)),
    "ring": (("ring", "circlet"), ("hoop",)),
    "star": (("star", "sparkle"), ("pentagram",)),
}

# Before a noun; the first of each is the number itself.
NUMBER_WORDS: dict[int, Words] = {
    1: (("one", "a single"), ("a lone",)),
    2: (("two", "a pair of"), ("a couple of",)),
    3: (("three", "a trio of"), ("a triplet of",)),
    4: (("four", "a quartet of"), ("a foursome of",)),
    5: (("five", "a quintet of"), ("a fivesome of",)),
    6: (("six", "half a dozen"), ("a sextet of",)),
}

# "as many ... as ..."
AS_MANY_AS: dict[int, Words] = {
    1: (("a face has noses",), ("a snail has shells",)),
    2: (("a bicycle has wheels",), ("a bird has wings",)),
    3: (("a tricycle has wheels",), ("a traffic light has lamps",)),
    4: (("a car has wheels",), ("a dog has legs",)),
    5: (("a hand has fingers",), ("a foot has toes",)),
    6: (("a die has faces",), ("an insect has legs",)),
}

POSE_WORDS: dict[str, Words] = {
    "bowing": (("bowing", "bending over"), ("stooping",)),
    "jumping": (("jumping", "leaping"), ("hopping",)),
    "lying": (("lying down", "sleeping"), ("napping",)),
    "running": (("running", "sprinting"), ("jogging",)),
    "sitting": (("sitting", "resting on a bench"), ("perching on a stool",)),
    "waving": (("waving", "saying hello"), ("greeting a friend",)),
}

# What somebody does who must be in that pose.
DOING: dict[str, Words] = {
    "bowing": (("picking up a coin",), ("tying a shoe",)),
    "jumping": (("clearing a puddle",), ("skipping over a rope",)),
    "lying": (("dreaming at night",), ("sunbathing on a beach",)),
    "running": (("chasing a bus",), ("fleeing from a bear",)),
    "sitting": (("having dinner",), ("reading at a desk",)),
    "waving": (("signalling to a taxi",), ("hailing a ferry",)),
}

PEOPLE: Words = (("person", "figure", "woman", "man", "child"), ("girl", "boy"))


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("x") else "s")


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words
