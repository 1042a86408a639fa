"""The texts behind a conditioning: what a ComfyUI graph encodes for one side of a sampler."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .comfy_graph import Graph, Link, Node, Unresolved
from .comfy_strings import Strings
from .comfy_switch import chosen
from .found import BROKEN, MetadataError

POSITIVE, NEGATIVE = "positive", "negative"
MAX_DEPTH = 100
MAX_TEXTS = 1000
_ENCODERS = ("clip", "t5", "text_encoder", "chatglm", "bert", "gemma")
"""Inputs by which a node that gives a conditioning can be told from one that gives a text."""

# Core's nodes that give (positive, negative, ...) for a pair of inputs with these names. The API format has
# no names of outputs, so of other nodes it is assumed that a sampler's positive is their positive.
_PAIRS = re.compile(
    r"ControlNetApply(Advanced|SD3)|ControlNetInpaintingAliMamaApply|ACN_AdvancedControlNetApply(_v2)?|"
    r"InpaintModelConditioning|InstructPixToPixConditioning|PairConditioning\w+|ConditioningStableAudio|"
    r"LTXV\w+|SD_4XUpscale_Conditioning|Hunyuan\w+|Wan\w+|SURApplyPair"
)
_ZERO = "ConditioningZeroOut"
_WRITERS = re.compile(r"generat|llm|chat|gpt|caption|describ|enhanc", re.IGNORECASE)
_SIDE_WORDS = {POSITIVE: ("positive", "pos_"), NEGATIVE: ("negative", "neg_")}
_NEUTRAL_WORDS = ("cond", "guider")
_TYPES = {"CONDITIONING", "GUIDER", "*"}
_NO_PROMPT = (
    "model", "clip", "vae", "control_net", "image", "mask", "latent", "samples", "pixels", "noise",
    "sampler", "sigmas", "adapter", "style_model", "hooks", "weight", "gligen", "lora",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Way:
    """A link that is followed back.

    Attributes:
        side: "positive" or "negative".
        strict: as for :func:`conditioning_inputs`.
        sure: whether it is known to bring a conditioning; else it may bring a text too.
    """

    link: Link
    side: str
    strict: bool
    sure: bool


class Prompts:
    """Finds the texts of conditionings by their links.

    Every node in between is passed through by its conditioning inputs, in their order, and every text counts
    once. Of a switch only the input that it passes on is followed. What could not be found out is added to
    ``remarks``.
    """

    def __init__(self, graph: Graph, remarks: dict[str, None]) -> None:
        self.graph, self.remarks = graph, remarks
        self.strings = Strings(graph, remarks)
        self._known: dict[_Way, list[str] | None] = {}
        self._dead: set[_Way] = set()  # that lead neither to a text nor to a conditioning

    def of(self, node: Node, side: str) -> list[str]:
        """Texts that a sampler or guider gets on a side, each once.

        Raises:
            MetadataError: the chain of nodes is endless.
        """
        return self._of_inputs(node, conditioning_inputs(node, side, strict=True), side, True, 0)

    def _of_inputs(self, node: Node, names: list[str], side: str, strict: bool, depth: int) -> list[str]:
        texts: list[str] = []
        for name in names:
            value = node.inputs[name]
            if isinstance(value, Link):
                stays_strict = strict and _is_guider(node, name)
                texts += self._behind(_Way(value, side, stays_strict, True), depth + 1)
            elif isinstance(value, str):
                texts.append(value)
        if len(texts) > MAX_TEXTS:
            raise MetadataError(BROKEN, f"ComfyUI's graph: more than {MAX_TEXTS:,} texts for one sampler")
        return list(dict.fromkeys(texts))

    def _behind(self, way: _Way, depth: int) -> list[str]:
        if way not in self._known:
            if depth > MAX_DEPTH:
                raise MetadataError(
                    BROKEN, f"ComfyUI's graph: more than {MAX_DEPTH} nodes between prompt and sampler"
                )
            self._known[way] = None
            try:
                texts = self._texts(way, depth)
            except Unresolved as error:
                self.remarks[str(error)] = None
                texts = []
            if texts is None:
                self._dead.add(way)
            self._known[way] = texts or []
        texts = self._known[way]
        if texts is None:
            self.remarks[f"{BROKEN}: ComfyUI's graph: node {way.link.node} feeds itself"] = None
            return []
        return texts

    def _texts(self, way: _Way, depth: int) -> list[str] | None:
        """None if there is nothing. Raises Unresolved: there is something that is not in the graph."""
        node = self.graph.get(way.link.node)
        if node is None:
            self.remarks[f"{BROKEN}: ComfyUI's graph: node {way.link.node} is not in it"] = None
            return []
        if node.type == _ZERO:
            return []
        side = _side_of_output(node, way.link.slot, way.side)
        name = chosen(node, self.strings.constant, side, _NO_PROMPT)
        if name is not None:
            return self._passed_on(node, name, replace(way, side=side), depth)
        names = conditioning_inputs(node, side, way.strict)
        if node.type == "ConditioningAverage":
            names = self._averaged(node, names)
        if node.type == "DualCFGGuider":  # its second conditioning is what the first is guided away from
            names = [name for name in names if name != "cond2"]
        linked = [name for name in names if isinstance(node.inputs[name], Link)]
        if linked:
            return self._of_inputs(node, linked, side, way.strict, depth)
        if way.strict and conditioning_inputs(node, POSITIVE, way.strict):
            return []  # a guider without this side
        if not way.sure and not _encodes(node) and self.strings.has_text(node):
            return [self.strings.text(way.link)]
        texts = self.strings.of_encoder(node, side)
        return texts if texts is not None else self._passed_through(node, replace(way, side=side), depth)

    def _averaged(self, node: Node, names: list[str]) -> list[str]:
        """At its ends an average is one of its two prompts alone."""
        strength = self.strings.number(node.inputs.get("conditioning_to_strength"))
        unused = {1.0: "conditioning_from", 0.0: "conditioning_to"}.get(strength)
        return [name for name in names if name != unused]

    def _passed_on(self, node: Node, name: str, way: _Way, depth: int) -> list[str]:
        value = node.inputs[name]
        return self._behind(replace(way, link=value), depth + 1) if isinstance(value, Link) else [value]

    def _passed_through(self, node: Node, way: _Way, depth: int) -> list[str] | None:
        """A node that neither encodes nor names its conditioning, such as a reroute."""
        links = [link for name, link in node.links().items() if not name.lower().startswith(_NO_PROMPT)]
        links = list(dict.fromkeys(links))
        sure = way.sure and len(links) == 1 and not _encodes(node)
        found = set()
        for link in links:
            before = len(self.remarks)
            one = replace(way, link=link, sure=sure)
            texts = self._behind(one, depth + 1)
            if one not in self._dead:
                found.add(tuple(texts))
                continue
            while len(self.remarks) > before:  # they speak of what does not matter
                self.remarks.popitem()
        if len(found) > 1:
            raise Unresolved(
                node, "has several inputs with prompts; which of them counts is not in the graph"
            )
        if found:
            return list(*found)
        self.remarks[str(Unresolved(node, "has no text and no conditioning that could be followed"))] = None
        return None


def conditioning_inputs(node: Node, side: str, strict: bool = False) -> list[str]:
    """Names of the inputs that give a node its conditioning for a side.

    Args:
        strict: at a sampler or guider, where an input without a side ("conditioning") is the positive one;
            elsewhere it is whichever is asked for.
    """
    other = NEGATIVE if side == POSITIVE else POSITIVE
    mine = [name for name in node.inputs if _fits(node, name, _SIDE_WORDS[side])]
    theirs = [name for name in node.inputs if _fits(node, name, _SIDE_WORDS[other])]
    neutral = [name for name in node.inputs if _fits(node, name, _NEUTRAL_WORDS)]
    guider = [name for name in neutral if name.lower().startswith("guider")]
    pipes = [name for name in node.links() if "pipe" in name.lower()]
    if strict:
        return mine or guider or (neutral if side == POSITIVE else []) or pipes
    return mine or ([] if theirs and side == NEGATIVE else neutral) or pipes


def _fits(node: Node, name: str, words: tuple[str, ...]) -> bool:
    value = node.inputs[name]
    if not isinstance(value, Link):
        return isinstance(value, str) and name == words[0]
    if name.endswith("strength") or node.types.get(name, "*") not in _TYPES:
        return False
    return name.lower().startswith(words)


def _encodes(node: Node) -> bool:
    if "encode" in node.type.lower():
        return True
    encoders = any(name.lower().startswith(_ENCODERS) for name in node.links())
    return encoders and not _WRITERS.search(node.type)


def _is_guider(node: Node, name: str) -> bool:
    return name.lower().startswith("guider") or node.types.get(name) == "GUIDER"


def _side_of_output(node: Node, slot: int, side: str) -> str:
    """Which of a pair an output is."""
    name = node.outputs[slot].lower() if 0 <= slot < len(node.outputs) else ""
    for one, words in _SIDE_WORDS.items():
        if name.startswith(words):
            return one
    if not node.outputs and slot in (0, 1) and _PAIRS.fullmatch(node.type):
        return (POSITIVE, NEGATIVE)[slot]
    return side


def is_pair(node: Node) -> bool:
    """Whether a node gives a pair of conditionings; it may give a latent image too, but does not sample."""
    return bool(_PAIRS.fullmatch(node.type)) or any(name.lower() == POSITIVE for name in node.outputs)
