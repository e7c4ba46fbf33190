"""Reading ahead: batches of images are read in a thread while the network runs."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from mbv2det.deploy.source import InputImage, Source, Unreadable

_BATCH_PIXELS = 48_000_000  # four photographs of 12 megapixels, 144 MB

Item = TypeVar("Item")


def read_batches(
    sources: Iterable[Source], batch_size: int
) -> Iterator[list[InputImage | Unreadable]]:
    """Yields the images of all sources in batches that stay within memory.

    Args:
        sources: Sources, one after the other.
        batch_size: Largest number of images in a batch; a batch of large images has fewer.
    """
    batch: list[InputImage | Unreadable] = []
    pixels = 0
    for item in chain.from_iterable(sources):
        new = item.pixels.size // 3 if isinstance(item, InputImage) else 0
        if batch and (len(batch) == batch_size or pixels + new > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += new
    if batch:
        yield batch


def read_ahead(items: Iterator[Item], ahead: int = 3) -> Generator[Item, None, None]:
    """Yields what an iterator yields, which runs in a thread of its own.

    One thread, because PIL decodes truncated files by a switch of the whole process.

    Args:
        items: Iterator to run.
        ahead: Number of items that are fetched before they are asked for.
    """

    def fetch() -> list[Item]:
        return list(islice(items, 1))  # empty at the end

    pool = ThreadPoolExecutor(1, "read")
    pending = deque(pool.submit(fetch) for _ in range(ahead))
    try:
        while fetched := pending.popleft().result():
            pending.append(pool.submit(fetch))
            yield fetched[0]
    finally:
        pool.shutdown(cancel_futures=True)
