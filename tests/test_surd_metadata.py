"""Prompts come out of image files as they went in, whatever tool wrote them; odd files never raise."""

import json
import os

import pytest
from PIL import Image

from sur_core.surd_build.metadata import Found
from tests.surd_golden import (
    PROMPTS,
    infotext,
    picture,
    read,
    save_exif,
    save_png,
)
from tests.surd_graphs import ComfyGraph

NEGATIVE = "ugly, кривой,\nbad hands"
prompts = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
LATIN_1 = [text for text in PROMPTS.values() if all(ord(character) < 256 for character in text)]


def comfy_prompt(prompt: str, negative: str = NEGATIVE) -> dict:
    graph = ComfyGraph()
    graph.save(graph.sample(graph.encode(prompt), graph.encode(negative)))
    return graph.nodes


# AUTOMATIC1111


@prompts
def test_automatic1111_png(tmp_path, prompt):
    found = read(save_png(tmp_path / "a.png", {"parameters": infotext(prompt, NEGATIVE)}))
    assert (found.kind, found.prompt, found.negative, found.remarks) == (
        "automatic1111",
        prompt,
        NEGATIVE,
        (),
    )
    assert found.parameters["Steps"] == 20 and found.parameters["Sampler"] == "DPM++ 2M"


@prompts
@pytest.mark.parametrize("kind", ["iTXt", "iTXt, compressed"])
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
def test_automatic1111_in_every_kind_of_unicode_chunk(tmp_path, prompt, kind, behind):
    texts = {"parameters": infotext(prompt, NEGATIVE)}
    found = read(save_png(tmp_path / "a.png", texts, kind, behind))
    assert (found.prompt, found.negative) == (prompt, NEGATIVE)


@pytest.mark.parametrize("prompt", LATIN_1)
@pytest.mark.parametrize("kind", ["tEXt", "zTXt"])
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
def test_automatic1111_in_every_kind_of_latin_chunk(tmp_path, prompt, kind, behind):
    found = read(save_png(tmp_path / "a.png", {"parameters": infotext(prompt)}, kind, behind))
    assert (found.kind, found.prompt, found.remarks) == ("automatic1111", prompt, ())


@pytest.mark.parametrize("kind", ["tEXt", "zTXt"])
def test_utf8_in_a_latin_chunk_is_read_as_utf8_and_a_remark_says_so(tmp_path, kind):
    content = infotext(PROMPTS["unicode"]).encode()
    found = read(save_png(tmp_path / "a.png", {"parameters": content}, kind))
    assert found.prompt == PROMPTS["unicode"]
    assert found.remarks[0].startswith("text encoding: 'parameters'")


@prompts
@pytest.mark.parametrize("ending", ["jpg", "webp"])
@pytest.mark.parametrize(
    "header, encoding",
    [
        (b"UNICODE\0", "utf-16-be"),
        (b"UNICODE\0", "utf-16-le"),
        (b"UNICODE\0", "utf-16"),
        (b"ASCII\0\0\0", "utf-8"),
        (b"\0" * 8, "utf-8"),
        (b"", "utf-8"),
    ],
)
def test_automatic1111_in_exif(tmp_path, prompt, ending, header, encoding):
    for order in "<>":  # piexif's characters are big-endian in files of either order
        comment = header + infotext(prompt, NEGATIVE).encode(encoding)
        found = read(save_exif(tmp_path / f"a.{ending}", comment, order))
        assert (found.kind, found.prompt, found.negative) == ("automatic1111", prompt, NEGATIVE)
        assert found.remarks == ()


def test_automatic1111_in_japanese_exif(tmp_path):
    comment = b"JIS\0\0\0\0\0" + infotext("桜の下").encode("shift_jis")
    assert read(save_exif(tmp_path / "a.jpg", comment)).prompt == "桜の下"


@prompts
def test_automatic1111_gif_comment(tmp_path, prompt):
    picture().convert("P").save(tmp_path / "a.gif", comment=infotext(prompt, NEGATIVE).encode())
    assert read(tmp_path / "a.gif").prompt == prompt


def test_a_camera_comment_is_no_prompt(tmp_path):
    for comment in (b"ASCII\0\0\0" + b" " * 50, b"ASCII\0\0\0Holiday in Rome", b"\0" * 60):
        assert read(save_exif(tmp_path / "a.jpg", comment)) == Found()
    picture().save(tmp_path / "b.jpg", comment="CREATOR: gd-jpeg v1.0, quality = 90")
    assert read(tmp_path / "b.jpg") == Found()


