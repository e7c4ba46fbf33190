"""Measures a training step on a CPU beside that of torchvision's SSD on the same backbone.

    python tools/studies/training_speed.py CONFIG --backbone.weights FILE [--rounds 3]

CONFIG gives data, batch size and image size of a detector. The subjects take turns, each in a
process of its own with one thread, since memory settings hold for a process: mbv2det as its command
`train` runs it, mbv2det without its memory settings, mbv2det compiled (--compile), and torchvision.
All run in bfloat16 where the processor multiplies it. A step is forward, loss, backward and
optimiser on batches that were read before; the loader is measured apart. Prints milliseconds of CPU
and wall time an image.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import peer
import torch

from mbv2det.augment_config import AugmentConfig
from mbv2det.build import build_model, build_tasks, label_maps_of, trainable
from mbv2det.cli.huge_pages import use_huge_pages
from mbv2det.console import one_line_errors
from mbv2det.data.datamodule import DenseData
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError
from mbv2det.structures import Batch
from mbv2det.training.optim import make_optimizer
from mbv2det.training.trainer import default_precision

_SUBJECTS = ("mbv2det", "mbv2det, memory as it is", "torchvision")
_COMPILED = "mbv2det, compiled"
_SUBJECT = "MBV2DET_SUBJECT"  # environment variable of a measuring process
_WARM_UP, _STEPS = 3, 8

Loss = Callable[[Batch], torch.Tensor]


def our_loss(
    arguments: list[str], data: DenseData, compiled: bool
) -> tuple[Loss, torch.optim.Optimizer]:
    """Returns the loss of a batch, and the optimiser, of mbv2det."""
    settings = peer.parse(__doc__ or "", arguments)
    config, spec = settings.config, data.preprocessor.spec
    assert data.train is not None
    labels = label_maps_of(data.train, config.tasks)
    model = build_model(config.model(), spec, labels).train()
    tasks = trainable(build_tasks(config.model(), config.eval.thresholds(), labels))
    optimizer = make_optimizer(model, config.optim)
    network = torch.compile(model) if compiled else model

    def loss(batch: Batch) -> torch.Tensor:
        outputs = network(batch.images)
        return torch.stack([t.loss(outputs[t.name], batch).total() for t in tasks]).sum()

    return loss, optimizer


def torchvision_loss(arguments: list[str], data: DenseData) -> tuple[Loss, torch.optim.Optimizer]:
    """Returns the loss of a batch, and the optimiser, of torchvision."""
    import peer_ssdlite

    config = peer.parse(__doc__ or "", arguments).config
    assert data.train is not None
    assert data.train.objects is not None
    classes = len(data.train.objects.label_map)
    model = peer_ssdlite.build(classes, config.data.size, str(config.backbone.weights)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def loss(batch: Batch) -> torch.Tensor:
        images = list(batch.images.float() / 255)
        return sum(model(images, peer_ssdlite.targets(batch)).values())

    return loss, optimizer


def measure(subject: str, arguments: list[str]) -> None:
    """Prints CPU and wall milliseconds an image, of a step and of the loader."""
    torch.set_num_threads(1)
    if subject in ("mbv2det", _COMPILED):
        keep_freed_memory()
    data = peer.make_data(peer.parse(__doc__ or "", arguments), AugmentConfig())
    data.num_workers = 0
    loader = iter(data.train_dataloader())
    batches: list[Any] = []
    begin = time.process_time()
    while len(batches) < _WARM_UP + _STEPS:
        batches.append(next(loader))
    loading = (time.process_time() - begin) / sum(map(len, batches))
    if subject == "torchvision":
        loss, optimizer = torchvision_loss(arguments, data)
    else:
        loss, optimizer = our_loss(arguments, data, compiled=subject == _COMPILED)
    bfloat16 = default_precision("cpu") == "bf16-mixed"
    begins = 0.0, 0.0
    for number, batch in enumerate(batches):
        if number == _WARM_UP:
            begins = time.process_time(), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            value = loss(batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    images = sum(map(len, batches[_WARM_UP:]))
    cpu, wall = time.process_time() - begins[0], time.perf_counter() - begins[1]
    print("RESULT", *(1000 * s for s in (cpu / images, wall / images, loading)))


@one_line_errors
def main() -> None:
    """Runs the study."""
    arguments = sys.argv[1:]
    if _SUBJECT in os.environ:
        measure(os.environ[_SUBJECT], arguments)
        return
    rounds = 3
    subjects = [*_SUBJECTS]
    if "--compile" in arguments:
        arguments.remove("--compile")
        subjects.append(_COMPILED)
    if "--rounds" in arguments:
        at = arguments.index("--rounds")
        rounds = int(arguments[at + 1])
        del arguments[at : at + 2]
    results: dict[str, list[list[float]]] = {subject: [] for subject in subjects}
    for _ in range(rounds):
        for subject in subjects:
            results[subject].append(_run(subject, arguments))
    print("ms an image: CPU of a step, wall of a step, CPU of the loader")
    for subject, values in results.items():
        medians = [statistics.median(column) for column in zip(*values, strict=True)]
        print(f"{subject:26}", *(f"{median:8.1f}" for median in medians))


def _run(subject: str, arguments: list[str]) -> list[float]:
    environment = os.environ | {_SUBJECT: subject}
    if subject in ("mbv2det", _COMPILED):
        use_huge_pages()
        environment = os.environ | {_SUBJECT: subject}
    else:
        environment["THP_MEM_ALLOC_ENABLE"] = "0"
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise ConfigError(f"{subject}: no result; {done.stderr[-500:]}")
    return [float(value) for value in lines[-1].split()[1:]]


if __name__ == "__main__":
    main()
