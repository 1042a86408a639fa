"""Captioners and a CLIP of random weights, in folders as transformers saves them, for the builder's tests.

make_blip(folder)      encoder and decoder with cross-attention, as the paper's captioner
make_git(folder)       a decoder that reads the picture as its first tokens
make_chat_vlm(folder)  Idefics 3: a chat template, and more image tokens for larger pictures
make_clip(folder)      CLIPModel with the tokenizer of the public ones
make_collected(folder) a work folder with some pictures, as the step before captions leaves it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from tests.tiny_models import BOS, EOS, WORDS, clip_vocabulary, write_clip_tokenizer

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHAT_SPECIALS = ("<|pad|>", "<|begin|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def make_blip(
    folder,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    image_size: int = 32,
    patch: int = 8,
    vocabulary: int = 0,
) -> Path:
    """BLIP with BERT's tokenizer. It writes as much as it may, and no word of a ``vocabulary`` beyond
    the tokenizer's.
    """
    from transformers import BlipConfig, BlipForConditionalGeneration

    folder = Path(folder)
    names = _write_bert_tokenizer(folder)
    shape = _shape(width, layers)
    # As in the public files, the start token's number lies beyond the tokenizer's words.
    ids = {"bos_token_id": len(names), "eos_token_id": names["[SEP]"], "sep_token_id": names["[SEP]"]}
    size = max(vocabulary, len(names) + 1)
    text = {**shape, **ids, "pad_token_id": 0, "vocab_size": size, "encoder_hidden_size": width}
    config = BlipConfig(
        text_config={**text, "max_position_embeddings": 64, "is_decoder": True},
        vision_config={**shape, "image_size": image_size, "patch_size": patch},
        projection_dim=width,
    )
    silent = [names["[SEP]"], *range(len(names), size)]  # it would often write nothing but the end
    _save_random(BlipForConditionalGeneration, config, folder, seed, silent=silent)
    _write_image_processor(folder, "BlipImageProcessor", {"height": image_size, "width": image_size})
    _write(folder / "processor_config.json", {"processor_class": "BlipProcessor"})
    return folder


def make_git(folder, seed: int = 0) -> Path:
    """GIT with BERT's tokenizer."""
    from transformers import GitConfig, GitForCausalLM

    folder = Path(folder)
    names = _write_bert_tokenizer(folder)
    shape = _shape(32, 2)
    config = GitConfig(
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        **shape,
        vocab_size=len(names),
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=names["[CLS]"],
        eos_token_id=names["[SEP]"],
    )
    _save_random(GitForCausalLM, config, folder, seed)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    _write_image_processor(folder, "CLIPImageProcessor", **size)
    _write(folder / "processor_config.json", {"processor_class": "GitProcessor"})
    return folder


def make_chat_vlm(folder, seed: int = 0) -> Path:
    """Idefics 3: pictures wider than 32 pixels become several tiles, so that batches need padding."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    folder = Path(folder)
    names = _write_chat_tokenizer(folder)
    shape = _shape(32, 2)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": names["<end_of_utterance>"]}
    positions = {"num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": len(names)}
    config = Idefics3Config(
        image_token_id=names["<image>"],
        scale_factor=2,
        pad_token_id=0,
        text_config={"model_type": "llama", **shape, **special, **positions},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
    )
    _save_random(Idefics3ForConditionalGeneration, config, folder, seed, special)
    size = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": True}
    _write_image_processor(folder, "Idefics3ImageProcessor", **size)
    kind = {"processor_class": "Idefics3Processor", "image_seq_len": 4}
    _write(folder / "processor_config.json", kind)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def make_clip(
    folder,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    image_size: int = 32,
    patch: int = 8,
    text_width: int = 0,
) -> Path:
    """CLIPModel with one token a letter where a word is not common."""
    from transformers import CLIPConfig, CLIPModel

    folder, tokens = Path(folder), clip_vocabulary()[0]
    special = {"bos_token_id": tokens[BOS], "eos_token_id": tokens[EOS], "pad_token_id": tokens[EOS]}
    text = {**_shape(text_width or width, layers), **special, "vocab_size": len(tokens)}
    config = CLIPConfig(
        text_config={**text, "max_position_embeddings": 77},
        vision_config={**_shape(width, layers), "image_size": image_size, "patch_size": patch},
        projection_dim=text_width or width,
        logit_scale_init_value=2.0,
    )
    _save_random(CLIPModel, config, folder, seed)
    write_clip_tokenizer(folder)
    side = {"height": image_size, "width": image_size}
    _write_image_processor(folder, "CLIPImageProcessor", {"shortest_edge": image_size}, crop_size=side)
    return folder


def make_collected(folder, pictures: dict, side: int = 40) -> Path:
    """A work folder whose pictures are collected and selected; all of noise, of other proportions.

    Args:
        pictures: {file name: (elaborate prompt, plain prompt that came with it or "")}.
        side: pixels of the shorter side.
    """
    from PIL import Image

    from sur_core.surd_build.manifest import Manifest

    folder, source = Path(folder), Path(folder) / "source"
    source.mkdir(parents=True)
    records = [{"step": "source", "key": "mine", "folder": str(source), "kind": "folder"}]
    draw = np.random.default_rng(0)
    for at, (name, (elaborate, plain)) in enumerate(pictures.items()):
        size = (side, side + 12 * (at % 3)) if at % 2 else (side + 12 * (at % 3), side)
        pixels = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / name)
        digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
        found = {"sha256": digest, "metadata": "sidecar", "prompt": elaborate}
        records.append({"step": "collect", "key": f"mine/{name}", **found})
        chosen = {"file": f"mine/{name}", "id": digest[:20], "complex": elaborate}
        chosen |= {"simple": plain} if plain else {}
        records.append({"step": "select", "key": f"mine/{name}", **chosen})
    Manifest(folder / "work").add(records)
    return folder / "work"


def _shape(width: int, layers: int) -> dict[str, int]:
    heads = max(4, width // 64)
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**shape, "num_attention_heads": heads}


def _save_random(
    kind, config, folder: Path, seed: int, generation: dict | None = None, silent: list[int] | None = None
) -> None:
    """Weights large enough for other pictures to give other words; their own small start does not.

    Args:
        generation: settings of ``generate`` to save with it.
        silent: tokens that are never written, of BLIP.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1:
                    fan = weight.shape[-1] if weight.dim() == 2 else weight[0].numel()
                    weight.normal_(std=1.0 if "embed" in name else 1.5 / fan**0.5)
            if silent:
                model.text_decoder.cls.predictions.bias[silent] = -1e3
    for key, value in (generation or {}).items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)


def _words() -> list[str]:
    return sorted(set(WORDS.split()) | {"photography", "picture", "caption", "old", "young"})


def _write_bert_tokenizer(folder: Path) -> dict[str, int]:
    """BERT's files with a few words and all letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*SPECIALS, *dict.fromkeys([*_words(), *letters, *("##" + letter for letter in letters)])]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return {token: index for index, token in enumerate(tokens)}


def _write_chat_tokenizer(folder: Path) -> dict[str, int]:
    """A fast tokenizer of words, spaces and single letters, with what Idefics 3 writes around a picture."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = [*CHAT_SPECIALS, "<global-img>", *tiles]
    plain = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: at for at, token in enumerate([*special, *plain])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<end_of_utterance>",
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    return vocabulary


def _write_image_processor(folder: Path, kind: str, size: dict | None = None, **settings) -> None:
    sizes = {"size": size} if size else {}
    _write(folder / "preprocessor_config.json", {"image_processor_type": kind, **sizes, **settings})


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
