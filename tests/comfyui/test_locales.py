"""The Chinese words of the nodes, against what a real server says of the nodes."""

from __future__ import annotations

import json
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
WORDS = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf8"))


def ours(server) -> dict[str, dict]:
    return {
        name: info
        for name, info in server.get("/object_info").items()
        if info["category"].split("/")[0] == "SUR"
    }


def test_every_node_is_translated_and_no_other(server):
    assert sorted(WORDS) == sorted(ours(server))


def test_every_name_and_tooltip_is_translated_and_no_other(server):
    for node, info in ours(server).items():
        words = WORDS[node]
        assert sorted(words) == ["description", "display_name", "inputs", "outputs"], node
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        assert sorted(words["inputs"]) == sorted(inputs), node
        assert sorted(words["outputs"]) == [str(number) for number in range(len(info["output"]))], node
        for key, text in [*words["inputs"].items(), *words["outputs"].items()]:
            assert sorted(text) == ["name", "tooltip"], (node, key)


def test_the_server_offers_our_words_to_the_frontend(server):
    catalogs = server.get("/i18n")
    assert catalogs["zh"]["nodeDefs"]["SURLoadAdapter"] == WORDS["SURLoadAdapter"]
    assert catalogs["en"]["surAdapter"]["reading"] and catalogs["zh"]["surAdapter"]["reading"]


def test_every_node_has_a_help_page_in_english_and_in_chinese(server):
    for node in ours(server):
        assert "## Inputs" in server.text(f"/extensions/sur-adapter/docs/{node}.md"), node
        assert "## 输入" in server.text(f"/extensions/sur-adapter/docs/{node}/zh.md"), node
