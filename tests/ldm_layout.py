"""A diffusers folder's weights under the names CompVis' and Stability's trainers gave them."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def write_single_file(folder, path) -> Path:
    """The folder's weights as one LDM-layout checkpoint; the ending of ``path`` says which kind:
    ``.safetensors``, or ``.ckpt`` (a torch file whose tensors are under ``state_dict``).
    """
    from safetensors.torch import save_file

    folder, path = Path(folder), Path(path)
    tensors = ldm_state_dict(folder)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "global_step": 1}, path)
    return path


def ldm_state_dict(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors under the names CompVis' and Stability's trainers gave them."""
    layers = json.loads((folder / "unet/config.json").read_text())["layers_per_block"]
    depth = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"])
    unet = _weights(folder / "unet")
    found = {"model.diffusion_model." + _ldm_unet_key(key, layers, unet): unet[key] for key in unet}
    for key, tensor in _weights(folder / "vae").items():
        linear = ".attentions." in key and tensor.dim() == 2
        found["first_stage_model." + _ldm_vae_key(key, depth)] = (
            tensor[:, :, None, None] if linear else tensor
        )
    if (folder / "text_encoder_2").is_dir():
        found |= _hugging_clip(_weights(folder / "text_encoder"), "conditioner.embedders.0.transformer.")
        found |= _open_clip(_weights(folder / "text_encoder_2"), "conditioner.embedders.1.model.")
    elif json.loads((folder / "text_encoder/config.json").read_text())["hidden_act"] == "quick_gelu":
        found |= _hugging_clip(_weights(folder / "text_encoder"), "cond_stage_model.transformer.")
    else:
        found |= _open_clip(_weights(folder / "text_encoder"), "cond_stage_model.model.")
    return {key: tensor.contiguous() for key, tensor in found.items()}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def _replace(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = key.replace(old, new)
    return key


def _ldm_unet_key(key: str, layers: int, unet: dict) -> str:
    fixed = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }
    for old, new in fixed.items():
        if key.startswith(old):
            return key.replace(old, new)
    if ".resnets." in key:
        names = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0"}
        names |= {
            "conv2": "out_layers.3",
            "time_emb_proj": "emb_layers.1",
            "conv_shortcut": "skip_connection",
        }
        key = _replace(key, names)
    parts = key.split(".")
    if parts[0] == "mid_block":
        place = {("resnets", "0"): 0, ("attentions", "0"): 1, ("resnets", "1"): 2}[parts[1], parts[2]]
        return ".".join(["middle_block", str(place), *parts[3:]])
    block, kind, index = int(parts[1]), parts[2], int(parts[3])
    first = block * (layers + 1)
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return ".".join(["input_blocks", str(1 + first + layers), "0.op", *parts[5:]])
        return ".".join(["input_blocks", str(1 + first + index), "01"[kind == "attentions"], *parts[4:]])
    if kind == "upsamplers":
        attends = any(name.startswith(f"up_blocks.{block}.attentions.") for name in unet)
        return ".".join(["output_blocks", str(first + layers), "12"[attends], *parts[4:]])
    return ".".join(["output_blocks", str(first + index), "01"[kind == "attentions"], *parts[4:]])


def _ldm_vae_key(key: str, depth: int) -> str:
    names = {"mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2"}
    names |= {"mid_block.attentions.0.group_norm": "mid.attn_1.norm", "mid_block.attentions.0": "mid.attn_1"}
    names |= {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    names |= {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"}
    for block in range(depth):
        names[f"up_blocks.{block}."] = f"up.{depth - 1 - block}."
        names[f"down_blocks.{block}."] = f"down.{block}."
    names |= {".resnets.": ".block.", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}
    return _replace(key, names)


def _hugging_clip(tensors: dict, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": value for key, value in tensors.items()}


def _open_clip(tensors: dict, prefix: str) -> dict[str, torch.Tensor]:
    """OpenCLIP's names: queries, keys and values are one matrix, the projection stands on its side."""
    names = {"embeddings.position_embedding.weight": "positional_embedding", "final_layer_norm": "ln_final"}
    names |= {"embeddings.token_embedding": "token_embedding", "encoder.layers": "transformer.resblocks"}
    names |= {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names |= {"self_attn.out_proj": "attn.out_proj", "text_projection.weight": "text_projection"}
    plain = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    found = {}
    for key, value in plain.items():
        if "q_proj" in key:
            joined = torch.cat([plain[key.replace("q_proj", letter + "_proj")] for letter in "qkv"])
            name = key.replace("self_attn.q_proj.", "attn.in_proj_")
            found[prefix + _replace(name, names)] = joined
        elif "k_proj" not in key and "v_proj" not in key:
            found[prefix + _replace(key, names)] = value.T if key == "text_projection.weight" else value
    return found
