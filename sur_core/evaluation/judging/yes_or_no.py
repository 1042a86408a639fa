"""How likely an image-text model of transformers goes on with "yes" rather than "no"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...model_files import told_in_words
from ...surd_build.model_source import ModelSource, find_model, load_tokenizer
from .models import JudgeModel, JudgeModelError, memory_in_words

PROMPT = "{question} Answer with yes or no."
"""What a model is asked, unless another text is given."""

_CAPTIONERS = ("blip", "git", "vision-encoder-decoder")


@dataclass(frozen=True)
class Answer:
    """What a model makes of one question.

    Attributes:
        yes: P(yes) / (P(yes) + P(no)).
        answered: P(yes) + P(no) among all next tokens. Far below 1, the model was about to say something
            else, and ``yes`` says little.
    """

    yes: float
    answered: float


class YesNoModel(JudgeModel):
    """An image-text-to-text model.

    The picture and the question go through the model's own processor, in its chat template where it has one.
    Of the next token's logits z, with Y and N the tokens that spell yes and no (with and without a space
    before, in lower, title and upper case, as far as the tokenizer has a single token for them)::

        P(yes) = sum of softmax(z) over Y,   P(no) = sum of softmax(z) over N
    """

    model_class = "AutoModelForImageTextToText"

    def __init__(self, source: ModelSource, prompt: str, device: str, dtype: str, batch_size: int):
        from transformers import AutoProcessor

        super().__init__(source, device, dtype)
        self.prompt, self.batch_size = prompt, batch_size
        load_tokenizer(source)  # in words, where its files are missing: the processor would do without
        with told_in_words(f"{source.name}: its processor cannot be read"):
            self._processor = AutoProcessor.from_pretrained(source.folder, local_files_only=True)
            self._tokenizer = self._processor.tokenizer
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if not source.config.is_encoder_decoder:
            self._tokenizer.padding_side = "left"  # the next token is the one behind the right end
        self._answers = [answer_tokens(self._tokenizer, word, source.name) for word in ("yes", "no")]

    @torch.inference_mode()
    def answers(self, pairs: Sequence[tuple[np.ndarray, str]]) -> list[Answer]:
        """An answer for each (picture uint8 [H, W, 3], question)."""
        found: list[Answer] = []
        for start in range(0, len(pairs), self.batch_size):
            batch = pairs[start : start + self.batch_size]
            with memory_in_words(self.name, self.device, f"{len(batch)} pictures at once"):
                found += self._batch(batch)
        return found

    def _batch(self, pairs: Sequence[tuple[np.ndarray, str]]) -> list[Answer]:
        with told_in_words(f"{self.name}: its processor cannot read pictures with questions"):
            inputs = self._inputs(pairs)
        moved = {
            name: value.to(self.device, self._model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        written = self._model.generate(
            **moved,
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,
        )
        chances = written.logits[0].float().cpu().log_softmax(-1)
        yes, no = (chances[:, tokens].logsumexp(-1) for tokens in self._answers)
        shares, answered = torch.sigmoid(yes - no), torch.logaddexp(yes, no).exp()
        return [Answer(*values) for values in zip(shares.tolist(), answered.tolist(), strict=True)]

    def _inputs(self, pairs: Sequence[tuple[np.ndarray, str]]) -> dict[str, torch.Tensor]:
        from PIL import Image

        images = [Image.fromarray(np.ascontiguousarray(pixels)) for pixels, _ in pairs]
        texts = [self.prompt.replace("{question}", question) for _, question in pairs]
        options = {"padding": True, "return_tensors": "pt"}
        if not getattr(self._processor, "chat_template", None):
            return dict(self._processor(images=images, text=texts, **options))
        texts = [self._as_chat(text) for text in texts]
        start = self._tokenizer.bos_token
        if start and texts[0].startswith(start):
            options["add_special_tokens"] = False  # the template has written them
        return dict(self._processor(images=[[image] for image in images], text=texts, **options))

    def _as_chat(self, text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


def open_yes_no_model(
    model: str,
    *,
    prompt: str = PROMPT,
    revision: str = "",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 8,
    local_files_only: bool = False,
) -> YesNoModel:
    """A :class:`YesNoModel` from a folder as transformers saves it, or an id on the hub.

    Args:
        prompt: the text in which ``{question}`` stands for the question.
        batch_size: pictures, each with one question, at once.

    Raises:
        ValueError: no model that answers questions, or incomplete, or too large for the device; or its
            tokenizer has no token for yes or no.
        OSError: there is no such model, or the hub cannot be reached.
    """
    if "{question}" not in prompt:
        raise JudgeModelError(f"prompt: expected a text with {{question}} in it, found {prompt!r}")
    source = find_model(str(model), _check_kind, revision, local_files_only)
    return YesNoModel(source, prompt, device, dtype, batch_size)


def answer_tokens(tokenizer, word: str, name: str) -> list[int]:
    """The single tokens that spell ``word``. JudgeModelError if there is none."""
    found = set()
    for spelling in (word, word.title(), word.upper()):
        for text in (spelling, " " + spelling):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
                found.add(ids[0])
    if not found:
        raise JudgeModelError(
            f"{name}: its tokenizer has no single token for {word!r}, so that the next token cannot be an "
            "answer. Take another model"
        )
    return sorted(found)


def _check_kind(name: str, config) -> None:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KNOWN

    if type(config) not in KNOWN or config.model_type in _CAPTIONERS:
        raise JudgeModelError(
            f"{name}: expected an image-text model that answers questions, such as "
            f"HuggingFaceTB/SmolVLM-256M-Instruct; found one of type {config.model_type!r}"
        )
