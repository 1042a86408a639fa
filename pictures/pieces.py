"""What the example workflows are put together from: file names, prompts, and groups of nodes."""

from __future__ import annotations

from .workflow import Node, Wire, Workflow

KITTENS = "Three fluffy white kittens playing with a ball of yarn on a bright green carpet"
BALLOONS = "Seven red balloons float above a glass of blue juice on a sunny terrace"
DANCER = "A woman in a yellow coat jumps over a puddle while her dog runs after her"
UNWANTED = "blurry, low quality, deformed"
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "sd_xl_base_1.0.safetensors"
ADAPTER, ADAPTER_XL = "my_adapter.safetensors", "my_sdxl_adapter.safetensors"
SEED = 20230512
SHOWN_PICTURE = 262  # height of a node that shows one
PROMPT_ROOM = 110


def load_models(flow: Workflow, checkpoint: str = SD15, adapter: str = ADAPTER) -> tuple[Node, Node]:
    """The checkpoint and the adapter; below each other in the first column."""
    models = flow.add("CheckpointLoaderSimple", 0, ckpt_name=checkpoint)
    return models, flow.add("SURLoadAdapter", 0, adapter_name=adapter)


def clip_prompts(flow: Workflow, column: int, clip: Wire, positive: str) -> tuple[Node, Node]:
    def one(title: str, text: str) -> Node:
        return flow.add("CLIPTextEncode", column, title, PROMPT_ROOM, text=text, clip=clip)

    return one("Positive prompt", positive), one("Negative prompt", UNWANTED)


def empty_latent(flow: Workflow, column: int, side: int = 512) -> Node:
    return flow.add("EmptyLatentImage", column, width=side, height=side, batch_size=1)


def sample(flow: Workflow, column: int, title: str = "", **wires: Wire) -> Node:
    settings = {"sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    return flow.add("KSampler", column, title, seed=SEED, steps=20, cfg=7.0, **settings, **wires)


def decode(flow: Workflow, column: int, latent: Wire, vae: Wire) -> Node:
    return flow.add("VAEDecode", column, samples=latent, vae=vae)


def save(flow: Workflow, column: int, images: Wire, prefix: str, title: str = "", room: int = 0) -> Node:
    room = room or SHOWN_PICTURE
    return flow.add("SaveImage", column, title, room, images=images, filename_prefix=prefix)


def apply_sur(
    flow: Workflow, column: int, conditioning: Wire, adapter: Wire, title: str = "", eta=0.1
) -> Node:
    return flow.add(
        "SURApplyConditioning",
        column,
        title,
        conditioning=conditioning,
        adapter=adapter,
        eta=eta,
        start_percent=0.0,
        end_percent=1.0,
    )


def _inside(name: str) -> str:
    """As it is written inside a sentence: ``With SUR`` begins small, ``CLIP alone`` does not."""
    return name if name[:2].isupper() else name[0].lower() + name[1:]


def compare(flow: Workflow, column: int, model: Wire, vae: Wire, samples: dict[str, dict[str, Wire]]) -> None:
    """A sampler, a decoder and a saved picture for each: ``{"With SUR": wires of its sampler}``. All else,
    the seed too, is the same, and the model where its wires name none.
    """
    samplers = [
        sample(flow, column, f"KSampler: {_inside(name)}", **{"model": model, **wires})
        for name, wires in samples.items()
    ]
    for name, sampler in zip(samples, samplers, strict=True):
        picture = decode(flow, column + 1, sampler[0], vae)
        saved = save(flow, column + 2, picture[0], name.lower().replace(" ", "_"), name)
        picture.beside = saved.beside = sampler
