"""Any transformers image-to-text model: pictures in, one line of text each out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..language_model import DTYPES, choose_device, choose_dtype
from ..model_files import told_in_words
from .manifest import SurdBuildError
from .model_source import ModelSource, load_image_processor, load_tokenizer, load_weights

if TYPE_CHECKING:
    from PIL.Image import Image

BLIP = "Salesforce/blip-image-captioning-base"
"""The paper's captioner (Appendix A.1): BLIP base, fine-tuned on the captions of COCO."""

CHAT_PROMPT = "Describe this image in one short sentence."
"""What a chat model is asked if nothing else is said."""

_SEPARATE = ("blip", "git", "vision-encoder-decoder")
"""Model types whose picture and prompt are inputs of their own; others mix them into one text."""


@dataclass(frozen=True)
class Decoding:
    """How captions are written.

    The paper does not say. Its library's own defaults for this model are 3 beams, 30 tokens at most and 10 at
    least, counting those of the prompt "a picture of", which is cut off afterwards.

    Attributes:
        prompt: the caption's beginning (BLIP, GIT), which is not part of what is kept; or the request (chat
            models, which have a default one).
        max_new_tokens, min_new_tokens: beyond the prompt.
        beams: 1 takes the likeliest token each time.
    """

    prompt: str = ""
    max_new_tokens: int = 40
    min_new_tokens: int = 0
    beams: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.min_new_tokens <= self.max_new_tokens or self.max_new_tokens < 1 or self.beams < 1:
            raise SurdBuildError(
                f"captions need at least one token and one beam, and no more tokens at least "
                f"({self.min_new_tokens}) than at most ({self.max_new_tokens}); found {self.beams} beams"
            )


class Captioner:
    """An image-to-text model in memory.

    Captions are deterministic and those of a picture do not depend on its batch, up to what rounding does to
    two words that the model likes equally well.
    """

    def __init__(self, source: ModelSource, decoding: Decoding, dtype: str = "auto", device: str = "auto"):
        """Raises ValueError if the model cannot be loaded, or cannot take the prompt.

        Args:
            dtype: "auto", "fp32", "fp16" or "bf16"; auto is bf16 or fp16 on a GPU, fp32 on the CPU.
            device: "auto" or torch's name of one.
        """
        from transformers import AutoModelForImageTextToText

        self.name, self.decoding, self.device = source.name, decoding, choose_device(str(device))
        self.dtype = DTYPES[choose_dtype(dtype, self.device)]
        separate = source.config.model_type in _SEPARATE
        self._reader = (_Separate if separate else _Joint)(source, decoding.prompt)
        self._tokenizer = load_tokenizer(source)  # its own: the reader's is at work on another thread
        self._model = load_weights(source, AutoModelForImageTextToText, self.dtype, self.device)

    def prepare(self, image: Image) -> Any:
        """What can be done for one picture alone; on any thread."""
        return self._reader.prepare(image)

    def pack(self, prepared: list) -> dict[str, torch.Tensor]:
        """Model inputs of a batch of prepared pictures; on one thread at a time."""
        with told_in_words(f"{self.name}: its processor cannot read pictures as image-to-text models do"):
            return self._reader.pack(prepared)

    @torch.inference_mode()
    def captions(self, inputs: dict[str, torch.Tensor]) -> list[str]:
        """One line of text for each picture. Raises SurdBuildError: the batch does not fit into memory."""
        moved = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        limits = {"max_new_tokens": self.decoding.max_new_tokens, "num_beams": self.decoding.beams}
        if self.decoding.min_new_tokens:
            limits["min_new_tokens"] = self.decoding.min_new_tokens
        count = len(moved["pixel_values"]) if "pixel_values" in moved else 0
        with out_of_memory_in_words(self.name, self.device, count):
            tokens = self._model.generate(**moved, do_sample=False, **limits).cpu()
        echo = _echo(tokens, inputs["input_ids"]) if "input_ids" in inputs else 0
        whole, given, new = (
            self._tokenizer.batch_decode(part, skip_special_tokens=True)
            for part in (tokens, tokens[:, :echo], tokens[:, echo:])
        )
        # A word's continuation right after the prompt can be read only with what it continues.
        texts = [
            text[len(start) :] if text.startswith(start) else rest
            for text, start, rest in zip(whole, given, new, strict=True)
        ]
        return [" ".join(text.split()) for text in texts]


