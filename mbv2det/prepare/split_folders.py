"""The splits of a data set by the names of its folders."""

from collections.abc import Mapping, Sequence

from mbv2det.errors import DataError
from mbv2det.prepare.pairing import Pairing
from mbv2det.prepare.split_words import split_of_path, with_train

_SEVERAL = 0.05  # share of the files from which a second folder is a data set of its own


def largest_of_each_split(pairings: Sequence[Pairing]) -> tuple[dict[str, Pairing], list[str]]:
    """Returns the largest pair of folders for each split, and lines about those left out.

    Without folders named after splits, the largest one is the split train.

    Args:
        pairings: At least one pair of folders, the largest first.

    Raises:
        DataError: If several pairs of folders are of the same split.
    """
    chosen: dict[str, Pairing] = {}
    left_out = []
    total = sum(map(len, pairings))
    for pairing in pairings:
        split = split_of_path(pairing.images) or split_of_path(pairing.annotations) or "train"
        if split not in chosen:
            chosen[split] = pairing
        elif len(pairing) >= _SEVERAL * total:
            raise DataError(
                f"expected one folder of images for each split, found {chosen[split].images} "
                f"({len(chosen[split])} images) and {pairing.images} ({len(pairing)}): give one "
                "of them as ROOT, or put both into one folder"
            )
        else:
            left_out.append(f"left out: {pairing.annotations} ({len(pairing)} files)")
    return with_train(chosen), left_out


def describe(what: str, splits: Mapping[str, Pairing]) -> list[str]:
    """Returns a line for each split with its folders."""
    lines = []
    for name, pairing in splits.items():
        folders = dict.fromkeys((pairing.annotations, pairing.images))
        lines.append(f"{name}: {len(pairing)} {what}, in {' and '.join(folders)}")
    return lines


def unannotated(images: Sequence[str], splits: Mapping[str, Pairing]) -> dict[str, list[str]]:
    """Returns the images of each split that have no annotation, if there are any.

    Args:
        images: Image files, relative to the root; those that annotate others count as annotated.
        splits: What was found for each split.
    """
    found = {}
    for name, pairing in splits.items():
        known = {*pairing.matches, *pairing.matches.values()}
        folder = "" if pairing.images == "." else f"{pairing.images}/"
        found[name] = [i for i in images if i.startswith(folder) and i not in known]
    return {name: left for name, left in found.items() if left}


def describe_unannotated(left_out: Mapping[str, Sequence[str]], remedy: str = "") -> list[str]:
    """Returns a line for each split with images that are left out.

    Args:
        left_out: Images without annotation of each split.
        remedy: What to do about it.
    """
    return [
        f"{name}: {len(images)} images without annotation are left out, such as {images[0]}{remedy}"
        for name, images in left_out.items()
    ]


NO_OBJECTS = "; data.missing_labels: no_objects takes them for images without objects"
