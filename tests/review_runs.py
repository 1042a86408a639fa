"""Work folders to review, and the review command as a program of its own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from sur_core.surd_build.manifest import Manifest, hash_of
from sur_core.surd_build.reviews import Decision, decide, read_said

PROJECT = Path(__file__).resolve().parents[1]
SUBJECTS = ("a lighthouse", "two cats", "a red bicycle", "an old library", "a bowl of soup", "a fox")
START_SECONDS = 120


def png(number: int, width: int = 8, height: int = 8) -> bytes:
    """A small PNG like no other number's."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    color = hashlib.sha256(b"%d" % number).digest()[:3]
    pixels = zlib.compress((b"\0" + color * width) * height, 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b"number\0%d" % number
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"tEXt", text), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def make_work(folder: Path, images: list[bytes], *, caption: bool = True, suffix: str = "png") -> list[str]:
    """A work folder with ``images`` collected, captioned, scored and judged; returns the samples' ids.

    Every third sample has a simple score below the complex one, and is left out by the rule.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    records = [{"step": "source", "key": "mine", "folder": str(pictures), "kind": "folder"}]
    ids = []
    for number, data in enumerate(images):
        name = f"{number:05d}.{suffix}"
        (pictures / name).write_bytes(data)
        ids.append(hashlib.sha256(data).hexdigest()[:20])
        records += records_of(number, f"mine/{name}", ids[-1], len(data), caption)
    Manifest(folder / "work").add(records)
    return ids


def records_of(number: int, key: str, id: str, size: int, caption: bool = True) -> list[dict]:
    subject = SUBJECTS[number % len(SUBJECTS)]
    simple = f"{subject} (number {number})"
    complex = f"{subject}, number {number}, masterpiece, dramatic light, (sharp focus:1.2), 8k"
    simple_score = 0.3 if number % 3 == 2 else 0.5 + (number % 50) / 100
    records = [
        {"step": "collect", "key": key, "bytes": size, "width": 8, "height": 8, "format": "PNG"}
        | {"metadata": "automatic1111", "parameters": {"Sampler": "Euler a", "Steps": 20 + number % 30}},
        {"step": "select", "key": key, "file": key, "id": id, "complex": complex},
    ]
    if caption:
        scores = {"simple_score": simple_score, "complex_score": 1 - simple_score}
        cosines = {"simple_cosine": 0.2 + simple_score / 10, "complex_cosine": 0.25}
        verdict = "simple fits less: 0.300 below 0.700" if simple_score < 0.5 else ""
        records += [
            {"step": "caption", "key": id, "caption": simple},
            {"step": "clean", "key": id, "of": hash_of(simple, complex), **scores, **cosines},
            {"step": "rule", "key": id, "of": hash_of(simple, complex), "dropped": verdict},
        ]
    else:
        records.append({"step": "caption", "key": id, "caption": "", "dropped": "no caption: empty"})
    return records


def caption_anew(work: Path, id: str, caption: str) -> None:
    """As ``caption`` does it with another model, while pages are open."""
    Manifest(work).add([{"step": "caption", "key": id, "caption": caption}])


def read_decisions(work: Path) -> dict[str, Decision]:
    """{sample id: decision} of all logs, as if no prompt had changed since."""
    found = {id: decide(said) for id, said in read_said(work).items()}
    return {id: decision for id, decision in found.items() if decision}


def log_lines(work: Path, reviewer: str = "anna") -> list[dict]:
    """The actions in a reviewer's log, without its header."""
    content = (work / "review" / f"{reviewer}.jsonl").read_bytes()
    return [json.loads(line) for line in content.splitlines()[1:]]


class ReviewProgram:
    """``python -m train surd review`` in a process of its own; used with ``with``.

    Attributes:
        url: the printed address.
        port: the server's.
    """

    def __init__(self, work: Path, reviewer: str = "anna", port: int = 0, *more: str) -> None:
        command = [sys.executable, "-m", "train", "surd", "review", str(work), "--reviewer", reviewer]
        self._process = subprocess.Popen(
            [*command, "--port", str(port), *more],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found.group()
                self.port = urlsplit(self.url).port
                return
        raise RuntimeError(f"the review did not start: {''.join(lines)}")

    def kill(self) -> None:
        """As a crash does it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def interrupt(self) -> str:
        """Ctrl-C; returns what it says then."""
        self._process.send_signal(signal.SIGINT)
        return self._process.communicate(timeout=START_SECONDS)[0]

    def __enter__(self) -> ReviewProgram:
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.stdout.close()


class Client:
    """Plain requests to a review server, with any header; what a browser would never send included."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.token = parts.hostname, parts.port, parts.query.removeprefix("token=")
        self.cookie = ""

    def enter(self) -> Client:
        """Exchange the token for the cookie."""
        status, headers, _ = self.ask("GET", f"/?token={self.token}")
        assert status == 200
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        return self

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None):
        """(status, headers, body). A header that is None is not sent; "_" in names stands for "-"."""
        sent = {"Host": f"{self.host}:{self.port}", "Cookie": self.cookie or None}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None):
        """(status, JSON)."""
        status, _, body = self.ask("GET", path, **headers)
        return status, json.loads(body)

    def decide(self, id: str, action: str, mark: str, headers: dict | None = None, **texts: str):
        """(status, JSON) of a decision, sent as the page sends it, with other ``headers``."""
        was = {"was": self.was(id)} if action in ("keep", "edit") else {}
        return self.send(id, action, mark, headers, **was, **texts)

    def was(self, id: str) -> object:
        """What the page is told of a sample's texts."""
        status, sample = self.get(f"/api/sample/{id}")
        return sample["was"] if status == 200 else {"simple": "0" * 16, "complex": "0" * 16}

    def send(self, id: str, action: str, mark: str, headers: dict | None = None, **values: object):
        """(status, JSON) of a decision with any values."""
        sent = {"Origin": f"http://{self.host}:{self.port}", "Content_Type": "application/json"}
        sent |= {"X_Surd_Review": "1", **(headers or {})}
        body = json.dumps({"id": id, "action": action, "mark": mark, **values}).encode()
        status, _, answer = self.ask("POST", "/api/decisions", body, **sent)
        return status, json.loads(answer)
