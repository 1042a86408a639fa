"""Everything the project shows in pictures: example workflows, their screenshots, help pages, the README.

``python -m pictures`` (``make pictures``) makes all of them again from a real ComfyUI and its real frontend,
so that they never show what is no longer there. Not part of what is published.
"""
