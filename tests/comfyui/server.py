"""A real ComfyUI server for tests: start it on the CPU, send it workflows, read what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

HOME = Path(os.environ.get("COMFYUI_TEST_HOME", "~/.cache/comfyui-test")).expanduser()
COMFYUI = HOME / "ComfyUI"
PYTHON = HOME / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
START_SECONDS = 240


def missing() -> str:
    """Why there is no ComfyUI to test with, or ``""``."""
    for path in (COMFYUI / "main.py", PYTHON):
        if not path.exists():
            return (
                f"no ComfyUI to test with: {path} is missing. The README says under 'Tests against a real "
                "ComfyUI' how to have one; COMFYUI_TEST_HOME names another place"
            )
    return ""


def skip_or_fail(reason: str) -> None:
    """Leave out what cannot run here; where all must run (before publishing), fail instead."""
    if os.environ.get("SUR_TESTS_MUST_RUN"):
        pytest.fail(reason)
    pytest.skip(reason)


class Graph:
    """A workflow in ComfyUI's API format. ``graph.add("Node", name=value)[0]`` is a wire from its first
    output.
    """

    def __init__(self):
        self.nodes: dict[str, dict] = {}

    def add(self, class_type: str, **inputs) -> list:
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": class_type, "inputs": inputs}
        return [[number, output] for output in range(8)]


class Server:
    """``with Server(base, packs) as server: server.run(graph)``.

    Args:
        base: an empty folder: models, output and custom_nodes go there.
        packs: ``{name in custom_nodes: folder}``.
        extra_paths: content of an extra_model_paths.yaml, if any.
    """

    def __init__(self, base: Path, packs: dict[str, Path], extra_paths: str = ""):
        self.base = base
        self.output = base / "output"
        self.log = base / "server.log"
        for name in ("custom_nodes", "input", "output", "temp", "models", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        for name, folder in packs.items():
            (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # fmt: off
        self.command = [
            str(PYTHON), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port),
            "--base-directory", str(base), "--database-url", f"sqlite:///{base / 'comfyui.db'}",
            "--disable-auto-launch", "--disable-api-nodes",
        ]
        # fmt: on
        if extra_paths:
            (base / "extra.yaml").write_text(extra_paths)
            self.command += ["--extra-model-paths-config", str(base / "extra.yaml")]
        self.process = None

    def __enter__(self) -> Server:
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, cwd=COMFYUI, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(0.3)
        self.__exit__()
        raise RuntimeError("ComfyUI did not start:\n" + self.log_text()[-4000:])

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str):
        return self._call(path)[1]

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read().decode()

    def node_info(self, name: str) -> dict:
        return self.get(f"/object_info/{urllib.parse.quote(name)}")[name]

    def run(self, graph: Graph, timeout: float = 900) -> dict:
        """Run a workflow; returns its outputs by node. Raises :class:`WorkflowError` with ComfyUI's words."""
        status, answer = self._call("/prompt", {"prompt": graph.nodes})
        if status != 200 or answer.get("node_errors"):
            raise WorkflowError(json.dumps(answer))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{answer['prompt_id']}").get(answer["prompt_id"])
            if entry and entry["status"].get("completed") is not None:
                failures = [m[1] for m in entry["status"]["messages"] if m[0] == "execution_error"]
                if failures:
                    raise WorkflowError(failures[0]["exception_message"], "".join(failures[0]["traceback"]))
                return entry["outputs"]
            if self.process.poll() is not None:
                raise RuntimeError("ComfyUI stopped:\n" + self.log_text()[-4000:])
            time.sleep(0.1)
        raise TimeoutError(f"the workflow did not finish in {timeout} s")

    def _call(self, path: str, data=None):
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")


class WorkflowError(Exception):
    """ComfyUI refused a workflow or a node failed."""
