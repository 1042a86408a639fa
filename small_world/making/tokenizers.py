"""The tokenizers of the small world: CLIP's byte pairs and Llama's, learnt on the world's own sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sur_core.atomic import atomic_write

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LLM_BOS, LLM_EOS, LLM_UNKNOWN = "<s>", "</s>", "<unk>"


def write_clip_tokenizer(folder: Path, sentences: Iterable[str], size: int) -> None:
    """A CLIPTokenizer's files, as the public models have them.

    Args:
        sentences: what the byte pairs are learnt on; lower case.
        size: tokens in all, the two special ones included. They come last, as in CLIP.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    # CLIP's own way to split, apart from contractions: letters, single digits, runs of other signs.
    pattern = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(sentences, trainer)
    learnt = json.loads(learner.to_str())["model"]
    # Every sign also as the end of a word, so that any word can be spelt.
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = _merges(learnt)
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens = list(dict.fromkeys(tokens))[: size - 2]
    merges = [merge for merge in merges if merge.replace(" ", "") in set(tokens)]
    tokens += [BOS, EOS]
    _write_vocabulary(folder, {token: index for index, token in enumerate(tokens)}, merges)
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    _write(folder / "tokenizer_config.json", json.dumps({**settings, **special}, indent=2))


def write_llm_tokenizer(folder: Path, sentences: Iterable[str], size: int) -> None:
    """A fast Llama tokenizer: byte-level pairs, so that nothing is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[LLM_UNKNOWN, LLM_BOS, LLM_EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(sentences, trainer)
    learner.post_processor = processors.TemplateProcessing(
        single=f"{LLM_BOS} $A", special_tokens=[(LLM_BOS, learner.token_to_id(LLM_BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learner,
        unk_token=LLM_UNKNOWN,
        bos_token=LLM_BOS,
        eos_token=LLM_EOS,
        pad_token=LLM_EOS,
        model_max_length=256,
    )
    tokenizer.save_pretrained(folder)


def write_vocabulary(folder: Path) -> None:
    """Write vocab.json and merges.txt beside a CLIP tokenizer.json: transformers 4 reads these two only."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    _write_vocabulary(folder, model["vocab"], _merges(model))


def say_for_transformers_4(folder: Path) -> None:
    """Write into a language model's tokenizer_config.json what transformers 4 does not find elsewhere: the
    class under the name it knows, and the space before the first word. 5 knows both too.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}
    _write(path, json.dumps(settings, indent=2))


def _merges(model: dict) -> list[str]:
    """Merges as "a b"; newer versions of tokenizers have them as pairs."""
    return [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]


def _write_vocabulary(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    _write(folder / "vocab.json", json.dumps(vocabulary))
    _write(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
