"""Controlled methods: ways of drawing that an adapter is compared under, each on a pipeline of diffusers.

    method = make_method({"kind": "controlnet-canny", "controlnet": "...", "pictures": "photos"})
    evaluate(settings, "path/to/model", prompts, arms, method=method)

===================  =============================================  ======================================
kind                 pipeline                                       loaded from
===================  =============================================  ======================================
none                 StableDiffusionPipeline, ...XLPipeline         diffusers
controlnet-canny     StableDiffusion(XL)ControlNetPipeline          diffusers
controlnet-seg       the same                                       diffusers
weighting            that of none                                   diffusers; weights by compel, optional
multidiffusion       StableDiffusionPanoramaPipeline                diffusers, deprecated; not for SDXL
sag                  StableDiffusionSAGPipeline                     diffusers, deprecated; not for SDXL
===================  =============================================  ======================================
"""

from .conditions import PictureFolder
from .controlnet import CannyControlNet, SegmentationControlNet
from .edges import canny
from .method import Context, Method, Opened, Weights
from .multidiffusion import MultiDiffusion
from .registry import KINDS, make_method
from .segments import Segmenter
from .self_attention import SelfAttentionGuidance
from .weighting import PromptWeighting

__all__ = [
    "CannyControlNet",
    "Context",
    "KINDS",
    "Method",
    "MultiDiffusion",
    "Opened",
    "PictureFolder",
    "PromptWeighting",
    "Segmenter",
    "SegmentationControlNet",
    "SelfAttentionGuidance",
    "Weights",
    "canny",
    "make_method",
]
