"""Reads files that are made to use up time or memory, each in a process of its own.

    python tests/benchmarks/bombs.py

Every file has to be refused, or read as harmless, in one second of processor time and 500 MB of
memory beyond what the process takes without the file. Prints a table; exit code 1 on faults.
"""

import argparse
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.images import read_image
from mbv2det.data.mask_reading import MaskReading
from mbv2det.data.splits import read_split
from mbv2det.errors import ConfigError, DataError

_SECONDS = 1.0
_MEGABYTES = 500.0

_ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
_YAML_ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
XML = {
    "entities": f'<!DOCTYPE a [<!ENTITY e0 "x">{_ENTITIES}]><annotation>&e9;</annotation>',
    "external entity": '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
    "never closed": "<a>" * 3_000_000,
    "nested": "<annotation>" + "<a>" * 1_000_000 + "</a>" * 1_000_000 + "</annotation>",
    "attributes": "<annotation " + " ".join(f'a{i}="1"' for i in range(700_000)) + "/>",
    "large": "<annotation>" + " " * 300_000_000 + "</annotation>",
}
JSON = {
    "lists": '{"images": ' + "[" * 50_000_000,
    "skipped lists": '{"info": ' + "[" * 50_000_000,
    "empty records": '{"annotations": [' + "{}," * 30_000_000,
    "digits": '{"images": [{"id": ' + "9" * 50_000_000 + "}]}",
}
YAML = {
    "aliases": _YAML_ALIASES,
    "tag of Python": "names: !!python/object/apply:os.system ['true']",
    "nested": "names: " + "[" * 100_000,
    "large": "names: [" + "a, " * 20_000_000 + "]",
}


def png(width: int, height: int) -> bytes:
    """Returns a black image of a few megabytes for any number of pixels."""
    rows = zlib.compressobj(1)
    line = bytes(1 + min(width, 20_000))
    body = b"".join(rows.compress(line) for _ in range(min(height, 5_000))) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def read_boxes(root: Path, data: dict[str, str], split: dict[str, str]) -> None:
    """Reads a split of boxes."""
    config, where = DataConfig(root=str(root), **data), SplitConfig(**split)
    read_split(config, where, "data.train", boxes=True, masks=False)


def cases(root: Path) -> dict[str, Callable[[], object]]:
    """Writes the files; returns a reader for each."""
    readers: dict[str, Callable[[], object]] = {}
    for folder in ("images", "xml"):
        (root / folder).mkdir()
    (root / "images/a.png").write_bytes(png(4, 4))
    for name, content in XML.items():
        folder = root / "xml" / name
        folder.mkdir()
        (folder / "a.xml").write_text(content)
        voc = {"images": "images", "annotations": f"xml/{name}"}
        readers[f"VOC: {name}"] = lambda voc=voc: read_boxes(root, {"format": "voc"}, voc)
        cvat = {"images": "images", "annotations": f"xml/{name}/a.xml"}
        readers[f"CVAT: {name}"] = lambda cvat=cvat: read_boxes(root, {"format": "cvat"}, cvat)
    for name, content in JSON.items():
        (root / f"{name}.json").write_text(content)
        coco = {"images": "images", "annotations": f"{name}.json"}
        readers[f"COCO: {name}"] = lambda coco=coco: read_boxes(root, {"format": "coco"}, coco)
    for name, content in YAML.items():
        (root / f"{name}.yaml").write_text(content)
        yolo = {"annotations": f"{name}.yaml"}
        readers[f"YOLO: {name}"] = lambda yolo=yolo: read_boxes(root, {"format": "yolo"}, yolo)
    for name, size in (("many pixels", (20_000, 20_000)), ("absurd size", (2**31 - 1, 2**31 - 1))):
        path = root / f"{name}.png"
        path.write_bytes(png(*size))
        readers[f"image: {name}"] = lambda path=path: read_image(path)
        readers[f"mask: {name}"] = lambda path=path: MaskReading().read(path)
    return readers


def measure(reader: Callable[[], object]) -> tuple[str, float, float]:
    """Returns what came out, seconds of processor time and megabytes at the peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    try:
        reader()
        result = "read"
    except (DataError, ConfigError) as error:
        result = f"refused: {error}"
    except Exception:
        result = f"FAULT: {traceback.format_exc()}"
    seconds = time.process_time() - started
    return result, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Reads every file and prints the table."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, reader in cases(Path(folder)).items():
            current[0] = reader
            with multiprocessing.get_context("fork").Pool(1) as pool:
                result, seconds, megabytes = pool.apply(_measure_current)
            bad = result.startswith("FAULT") or seconds > _SECONDS or megabytes > _MEGABYTES
            faults += bad
            shown = (
                result.replace(folder, "").strip()[-400:]
                if bad
                else result.replace(folder, "")[:90]
            )
            print(
                f"{name:22} {seconds:6.2f} s {megabytes:6.0f} MB {'FAULT' if bad else ''} {shown}"
            )
    sys.exit(bool(faults))


# The reader of the process that is forked next.
current: list[Callable[[], object]] = [lambda: None]


def _measure_current() -> tuple[str, float, float]:
    return measure(current[0])


if __name__ == "__main__":
    main()
