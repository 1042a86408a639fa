"""SUR-adapter for ComfyUI: short narrative prompts, understood.

ComfyUI's door to this pack. It imports without ComfyUI, and nothing heavy is imported until ComfyUI asks for
the nodes.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI once at start."""
    from .nodes.extension import SURExtension

    return SURExtension()
