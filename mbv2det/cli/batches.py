"""The pages that `show_batch` writes."""

from itertools import islice
from pathlib import Path

from mbv2det.build import build_tasks, trainable
from mbv2det.checks.batch_pages import batch_page
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.errors import ConfigError


def show_batches(settings: Settings) -> list[Path]:
    """Draws the first batches of a training.

    Returns:
        The files of the pages.

    Raises:
        ConfigError: For a number of batches below 1, or a folder that cannot be made.
    """
    count, folder = settings.options.batches, Path(settings.options.out)
    if count < 1:
        raise ConfigError(f"--batches: expected at least 1, got {count}")
    parts = RunParts.read(settings)
    tasks = trainable(build_tasks(parts.info.model, parts.info.eval, parts.info.label_maps))
    loader = parts.data().train_dataloader()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: expected a folder, got {folder} ({error.strerror})") from None
    names = [parts.training.path(index).name for index in range(len(parts.training))]
    pages = []
    for number, batch in enumerate(islice(loader, count), 1):
        pages.append(folder / f"batch_{number:02d}.png")
        batch_page(batch, tasks, names).save(pages[-1])
    if len(pages) < count:
        log(f"--batches: an epoch has {len(pages)} batches, {count} were asked for")
    log(f"pages: {', '.join(str(page) for page in pages)}")
    return pages
