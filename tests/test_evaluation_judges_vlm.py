"""The question judge: probabilities are those of the model's own logits, and every question counts."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from sur_core.evaluation import EvalPrompt, PromptSetError
from sur_core.evaluation.judges import ask, ask_many
from sur_core.evaluation.judging import Answer, VlmJudge, open_yes_no_model, questions_of, read_truth
from sur_core.evaluation.judging.yes_or_no import answer_tokens
from tests.judge_models import YES_AND_NO, make_plain_vlm, make_yes_no_vlm
from tests.surd_models import make_blip, make_chat_vlm
from tests.test_evaluation_judges_models import copy

QUESTIONS = ("Is there any cat in this picture?", "Is the cat in this picture red?", "Is it?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlm")
    return {"chat": make_yes_no_vlm(root / "chat"), "plain": make_plain_vlm(root / "plain")}


def pictures() -> list[np.ndarray]:
    """Of several sizes, so that a chat model makes more tokens of one than of another."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 32), (40, 90), (96, 64))]


def softmax(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().numpy()
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


@torch.no_grad()
def next_token_chances(folder, pixels, text) -> dict[str, float]:
    """Of each token behind one picture and one text, by a plain forward pass."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = processor(images=[[Image.fromarray(pixels)]], text=[text], return_tensors="pt")
    logits = model(**inputs).logits[0, -1]
    names = processor.tokenizer.convert_ids_to_tokens(range(len(processor.tokenizer)))
    return dict(zip(names, softmax(logits)[: len(names)], strict=True))


@pytest.mark.parametrize("pixels", pictures(), ids=lambda one: f"{one.shape[1]}x{one.shape[0]}")
def test_a_chat_models_answer_is_that_of_its_next_tokens(folders, pixels):
    answer = open_yes_no_model(folders["chat"], device="cpu").answers([(pixels, QUESTIONS[0])])[0]
    asked = f"<image>{QUESTIONS[0]} Answer with yes or no."
    # As its template has it (tests/surd_models.py), but for the start token, which the tokenizer adds here.
    chances = next_token_chances(folders["chat"], pixels, f"User:{asked}<end_of_utterance>\nAssistant:")
    yes, no = chances["yes"] + chances["Yes"], chances[" no"] + chances["NO"]
    assert answer.yes == pytest.approx(yes / (yes + no), rel=1e-4)
    assert answer.answered == pytest.approx(yes + no, rel=1e-4)
    assert 0.001 < answer.yes < 0.999, "a probability at the border would show nothing"


def test_a_model_without_a_chat_template_reads_the_bare_text(folders):
    pixels = pictures()[0]
    model = open_yes_no_model(folders["plain"], device="cpu", prompt="the {question} answer")
    answer = model.answers([(pixels, "is this red")])[0]
    chances = next_token_chances(folders["plain"], pixels, "the is this red answer")
    assert answer.yes == pytest.approx(chances["yes"] / (chances["yes"] + chances["no"]), rel=1e-4)
    assert answer.answered == pytest.approx(chances["yes"] + chances["no"], rel=1e-4)


@pytest.mark.parametrize("kind", ["chat", "plain"])
def test_an_answer_does_not_depend_on_the_batch(folders, kind):
    pairs = [(pixels, question) for pixels in pictures() for question in QUESTIONS]
    together = open_yes_no_model(folders[kind], device="cpu", batch_size=4).answers(pairs)
    one_by_one = open_yes_no_model(folders[kind], device="cpu", batch_size=1)
    for answer, pair in zip(together, pairs, strict=True):
        assert answer.yes == pytest.approx(one_by_one.answers([pair])[0].yes, abs=1e-4)
    assert len({round(answer.yes, 3) for answer in together}) > 3, "pictures and questions must matter"
    assert one_by_one.answers([]) == []


def test_yes_and_no_are_single_tokens_in_any_usual_spelling(folders):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["chat"])
    named = [tokenizer.convert_ids_to_tokens(answer_tokens(tokenizer, word, "m")) for word in ("yes", "no")]
    assert sorted(named[0] + named[1]) == sorted(YES_AND_NO)


def test_a_tokenizer_without_a_word_for_yes_is_told(tmp_path):
    folder = make_chat_vlm(tmp_path / "letters")
    with pytest.raises(ValueError, match="letters: its tokenizer has no single token for 'yes'"):
        open_yes_no_model(folder, device="cpu")


class Scripted:
    """Answers by what it was told of a question; otherwise yes."""

    name = "scripted"

    def __init__(self, **chances):
        self.chances, self.asked = chances, []

    def answers(self, pairs):
        self.asked.append([question for _, question in pairs])
        words = [next((word for word in self.chances if word in question), "") for _, question in pairs]
        return [Answer(self.chances.get(word, 0.9), 0.8) for word in words]


PAIR = {"objects": [{"name": "glass", "colors": ["blue"]}, {"name": "juice", "colors": ["red"]}]}
BINDING = EvalPrompt("c1", "Color", "The blue glass containing red juice.", truth=PAIR)
ACTION = EvalPrompt("a1", "Action", "Giraffes eating.", truth={"subject": "giraffes", "action": "eating"})
PIXELS = np.zeros((8, 8, 3), np.uint8)


def test_a_picture_is_right_if_every_answer_is_yes():
    assert ask(VlmJudge(Scripted()), PIXELS, BINDING).right
    mark = ask(VlmJudge(Scripted(red=0.3)), PIXELS, BINDING)
    assert not mark.right and mark.why == "Is the juice in this picture red? yes 30%"
    assert [entry["yes"] for entry in mark.details["answers"]] == [0.9, 0.9, 0.9, 0.3]
    assert [entry["question"] for entry in mark.details["answers"]] == list(questions_of(read_truth(BINDING)))
    assert mark.details["answers"][0]["answered"] == 0.8


@pytest.mark.parametrize(("threshold", "right"), [(0.3, True), (0.31, False)])
def test_yes_begins_at_the_threshold(threshold, right):
    assert ask(VlmJudge(Scripted(eating=0.3), threshold), PIXELS, ACTION).right == right


def test_no_number_is_no_yes():
    assert not VlmJudge(Scripted(eating=math.nan)).mark(PIXELS, ACTION).right


def test_all_questions_of_all_pictures_go_together():
    model = Scripted(red=0.3)
    pairs = [(PIXELS, BINDING), (PIXELS, ACTION), (PIXELS, BINDING)]
    many = ask_many(VlmJudge(model), pairs)
    assert [mark.right for mark in many] == [False, True, False] and len(model.asked) == 1
    assert many == [ask(VlmJudge(Scripted(red=0.3)), *pair) for pair in pairs]
    assert ask_many(VlmJudge(model), []) == []


def test_a_real_model_marks(folders):
    judge = VlmJudge(open_yes_no_model(folders["chat"], device="cpu"))
    judge.check([BINDING, ACTION])
    marks = ask_many(judge, [(pixels, prompt) for pixels in pictures() for prompt in (BINDING, ACTION)])
    for mark in marks:
        assert mark.right == all(entry["yes"] >= 0.5 for entry in mark.details["answers"])
    assert {"model": "chat", "dtype": "fp32"}.items() <= judge.about.items() and judge.about["identity"]


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"objects": []}, "nothing to ask for"),
        ({"channel": 1}, "unknown key 'channel'"),
        (None, "truth should be"),
    ],
)
def test_a_truth_that_asks_nothing_is_told_before_anything_is_drawn(truth, words):
    prompts = [ACTION, EvalPrompt("p2", "Action", "x", truth=truth)]
    with pytest.raises(PromptSetError, match=words) as caught:
        VlmJudge(Scripted()).check(prompts)
    assert "'p2'" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer", "tokenizer"),
        ("preprocessor_config.json", "processor"),
    ],
)
def test_an_incomplete_folder_is_told_when_the_judge_is_made(folders, tmp_path, file, words):
    copy(folders["chat"], tmp_path / "model", without=file)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        open_yes_no_model(tmp_path / "model", device="cpu")
    assert "model" in str(caught.value)


def test_a_captioner_answers_no_questions(tmp_path):
    with pytest.raises(ValueError, match="answers questions.*found one of type 'blip'"):
        open_yes_no_model(make_blip(tmp_path / "blip"), device="cpu")


def test_a_prompt_without_a_question_is_told(folders):
    with pytest.raises(ValueError, match=r"expected a text with \{question\} in it"):
        open_yes_no_model(folders["chat"], device="cpu", prompt="Describe this.")


def test_too_little_memory_is_told(folders, monkeypatch):
    model = open_yes_no_model(folders["chat"], device="cpu", batch_size=2)

    def too_much(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")

    monkeypatch.setattr(model._model, "generate", too_much)
    with pytest.raises(ValueError, match="chat: 2 pictures at once do not fit.*smaller batch_size"):
        model.answers([(PIXELS, "Is it?")] * 3)
