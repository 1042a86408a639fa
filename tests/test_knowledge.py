"""The file of knowledge vectors: found by prompt, safe to stop and to start again, refused where damaged."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sur_core import knowledge_build
from sur_core.knowledge import import_authors_vectors, open_knowledge
from sur_core.language_model import LanguageModel
from sur_core.row_store import Field, RowFile
from tests.knowledge_builds import LAYERS, PROMPTS, WIDTH, build, make_llms, plain_vector, refusal
from tests.tiny_models import make_tiny_llm
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    return make_llms(tmp_path_factory.mktemp("llms"))


# --- the file ---------------------------------------------------------------------------------------------


def test_prompts_are_found_whatever_they_say(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["llama"], [*PROMPTS, *PROMPTS[::-1], "keys "])
    assert len(vectors) == len(PROMPTS) + 1 and set(vectors.prompts()) == {*PROMPTS, "keys "}
    rows = vectors.find(iter([*PROMPTS, "nowhere", "A cat"]))
    assert rows.dtype == np.int64 and sorted(rows)[:2] == [-1, -1] and len(set(rows)) == len(PROMPTS) + 1
    for prompt, row in zip(PROMPTS, rows, strict=False):
        assert np.array_equal(vectors.read(int(row)), vectors[prompt])
        assert list(vectors.prompts())[row] == prompt
    assert "keys" in vectors and "nowhere" not in vectors
    message = refusal(vectors.__getitem__, "nowhere")
    assert "'nowhere'" in message and "v.safetensors" in message and "train vectors" in message
    assert vectors.find([]).tolist() == []


def test_it_is_a_safetensors_file_that_says_where_it_is_from(tmp_path, llms):
    build(tmp_path / "v.safetensors", llms["llama"], layer=2)
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        assert file.get_tensor("vectors").shape == (len(PROMPTS), WIDTH)
        metadata = file.metadata()
    said = {name.removeprefix("sur.vectors."): value for name, value in metadata.items()}
    assert (said["llm"], said["layer"], said["layers"], said["width"]) == ("llama", "2", "4", "48")
    assert (said["special_tokens"], said["compute_dtype"], said["dtype"]) == ("skip", "fp32", "fp32")


def test_the_fingerprint_follows_prompts_and_settings(tmp_path, llms):
    first = build(tmp_path / "a.safetensors", llms["llama"])
    assert open_knowledge(tmp_path / "a.safetensors").fingerprint == first.fingerprint
    others = [
        build(tmp_path / "b.safetensors", llms["llama"], PROMPTS[:-1]),
        build(tmp_path / "c.safetensors", llms["llama"], layer=1),
        build(tmp_path / "d.safetensors", llms["gpt2"]),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_long_prompts_are_cut_and_counted(tmp_path, llms, caplog):
    long = [f"{prompt} " + "tree " * 30 for prompt in PROMPTS[:2]]
    with caplog.at_level(logging.WARNING):
        vectors = build(tmp_path / "v.safetensors", llms["llama"], [*PROMPTS, *long], 2, max_tokens=100)
    assert "2 of 9 prompts are longer than 100 tokens and were cut" in caplog.text
    assert vectors.count_cut() == 2
    # One token a byte, and the start token: 99 bytes are left.
    expected = plain_vector(llms["llama"], long[0][:99], 2)
    np.testing.assert_allclose(vectors[long[0]], expected, atol=1e-5)


def test_no_prompt_is_longer_than_the_model_can_read(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["gpt2"], ["x" * 2000], max_tokens=5000)
    assert vectors.max_tokens == 512 and vectors.count_cut() == 1


# --- stopping and going on --------------------------------------------------------------------------------


class Progress:
    """Notes the calls; raises at the n-th."""

    def __init__(self, stop_at: int | None = None):
        self.calls, self._stop_at = [], stop_at

    def __call__(self, done, total):
        self.calls.append((done, total))
        if len(self.calls) == self._stop_at:
            raise KeyboardInterrupt


def test_the_same_call_goes_on_where_it_stopped(tmp_path, llms, monkeypatch):
    monkeypatch.setattr(knowledge_build, "FLUSH_SECONDS", 0.0)
    path = tmp_path / "v.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build(path, llms["llama"], max_batch=2, progress=Progress(stop_at=3))
    assert not path.exists()
    progress = Progress()
    vectors = build(path, llms["llama"], reversed(PROMPTS), max_batch=2, progress=progress)
    assert progress.calls[0] == (4, 7) and progress.calls[-1] == (7, 7)
    for prompt in PROMPTS:
        np.testing.assert_allclose(vectors[prompt], plain_vector(llms["llama"], prompt, -1), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]


KILLED = """
import sys
from sur_core import knowledge_build
knowledge_build.FLUSH_SECONDS = 0
prompts = [f"prompt number {number}" for number in range(600)]
knowledge_build.build_knowledge(
    prompts, sys.argv[1], sys.argv[2], 2, device="cpu", max_batch=1,
    progress=lambda done, total: print(done, flush=True)
)
"""


def test_sigkill_costs_what_was_not_flushed(tmp_path, llms):
    path = tmp_path / "v.safetensors"
    command = [sys.executable, "-c", KILLED, path, llms["llama"]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        told = [int(child.stdout.readline()) for _ in range(40)]
        child.kill()
    assert not path.exists()
    prompts, progress = [f"prompt number {number}" for number in range(600)], Progress()
    vectors = build(path, llms["llama"], prompts, 2, store_dtype="fp16", progress=progress)
    assert 600 > progress.calls[0][0] >= told[-1] > 20, "what was flushed is computed again"
    whole = build(tmp_path / "w.safetensors", llms["llama"], prompts, 2, store_dtype="fp16")
    for prompt in prompts[::7]:
        np.testing.assert_allclose(vectors[prompt], whole[prompt], atol=1e-2)


def test_a_finished_file_is_left_alone(tmp_path, llms):
    path = tmp_path / "v.safetensors"
    build(path, llms["llama"])
    before = path.stat()
    vectors = build(path, llms["llama"], PROMPTS[::2], progress=lambda *_: pytest.fail("worked"))
    assert len(vectors) == len(PROMPTS)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_new_prompts_are_added_and_old_vectors_kept(tmp_path, llms):
    path, progress = tmp_path / "v.safetensors", Progress()
    old = build(path, llms["llama"], PROMPTS[:3])
    kept = {prompt: old[prompt] for prompt in PROMPTS[:3]}
    vectors = build(path, llms["llama"], PROMPTS[2:], progress=progress)
    assert progress.calls[0] == (3, 7), "old ones are copied"
    assert len(vectors) == 7 and all(np.array_equal(vectors[prompt], kept[prompt]) for prompt in kept)
    np.testing.assert_allclose(vectors["keys"], plain_vector(llms["llama"], "keys", -1), atol=1e-5)


def test_a_data_set_changed_half_way_loses_no_work(tmp_path, llms, monkeypatch):
    monkeypatch.setattr(knowledge_build, "FLUSH_SECONDS", 0.0)
    path, progress = tmp_path / "v.safetensors", Progress()
    with pytest.raises(KeyboardInterrupt):
        build(path, llms["llama"], max_batch=1, progress=Progress(stop_at=5))
    vectors = build(path, llms["llama"], [*PROMPTS, "one more"], progress=progress)
    assert progress.calls[0] == (4, 8) and len(vectors) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layer": 1}, "layer '4', now '1'"),
        ({"special_tokens": "include"}, "special_tokens"),
        ({"store_dtype": "fp16"}, "dtype"),
        ({"dtype": "bf16"}, "compute_dtype"),
        ({"max_tokens": 9}, "max_tokens"),
    ],
)
def test_other_settings_are_refused_until_restarted(tmp_path, llms, finished, options, word):
    path = tmp_path / "v.safetensors"
    if finished:
        build(path, llms["llama"])
    else:
        with pytest.raises(KeyboardInterrupt):
            build(path, llms["llama"], progress=Progress(stop_at=1))
    message = refusal(build, path, llms["llama"], **options)
    assert word in message and "--restart" in message and str(tmp_path) in message
    assert len(build(path, llms["llama"], restart=True, **options)) == len(PROMPTS)


@pytest.mark.parametrize("change", ["weights", "tokenizer"])
def test_another_model_under_the_same_name_is_noticed(tmp_path, change):
    folder = make_tiny_llm(tmp_path / "llm", LAYERS, WIDTH)
    build(tmp_path / "v.safetensors", folder)
    (folder / "new").mkdir()
    if change == "weights":
        make_tiny_llm(folder, LAYERS, WIDTH, seed=1)
    else:
        (folder / "tokenizer_config.json").write_bytes(b" " + (folder / "tokenizer_config.json").read_bytes())
    assert "model" in refusal(build, tmp_path / "v.safetensors", folder)


def test_a_moved_model_is_the_same(tmp_path):
    build(tmp_path / "v.safetensors", make_tiny_llm(tmp_path / "one", LAYERS, WIDTH))
    moved = (tmp_path / "one").rename(tmp_path / "two")
    build(tmp_path / "v.safetensors", moved, progress=lambda *_: pytest.fail("worked"))


def test_names_alike_are_not_mixed_up(tmp_path, llms):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a.b[1].safetensors", llms["llama"], progress=Progress(stop_at=1))
    (left,) = tmp_path.iterdir()
    build(tmp_path / "a.safetensors", llms["gpt2"])
    build(tmp_path / "a.b1.safetensors", llms["gpt2"])
    assert left.exists()


# --- files that are none ----------------------------------------------------------------------------------


def test_the_name_must_say_safetensors(tmp_path, llms):
    assert ".safetensors" in refusal(build, tmp_path / "v.pt", llms["llama"])


@pytest.mark.parametrize("part", [3, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path, llms, part):
    build(tmp_path / "v.safetensors", llms["llama"])
    whole = (tmp_path / "v.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(part * len(whole)) if part < 1 else part])
    assert "cut.safetensors" in refusal(open_knowledge, cut)


def test_files_that_are_no_knowledge_vectors(tmp_path, llms):
    assert "no such file" in refusal(open_knowledge, tmp_path / "gone.safetensors")
    assert "found a folder" in refusal(open_knowledge, tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "not one of rows" in refusal(open_knowledge, tmp_path / "lora.safetensors")
    RowFile.create(tmp_path / "rows.safetensors", 1, {"v": Field("F32", (2,))}).close()
    assert "not knowledge vectors" in refusal(open_knowledge, tmp_path / "rows.safetensors")
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "v.safetensors", llms["llama"], progress=Progress(stop_at=1))
    (partial,) = tmp_path.glob("v.*.partial.safetensors")
    assert "unfinished, 0 of 7" in refusal(open_knowledge, partial)


@pytest.mark.parametrize(
    ("metadata", "word"),
    [({"format_version": "2"}, "update"), ({"width": "47"}, "47 features"), ({"layer": "two"}, "two")],
)
def test_a_false_description_is_refused(tmp_path, llms, metadata, word):
    build(tmp_path / "v.safetensors", llms["llama"])
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = file.metadata() | {f"sur.vectors.{name}": value for name, value in metadata.items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata=said)
    assert word in refusal(open_knowledge, tmp_path / "w.safetensors")


def test_a_damaged_vector_is_named_when_read(tmp_path, llms):
    vectors = build(tmp_path / "v.safetensors", llms["llama"])
    row = int(vectors.find(["keys"])[0])
    vectors.close()
    with RowFile.open(tmp_path / "v.safetensors", writable=True) as file:
        file._write(file._offsets["vectors"] + row * WIDTH * 4, np.float32("nan").tobytes())
    message = refusal(open_knowledge(tmp_path / "v.safetensors").read, row)
    assert "'keys'" in message and "v.safetensors" in message


# --- the authors' files -----------------------------------------------------------------------------------


def authors_file(path, **changes) -> Path:
    generator = torch.Generator().manual_seed(0)
    content = {prompt: torch.randn(20, generator=generator) for prompt in PROMPTS}
    torch.save({**content, **changes}, path)
    return path


def test_the_authors_vectors_are_imported(tmp_path):
    source = authors_file(tmp_path / "39.pt", wide=torch.ones(1, 20), half=torch.ones(20).half())
    vectors = import_authors_vectors(source, tmp_path / "v.safetensors", "llama-13b", store_dtype="fp32")
    assert (vectors.source.llm, vectors.source.layer, vectors.width) == ("llama-13b", 40, 20)
    for prompt, vector in torch.load(source, weights_only=True).items():
        assert np.array_equal(vectors[prompt], vector.float().reshape(20).numpy())
    assert "already there" in refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (torch.ones(19), ("'bad'", "20 numbers", "(19,)")),
        (torch.ones(2, 20), ("'bad'", "(2, 20)")),
        (torch.ones(2, 10), ("'bad'", "(2, 10)")),
        (torch.ones(0), ("'bad'", "(0,)")),
        (torch.tensor(1.0), ("'bad'", "()")),
        (torch.ones(20, dtype=torch.int64), ("'bad'",)),
        (torch.eye(20).to_sparse(), ("'bad'",)),
        (torch.empty(20, device="meta"), ("'bad'",)),
        ("text", ("'bad'", "'text'")),
        (torch.full((20,), float("nan")), ("'bad'", "NaN")),
        (torch.full((20,), 1e6), ("'bad'", "65504")),
    ],
)
def test_bad_entries_of_the_authors_file_are_named(tmp_path, vector, words):
    source = authors_file(tmp_path / "39.pt", bad=vector)
    message = refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert all(word in message for word in (*words, "39.pt"))
    assert [file.name for file in tmp_path.iterdir()] == ["39.pt"], "something was left behind"


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    marker = str(tmp_path / "it_ran")
    source = authors_file(tmp_path / "39.pt", bad=RunsCode(marker))
    message = refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert "refused" in message and "weights_only" not in message and not os.path.exists(marker)
    torch.load(source, weights_only=False)
    assert os.path.exists(marker), "the file must be dangerous, or this test shows nothing"


@pytest.mark.parametrize("content", [b"", b"no pickle", [1, 2], {}])
def test_other_files_are_not_imported(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "39.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "39.pt")
    assert "39.pt" in refusal(import_authors_vectors, tmp_path / "39.pt", tmp_path / "v.safetensors", "x")


def test_a_truncated_authors_file(tmp_path):
    whole = authors_file(tmp_path / "39.pt").read_bytes()
    (tmp_path / "38.pt").write_bytes(whole[: len(whole) // 2])
    assert "38.pt" in refusal(import_authors_vectors, tmp_path / "38.pt", tmp_path / "v.safetensors", "x")


def test_the_layer_must_be_known(tmp_path):
    source = authors_file(tmp_path / "vectors.pt")
    assert "which layer" in refusal(import_authors_vectors, source, tmp_path / "v.safetensors", "x")
    assert import_authors_vectors(source, tmp_path / "v.safetensors", "x", 7).source.layer == 7


def test_the_authors_file_itself_is_not_opened_but_explained(tmp_path):
    for name in ("39.pt", "39.safetensors"):
        message = refusal(open_knowledge, authors_file(tmp_path / name))
        assert "--import-authors" in message and name in message


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "pairs.csv"
    rows = [f'"{prompt.replace(chr(34), "")}","a detailed {number}"' for number, prompt in enumerate(PROMPTS)]
    path.write_text("\n".join(["simple,complex", *rows, *rows[:1]]) + "\n", encoding="utf-8")
    return path


def command(data, target, *options) -> list[str]:
    return ["vectors", str(data), str(target), *map(str, options)]


def test_the_command_plans_computes_and_sums_up(tmp_path, llms, data, capsys):
    target = tmp_path / "v.safetensors"
    arguments = command(
        data, target, "--llm", llms["llama"], "--layer", 2, "--device", "cpu", "--store", "fp32"
    )
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "7 of them different" in shown and "layer 2 of 4, 48 wide, fp32 on cpu" in shown
    assert "computed 7" in shown and "7 vectors of llama" in shown
    expected = plain_vector(llms["llama"], "a cat", 2)
    np.testing.assert_allclose(open_knowledge(target)["a cat"], expected, atol=1e-5)
    assert main(arguments) == 0 and "computed 0" in capsys.readouterr().out
    assert main([*arguments, "--special-tokens", "include"]) == 1
    assert "--restart" in capsys.readouterr().err


def test_the_command_imports(tmp_path, data, capsys):
    source = authors_file(tmp_path / "39.pt")
    data.write_text(data.read_text(encoding="utf-8") + "new one,detailed\n", encoding="utf-8")
    target = tmp_path / "v.safetensors"
    assert main(command(data, target, "--llm", "llama-13b", "--import-authors", source)) == 0
    shown = capsys.readouterr().out
    assert "layer 40" in shown and "1 prompts of the data set have no vector, such as 'new one'" in shown
    assert main(command(data, target, "--llm", "x", "--import-authors", source)) == 1
    assert "already there" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_sigterm_ends_the_command_with_a_sentence(tmp_path, llms):
    data, target = tmp_path / "pairs.csv", tmp_path / "v.safetensors"
    data.write_text("simple,complex\n" + "".join(f"prompt number {n},b {n}\n" for n in range(5000)))
    arguments = command(data, target, "--llm", llms["llama"], "--device", "cpu", "--max-batch", 1)
    with subprocess.Popen(
        [sys.executable, "-m", "train", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        while b"vectors:" not in (line := child.stderr.readline(200)):  # the bar has begun
            assert line, "ended before it began"
            pass
        child.terminate()
        out, error = child.communicate(timeout=30)
    assert child.returncode == 130 and b"the same command goes on" in out and b"Traceback" not in error
    assert not target.exists()


def test_ctrl_c_ends_the_command_and_it_goes_on(tmp_path, llms, data, monkeypatch, capsys):
    encode = LanguageModel.encode
    arguments = command(data, tmp_path / "v.safetensors", "--llm", llms["llama"], "--device", "cpu")
    monkeypatch.setattr(LanguageModel, "encode", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().out
    monkeypatch.setattr(LanguageModel, "encode", encode)
    assert main(arguments) == 0 and len(open_knowledge(tmp_path / "v.safetensors")) == len(PROMPTS)