class _Separate:
    """Pictures go through the image processor one by one, a prompt through the tokenizer."""

    def __init__(self, source: ModelSource, prompt: str):
        self._images = load_image_processor(source)
        self._prompt = self._tokens(source, prompt) if prompt else None

    @staticmethod
    def _tokens(source: ModelSource, prompt: str) -> torch.Tensor:
        kind, tokenizer = source.config.model_type, load_tokenizer(source)
        if kind == "vision-encoder-decoder":
            raise SurdBuildError(f"{source.name}: this model takes no prompt; leave --prompt out")
        ids = tokenizer(prompt).input_ids
        return torch.tensor(ids[:-1] if kind == "git" else ids)  # BLIP cuts the end token off by itself

    def prepare(self, image: Image) -> torch.Tensor:
        return self._images(images=[image], return_tensors="pt")["pixel_values"][0]

    def pack(self, prepared: list) -> dict[str, torch.Tensor]:
        inputs = {"pixel_values": torch.stack(prepared)}
        if self._prompt is not None:
            ids = self._prompt.repeat(len(prepared), 1)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return inputs


class _Joint:
    """Pictures and prompt go through the model's processor together, as a chat where it has a template."""

    def __init__(self, source: ModelSource, prompt: str):
        from transformers import AutoProcessor

        with told_in_words(f"{source.name}: its processor cannot be read"):
            self._processor = AutoProcessor.from_pretrained(source.folder, local_files_only=True)
        tokenizer = self._processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if not source.config.is_encoder_decoder:
            tokenizer.padding_side = "left"  # what is written goes on from the right end
        self._chat = bool(getattr(self._processor, "chat_template", None))
        self._text = self._as_chat(prompt or CHAT_PROMPT) if self._chat else prompt
        start = tokenizer.bos_token
        self._plain = bool(self._chat and start and self._text.startswith(start))

    def _as_chat(self, prompt: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )

    def prepare(self, image: Image) -> Image:
        return image

    def pack(self, prepared: list) -> dict[str, torch.Tensor]:
        words = {"text": [self._text] * len(prepared)} if self._text else {}
        more = {"add_special_tokens": False} if self._plain else {}  # the template has written them
        # A list for each picture: which prompt it belongs to is then beyond doubt.
        images = [[image] for image in prepared] if self._chat else prepared
        return dict(self._processor(images=images, padding=True, return_tensors="pt", **words, **more))


def check_captioner(name: str, config: object) -> None:
    """Raises SurdBuildError if transformers knows no image-to-text model of this kind."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KNOWN

    if type(config) not in KNOWN:
        raise SurdBuildError(
            f"{name}: expected an image-to-text model such as {BLIP}, found one of type "
            f"{config.model_type!r}, which writes no captions"
        )


@contextmanager
def out_of_memory_in_words(name: str, device: torch.device, batch: int) -> Iterator[None]:
    """What torch says where a batch is too large becomes a SurdBuildError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch has a class of its own for GPUs only
        told = any(words in str(error) for words in ("out of memory", "DefaultCPUAllocator"))
        if not told and not isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            raise
        raise SurdBuildError(
            f"{name}: {batch} pictures at once do not fit into the memory of {device}. Give a smaller "
            "--batch-size; what was done before is kept"
        ) from error


def _echo(tokens: torch.Tensor, given: torch.Tensor) -> int:
    """How many tokens are the prompt, which some models repeat; the first may be another."""
    for width in (given.shape[1], given.shape[1] - 1):  # BLIP leaves the last token of the prompt out
        if 1 < width <= tokens.shape[1] and torch.equal(tokens[:, 1:width], given[:, 1:width]):
            return width
    return 0
