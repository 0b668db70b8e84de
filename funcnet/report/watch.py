"""A page of a run while it goes on, from a server for this machine alone.

It has two routes, the page and what is new, and reads nothing but the files of that run. A page of
somebody else's that a browser shows can reach such a server, too: requests count that name it
by its own address (against DNS rebinding), and nothing of what it says may be read from elsewhere.
"""

import errno
import json
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from funcnet.report.data import collected, names_of, status_line
from funcnet.report.page import page, policy
from funcnet.report.private import private
from funcnet.report.read import measured_rows, read_run
from funcnet.text import finite, one_line

HOST = "127.0.0.1"
WAITING = "Waiting for the run to begin"


class Server(ThreadingHTTPServer):
    """A server of one run's page; `server_port` is where."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # where it would let two have one port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over readers that have gone."""


def server_of(path: Path, port: int) -> Server:
    """A server of the page of a run, for `serve_forever`.

    Args:
      path: the run directory.
      port: where; 0 is any that is free.
    Raises:
      OSError: the port is in use, or may not be used.
    """
    try:
        return Server((HOST, port), partial(Handler, path))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use: give another --port, or 0 for any") from None
        raise OSError(f"port {port} cannot be used: {error.strerror}") from None


def page_now(path: Path) -> str:
    """The page of a run as far as it has got."""
    if not (path / "config.json").is_file():
        waiting = {"kind": "run", "title": names_of([path])[0], "status": WAITING, "facts": []}
        return page({**private(waiting), "ended": False}, live=True)
    return page({**collected([path], live=True), "ended": _ended(path)}, live=True)


def _ended(path: Path) -> bool:
    return read_run(path, path.name).status != "running"


def news_of(path: Path, after: int) -> dict[str, Any]:
    """What is new of a run.

    Args:
      path: the run directory.
      after: the number of rows that are known.
    Returns:
      begun: whether there is a run; ended: whether it goes on no more; status in words; count: of
      all rows; rows: those that are new.
    """
    if not (path / "config.json").is_file():
        return {"begun": False, "ended": False, "status": WAITING, "count": 0, "rows": []}
    run = read_run(path, path.name)
    rows = measured_rows(path)
    status = status_line(run) if rows or run.status != "running" else "Waiting for the first epoch"
    ended = run.status != "running"
    found = {"begun": True, "ended": ended, "status": status, "count": len(rows)}
    return private({**found, "rows": rows[after:]})


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one run's page."""

    server_version, sys_version = "funcnet", ""
    timeout = 10  # seconds, for a request to come

    def __init__(self, path: Path, *args: Any) -> None:
        self.run = path
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer a request, if it names this server and one of its routes."""
        assert isinstance(self.server, Server)
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", f"ask http://{HOST}:{port}/\n")
            return
        try:
            url = urlsplit(self.path)
            if url.path == "/":
                self._answer(HTTPStatus.OK, "text/html", page_now(self.run))
            elif url.path == "/rows":
                news = news_of(self.run, _count(parse_qs(url.query).get("after", [""])[0]))
                self._answer(HTTPStatus.OK, "application/json", json.dumps(finite(news)))
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")
        except (OSError, ValueError) as error:  # of the run's files, or the URL
            text = str(private(one_line(error)))
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{text}\n")

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def _count(text: str) -> int:
    """The number of rows that are known; of nonsense none is."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
