"""A web server for the demo, on this machine alone."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mbv2det.errors import ConfigError

HOST = "127.0.0.1"
# A browser shares memory between threads only for a page that is isolated from other sites.
THREAD_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class _Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers that threads need."""

    # Explicit: the types of some systems are wrong, and browsers refuse modules of another type.
    extensions_map = {  # noqa: RUF012 - as the class of the library has it
        "": "application/octet-stream",
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".jpg": "image/jpeg",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".mjs": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Adds the headers; an edited demo is not taken from the browser's store."""
        for name, value in THREAD_HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Prints nothing for a request."""


def demo_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Returns a server of a folder, which `serve_forever` starts.

    Args:
        folder: Folder that `write_site` wrote.
        port: Port to listen on; 0 for any that is free.

    Raises:
        ConfigError: If the port is taken.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise ConfigError(
            f"--port: expected a free port, got {port}: {error.strerror}; --port 0 takes any"
        ) from None