def test_a_prompt_that_begins_with_a_brace_is_infotext_and_json_is_not(tmp_path):
    found = read(save_png(tmp_path / "a.png", {"parameters": infotext("{red|blue} cat")}))
    assert found.prompt == "{red|blue} cat"
    found = read(save_png(tmp_path / "b.png", {"parameters": '{"sui_image_params": {"prompt": "a"}}'}))
    assert found.kind == "" and found.remarks[0].startswith("broken metadata: parameters: JSON")


# ComfyUI (graphs are in test_surd_comfy_graphs.py)


@prompts
def test_comfyui_png(tmp_path, prompt):
    found = read(save_png(tmp_path / "a.png", {"prompt": json.dumps(comfy_prompt(prompt)), "workflow": "{}"}))
    assert (found.kind, found.prompt, found.negative, found.remarks) == ("comfyui", prompt, NEGATIVE, ())
    assert found.parameters["seed"] == 7 and found.parameters["ckpt_name"] == "base.safetensors"


@prompts
def test_comfyui_webp(tmp_path, prompt):
    tags = {0x010F: b"workflow:{}", 0x0110: b"prompt:" + json.dumps(comfy_prompt(prompt)).encode()}
    found = read(save_exif(tmp_path / "a.webp", tags=tags))
    assert (found.kind, found.prompt, found.remarks) == ("comfyui", prompt, ())


def test_comfyui_as_civitai_writes_it_into_jpegs(tmp_path):
    content = {**comfy_prompt("a cat"), "extra": {"airs": []}, "extraMetadata": '{"prompt":"a cat"}'}
    comment = b"UNICODE\0" + json.dumps(content).encode("utf-16-be")
    found = read(save_exif(tmp_path / "a.jpg", comment))
    assert (found.kind, found.prompt, found.negative) == ("comfyui", "a cat", NEGATIVE)


def test_nan_in_comfyuis_prompt_is_no_damage(tmp_path):
    nodes = comfy_prompt("a cat")
    nodes["1"]["is_changed"] = [float("nan")]
    nodes["6"]["inputs"]["cfg"] = float("inf")
    found = read(save_png(tmp_path / "a.png", {"prompt": json.dumps(nodes)}))
    assert found.prompt == "a cat"
    json.dumps(found.parameters, allow_nan=False)


# InvokeAI


@prompts
def test_invokeai(tmp_path, prompt):
    metadata = {
        "app_version": "5.4.2",
        "generation_mode": "sdxl_txt2img",
        "positive_prompt": prompt,
        "negative_prompt": NEGATIVE,
        "positive_style_prompt": prompt,
        "seed": 42,
        "steps": 30,
        "scheduler": "euler_a",
        "model": {"name": "juggernaut", "base": "sdxl"},
    }
    found = read(
        save_png(tmp_path / "a.png", {"invokeai_metadata": json.dumps(metadata), "invokeai_graph": "{}"})
    )
    assert (found.kind, found.prompt, found.negative, found.remarks) == ("invokeai", prompt, NEGATIVE, ())
    assert (found.parameters["seed"], found.parameters["model"]) == (42, "juggernaut")


@prompts
@pytest.mark.parametrize("as_list", [False, True])
def test_invokeai_2(tmp_path, prompt, as_list):
    image = {"prompt": [{"prompt": prompt, "weight": 1.0}] if as_list else prompt, "steps": 50, "seed": 1}
    metadata = {"model": "stable diffusion", "model_weights": "sd-1.5", "image": image}
    texts = {"Dream": "another -s 50 -S 1 -W 512 -H 512 -C 7.5", "sd-metadata": json.dumps(metadata)}
    found = read(save_png(tmp_path / "a.png", texts))
    assert (found.kind, found.prompt, found.parameters["steps"]) == ("invokeai", prompt, 50)


@prompts
@pytest.mark.parametrize(
    "line",
    [
        '"{}" -s50 -S42 -W512 -H768 -C7.5 -Ak_lms',
        '"{}" -s 50 -S 42 -W 512 -H 768 -C 7.5 -A k_lms',
        "{} -s 50 -S 42 -W 512 -H 768 -C 7.5",
    ],
)
def test_invokeai_1(tmp_path, prompt, line):
    found = read(save_png(tmp_path / "a.png", {"Dream": line.replace("{}", prompt)}))
    assert (found.kind, found.prompt, found.parameters["height"]) == ("invokeai", prompt, 768)


def test_brackets_were_invokeais_negative_prompt(tmp_path):
    found = read(
        save_png(tmp_path / "a.png", {"Dream": "a cat [ugly] on a mat [dog] -s 50 -W 512 -H 768 -C 7"})
    )
    assert (found.prompt, found.negative) == ("a cat on a mat", "ugly dog")


