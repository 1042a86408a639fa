"""The web server behind the review page: on this machine only, for one reviewer."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socketserver
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from ...images import ImageError
from ..manifest import MANIFEST_NAME, SurdBuildError, hash_of
from ..reviews import ACTIONS, REVIEW_FOLDER, TEXTS, is_fingerprint, is_mark
from ..shell import as_typed
from .access import Gate, Refusal, session_secret
from .book import Book, UnknownUndo
from .thumbnails import ImageRefused, Thumbnails, as_shown, read_image
from .view import Gallery, UnknownList, Wish

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8420
MAX_BODY = 1 << 20
MAX_THROWN_AWAY = 1 << 26
"""Of a body that is too large: a page hears the answer only after all is sent."""
MAX_TEXT = 100_000
MAX_WINDOW = 500
HISTORY = 1000

PAGE = Path(__file__).parent / "page"
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
ASSETS = {
    "/page/review.css": _STYLE,
    "/page/list_row.js": _SCRIPT,
    "/page/review.js": _SCRIPT,
    "/page/sample_panel.js": _SCRIPT,
    "/page/sender.js": _SCRIPT,
    "/page/server.js": _SCRIPT,
    "/page/virtual_list.js": _SCRIPT,
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of images: their addresses are their contents' hashes."""
_TO_PAGE = b'<!doctype html><title>Review</title><meta http-equiv="refresh" content="0; url=/">'
"""A redirect would still count as made by whoever linked here, and browsers would hold the cookie back."""


@dataclass(frozen=True)
class Reply:
    body: bytes
    kind: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


