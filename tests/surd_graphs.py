"""ComfyUI graphs, made in both of its formats, and what is read from them."""

from __future__ import annotations

import copy
import json

from sur_core.surd_build.metadata import Found
from sur_core.surd_build.metadata.comfy_graph import from_api
from sur_core.surd_build.metadata.comfy_workflow import from_workflow
from sur_core.surd_build.metadata.comfyui import read_graph
from tests.comfyui.server import Graph

POSITIVE = "a fox reads a newspaper\nin the rain, 狐"
NEGATIVE = "blurry"
SECOND = "a red scarf"


class ComfyGraph(Graph):
    """A graph in the API format, with the usual nodes at hand. A text may be a link to a string node."""

    def __init__(self):
        super().__init__()
        self.model, self.clip, self.vae = self.add("CheckpointLoaderSimple", ckpt_name="base.safetensors")[:3]

    def encode(self, text) -> list:
        return self.add("CLIPTextEncode", clip=self.clip, text=text)[0]

    def empty(self) -> list:
        return self.add("EmptyLatentImage", width=64, height=64, batch_size=1)[0]

    def sample(self, positive, negative, latent=None, **settings) -> list:
        values = {
            "seed": 7,
            "steps": 12,
            "cfg": 6.5,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        }
        return self.add(
            "KSampler",
            model=self.model,
            positive=positive,
            negative=negative,
            latent_image=latent or self.empty(),
            **{**values, **settings},
        )[0]

    def save(self, samples, prefix: str = "ComfyUI", node: str = "SaveImage") -> list:
        image = self.add("VAEDecode", samples=samples, vae=self.vae)[0]
        return self.add(node, images=image, filename_prefix=prefix)


class Workflow:
    """A workflow as the browser saves it, or the inside of one of its subgraphs."""

    def __init__(self, subgraph: bool = False):
        self.nodes: list[dict] = []
        self.links: list = []
        self.subgraph = subgraph

    def add(
        self, kind: str, inputs: dict | None = None, outputs=(), values=None, mode: int = 0, **more
    ) -> dict:
        """A node. ``inputs`` are {name: (type, source)}, a source being (node or id, slot) or None;
        ``outputs`` are (name, type). A name that ends in "*" is a widget's.
        """
        node = {
            "id": len(self.nodes) + 1,
            "type": kind,
            "mode": mode,
            "inputs": [],
            "outputs": [{"name": name, "type": type_, "links": []} for name, type_ in outputs],
            "properties": {},
            "widgets_values": values if values is not None else [],
            **more,
        }
        self.nodes.append(node)
        for name, (type_, source) in (inputs or {}).items():
            entry = {"name": name.rstrip("*"), "type": type_, "link": None}
            if name.endswith("*"):
                entry["widget"] = {"name": entry["name"]}
            node["inputs"].append(entry)
            if source is not None:
                entry["link"] = self.link(*source, node["id"], len(node["inputs"]) - 1, type_)
        return node

    def link(self, origin, slot: int, target: int, target_slot: int, kind: str) -> int:
        number = len(self.links) + 1
        origin = origin["id"] if isinstance(origin, dict) else origin
        if self.subgraph:
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            values = (number, origin, slot, target, target_slot, kind)
            self.links.append(dict(zip(names, values, strict=True)))
        else:
            self.links.append([number, origin, slot, target, target_slot, kind])
        return number

    def encoder(self, text: str, source=None, mode: int = 0) -> dict:
        inputs = {"clip": ("CLIP", None), "text*": ("STRING", source)}
        return self.add("CLIPTextEncode", inputs, [("CONDITIONING", "CONDITIONING")], [text], mode)

    def finish(self, positive, negative, **more) -> None:
        """Sampler, decoder and SaveImage behind two sources."""
        loader = self.add("CheckpointLoaderSimple", {}, [("MODEL", "MODEL")], ["base.safetensors"])
        inputs = {"model": ("MODEL", (loader, 0))}
        inputs |= {"positive": ("CONDITIONING", positive), "negative": ("CONDITIONING", negative)}
        values = [5, "randomize", 12, 6.5, "euler", "normal", 1.0]
        sampler = self.add("KSampler", inputs, [("LATENT", "LATENT")], values)
        decoder = self.add("VAEDecode", {"samples": ("LATENT", (sampler, 0))}, [("IMAGE", "IMAGE")])
        self.add("SaveImage", {"images": ("IMAGE", (decoder, 0))}, values=["ComfyUI"], **more)

    def content(self, *subgraphs: dict) -> dict:
        return {
            "version": 0.4,
            "nodes": self.nodes,
            "links": self.links,
            "definitions": {"subgraphs": list(subgraphs)},
        }

    def definition(self, name: str, inputs, outputs) -> dict:
        """This as a subgraph; ``inputs`` and ``outputs`` are (name, type)."""
        return {
            "id": name,
            "name": name,
            "inputNode": {"id": -10},
            "outputNode": {"id": -20},
            "inputs": [{"name": one, "type": kind} for one, kind in inputs],
            "outputs": [{"name": one, "type": kind} for one, kind in outputs],
            "nodes": self.nodes,
            "links": self.links,
        }


def found(graph: ComfyGraph, name: str = "") -> Found:
    """What is read from a graph after a way through JSON, with a decoy that no link leads to."""
    nodes = copy.deepcopy(graph.nodes)
    nodes["999"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a decoy " * 50}}
    return read_graph(from_api(json.loads(json.dumps(nodes))), name)


def ends(graph: ComfyGraph) -> tuple[list, list]:
    return graph.encode(POSITIVE), graph.encode(NEGATIVE)


def saved(graph: ComfyGraph, positive, negative=None) -> Found:
    graph.save(graph.sample(positive, negative or graph.encode(NEGATIVE)))
    return found(graph)


def plain(result: Found, prompt: str = POSITIVE, negative: str = NEGATIVE) -> bool:
    return (result.prompt, result.negative, result.remarks) == (prompt, negative, ())


def read_workflow(content: dict) -> Found:
    return read_graph(from_workflow(json.loads(json.dumps(content))))


def in_subgraph(widget: bool = True, mode: int = 0, values=(POSITIVE,), deep: bool = False) -> dict:
    """A workflow whose encoders are in a subgraph, of a subgraph if ``deep``; the positive text is a widget
    on the subgraph's node, or comes through a link.
    """
    inside = Workflow(subgraph=True)
    inside.encoder("the text inside", source=(-10, 0))
    inside.encoder(NEGATIVE)
    for slot in (0, 1):
        inside.link(slot + 1, 0, -20, slot, "CONDITIONING")
    ports = [("text", "STRING")], [("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    definitions = [inside.definition("prompts", *ports)]
    if deep:
        around = Workflow(subgraph=True)
        around.add("prompts", {"text*": ("STRING", (-10, 0))}, ports[1], ["unused"])
        for slot in (0, 1):
            around.link(1, slot, -20, slot, "CONDITIONING")
        definitions.append(around.definition("around", *ports))
    flow = Workflow()
    source = (
        None if widget else (flow.add("PrimitiveStringMultiline", {}, [("STRING", "STRING")], [POSITIVE]), 0)
    )
    node = flow.add(
        "around" if deep else "prompts", {"text*": ("STRING", source)}, ports[1], list(values), mode
    )
    flow.finish((node, 0), (node, 1))
    return flow.content(*definitions)
