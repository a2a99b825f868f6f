"""A report that is served on the loopback address, and made anew when there is more to show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from magtkd.errors import InputError, MagtkdError

__all__ = ["ADDRESS", "Pages", "make_server"]

ADDRESS = "127.0.0.1"


BUSY_SHARE = 0.1  # of the time, while a sweep has the cores


class Pages:
    """The page of some ledgers, made when it is asked for and they have changed; not so often that
    making it takes more than a tenth of the time.

    Args:
        ledgers: the files that it is made of.
        make: gives the page's HTML for a version of them.
        refresh: called before the files are looked at, such as to bring them from an object store.
    """

    def __init__(
        self,
        ledgers: Sequence[Path],
        make: Callable[[str], str],
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledgers, self._make, self._refresh = ledgers, make, refresh
        self._lock = threading.Lock()
        self._version, self._page = "", ""
        self._due = 0.0

    def version(self) -> str:
        """That of the page that would be shown now."""
        with self._lock:
            return self._next_version()

    def page(self) -> str:
        """The page as it is now; by one request at a time, as it takes seconds."""
        with self._lock:
            version = self._next_version()
            if version != self._version:
                begun = time.monotonic()
                self._page = self._make(version)
                self._version, ended = version, time.monotonic()
                self._due = ended + (ended - begun) * (1 / BUSY_SHARE - 1)
            return self._page

    def _next_version(self) -> str:
        if self._version and time.monotonic() < self._due:
            return self._version
        self._refresh()
        return "-".join(str(path.stat().st_size) for path in self._ledgers)


def make_server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """A server of a page, which answers once `serve_forever` is called.

    Args:
        pages: what it serves.
        port: the port; 0 for any that is free.

    Raises:
        InputError: the port is taken, or may not be used.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            try:
                if place == "/":
                    self._answer(200, "text/html", pages.page())
                elif place == "/version":
                    self._answer(200, "text/plain", pages.version())
                else:
                    self._answer(404, "text/plain", "there is only /")
            except (MagtkdError, OSError) as error:
                self._answer(503, "text/plain", f"{error}")

        def _answer(self, code: int, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal is the user's."""

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; choose another port") from None
