"""The server on this machine's loopback interface, for whoever has the address with its token."""

import hmac
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from rayseg.report.view.site import Answer, Site

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost", "[::1]")
"""Names by which a browser may call this machine; another site's name is refused.

A page of another site can have its own name resolve to 127.0.0.1 (DNS rebinding); the browser then
still says that name. Any port is taken, as `ssh -L` may give another one.
"""
MOST_FIELDS = 16
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # an address has the token in it
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves a site on the loopback interface until it is closed.

    Args:
        site: what is served.
        port: of the loopback interface; 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, site: Site, port: int = 0):
        self.site = site
        self.token = secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """Of the page, with the token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is nothing to tell."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rayseg", ""
    timeout = 60  # of an open connection on which nothing is asked
    server: ViewServer

    def do_GET(self) -> None:
        """Answers a request."""
        self._send(self._answer(), body=True)

    def do_HEAD(self) -> None:
        """Answers as GET would, without the content."""
        self._send(self._answer(), body=False)

    def _answer(self) -> Answer:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or _without_port(hosts[0]) not in NAMES:
            return _refused("this server answers to 127.0.0.1 alone")
        try:
            parts = urlsplit(self.path)
            asked = dict(parse_qsl(parts.query, max_num_fields=MOST_FIELDS))
        except ValueError:
            return _refused("this is no address of this server")
        _, token, *rest = [*parts.path.split("/", 2), ""]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return _refused("open the address that `rayseg view` printed, with its token")
        return self.server.site.answer(rest[0], asked)

    def _send(self, answer: Answer, body: bool) -> None:
        self.send_response(answer.status)
        text = answer.kind.startswith(("text/", "application/json"))
        self.send_header("Content-Type", answer.kind + "; charset=utf-8" * text)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A request that is none, or of another method, has a line and no page."""
        del message, explain
        self.close_connection = True
        self._send(Answer(code, "text/plain", b"only GET and HEAD are answered\n"), body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they have the token in them."""


def _without_port(host: str) -> str:
    """The name that a request calls this machine by, in lower case."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdigit() else host.strip().lower()


def _refused(why: str) -> Answer:
    return Answer(403, "text/plain", f"{why}\n".encode())
