import dataclasses
import gc
import json
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mbv2det.data import coco_cache
from mbv2det.data.annotations import Annotations
from mbv2det.data.coco import read_coco
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.objects import Objects
from mbv2det.data.outlines import Outlines
from mbv2det.errors import DataError
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import SampleKey

STAR = [[4, 3, 30, 6, 12.5, 25.25], [1, 1, 9, 1, 9, 9, 1, 9]]
RUNS = {"size": [32, 48], "counts": [100, 200, 300, 400, 32 * 48 - 1000]}


@pytest.fixture
def packing(monkeypatch, tmp_path):
    """Packs files of any size; caches of the user are in the test's folder."""
    monkeypatch.setattr(coco_cache, "PACKED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def no_parsing(monkeypatch):
    """Returns a function after whose call a file that is parsed is a failure."""

    def forbid():
        def fail(*args, **kwargs):
            raise AssertionError("the file was read again")

        monkeypatch.setattr(coco_cache, "parse_content", fail)

    return forbid


@pytest.fixture
def split(tmp_path, make_coco):
    """Outlines of every kind, gaps in the ids, values in other types, and faults."""
    objects = [
        {"id": 1, "image_id": 40, "category_id": 90, "bbox": [4, 5, 20, 10], "area": 150.5},
        {"id": 2, "image_id": "7", "category_id": 3.0, "bbox": [1.5, 2, 80, 30.5]},
        {"id": 3, "image_id": 12, "category_id": 18, "iscrowd": "1", "segmentation": RUNS},
        {"id": 4, "image_id": 40, "category_id": 3, "bbox": [10, 8, 6, 6], "segmentation": STAR},
        {"id": 5, "image_id": 52, "category_id": 18, "segmentation": [[6, 6, 20, 30, 6, 8]]},
        {"id": 6, "image_id": 7, "category_id": 18, "bbox": [1, 1, 2, 2], "segmentation": [[1, 2]]},
    ]
    return make_coco(tmp_path, annotations=objects)


def values(holder, prefix=""):
    for field in dataclasses.fields(holder):
        value = getattr(holder, field.name)
        if isinstance(value, Objects | InstanceMasks | Outlines | FaultCounts):
            yield from values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def assert_equal(one, other):
    pairs = list(zip(values(one), values(other), strict=True))
    assert len(pairs) >= 14
    for (name, a), (_, b) in pairs:
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
        else:
            assert a == b, name


def packed_files(folder):
    return sorted(path.name for path in folder.rglob("*.packed"))


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("masks", [False, True])
def test_second_start_gives_the_same_without_reading_the_json(split, no_parsing, masks):
    first = read_coco(*split, masks=masks)
    no_parsing()
    second = read_coco(*split, masks=masks)
    assert_equal(first, second)
    if masks:
        for index in range(len(first)):
            np.testing.assert_array_equal(first.mask(index), second.mask(index))


@pytest.mark.usefixtures("packing")
def test_file_with_outlines_serves_a_start_without_masks(split, no_parsing):
    read_coco(*split, masks=True)
    no_parsing()
    assert_equal(read_coco(*split), read_coco(*split))


@pytest.mark.usefixtures("packing")
def test_file_without_outlines_does_not_serve_masks(split):
    read_coco(*split)
    assert read_coco(*split, masks=True).masks is not None
    assert packed_files(split[0].parent) == [
        "instances.json.boxes.packed",
        "instances.json.outlines.packed",
    ]


@pytest.mark.usefixtures("packing")
def test_changed_annotation_of_the_same_size_and_time_is_read_again(split):
    path, images = split
    before = read_coco(path, images)
    stat = path.stat()
    path.write_text(path.read_text().replace("150.5", "151.5"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = read_coco(path, images)
    assert 150.5 in before.objects.areas
    assert 151.5 in after.objects.areas
    assert packed_files(path.parent) == ["instances.json.boxes.packed"]


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing array", "other version"])
def test_damaged_packed_file_is_read_again(split, damage):
    path, images = split
    expected = read_coco(path, images, masks=True)
    packed = path.with_name("instances.json.outlines.packed")
    content = packed.read_bytes()
    if damage == "cut":
        packed.write_bytes(content[:-50])
    elif damage == "empty":
        packed.write_bytes(b"")
    elif damage == "text":
        packed.write_text("no arrays")
    else:
        arrays = load_file(packed)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        if damage == "missing array":
            del arrays["boxes"]
        else:
            metadata["version"] = "0"
        save_file(arrays, packed, metadata)
    assert_equal(read_coco(path, images, masks=True), expected)
    assert len(packed.read_bytes()) == len(content)  # the order of its keys is not fixed


@pytest.mark.usefixtures("packing")
def test_packed_file_goes_to_the_users_caches_where_the_folder_cannot_be_written(
    tmp_path, split, no_parsing, monkeypatch
):
    path, images = split
    write = coco_cache.atomic_write

    def refuse_beside(place):
        if place.parent == path.parent:
            raise PermissionError(13, "read-only")
        return write(place)

    monkeypatch.setattr(coco_cache, "atomic_write", refuse_beside)
    first = read_coco(path, images)
    assert [p.parent for p in tmp_path.rglob("*.packed")] == [tmp_path / "user/mbv2det"]
    no_parsing()
    assert_equal(first, read_coco(path, images))


@pytest.mark.usefixtures("packing")
def test_no_writable_place_is_no_error(split, monkeypatch):
    def refuse(place):
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(coco_cache, "atomic_write", refuse)
    assert_equal(read_coco(*split), read_coco(*split))
    assert packed_files(split[0].parent) == []


def test_small_files_are_not_packed(split):
    read_coco(*split)
    assert packed_files(split[0].parent) == []


@pytest.mark.usefixtures("packing")
def test_refused_annotation_is_not_packed(tmp_path, make_coco):
    path, images = make_coco(tmp_path, categories=[])
    with pytest.raises(DataError, match="at least one class"):
        read_coco(path, images)
    assert packed_files(tmp_path) == []


def test_hash_is_that_of_the_whole_content(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_cache, "_PART", 10)
    file = tmp_path / "a"
    digests = set()
    for content in (b"", b"x" * 25, b"x" * 24 + b"y", b"y" + b"x" * 24, b"x" * 30, b"x" * 10):
        file.write_bytes(content)
        digests.add(coco_cache._digest(file))
    assert len(digests) == 6


def private_megabytes():
    """Returns the memory that belongs to this process alone."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)
    return sum(map(int, found)) / 1000


def read_epoch(dataset, count, queue):
    """Reads all annotations, as a worker does; reports its memory early on and at the end."""
    annotations = dataset.annotations
    early = None
    collate([dataset[SampleKey(0, 0)]])
    for index in range(count):
        annotations.instances(index, (30, 40))
        annotations.mask(index)
        annotations.path(index)
        if index == count // 50:
            early = private_megabytes()
    queue.put((early, private_megabytes()))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_a_worker_does_not_grow_over_an_epoch(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    count, each = 8_000, 7
    records = [{"id": i, "file_name": "d.png", "height": 30, "width": 40} for i in range(count)]
    objects = [
        {"id": n, "image_id": n // each, "category_id": 3, "bbox": [1, 2, 9, 9]}
        | {"segmentation": [[2.5, 3, 20, 4, 9, 20, 5, 8]]}
        for n in range(count * each)
    ]
    path, images = make_coco(tmp_path, images=records, annotations=objects)
    split = read_coco(path, images, masks=True)
    del records, objects
    assert isinstance(split, Annotations)
    dataset = AnnotatedImages(split, Preprocessor(PreprocessSpec((32, 32))))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=read_epoch, args=(dataset, count, queue))
    gc.freeze()  # else a collection in the worker copies the objects of the tests
    worker.start()
    gc.unfreeze()
    early, late = queue.get(timeout=120)
    worker.join()
    # As one Python object a box, the 56,000 objects would be copied: more than 20 MB.
    assert late - early < 4
