"""ComfyUI: the prompt of the picture, followed back from the node that saved it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .comfy_graph import Graph, Link, Node, Unresolved, from_api
from .comfy_prompt import NEGATIVE, POSITIVE, Prompts, conditioning_inputs, is_pair
from .comfy_switch import chosen
from .comfy_workflow import from_workflow
from .found import AFTERWARDS, BROKEN, SEVERAL, UNRESOLVED, Found, MetadataError, joined, load_object, small
from .texts import Texts

KIND = "comfyui"
MAX_OUTPUTS = 50
_SETTINGS = (
    "seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "ckpt_name", "unet_name",
)  # fmt: skip
_SETTING_LINKS = ("noise", "sampler", "sigmas", "guider", "model")
_NO_PICTURE = {
    "model", "clip", "vae", "positive", "negative", "guider", "conditioning", "noise", "sampler", "sigmas",
    "control_net", "mask", "clip_vision_output", "style_model",
}  # fmt: skip
"""Inputs through which no picture comes to a node."""
_SAMPLER, _OTHER, _LATER = range(3)


def read_comfyui(texts: Texts, name: str) -> Found | None:
    """What ComfyUI wrote, or None.

    The ``prompt`` is what was run; the ``workflow`` is asked only where there is none, or nothing in it.

    Args:
        texts: of the image.
        name: of the image's file, which may tell which of several nodes saved it.

    Raises:
        MetadataError: all there is is damaged.
    """
    remarks: list[str] = []
    best = None
    for text, build, what in _sources(texts):
        try:
            found = read_graph(build(load_object(text, what)), name)
        except MetadataError as error:
            remarks.append(str(error))
            continue
        except RecursionError:  # the host program's own stack was deep already
            remarks.append(f"{BROKEN}: {what}: nodes behind each other without an end")
            continue
        remarks += found.remarks
        if best is None or found.prompt:
            best = found
        if found.prompt:
            break
    if best is None and not remarks:
        return None
    best = best or Found(KIND)
    return Found(KIND, best.prompt, best.negative, best.parameters, remarks=tuple(dict.fromkeys(remarks)))


def _sources(texts: Texts) -> Iterator[tuple[str, Callable[[dict], Graph], str]]:
    if texts.named.get("prompt"):
        yield texts.named["prompt"], from_api, "ComfyUI's prompt"
    if texts.named.get("workflow"):
        yield texts.named["workflow"], from_workflow, "ComfyUI's workflow"
    comment = texts.comment.lstrip()
    if comment.startswith("{") and '"class_type"' in comment:  # as Civitai writes it into JPEGs
        yield comment, from_api, "ComfyUI's prompt in EXIF UserComment"


def read_graph(graph: Graph, name: str = "") -> Found:
    """The prompt of the sampler nearest to the node that saved the picture.

    Args:
        graph: as run.
        name: of the image's file.

    Raises:
        MetadataError: the graph is endless.
    """
    remarks: dict[str, None] = {}
    prompts = Prompts(graph, remarks)
    best: Found | None = None
    different = set()
    for output in _saving_nodes(graph, name)[:MAX_OUTPUTS]:
        found = _read_output(graph, output, prompts, remarks)
        if found is not None and found.prompt.strip():
            best = best or found
            different.add(found.prompt)
    if len(different) > 1:
        remarks[
            f"{SEVERAL}: ComfyUI's graph saves {len(different)} pictures with different prompts; the first "
            "is taken"
        ] = None
    if best is None:
        if not remarks:
            remarks[f"{UNRESOLVED}: ComfyUI's graph: no sampler with a prompt feeds a saved picture"] = None
        best = Found(KIND)
    return Found(KIND, best.prompt, best.negative, best.parameters, remarks=tuple(remarks))


def _read_output(graph: Graph, output: Node, prompts: Prompts, remarks: dict[str, None]) -> Found | None:
    """Of several samplers, as for a second pass at a higher resolution, the nearest with a prompt counts; but
    not one that works over a finished picture, as on its faces, if the picture's own prompt can be known.
    """
    samplers = sorted(_samplers(graph, output, prompts), key=_rank)  # stable: the nearest first in each rank
    nearest, prompt, others = None, "", {}
    for sampler in samplers:
        if nearest is None and _rank(sampler) > _rank(samplers[0]) and _has_unresolved(remarks):
            return None  # there is a prompt, though not in the graph
        text = joined(prompts.of(sampler, POSITIVE))
        if nearest is None and text:
            nearest, prompt = sampler, text
        elif text and text != prompt:
            others.setdefault(text, sampler)
    if nearest is None:
        return None
    remarks.update(dict.fromkeys(_on_samplers(nearest, others)))
    parameters, left_out = small(_settings(graph, nearest, prompts), "ComfyUI's graph")
    remarks.update(dict.fromkeys(left_out))
    return Found(KIND, prompt, joined(prompts.of(nearest, NEGATIVE)), parameters)


def _on_samplers(nearest: Node, others: dict[str, Node]) -> Iterator[str]:
    later = [node for node in others.values() if _rank(node) > _rank(nearest)]
    if len(later) < len(others):
        yield (
            f"{SEVERAL}: ComfyUI's graph: samplers with {len(others) - len(later) + 1} different prompts, "
            "one after the other; the one nearest to the saved picture is taken"
        )
    for node in later[:1]:
        yield (
            f"{SEVERAL}: ComfyUI's graph: {_called(node)} has a prompt of its own; that of the sampler "
            "before it is taken"
        )
    if _rank(nearest) == _LATER:
        yield (
            f"{AFTERWARDS}: ComfyUI's graph: {_called(nearest)} works over a picture made before, of which "
            "no prompt is known; its own is taken"
        )


def _called(node: Node) -> str:
    return f"node {node.id[:50]} ({node.type[:100]})"


def _has_unresolved(remarks: dict[str, None]) -> bool:
    return any(remark.startswith((UNRESOLVED, BROKEN)) for remark in remarks)


def _saving_nodes(graph: Graph, name: str) -> list[Node]:
    """The nodes that may have saved the picture, by how the file is called, and whether they save at all."""
    used = {link.node for node in graph.values() for link in node.links().values()}
    ranked = []
    for node in graph.values():
        prefix = node.inputs.get("filename_prefix")
        saves = "filename_prefix" in node.inputs or "save" in node.type.lower()
        if not node.links() or not (saves or node.id not in used):
            continue
        rank = 1 if saves else 0
        if isinstance(prefix, str) and prefix:
            start = prefix.replace("\\", "/").rpartition("/")[2].partition("%")[0]
            if start and name.startswith(start):
                rank = 1 + len(start)
        ranked.append((rank, node))
    best = max((rank for rank, _ in ranked), default=0)
    return sorted((node for rank, node in ranked if rank == best), key=_order)


def _order(node: Node) -> tuple:
    return tuple(
        (int(part), "") if part.isdecimal() and len(part) < 20 else (1 << 64, part)
        for part in node.id.split(":")
    )


def _samplers(graph: Graph, output: Node, prompts: Prompts) -> Iterator[Node]:
    """Samplers that had a part in the picture, the nearest first."""
    seen = {output.id}
    waiting = deque([output])
    while waiting:
        node = waiting.popleft()
        if node is not output and _samples(node):
            yield node
        for name, link in _ways_of_pictures(node, prompts).items():
            if name.lower() not in _NO_PICTURE and link.node in graph and link.node not in seen:
                seen.add(link.node)
                waiting.append(graph[link.node])


def _ways_of_pictures(node: Node, prompts: Prompts) -> dict[str, Link]:
    links = node.links()
    if _samples(node):
        if _rank(node) == _LATER:  # its pipe brings its prompt, not the picture's
            links = {name: link for name, link in links.items() if "pipe" not in name.lower()}
        return links
    try:
        name = chosen(node, prompts.strings.constant)
    except Unresolved:  # all are followed, and a remark is made if their prompts are different
        return links
    return links if name is None else {one: link for one, link in links.items() if one == name}


def _rank(sampler: Node) -> int:
    """Whether a sampler makes the picture or works over a finished one, by what it takes in."""
    names = [name.lower() for name in sampler.links()]
    if any(name.startswith(("latent", "samples")) for name in names):
        return _SAMPLER
    pictures = [name for name in names if name.startswith(("image", "pixels", "upscaled_image"))]
    return _LATER if any("embed" not in name for name in pictures) else _OTHER


def _samples(node: Node) -> bool:
    """Whether a node takes a prompt and a model; one without a model may be behind a picture's labels."""
    has_model = any(
        name.lower().startswith(("model", "guider")) or "pipe" in name.lower() for name in node.links()
    )
    return has_model and not is_pair(node) and bool(conditioning_inputs(node, POSITIVE, strict=True))


def _settings(graph: Graph, sampler: Node, prompts: Prompts) -> dict[str, Any]:
    """The sampler's settings, its own or those of the nodes it gets its noise, steps and model from."""
    found: dict[str, Any] = {}
    seen = set()
    waiting = deque([sampler])
    while waiting:
        node = waiting.popleft()
        for name in _SETTINGS:
            if name in node.inputs:
                found.setdefault(name, prompts.strings.number(node.inputs[name]))
        for name in _SETTING_LINKS:
            link = node.inputs.get(name)
            if isinstance(link, Link) and link.node in graph and link.node not in seen:
                seen.add(link.node)
                waiting.append(graph[link.node])
    return found
