"""Who may ask the review server, and for what.

A page in the user's own browser is somebody else's program on the user's machine: it can send requests to
127.0.0.1 too. So every request must name our host (a foreign name that resolves to 127.0.0.1 is refused),
must carry the secret that only the printed address gives, and must not come from a page of another origin.

After the server has ended, any program of the machine can take its port, and an open page would send it the
decisions that wait. So the page, too, asks for a proof: that the server knows a key which the page was given.
The cookie itself cannot be kept from such a program, as browsers send it with every image; it is good for a
day, and for nothing but this page.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import stat
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from ..manifest import hash_of

logger = logging.getLogger(__name__)

SESSION_DAYS = 1
WRITE_HEADER = "X-Surd-Review"
"""Asked of every write. Forms cannot send it; scripts elsewhere must ask first, which is never granted."""

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class Refusal(Exception):
    """The answer is no.

    Attributes:
        status: of the answer.
        words: for people.
    """

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Gate:
    """Checks requests. For threads.

    Attributes:
        token: opens the page once; in the address that is printed.
    """

    def __init__(self, port: int, session: str) -> None:
        """``session``: the secret a browser gets for the token, from :func:`session_secret`."""
        self.token = secrets.token_urlsafe(32)
        self._port, self._session, self._unused = port, session, True
        self._guard = threading.Lock()

    def check_source(self, headers, writes: bool, enters: bool = False) -> None:
        """Raises Refusal: the request names another host, or a page of another origin has made it.

        ``enters``: with the token of the printed address, which may stand in a file or a chat.
        """
        host = headers.get("Host", "")
        if host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            words = f"this server answers to 127.0.0.1:{self._port} only"
            raise Refusal(HTTPStatus.FORBIDDEN, words)
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if origin is not None and origin != f"http://{host}":
            raise Refusal(HTTPStatus.FORBIDDEN, "refused: a page of another origin has asked")
        if writes and (origin is None and site is None or headers.get(WRITE_HEADER) != "1"):
            raise Refusal(HTTPStatus.FORBIDDEN, "refused: only the review page itself may write")
        if site not in (None, "same-origin", "none") and not enters:
            raise Refusal(HTTPStatus.FORBIDDEN, "refused: a page of another site has asked")

    def check_session(self, headers) -> None:
        """Raises Refusal: the browser has not come through the printed address."""
        if not self.knows(headers):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "refused: open the address that the review command has printed; it works once. Start the "
                "command again for a new one",
            )

    def knows(self, headers) -> bool:
        """Whether the request carries the session."""
        for cookie in headers.get("Cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie and _same(value, self._session):
                return True
        return False

    def exchange(self, token: str) -> str | None:
        """The value of Set-Cookie for the printed token, the first time; then None."""
        with self._guard:
            if not (_same(token, self.token) and self._unused):
                return None
            self._unused = False
        return f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    @property
    def page_key(self) -> str:
        """What the page knows the server by, hexadecimal."""
        return hmac.digest(self._session.encode(), b"page", "sha256").hex()

    def proof(self, nonce: str) -> str:
        """That this server has the page's key, for one nonce and this port alone; hexadecimal."""
        words = f"{self._port} {nonce}".encode()
        return hmac.digest(bytes.fromhex(self.page_key), words, "sha256").hex()

    @property
    def _cookie(self) -> str:
        """Named by the port, because browsers send cookies to all ports of a host."""
        return f"surd_review_{self._port}"


def session_secret(folder: Path, reviewer: str) -> str:
    """The secret of a reviewer's browser. It outlives the server: an open page goes on after a restart.

    Kept for a day in a file that only the user can read, where the system knows such files; not in the work
    folder, copies of which go to other people. If it cannot be kept, it is good for this server only.
    """
    try:
        path = user_cache() / f"{hash_of(str(Path(folder).resolve()), reviewer)}.session"
        if secret := _kept(path):
            return secret
        secret = secrets.token_urlsafe(32)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secret)
        return secret
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        logger.warning("the page must be opened anew after a restart; its secret cannot be kept: %s", error)
        return secrets.token_urlsafe(32)


def user_cache() -> Path:
    """A folder of this user on this machine, made for nobody else to read. Raises OSError, RuntimeError."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "surd-review"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _kept(path: Path) -> str:
    """The secret in a file that is private and young, else ""."""
    with suppress(FileNotFoundError, UnicodeDecodeError):
        status = os.lstat(path)
        private = os.name == "nt" or (not status.st_mode & 0o077 and status.st_uid == os.getuid())
        young = time.time() - status.st_mtime < SESSION_DAYS * 86400
        if stat.S_ISREG(status.st_mode) and private and young:
            secret = path.read_text("ascii")
            return secret if _SECRET.fullmatch(secret) else ""
    return ""


def _same(given: str, wanted: str) -> bool:
    """In constant time. Headers may hold any Latin-1 character, which compare_digest takes as bytes only."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