class ReviewServer(ThreadingHTTPServer):
    """Serves one work folder to one reviewer, at 127.0.0.1. Used with ``with``; then ``serve_forever()``.

    Attributes:
        gallery, book: what is shown, and where decisions go.
        url: opens the page, once.
    """

    daemon_threads = True  # idle connections of an open page must not keep the program from ending
    allow_reuse_address = os.name != "nt"  # there it would share the port with whoever asks
    request_queue_size = 64
    _door: Path | None = None

    def __init__(self, folder: Path, reviewer: str, port: int = DEFAULT_PORT) -> None:
        """
        Args:
            folder: the work folder.
            reviewer: whose decisions these are.
            port: 0 for any that is free.

        Raises:
            SurdBuildError: there is nothing to review, a log is damaged, or this reviewer's page is open.
            OSError: the port is taken, or a file cannot be read.
        """
        if not (Path(folder) / MANIFEST_NAME).exists():
            raise SurdBuildError(f"{folder}: there is no manifest to review here; run collect first")
        self.book = Book(folder, reviewer)
        try:
            self.gallery = Gallery(folder, self.book)
            self.thumbnails = Thumbnails(folder)
            try:
                super().__init__(("127.0.0.1", port), _Handler)
            except (OSError, OverflowError) as error:
                raise OSError(f"port {port} cannot be used ({error}); choose another with --port") from error
            self.gate = Gate(self.server_port, session_secret(folder, reviewer))
        except BaseException:
            self.book.close()
            raise
        self.start = secrets.token_hex(8)
        self.folder = Path(folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/?token={self.gate.token}"

    def door(self) -> Path:
        """A file that only the user can read and that leads a browser to :attr:`url`, once.

        The address itself among a browser's arguments could be read by everybody on the machine. In the work
        folder, because browsers in a sandbox read neither the system's temporary nor hidden folders.
        """
        handle, name = tempfile.mkstemp(".html", "open-", self.folder / REVIEW_FOLDER)
        self._door = Path(name).resolve()
        with open(handle, "w") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={self.url}">')
        return self._door

    def close_door(self) -> None:
        if self._door:
            self._door.unlink(missing_ok=True)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the network for this machine's name
        self.server_name, self.server_port = self.server_address[:2]

    def server_close(self) -> None:
        super().server_close()
        self.close_door()
        self.book.close()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(
            sys.exc_info()[1], ConnectionError | TimeoutError
        ):  # the page may leave at any time
            logger.exception("a request failed")

    def state(self) -> dict:
        """What the page asks first."""
        self.gallery.refresh()
        command = ["python", "-m", "train", "surd", "review", str(self.folder)]
        command += ["--reviewer", self.book.reviewer]
        if self.server_port != DEFAULT_PORT:
            command += ["--port", str(self.server_port)]
        return {
            "start": self.start,
            "reviewer": self.book.reviewer,
            "folder": self.folder.resolve().name,
            "dataset": hash_of(str(self.folder.resolve()), self.book.reviewer),
            "command": as_typed(command),
            "key": self.gate.page_key,
            "counts": self.gallery.counts(),
            "history": self.book.history(HISTORY),
        }

    def act(self, body: bytes) -> dict:
        """A decision the page has sent; on the disk when this returns. Raises Refusal, OSError."""
        values = _decision(body)
        try:
            current = self.gallery.act(**values)
            sample = self.gallery.detail(values["id"])
            return {"sample": sample, "counts": self.gallery.counts(), "current": current}
        except KeyError:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such sample") from None
        except UnknownUndo as error:
            raise Refusal(HTTPStatus.CONFLICT, str(error)) from None

    def image(self, id: str, small: bool) -> Reply:
        """A sample's image. ``id`` is looked up, and never becomes part of a path."""
        try:
            sample = self.gallery.sample(id)
        except KeyError:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such sample") from None
        try:
            if small:
                return Reply(self.thumbnails.read(sample), "image/webp", headers=_FOREVER)
            return Reply(*as_shown(read_image(sample), sample.name), headers=_FOREVER)
        except ImageRefused as error:
            raise Refusal(HTTPStatus.FORBIDDEN, str(error)) from None
        except ImageError as error:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        except OSError as error:
            raise Refusal(HTTPStatus.NOT_FOUND, f"{sample.name}: {error.strerror or error}") from None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "surd-review", ""
    timeout = 120
    wbufsize = 1 << 16  # an answer in two packets would wait for the first one's acknowledgement
    server: ReviewServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post, writes=True)

    def _answer(self, work: Callable[[str, dict[str, str]], Reply], writes: bool = False) -> None:
        try:
            self._body = self._read_body() if writes else b""
            address = urlsplit(self.path)
            path = unquote(address.path)
            query = {name: values[-1] for name, values in parse_qs(address.query).items()}
            enters = not writes and path == "/" and "token" in query
            self.server.gate.check_source(self.headers, writes, enters)
            reply = work(path, query)
        except Refusal as refusal:
            reply = _no(refusal.status, refusal.words)
        except ValueError as error:  # SurdBuildError: another reviewer's log is damaged
            damaged = isinstance(error, SurdBuildError)
            reply = _no(HTTPStatus.INTERNAL_SERVER_ERROR if damaged else HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            reply = _no(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except Exception:
            logger.exception("%s %s", self.command, self.path.partition("?")[0])
            words = "the review server has made a mistake; its terminal says more"
            reply = _no(HTTPStatus.INTERNAL_SERVER_ERROR, words)
        self._send(reply)

    def _read_body(self) -> bytes:
        """Read before anything is refused: a body left unread would be taken for the next request."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 12):
            self.close_connection = True
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "a decision has a Content-Length")
        if int(length) > MAX_BODY:
            self.close_connection = True
            left = min(int(length), MAX_THROWN_AWAY)
            while left > 0 and (part := len(self.rfile.read(min(left, MAX_BODY)))):
                left -= part
            words = f"a decision has at most {MAX_BODY:,} bytes"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        return self.rfile.read(int(length))

    def _get(self, path: str, query: dict[str, str]) -> Reply:
        gate = self.server.gate
        if path == "/" and "token" in query:
            return self._enter(query["token"])
        if path == "/api/proof":
            return _json({"proof": gate.proof(query.get("nonce", ""))})
        gate.check_session(self.headers)
        if path == "/":
            return Reply((PAGE / "index.html").read_bytes(), "text/html; charset=utf-8")
        if path in ASSETS:
            return Reply((PAGE / path.rpartition("/")[2]).read_bytes(), ASSETS[path])
        if path == "/favicon.ico":
            return Reply(b"", "image/x-icon", HTTPStatus.NO_CONTENT)
        room, _, id = path.removeprefix("/").partition("/")
        if room in ("image", "thumbnail") and id:
            return self.server.image(id, small=room == "thumbnail")
        return _json(self._data(path, query))

    def _enter(self, token: str) -> Reply:
        """The printed address: a cookie in exchange for the token."""
        if "prefetch" in self.headers.get("Sec-Purpose", ""):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the address works once, and not ahead of time")
        cookie = self.server.gate.exchange(token)
        if cookie is None:
            self.server.gate.check_session(self.headers)
        self.server.close_door()
        return Reply(_TO_PAGE, "text/html; charset=utf-8", headers={"Set-Cookie": cookie} if cookie else {})

    def _data(self, path: str, query: dict[str, str]) -> object:
        gallery = self.server.gallery
        try:
            if path == "/api/state":
                return self.server.state()
            if path == "/api/list":
                gallery.refresh()
                names = ("filter", "sort", "search")
                wish = {name: query[name] for name in names if name in query}
                descending = query.get("descending") == "1"
                return gallery.open_list(Wish(**wish, descending=descending), query.get("at", ""))
            if path == "/api/rows":
                start, count = (_number(query, name) for name in ("start", "count"))
                return {"rows": gallery.window(query.get("list", ""), start, min(count, MAX_WINDOW))}
            if path.startswith("/api/sample/"):
                return gallery.detail(path.removeprefix("/api/sample/"))
        except UnknownList:
            raise Refusal(HTTPStatus.GONE, "this list is forgotten; make it again") from None
        except KeyError:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such sample") from None
        raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _post(self, path: str, query: dict[str, str]) -> Reply:
        self.server.gate.check_session(self.headers)
        if path != "/api/decisions":
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a decision is sent as application/json")
        return _json(self.server.act(self._body))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {**HEADERS, "Content-Type": reply.kind, **reply.headers}.items():
            self.send_header(name, value)
        if reply.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *arguments) -> None:
        """Not to the terminal, which shows the address to open; and never with the token."""
        logger.debug("%s %s", self.command, self.path.partition("?")[0])


def _decision(body: bytes) -> dict:
    """Arguments of :meth:`.view.Gallery.act`, checked. Raises Refusal."""
    try:
        values = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        values = None
    names = {"id", "action", "mark", "was", *TEXTS}
    if not isinstance(values, dict) or not values.keys() <= names:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"a decision is a JSON object of {', '.join(sorted(names))}")
    was = values.pop("was", None)
    if not all(isinstance(value, str) for value in values.values()) or not is_mark(values.get("mark")):
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "a decision's values are texts, and its mark is 8 to 64 letters"
        )
    if values.get("action") not in ACTIONS or "id" not in values:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"action is one of {', '.join(ACTIONS)}, and id a sample's")
    texts = {name: values[name].strip() for name in TEXTS if name in values}
    if (values["action"] == "edit") != bool(texts) or not all(map(_is_prompt, texts.values())):
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"an edit, and only an edit, has new texts: not empty, at most {MAX_TEXT:,} Unicode characters",
        )
    looked = isinstance(was, dict) and was.keys() == set(TEXTS) and all(map(is_fingerprint, was.values()))
    if not looked and (was is not None or values["action"] in ("keep", "edit")):
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            "keep and edit tell what was shown: the sample's 'was'",
        )
    return {**values, **texts, "was": was}


def _is_prompt(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return 0 < len(text) <= MAX_TEXT and "\0" not in text


def _number(values, name: str) -> int:
    value = values.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) < 12):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{name} must be a number, found {value!r}")
    return int(value)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(json.dumps(value).encode("ascii"), status=status)


def _no(status: HTTPStatus, words: str) -> Reply:
    return _json({"error": words}, status)
