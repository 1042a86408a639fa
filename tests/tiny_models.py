"""Whole base models and language models of a few thousand random weights, in the layouts artists have.

make_tiny(folder, "sd1")                    a diffusers folder: UNet, VAE, CLIP, tokenizer, scheduler
write_single_file(folder, "x.safetensors")  the same weights as one checkpoint in the LDM layout
make_tiny_llm(folder, kind="llama")         a causal language model with its tokenizer
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.ldm_layout import write_single_file

__all__ = ["WORDS", "make_tiny", "make_tiny_llm", "write_clip_tokenizer", "write_single_file"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SCHEDULES = {"sd1": "PNDMScheduler", "sd2": "DDIMScheduler", "sdxl": "EulerDiscreteScheduler"}
REAL_WIDTHS = {"sd1": (768,), "sd2": (1024,), "sdxl": (768, 1280)}
TINY_WIDTHS = {"sd1": (32,), "sd2": (48,), "sdxl": (32, 64)}
WORDS = """
a an the of in on and with near two three four red blue green yellow black white cat dog bird horse car apple
ball house tree man woman photo painting detailed light sky sitting running sleeping standing
"""


def make_tiny(
    folder,
    family: str = "sd1",
    *,
    text_width=None,
    cross_attention_real: bool = False,
    prediction_type: str = "epsilon",
    seed: int = 0,
    in_channels: int = 4,
) -> Path:
    """A whole diffusers folder, under 3 MB at the default widths; native resolution 64, VAE factor 8.

    Args:
        folder: where; made if missing.
        family: ``"sd1"``, ``"sd2"`` or ``"sdxl"``.
        text_width: features of the text encoder (SDXL: of both, as a pair). 768 with ``"sd1"`` gives what a
            real SD 1.5 adapter is made for.
        cross_attention_real: the family's true widths: 768, 1024, or 768 and 1280.
        in_channels: 9 makes an inpainting UNet.
    """
    folder = Path(folder)
    widths = REAL_WIDTHS[family] if cross_attention_real else TINY_WIDTHS[family]
    if text_width is not None:
        widths = tuple(text_width) if isinstance(text_width, tuple | list) else (text_width,)
    assert len(widths) == len(TINY_WIDTHS[family]), "SDXL needs two text widths, the others one"
    with torch.random.fork_rng(devices=[]):
        generator = torch.Generator().manual_seed(seed)
        _save(_unet(family, sum(widths), widths[-1], in_channels), folder / "unet", generator)
        _save(_vae(), folder / "vae", generator)
        for index, width in enumerate(widths):
            suffix = "" if index == 0 else f"_{index + 1}"
            write_clip_tokenizer(folder / f"tokenizer{suffix}", pad=_pad(family, index))
            _save(_text_encoder(family, index, width), folder / f"text_encoder{suffix}", generator)
    _write_json(folder / "scheduler/scheduler_config.json", _schedule(family, prediction_type))
    _write_json(folder / "model_index.json", _index(family))
    return folder


def _unet(family: str, cross_attention: int, pooled: int, in_channels: int):
    from diffusers import UNet2DConditionModel

    extra = {}
    if family == "sdxl":
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": pooled + 6 * 8,
            "transformer_layers_per_block": [2, 1],
        }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2 if family == "sd1" else [2, 4],
        cross_attention_dim=cross_attention,
        use_linear_projection=family != "sd1",
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **extra,
    )


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    )


def _text_encoder(family: str, index: int, width: int):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokens = clip_vocabulary()[0]
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width if width < 256 else 64,
        num_hidden_layers=3 if width < 256 else 2 if family == "sdxl" else 1,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu" if family != "sd2" and index == 0 else "gelu",
        projection_dim=width,
        bos_token_id=tokens[BOS],
        eos_token_id=tokens[EOS],
        pad_token_id=tokens[_pad(family, index)],
    )
    return (CLIPTextModelWithProjection if index else CLIPTextModel)(config)


def _pad(family: str, index: int) -> str:
    return "!" if family == "sd2" or index else EOS


def _schedule(family: str, prediction_type: str) -> dict:
    return {
        "_class_name": SCHEDULES[family],
        "_diffusers_version": "0.31.0",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "prediction_type": prediction_type,
    }


def _index(family: str) -> dict:
    parts = {
        "scheduler": ["diffusers", SCHEDULES[family]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if family == "sdxl":
        parts["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        parts["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        return {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, **parts}
    parts |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    return {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts}


def _save(model, folder: Path, generator: torch.Generator) -> None:
    """Random weights that keep activations of size one, so the outputs react to every input."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "embedding.weight" in name:
                weight.copy_(noise)
            elif weight.dim() < 2:
                weight.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                gain = 3.0 if "attn2" in name and ("to_q" in name or "to_out" in name) else 1.0
                weight.copy_(gain * noise / weight[0].numel() ** 0.5)
        if hasattr(model, "quant_conv"):
            # A real VAE's posterior is narrow: the logarithm of its variance is far below zero.
            model.quant_conv.bias[model.config.latent_channels :] -= 6.0
    model.eval().save_pretrained(folder)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


# --- tokenizers -------------------------------------------------------------------------------------------


def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """Every byte, with and without the end-of-word mark, and common words; the end token has the highest id,
    as CLIP's has.
    """
    letters = list(_byte_letters().values())
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in WORDS.split():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = f"{pieces[0]} {pieces[1]}"
            pieces[:2] = [pieces[0] + pieces[1]]
            if merge not in merges:
                merges.append(merge)
                tokens.append(pieces[0])
    tokens = list(dict.fromkeys(tokens)) + [BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}, merges


def _byte_letters() -> dict[int, str]:
    """The printable letter byte-level BPE writes for each byte."""
    letters, spare = {}, 256
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(spare)
            spare += 1
    return letters


def write_clip_tokenizer(folder: Path, pad: str = EOS) -> Path:
    """The files a CLIPTokenizer is read from, as the public models have them."""
    tokens, merges = clip_vocabulary()
    _write_json(folder / "vocab.json", tokens)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
    _write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    _write_json(folder / "tokenizer_config.json", {**settings, **special})
    return folder


LLM_SPECIALS = {
    "llama": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "gpt2": {"unk_token": EOS, "bos_token": EOS, "eos_token": EOS},
    "qwen2": {"eos_token": "<|im_end|>", "pad_token": EOS},
}
"""What each family's tokenizer names: Llama has no padding token and puts <s> first, GPT-2 has one token for
all and adds none, Qwen 2 has no start token."""


def make_tiny_llm(folder, layers: int = 4, width: int = 48, kind: str = "llama", seed: int = 0) -> Path:
    """A causal language model of random weights with a fast tokenizer of one token a byte."""
    folder = Path(folder)
    tokenizer = _llm_tokenizer(kind)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        model = _llm(kind, layers, width, common)
        _save(model, folder, torch.Generator().manual_seed(seed))
    tokenizer.save_pretrained(folder)
    return folder


def _llm(kind: str, layers: int, width: int, common: dict):
    import transformers

    if kind == "gpt2":
        config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=4, n_positions=512, **common)
        return transformers.GPT2LMHeadModel(config)
    name = {"llama": "Llama", "qwen2": "Qwen2"}[kind]
    config = getattr(transformers, f"{name}Config")(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        **common,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _llm_tokenizer(kind: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = LLM_SPECIALS[kind]
    names = list(dict.fromkeys(special.values()))
    vocabulary = {token: index for index, token in enumerate([*names, *_byte_letters().values()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)
