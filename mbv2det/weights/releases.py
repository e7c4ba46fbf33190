"""Archives that TensorFlow published, by name: their addresses, and checksums where one is known.

A name works with the date of its release and without: `ssdlite_mobilenet_v2_coco_2018_05_09`,
`ssdlite_mobilenet_v2_coco`.

Source: addresses of the Object Detection API's, DeepLab's and slim's pages of pretrained models;
checksums of Open Model Zoo's `model.yml`, which lists the same archives.
"""

import difflib
import re

ARCHIVES = (".tar.gz", ".tgz", ".tar")
"""Endings of the names of archives."""

_TENSORFLOW = "https://download.tensorflow.org/models"
_SLIM = "https://storage.googleapis.com/mobilenet_v2/checkpoints"
_ADDRESSES = (
    f"{_TENSORFLOW}/object_detection/ssdlite_mobilenet_v2_coco_2018_05_09.tar.gz"
    "#sha256=542445cce834dbfbb7df1991425d475e85a2d7ec68c60a4f262bb18aac10c8b2",
    f"{_TENSORFLOW}/deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz"
    "#sha256=cd506941e4f88fd053903913761df2e76ea00c01079cecfd35855304a4a5fb48",
    f"{_TENSORFLOW}/deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
    f"{_TENSORFLOW}/deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
    f"{_TENSORFLOW}/deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01.tar.gz",
    f"{_SLIM}/mobilenet_v2_1.0_224.tgz"
    "#sha256=318084bc1b63d6d7b854553e09cdf77078b1c0168be27c59a0d44253b5ed49dc",
    f"{_SLIM}/mobilenet_v2_1.4_224.tgz"
    "#sha256=a20d0c8d698502dc6a620528871c97a588885df7737556243a3412b39fce85e0",
    f"{_TENSORFLOW}/mobilenet_v1_2018_08_02/mobilenet_v1_1.0_224.tgz"
    "#sha256=2fadeabb9968ec6833bee903900dda6e61b3947200535874ce2fe42a8493abc0",
)
_DATE = re.compile(r"_\d{4}_\d{2}_\d{2}$")


def _name(address: str) -> str:
    file = address.partition("#")[0].rpartition("/")[2]
    return next(file.removesuffix(s) for s in ARCHIVES if file.endswith(s))


RELEASES = {_name(address): address for address in _ADDRESSES}
"""Address of each archive by its name, with its checksum as `#sha256=...` where one is known."""


def release_address(name: str) -> str | None:
    """Returns the address of a release; None if there is none of this name.

    Args:
        name: Name of the archive without its suffix, with the date at its end or without.
    """
    undated = {_DATE.sub("", full): address for full, address in RELEASES.items()}
    return RELEASES.get(name) or undated.get(name)


def similar_release(name: str) -> str:
    """Returns a question that names the release most like `name`; empty if none is like it."""
    near = difflib.get_close_matches(name, RELEASES, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
