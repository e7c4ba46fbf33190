"""CVAT's XML files ("CVAT for images")."""

from collections import Counter
from collections.abc import Iterator

from mbv2det.config import SplitConfig
from mbv2det.data.cvat import image_names
from mbv2det.errors import DataError
from mbv2det.prepare.file_kinds import kind_of_xml, sampled
from mbv2det.prepare.inventory import Inventory
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.named_images import folder_of_names
from mbv2det.prepare.split_words import split_of, split_of_path, with_train


def find_cvat(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with CVAT's XML files."""
    xml = sampled(inventory.of((".xml",)))
    files = [file for file in xml if kind_of_xml(inventory.root / file) == "cvat"]
    if not files:
        return
    splits: dict[str, SplitConfig] = {}
    reasons: list[str] = []
    count = 0
    for file in files:
        subset_of = image_names(inventory.root / file)
        images = folder_of_names(inventory, list(subset_of), file)
        if images is None:
            raise DataError(
                f"{inventory.root / file}: expected its {len(subset_of)} images below "
                f"{inventory.root}, found no folder that has them; the first is "
                f"{next(iter(subset_of), None)!r}"
            )
        for name, split in _splits(file, images, subset_of):
            if name in splits:
                raise DataError(
                    f"expected one CVAT file for {name}, found {splits[name].annotations} and "
                    f"{file}; give a folder with one of them as ROOT"
                )
            splits[name] = split
        count += len(subset_of)
        reasons.append(
            f"{file} has <annotations> of {len(subset_of)} images, which are in {images}"
        )
        subsets = Counter(subset or "none" for subset in subset_of.values())
        reasons.append(f"subsets: {', '.join(f'{n} {name}' for name, n in subsets.items())}")
    yield Layout(
        inventory.root,
        "cvat",
        with_train(splits),
        boxes=True,
        masks=True,
        num_files=count,
        reasons=tuple(reasons),
    )


def _splits(file: str, images: str, subset_of: dict[str, str]) -> Iterator[tuple[str, SplitConfig]]:
    """Yields the splits of a file: its subsets, if they are named after splits, or the file."""
    subsets = {split_of(subset): subset for subset in subset_of.values()}
    if len(subsets) > 1 and None not in subsets:
        for name, subset in subsets.items():
            yield str(name), SplitConfig(annotations=file, images=images, split=subset)
    else:
        yield split_of_path(file) or "train", SplitConfig(annotations=file, images=images)
