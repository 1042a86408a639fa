"""Collects the nodes of this pack for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    clip_nodes,
    conditioning_nodes,
    file_nodes,
    insight_nodes,
    llmdiff_file_nodes,
    llmdiff_files,
    llmdiff_model_nodes,
    llmdiff_prompt_nodes,
    model_files,
    routes,
)

_NODES = (
    *(file_nodes, conditioning_nodes, clip_nodes, insight_nodes),
    *(llmdiff_file_nodes, llmdiff_prompt_nodes, llmdiff_model_nodes),
)


class SURExtension(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        model_files.register_folder()
        llmdiff_files.register_folders()
        routes.register_routes()
        return [node for module in _NODES for node in module.NODES]
