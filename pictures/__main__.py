"""python -m pictures [templates] [nodes] [inspection]: make again what is shown; all by default."""

from __future__ import annotations

import argparse
import json
import sys

from sur_core.atomic import atomic_write
from tests.helpers import NODE_NAMES

from .frontend_form import frontend_form
from .studio import CHECKPOINT, PACK, Studio, open_studio, write_jpeg
from .templates import TEMPLATES, inspect

EXAMPLES, NODES = PACK / "example_workflows", PACK / "web/docs/pictures"


def make_templates(studio: Studio) -> None:
    """example_workflows: the JSON, and a picture of it in the frontend."""
    for make in TEMPLATES:
        flow = make()
        info = studio.info({node.type for node in flow.nodes if not node.is_note})
        heights = studio.heights(frontend_form(flow, info, {}))
        content = frontend_form(flow, info, heights)
        with atomic_write(EXAMPLES / f"{flow.name}.json") as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        studio.frontend.load(content)
        studio.frontend.page.wait_for_timeout(1500)
        write_jpeg(studio.shot(), EXAMPLES / f"{flow.name}.jpg", 1400)
        print(EXAMPLES / f"{flow.name}.json")


def make_nodes(studio: Studio) -> None:
    """web/docs/pictures: every node by itself, as it stands when it is added."""
    for name in NODE_NAMES:
        studio.frontend.clear()
        studio.frontend.add(name)
        studio.frontend.page.wait_for_timeout(1000)  # the passport card comes from the server
        write_jpeg(studio.shot(margin=30, enlarged=1.5), NODES / f"{name}.jpg", 900)
        print(NODES / f"{name}.jpg")


def make_inspection(studio: Studio) -> None:
    """The picture that SUR Inspect makes, in its node; of random weights, since no others are here."""
    flow = inspect()
    content = json.loads((EXAMPLES / f"{flow.name}.json").read_text("utf-8"))
    for node in content["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node["widgets_values"] = [CHECKPOINT]
    studio.frontend.load(content)
    studio.run()
    write_jpeg(studio.shot(("SURInspect", "PreviewImage")), NODES / "inspection.jpg", 1200)
    print(NODES / "inspection.jpg")


MAKERS = {"templates": make_templates, "nodes": make_nodes, "inspection": make_inspection}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pictures", description=__doc__)
    parser.add_argument("which", nargs="*", metavar="|".join(MAKERS), help="all, if none is named")
    chosen = parser.parse_args(arguments).which or list(MAKERS)
    if unknown := set(chosen) - set(MAKERS):
        parser.error(f"there is no {sorted(unknown)[0]!r}; known are {', '.join(MAKERS)}")
    try:
        with open_studio() as studio:
            for name in chosen:
                MAKERS[name](studio)
    except (RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
