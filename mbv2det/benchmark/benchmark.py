"""A benchmark of files and peers: loads them, times them in rounds, and reports."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mbv2det.atomic_write import write_json
from mbv2det.benchmark.memory import peak_memory
from mbv2det.benchmark.plot import write_plot
from mbv2det.benchmark.report import Result, document, load_of_machine, print_tables
from mbv2det.benchmark.rounds import batch_of, time_in_rounds
from mbv2det.benchmark.subject import Images, Setup
from mbv2det.console import log
from mbv2det.deploy.inputs import find_sources
from mbv2det.deploy.source import Unreadable
from mbv2det.errors import DataError


def run_benchmark(
    setups: Sequence[Setup],
    images: Images,
    *,
    rounds: int,
    warm_up: int,
    memory: bool,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Times networks side by side and prints the results.

    Args:
        setups: Networks, and how each is run; ratios are to the first.
        images: Images to predict.
        rounds: Number of rounds that are timed.
        warm_up: Number of rounds before them that are not.
        memory: Whether to measure the peak memory of each network in a process of its own.
        out: JSON file to write; None for none.
        plot: Picture of accuracy against latency to write; None for none.

    Raises:
        ConfigError: If a network cannot be loaded, or `plot` is given and cannot be drawn.
    """
    subjects = [setup.load() for setup in setups]
    before = load_of_machine()
    times = time_in_rounds(setups, subjects, images, rounds, warm_up)
    loads = before, load_of_machine()
    facts = [subject.facts for subject in subjects]
    peaks = [
        peak_memory(setup, batch_of(images, setup.batch, 0)) if memory else None for setup in setups
    ]
    results = [Result(*parts) for parts in zip(setups, facts, times, peaks, strict=True)]
    content = document(results, loads, rounds)
    print_tables(content)
    if out is not None:
        write_json(out, content)
        log(f"results: {out}")
    if plot is not None:
        write_plot(content["results"], plot)
        log(f"plot: {plot}")


def read_images(inputs: Sequence[Path]) -> Images:
    """Reads images, videos, and folders of them.

    Raises:
        ConfigError: If an input does not exist, or there is no image.
        DataError: If a file cannot be read.
    """
    images = []
    for source in find_sources([str(path) for path in inputs]):
        for image in source:
            if isinstance(image, Unreadable):
                raise DataError(image.reason)
            images.append(np.array(image.pixels))  # PyTorch warns of arrays that are read-only
    return images


def made_image(size: tuple[int, int]) -> Images:
    """Returns one image of soft coloured areas with a little noise, always the same.

    Args:
        size: (height, width) in pixels.
    """
    rng = np.random.default_rng(0)
    height, width = size
    rows, columns = np.linspace(0, 4, height), np.linspace(0, 6, width)
    phases = rng.uniform(0, 6, (2, 3))
    waves = np.sin(rows[:, None, None] + phases[0]) + np.sin(columns[:, None] + phases[1])
    noise = rng.normal(0, 8, (height, width, 3))
    return [(128 + 50 * waves + noise).clip(0, 255).astype(np.uint8)]
