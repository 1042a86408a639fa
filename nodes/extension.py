"""Collects the nodes of this pack for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import clip_nodes, conditioning_nodes, file_nodes, insight_nodes, model_files, routes


class SURExtension(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        model_files.register_folder()
        routes.register_routes()
        return [*file_nodes.NODES, *conditioning_nodes.NODES, *clip_nodes.NODES, *insight_nodes.NODES]
