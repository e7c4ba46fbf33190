"""Timing in rounds: every network predicts one batch in each round, one after the other.

So a change in the load of the machine meets all of them alike, and their ratios stay comparable.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mbv2det.benchmark.subject import STAGES, Images, Setup, Subject
from mbv2det.console import track

TOTAL = "total"


@dataclass
class Times:
    """The seconds of a network in every round.

    Attributes:
        wall: Wall time of a batch: in total and of each stage.
        cpu: CPU time of a batch, of all threads.
    """

    wall: dict[str, list[float]] = field(
        default_factory=lambda: {stage: [] for stage in (TOTAL, *STAGES)}
    )
    cpu: list[float] = field(default_factory=list)


def time_in_rounds(
    setups: Sequence[Setup], subjects: Sequence[Subject], images: Images, rounds: int, warm_up: int
) -> list[Times]:
    """Times networks side by side.

    Args:
        setups: How each network is run.
        subjects: The networks, loaded, in the same order.
        images: Images to take turns with.
        rounds: Number of rounds that are timed.
        warm_up: Number of rounds before them that are not.

    Returns:
        The times of each network.
    """
    times = [Times() for _ in subjects]
    threads = torch.get_num_threads()
    try:
        for turn in track(range(-warm_up, rounds), "Timing"):
            for setup, subject, taken in zip(setups, subjects, times, strict=True):
                torch.set_num_threads(setup.threads)
                batch = batch_of(images, setup.batch, turn)
                _time_batch(subject, batch, taken if turn >= 0 else Times())
    finally:
        torch.set_num_threads(threads)
    return times


def batch_of(images: Images, size: int, turn: int) -> Images:
    """Returns the images of a turn: the next ones, from the first on again after the last."""
    return [images[(turn * size + i) % len(images)] for i in range(size)]


def _time_batch(subject: Subject, batch: Images, times: Times) -> None:
    cpu, start = time.process_time(), time.perf_counter()
    stages = subject.run(batch)
    times.wall[TOTAL].append(time.perf_counter() - start)
    times.cpu.append(time.process_time() - cpu)
    for stage in STAGES:
        times.wall[stage].append(stages[stage])


def median_ratio(times: Times, first: Times, images: int, images_of_first: int) -> float:
    """Returns the median over the rounds of the time per image relative to another network's.

    Args:
        times: Times of the network.
        first: Times of the network to compare with.
        images: Images in a batch of the network.
        images_of_first: Images in a batch of the other.
    """
    one, other = np.array(times.wall[TOTAL]) / images, np.array(first.wall[TOTAL]) / images_of_first
    return float(np.median(one / other))
