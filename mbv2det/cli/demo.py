"""`demo --weights FILE`: a page that runs the network in the visitor's own browser."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mbv2det.console import log, one_line_errors
from mbv2det.errors import ConfigError

_DESCRIPTION = """
Starts a page on this machine, on which the network runs in the browser: drop photographs, use the
camera, or pick samples, and see boxes, masks and times. No picture leaves the browser. Ctrl-C ends
it.

FILE is a weights file, or an ONNX file that `export --resize` wrote. The package that runs networks
in browsers, onnxruntime-web, is fetched once by `make demo`.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: The command line, by default that of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    options = _parser(prog).parse_args(sys.argv[1:] if arguments is None else arguments)
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port: expected 0 to 65535, got {options.port}")
    from mbv2det.demo.site import write_site  # --help needs no networks

    if options.static is not None:
        write_site(Path(options.weights), Path(options.static))
        log(f"demo: {options.static}; any web server shows it, as mbv2det/demo/README.md explains")
        return
    with tempfile.TemporaryDirectory() as folder:
        _serve(Path(options.weights), Path(folder), options.port)


def _serve(weights: Path, folder: Path, port: int) -> None:
    """Writes the demo to a folder and serves it until an interrupt."""
    from mbv2det.demo.server import HOST, demo_server
    from mbv2det.demo.site import write_site

    with demo_server(folder, port) as server:  # before the export: a taken port costs no wait
        write_site(weights, folder)
        log(f"demo: http://{HOST}:{server.server_port}/ (Ctrl-C ends it)")
        server.serve_forever()


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="weights, or an ONNX file that export --resize wrote",
    )
    add("--static", metavar="OUT", help="write the page to a folder for any web server, and end")
    add("--port", type=int, default=8000, help="port of the page (default %(default)s)")
    return parser
