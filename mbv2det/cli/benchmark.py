"""`benchmark FILE...`: how fast networks are, and what else they cost."""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mbv2det.console import one_line_errors
from mbv2det.errors import ConfigError

if TYPE_CHECKING:
    from mbv2det.benchmark.subject import Setup

_DESCRIPTION = """
Times networks side by side, from the image in memory to predictions in its pixels: in every round
each network predicts one batch. Prints medians over the rounds:

  total        milliseconds of a batch, end to end; p95 is what 19 of 20 rounds stay below
  CPU          milliseconds of all threads together; where it is far below the total, the machine
               was busy with something else
  prep.        resizing; network: from pixels to raw outputs; postp.: boxes and their suppression,
               or the label of every pixel
  ratio        time per image relative to the first network of the list, round by round

and parameters, multiply-adds, size of the file, peak memory of a process of its own, and the
metrics in the header of the file.

Lists have commas, and every combination that a file allows is timed:

  mbv2det benchmark best.safetensors --dtype float32,bfloat16 --batch 1,8
  mbv2det benchmark best.safetensors model.onnx --backend onnxruntime,openvino --threads 1,2
  mbv2det benchmark best.safetensors --peers --image photos/ --out bench.json --plot bench.png

Weights files run in PyTorch, in the types of --dtype; exported files run in the libraries of
--backend, in the precision of their export. Figures of one run compare with one another, and hardly
with those of another day or machine.
"""

Value = TypeVar("Value")


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: The command line, by default that of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    options = _parser(prog).parse_args(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.benchmark.benchmark import made_image, read_images, run_benchmark

    setups = _setups(options)
    run_benchmark(
        setups,
        read_images(options.image) if options.image else made_image(options.image_size),
        rounds=options.rounds,
        warm_up=options.warm_up,
        memory=not options.no_memory,
        out=options.out,
        plot=options.plot,
    )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="weights files and exported files")
    add("--peers", action="store_true", help="also time networks of torchvision, and of "
        "segmentation_models_pytorch if it is installed, with random weights")  # fmt: skip
    add("--backend", type=_list_of(str), default=(), metavar="NAME,...",
        help="libraries that run exported files: onnxruntime, openvino, ...; by default the one "
        "of the file's kind")  # fmt: skip
    add("--dtype", type=_list_of(str), default=("float32",), metavar="TYPE,...",
        help="types that weights files run in: float32, bfloat16, float16")  # fmt: skip
    add("--threads", type=_list_of(_count), default=(1,), metavar="N,...",
        help="numbers of threads (default 1)")  # fmt: skip
    add("--batch", type=_list_of(_count), default=(1,), metavar="N,...",
        help="numbers of images of a call (default 1)")  # fmt: skip
    add("--device", default="cpu", help="device of the files (default cpu); peers run on the CPU")
    add("--image", type=Path, nargs="+", metavar="INPUT",
        help="images or folders of them to predict in turn; by default a made image")  # fmt: skip
    add("--image-size", type=_size, default=(480, 640), metavar="HxW",
        help="height and width of the made image (default 480x640)")  # fmt: skip
    add("--rounds", type=_count, default=30, help="rounds that are timed (default %(default)s)")
    add("--warm-up", type=_count, default=3, help="rounds before them (default %(default)s)")
    add("--no-memory", action="store_true", help="do not start a process for each peak memory")
    add("--out", type=Path, metavar="JSON", help="file for the figures")
    add("--plot", type=Path, metavar="PNG", help="picture of accuracy against latency")
    return parser


def _setups(options: argparse.Namespace) -> "list[Setup]":
    """Returns every combination of a network and a way to run it.

    Raises:
        ConfigError: If there is no network, or a file does not exist.
    """
    from mbv2det.benchmark.files import FileSetup
    from mbv2det.benchmark.peers import PeerSetup, installed_peers
    from mbv2det.deploy.load import default_backend, is_exported

    runs = [
        {"threads": threads, "batch": batch}
        for threads, batch in product(options.threads, options.batch)
    ]
    setups: list[Setup] = []
    for file in options.files:
        if not file.exists():
            raise ConfigError(f"FILE: expected a weights file or an exported one, found no {file}")
        if is_exported(file):
            backends = options.backend or (default_backend(file),)
            ways = [{"backend": name, "precision": "as exported"} for name in backends]
        else:
            ways = [{"precision": dtype} for dtype in options.dtype]
        setups += [
            FileSetup(path=file, device=options.device, **way, **run)
            for way, run in product(ways, runs)
        ]
    peers = installed_peers() if options.peers else ()
    setups += [PeerSetup(peer=name, **run) for name, run in product(peers, runs)]
    if not setups:
        raise ConfigError("FILE: expected a weights file or an exported one, or --peers, got none")
    return setups


def _list_of(read: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    def read_list(text: str) -> tuple[Value, ...]:
        return tuple(read(part.strip()) for part in text.split(","))

    return read_list


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _count(height), _count(width)
