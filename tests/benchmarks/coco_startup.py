"""Start-up with annotations of COCO's size, beside pycocotools, in one run.

    python tests/benchmarks/coco_startup.py [--folder /tmp/large_coco] [--rounds 3]

Writes the annotation file (530 MB) and empty image files on first use. Every reading takes place in
a process of its own; rounds are interleaved. Prints the median times and the largest memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from large_coco import write_large_coco

READERS = ("pycocotools", "first start", "later start", "first start, masks", "later start, masks")
READ = """
import json, resource, sys, time
from pathlib import Path
name, folder = sys.argv[1], Path(sys.argv[2])
path, images = folder / "instances.json", folder / "images"
if name == "pycocotools":
    from pycocotools.coco import COCO
    read = lambda: COCO(path)
else:
    from mbv2det.data.coco import read_coco
    read = lambda: read_coco(path, images, masks="masks" in name)
wall, cpu = time.perf_counter(), time.process_time()
result = read()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("RESULT", json.dumps([wall, cpu, peak / 2**20]))
"""


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/large_coco"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    prepare(arguments.folder)
    measured: dict[str, list[list[float]]] = {name: [] for name in READERS}
    for _ in range(arguments.rounds):
        for name in READERS:
            if name.startswith("first"):
                for packed in arguments.folder.glob("*.packed"):
                    packed.unlink()
            measured[name].append(read(name, arguments.folder))
    print(f"{'reader':20} {'wall':>8} {'CPU':>8} {'peak memory':>12}")
    for name, rows in measured.items():
        wall, cpu = (statistics.median(row[i] for row in rows) for i in range(2))
        peak = max(row[2] for row in rows)
        print(f"{name:20} {wall:6.2f} s {cpu:6.2f} s {peak:9.2f} GiB")


def prepare(folder: Path) -> None:
    """Writes the annotation file and an empty file for every image, unless they are there."""
    images, path = folder / "images", folder / "instances.json"
    if path.is_file():
        return
    images.mkdir(parents=True, exist_ok=True)
    write_large_coco(path.with_suffix(".part"))
    for record in json.loads(path.with_suffix(".part").read_bytes())["images"]:
        (images / record["file_name"]).touch()
    path.with_suffix(".part").rename(path)


def read(name: str, folder: Path) -> list[float]:
    """Returns wall time and processor time in seconds, and peak memory in GiB, of one reading."""
    done = subprocess.run(
        [sys.executable, "-c", READ, name, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT "))


if __name__ == "__main__":
    main()
