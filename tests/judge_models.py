"""Detectors and image-text models of random weights, in folders as transformers saves them.

make_owlv2(folder), make_grounding_dino(folder), make_mask2former(folder)
make_yes_no_vlm(folder)     Idefics 3 whose tokenizer has words for yes and no
make_plain_vlm(folder)      BLIP-2: no chat template
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.surd_models import make_chat_vlm
from tests.tiny_models import BOS, EOS, clip_vocabulary, write_clip_tokenizer

LABELS = {0: "cat", 1: "ball", 2: "traffic light"}
YES_AND_NO = ("yes", "Yes", " no", "NO")


def make_owlv2(folder, seed: int = 0) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    folder, tokens = Path(folder), clip_vocabulary()[0]
    special = {"bos_token_id": tokens[BOS], "eos_token_id": tokens[EOS], "pad_token_id": tokens["!"]}
    config = Owlv2Config(
        text_config={**_layers(), **special, "vocab_size": len(tokens), "max_position_embeddings": 40},
        vision_config={**_layers(), "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    _save(Owlv2ForObjectDetection, config, folder, seed)
    write_clip_tokenizer(folder, pad="!")
    size = {"height": 32, "width": 32}
    _write(folder / "preprocessor_config.json", {"image_processor_type": "Owlv2ImageProcessor", "size": size})
    return folder


def make_grounding_dino(folder, seed: int = 0) -> Path:
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection

    folder = Path(folder)
    words = _write_bert_tokenizer(folder)
    config = GroundingDinoConfig(
        backbone_config=_swin([2, 3, 4]),
        text_config=BertConfig(vocab_size=words, **_layers(), max_position_embeddings=64),
        d_model=32,
        num_queries=9,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_text_len=32,
    )
    _save(GroundingDinoForObjectDetection, config, folder, seed)
    size = {"shortest_edge": 64, "longest_edge": 96}
    kind = {"image_processor_type": "GroundingDinoImageProcessor", "size": size}
    _write(folder / "preprocessor_config.json", kind)
    return folder


def make_mask2former(folder, seed: int = 0) -> Path:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    folder = Path(folder)
    config = Mask2FormerConfig(
        backbone_config=_swin(None, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        id2label=LABELS,
        label2id={name: at for at, name in LABELS.items()},
    )
    _save(Mask2FormerForUniversalSegmentation, config, folder, seed)
    size = {"shortest_edge": 40, "longest_edge": 80}
    kind = {"image_processor_type": "Mask2FormerImageProcessor", "size": size, "size_divisor": 32}
    _write(folder / "preprocessor_config.json", kind | {"num_labels": len(LABELS), "ignore_index": 255})
    return folder


def make_yes_no_vlm(folder, seed: int = 0) -> Path:
    """Idefics 3: pictures wider than 32 pixels become several tiles, so that batches need padding. Its
    tokenizer begins every text with a start token, and so does its chat template.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    folder = make_chat_vlm(folder, seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(YES_AND_NO))
    start = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)]
    )
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            rows = model.get_output_embeddings().weight[-len(YES_AND_NO) :]
            rows.copy_(torch.randn(rows.shape) * 1.5 / rows.shape[1] ** 0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_plain_vlm(folder, seed: int = 0) -> Path:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    folder = Path(folder)
    tokenizer = _word_tokenizer()
    tokenizer.save_pretrained(folder)
    positions = {"max_position_embeddings": 128, "word_embed_proj_dim": 32, "ffn_dim": 32}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Blip2Config(
        vision_config={**_layers(), "image_size": 32, "patch_size": 8},
        qformer_config={**_layers(), "vocab_size": 10, "encoder_hidden_size": 32},
        text_config={"model_type": "opt", **_layers(), **ids, **positions, "vocab_size": len(tokenizer)},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    _save(Blip2ForConditionalGeneration, config, folder, seed)
    size = {"height": 32, "width": 32}
    _write(folder / "preprocessor_config.json", {"image_processor_type": "BlipImageProcessor", "size": size})
    _write(folder / "processor_config.json", {"processor_class": "Blip2Processor", "num_query_tokens": 4})
    return folder


def _layers() -> dict[str, int]:
    heads = {"num_attention_heads": 2, "num_hidden_layers": 2}
    return {"hidden_size": 32, "intermediate_size": 32, **heads}


def _swin(out_indices, **more):
    from transformers import SwinConfig

    shape = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "window_size": 2}
    where = {"out_indices": out_indices} if out_indices else {}
    return SwinConfig(**shape, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], **where, **more)


def _save(kind, config, folder: Path, seed: int) -> None:
    """Weights large enough for other pictures to give other answers; their own small start does not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1:
                    fan = weight.shape[-1] if weight.dim() == 2 else weight[0].numel()
                    # Of boxes little, or all of them lie at the border; the class of masks as well.
                    scale = 0.1 if "bbox_embed" in name else 0.4 if "class_predictor" in name else 1.5
                    weight.normal_(std=1.0 if ".embed" in name else scale / fan**0.5)
    model.save_pretrained(folder)


def _write_bert_tokenizer(folder: Path) -> int:
    """BERT's files; the special tokens and the full stop have the numbers that Grounding DINO looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [f"[unused{at}]" for at in range(1040)]
    places = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    places |= {token: 200 + at for at, token in enumerate([*letters, *("##" + one for one in letters)])}
    for token, at in places.items():
        tokens[at] = token
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return len(tokens)


def _word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = ["yes", "no", "is", "there", "the", "any", "this", "red", "blue", "cat", "answer", "with", "?"]
    vocabulary = {token: at for at, token in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
