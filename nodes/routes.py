"""The one address this pack adds to ComfyUI's server, read-only: what the passport card of a file says."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import folder_paths
from aiohttp import web

from ..sur_core.passport_card import passport_card
from . import model_files

PASSPORT = "/sur_adapter/passport"
REMEMBERED = 64

# A thread of our own: hashing a file must not hold up the server, nor the threads it serves files with.
_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sur-passport")


def register_routes() -> None:
    """Add the address, where there is a server: scripts load nodes without one."""
    # ComfyUI has its server by now. Importing it where there is none drags in what scripts need not have.
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    routes = server.instance.routes if hasattr(server, "instance") else None
    # A second copy of this pack would add the address again, and the server would not start.
    if routes is not None and all(getattr(route, "path", "") != PASSPORT for route in routes):
        routes.get(PASSPORT)(passport)


async def passport(request: web.Request) -> web.Response:
    """``GET /sur_adapter/passport?name=<an entry of the dropdown>``.

    Answers 200 with the card of the file, or with ``{"error": why}`` if the file is no usable adapter; 404 if
    the dropdown has no such entry or the file is gone; 400 if there is not exactly one name.
    """
    names = request.query.getall("name", [])
    if len(names) != 1 or not names[0]:
        return _refusal(400, "expected one name of an adapter: ?name=...")
    (name,) = names
    # Only what the dropdown itself offers is ever made into a path.
    if name == model_files.NOTHING_FOUND or name not in model_files.list_adapters():
        return _refusal(404, "the list of adapters has no such file")
    return await asyncio.get_running_loop().run_in_executor(_reader, _answer, name)


def _answer(name: str) -> web.Response:
    try:
        path = model_files.adapter_path(name)
        status = path.stat()
        card = _card(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        return _refusal(404, "the file is gone; refresh the list of adapters")
    except (ValueError, OSError) as error:
        return web.json_response({"error": _words(error, name)})
    return web.json_response(card)


@lru_cache(REMEMBERED)
def _card(path: Path, _changed: int, _size: int) -> dict:
    """Read again when the file has been written since."""
    return passport_card(path)


def _words(error: Exception, name: str) -> str:
    """What is wrong with a file, without the folders it is in."""
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    text = str(error)
    for folder in folder_paths.get_folder_paths(model_files.FOLDER):
        text = text.replace(folder.rstrip("/\\") + os.sep, "")
    return text


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
