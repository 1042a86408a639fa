"""Who may ask the review server, and for what.

A page in the user's own browser is somebody else's program on the user's machine: it can send requests to
127.0.0.1 too. So every request must name our host (a foreign name that resolves to 127.0.0.1 is refused),
must carry the secret that only the printed address gives, and must not come from a page of another origin.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from ..reviews import REVIEW_FOLDER

SESSION_DAYS = 7
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

    def check_source(self, headers, writes: bool) -> None:
        """Raises Refusal: the request names another host, or a page of another origin has made it."""
        host = headers.get("Host", "")
        if host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            words = f"this server answers to 127.0.0.1:{self._port} only"
            raise Refusal(HTTPStatus.FORBIDDEN, words)
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if origin is not None and origin != f"http://{host}":
            raise Refusal(HTTPStatus.FORBIDDEN, "refused: a page of another origin has asked")
        if writes and (origin is None and site is None or headers.get(WRITE_HEADER) != "1"):
            raise Refusal(HTTPStatus.FORBIDDEN, "refused: only the review page itself may write")
        if site not in (None, "same-origin", "none"):
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
    def _cookie(self) -> str:
        """Named by the port, because browsers send cookies to all ports of a host."""
        return f"surd_review_{self._port}"


def session_secret(folder: Path, reviewer: str) -> str:
    """The secret of a reviewer's browser. It outlives the server: an open page goes on after a restart.

    Kept in a file that only the user can read, where the system knows such files; renewed after some days.
    """
    path = Path(folder) / REVIEW_FOLDER / f".{reviewer}.session"
    with suppress(OSError, UnicodeDecodeError):
        status = os.lstat(path)
        private = os.name == "nt" or (not status.st_mode & 0o077 and status.st_uid == os.getuid())
        young = time.time() - status.st_mtime < SESSION_DAYS * 86400
        if stat.S_ISREG(status.st_mode) and private and young:
            secret = path.read_text("ascii")
            if _SECRET.fullmatch(secret):
                return secret
    secret = secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secret)
    return secret


def _same(given: str, wanted: str) -> bool:
    """In constant time. Headers may hold any Latin-1 character, which compare_digest takes as bytes only."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