# NovelAI


def novelai(prompt: str, **comment) -> dict[str, str]:
    comment = {
        "prompt": prompt,
        "steps": 28,
        "scale": 5.0,
        "uc": NEGATIVE,
        "seed": 3,
        "sampler": "k_euler",
        **comment,
    }
    return {
        "Title": "NovelAI generated image",
        "Description": prompt,
        "Software": "NovelAI",
        "Source": "NovelAI Diffusion V4.5 4BDE2A90",
        "Comment": json.dumps(comment),
    }


@prompts
def test_novelai(tmp_path, prompt):
    found = read(save_png(tmp_path / "a.png", novelai(prompt)))
    assert (found.kind, found.prompt, found.negative, found.remarks) == ("novelai", prompt, NEGATIVE, ())
    assert found.parameters["scale"] == 5.0 and found.origin == "NovelAI Diffusion V4.5 4BDE2A90"


@prompts
def test_novelai_4(tmp_path, prompt):
    def captions(base, *others):
        return {"caption": {"base_caption": base, "char_captions": [{"char_caption": one} for one in others]}}

    texts = novelai("not this", v4_prompt=captions(prompt), v4_negative_prompt=captions(NEGATIVE))
    found = read(save_png(tmp_path / "a.png", texts))
    assert (found.prompt, found.negative) == (prompt, NEGATIVE)
    texts = novelai("not this", v4_prompt=captions("two girls", prompt, "girl, red hair"))
    assert read(save_png(tmp_path / "b.png", texts)).prompt == f"two girls\n{prompt}\ngirl, red hair"


@prompts
def test_novelai_webp(tmp_path, prompt):
    comment = b"ASCII\0\0\0" + json.dumps(novelai(prompt)).encode()
    found = read(save_exif(tmp_path / "a.webp", comment))
    assert (found.kind, found.prompt) == ("novelai", prompt)


def test_novelais_description_serves_where_its_comment_is_damaged(tmp_path):
    found = read(save_png(tmp_path / "a.png", {**novelai("a cat"), "Comment": "{"}))
    assert (found.kind, found.prompt) == ("novelai", "a cat")
    assert found.remarks[0].startswith("broken metadata: NovelAI's Comment")


# A text file beside the image


@prompts
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.txt", "a.png.txt"])
def test_sidecar(tmp_path, prompt, encoding, name):
    picture().save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(prompt.encode(encoding))
    assert read(tmp_path / "a.png") == Found("sidecar", prompt)
    assert read(tmp_path / "a.png", sidecar=False) == Found()
    (tmp_path / name).write_bytes((infotext(prompt, NEGATIVE) + "\n").encode(encoding))
    found = read(tmp_path / "a.png")
    assert (found.kind, found.prompt, found.negative) == ("sidecar", prompt, NEGATIVE)


def test_a_prompt_in_the_image_comes_before_its_sidecar(tmp_path):
    (tmp_path / "a.txt").write_text("a caption")
    assert read(save_png(tmp_path / "a.png", {"parameters": "a cat"})).prompt == "a cat"


def test_what_is_no_text_file_is_no_sidecar(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert read(tmp_path / "a.png").remarks[0].startswith("broken metadata: a.txt: not UTF-8")
    (tmp_path / "a.txt").write_bytes(b"x" * (1 << 21))
    assert "no prompt" in read(tmp_path / "a.png").remarks[0]
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    assert read(tmp_path / "a.png") == Found()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_as_a_sidecar_does_not_hang(tmp_path):
    picture().save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.txt")
    assert read(tmp_path / "a.png") == Found()


# What else a file says


def test_rights_and_ratings_are_carried_along(tmp_path):
    texts = {"License": "CC0", "Source": "https://example.org/1", "Rating": "PG", "nsfw": "false"}
    found = read(save_png(tmp_path / "a.png", {**texts, "parameters": infotext("a cat")}))
    assert (found.license, found.origin, found.rating, found.nsfw) == (
        "CC0",
        "https://example.org/1",
        "PG",
        "false",
    )
    assert read(save_png(tmp_path / "b.png", {"Copyright": "me, 2024"})).license == "me, 2024"
    found = read(save_exif(tmp_path / "c.jpg", tags={0x8298: "© Zoë".encode()}))
    assert (found.kind, found.license) == ("", "© Zoë")


def test_exifs_stars_are_no_rating_of_content(tmp_path):
    exif = Image.Exif()
    exif[0x4746] = 5
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg") == Found()
