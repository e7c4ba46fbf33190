"""A web server on this machine for the tests of downloads: files by address, with HTTP ranges."""

import hashlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class FileServer(ThreadingHTTPServer):
    """Serves `files`, which are bytes by path, and keeps the ranges that were asked for.

    Attributes:
        files: Bytes of each file by its path, such as `/folder/file.bin`.
        cuts: Numbers of bytes after which the next answers end, though they promised all.
        ranged: Whether ranges are served; otherwise each answer is the whole file.
        marked: Whether answers have an ETag.
        requests: Path and range of each GET.
        headers: Further headers of each answer.
        error_code: What the Hub says of a file that it has not.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.requests, self.headers = {}, [], [], {}
        self.ranged = self.marked = True
        self.error_code = "EntryNotFound"

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Prints nothing."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.answer(with_body=True)

    def answer(self, with_body):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", self.server.error_code)
            self.send_all_headers(0)
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        same = self.headers.get("If-Range") in (None, etag)
        asked = self.headers.get("Range", "bytes=0-") if self.server.ranged and same else "bytes=0-"
        start = int(asked[6:-1])
        if start and start >= len(content):
            self.send_response(416)
            self.send_all_headers(0)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_all_headers(len(content) - start, etag)
        if with_body:
            end = self.server.cuts.pop(0) if self.server.cuts else len(content)
            self.wfile.write(content[start:end])

    def send_all_headers(self, length, etag=None):
        if etag and self.server.marked:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def served():
    """Yields a running server; it stops at the end."""
    server = FileServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
