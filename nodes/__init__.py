"""ComfyUI nodes (V3 schema). Thin: read inputs, call sur_core, wrap outputs. Each file of nodes ends in
``NODES``.
"""
