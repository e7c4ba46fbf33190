"""Times the network of a demo in Chromium beside native ONNX Runtime, with the same threads.

python tests/benchmarks/browser_speed.py model.safetensors [--threads 1,2] [--size 480x640]

Both run the same file on the same random image. They take turns, so that what else the machine does
slows both; the figures are medians.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from playwright.sync_api import sync_playwright

from mbv2det.demo.server import HOST, demo_server
from mbv2det.demo.site import write_site

LOAD = """async threads => {
  const { Engine } = await import("./engine.js");
  const description = await (await fetch("model.json")).json();
  const network = await (await fetch(description.file)).arrayBuffer();
  globalThis.engine = new Engine();
  return (await engine.load(description, network, threads)).threads;
}"""
RUN = """async ({ values, width, height }) => {
  globalThis.image ??= new ImageData(Uint8ClampedArray.from(values), width, height);
  return (await engine.run(image)).milliseconds.network;
}"""


def native(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Returns a session as `mbv2det predict` opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(page, folder: Path, threads: int, image: np.ndarray, rounds: int) -> str:
    """Returns a line with both medians and their ratio."""
    session = native(folder / "model.onnx", threads)
    batch = image[..., :3].transpose(2, 0, 1)[None].copy()
    got = page.evaluate(LOAD, threads)
    assert got == threads, f"expected {threads} threads in the browser, got {got}"
    height, width = image.shape[:2]
    sent = {"values": image.ravel().tolist(), "width": width, "height": height}
    times: dict[str, list[float]] = {"native": [], "browser": []}
    for _ in range(rounds):
        started = time.perf_counter()
        session.run(None, {"images": batch})
        times["native"].append(1000 * (time.perf_counter() - started))
        times["browser"].append(page.evaluate(RUN, sent))
        sent["values"] = []  # the page keeps the image
    warm = {name: statistics.median(values[rounds // 5 :]) for name, values in times.items()}
    ratio = warm["browser"] / warm["native"]
    return (
        f"{threads} thread(s): browser {warm['browser']:.1f} ms, native {warm['native']:.1f} ms, "
        f"ratio {ratio:.1f}"
    )


def main() -> None:
    """Prints a line for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    image[..., 3] = 255
    with tempfile.TemporaryDirectory() as out, sync_playwright() as play:
        folder = Path(out)
        write_site(options.weights, folder)
        server = demo_server(folder, 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        print(f"Chromium {browser.version}, ONNX Runtime {onnxruntime.__version__}")
        for threads in map(int, options.threads.split(",")):
            page = browser.new_page()
            # Any page of the server will do: the demo itself would load the network twice.
            page.goto(f"http://{HOST}:{server.server_port}/runtime/LICENSE.txt")
            page.evaluate("history.replaceState(null, '', '/')")
            print(compare(page, folder, threads, image, options.rounds))
            page.close()
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
