import json

import numpy as np
import pytest
import runs
import torch
from PIL import Image

from mbv2det.checks.batch_pages import batch_page, samples_of
from mbv2det.cli import batches
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.structures import IGNORE_INDEX

BOTH = f"{runs.DETECTION}, {runs.SEGMENTATION}"
ROTATE = "--augment.transforms=[{class_path: albumentations.Rotate, init_args: {p: 1.0}}]"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(
        tmp_path_factory.mktemp("run"), num_train=8, num_val=2, heads=BOTH, stride=16
    )


def show(config, tmp_path, *arguments, check=True):
    out = f"--out={tmp_path / 'pages'}"
    return runs.run_command("show_batch", config, out, *arguments, check=check)


def first_batch(config, *arguments):
    parts = RunParts.read(SettingsParser("").parse([str(config), *arguments]))
    return parts, next(iter(parts.data().train_dataloader()))


def test_pages_are_those_of_the_batches_that_train_takes(config, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        batches, "batch_page", lambda batch, *rest: drawn.append(batch) or batch_page(batch, *rest)
    )
    done = show(config, tmp_path, "--batches=2", ROTATE)
    pages = sorted((tmp_path / "pages").iterdir())
    assert [page.name for page in pages] == ["batch_01.png", "batch_02.png"]
    assert str(pages[1]) in done.stderr
    _, expected = first_batch(config, ROTATE)
    assert torch.equal(drawn[0].images, expected.images)
    assert drawn[0].keys == expected.keys
    assert torch.equal(drawn[0].masks, expected.masks)


def test_a_page_has_the_pixels_of_every_image(config):
    parts, batch = first_batch(config)
    page = np.asarray(batch_page(batch, [], [f"{i}.png" for i in range(8)]))
    gap, (height, width) = 8, batch.images.shape[2:]
    for column, image in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
        left = gap + column * (max(width, 128) + gap)
        np.testing.assert_array_equal(page[gap : gap + height, left : left + width], image)
    assert len(parts.training) == 8


def test_boxes_masks_and_ignored_objects_are_drawn(config):
    parts, batch = first_batch(config)
    names = [str(i) for i in range(8)]
    plain = np.asarray(batch_page(batch, [], names))
    batch.boxes.ignore[:] = batch.boxes.valid
    batch.masks[1] = IGNORE_INDEX
    tasks = batches.trainable(
        batches.build_tasks(parts.info.model, parts.info.eval, parts.info.label_maps)
    )
    drawn = np.asarray(batch_page(batch, tasks, names))
    grey = (drawn == 150).all(axis=2).sum(), (plain == 150).all(axis=2).sum()
    assert grey[0] > grey[1] + 20
    # The second image is pale all over, as its whole mask is ignored.
    left = 8 + 128 + 8 if drawn.shape == plain.shape else drawn.shape[1] // 4
    assert drawn[20:90, left + 20 : left + 90].mean() > plain[20:90, 164:234].mean() + 20


def test_padding_of_boxes_is_left_out_and_unannotated_images_stay_so(config):
    _, batch = first_batch(config)
    counts = [len(sample.instances) for sample in samples_of(batch)]
    assert counts == batch.boxes.valid.sum(dim=1).tolist()
    batch.boxes.annotated[2] = False
    assert samples_of(batch)[2].instances is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batches=0", "--batches: expected at least 1, got 0"),
        ("--batches=many", "batches"),
        ("--augment.transforms=[{class_path: albumentations.Nothing}]",
         "augment.transforms[0].class_path: expected a transform of albumentations"),
        ("--data.batch_size=9", "data.batch_size: expected at most the 8 training images"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(config, tmp_path, argument, message):
    done = show(config, tmp_path, argument, check=False)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
    assert message in line


def test_out_that_is_a_file_is_one_line(config, tmp_path):
    (tmp_path / "pages").write_text("")
    done = show(config, tmp_path, check=False)
    assert done.returncode == 2
    assert "--out: expected a folder" in done.stderr


def test_fewer_batches_than_asked_for_are_said(config, tmp_path):
    done = show(config, tmp_path, "--batches=5")
    assert "an epoch has 2 batches, 5 were asked for" in done.stderr


def test_data_without_boxes_in_one_image(config, tmp_path):
    path = config.parent / "shapes/annotations/instances_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": content["annotations"][:4]}))
    try:
        show(config, tmp_path)
    finally:
        path.write_text(json.dumps(content))
    with Image.open(tmp_path / "pages/batch_01.png") as page:
        assert page.width > 4 * 128
