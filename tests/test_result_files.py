import csv
import json

import torch

from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX, Classification, Detections, SegmentationMap
from mbv2det.tasks.classification_files import TopClassesFile
from mbv2det.tasks.detection_files import CocoResults, DetectionTable, YoloLabels, coco_records
from mbv2det.tasks.result_files import GrowingFile, ImageInfo, json_list
from mbv2det.tasks.segmentation_files import IndexMaskFiles
from mbv2det.tasks.task import Prediction

DETECTIONS = Detections(
    torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 5.0, 5.0]]),
    torch.tensor([0.9, 0.1]),
    torch.tensor([1, 0]),
)
LABELS = LabelMap(("cat", "dog, wild"), (7, 90))
IMAGE = ImageInfo("a/1", "a/1.jpg", (80, 100))
FRAME = ImageInfo("clip.mp4/000003", "clip.mp4", (80, 100), frame=3)
PREDICTION = Prediction(detection=DETECTIONS)


def write(kind, folder, *images):
    files = kind(folder, LABELS, 0.3)
    for image in images:
        files.add(image, PREDICTION)
    return files


def test_results_are_xywh_with_the_data_sets_own_ids_and_names():
    numbered = ImageInfo("000139", "000139.jpg", (80, 100), number=139)
    first, second = coco_records(numbered, DETECTIONS, LABELS)
    assert first == {
        "image_id": 139, "file_name": "000139.jpg", "category_id": 90,
        "category_name": "dog, wild", "bbox": [10.0, 20.0, 40.0, 20.0], "score": 0.9,
    }  # fmt: skip
    assert second["category_id"] == 7
    assert coco_records(IMAGE, DETECTIONS, LABELS)[0]["image_id"] == "a/1"


def test_results_of_a_video_have_the_number_of_the_frame(tmp_path):
    write(CocoResults, tmp_path, FRAME).close()
    records = json.loads((tmp_path / "results.json").read_text())
    assert [(r["file_name"], r["frame"]) for r in records] == [("clip.mp4", 3)] * 2


def test_the_table_has_corners_of_the_detections_that_are_shown(tmp_path):
    write(DetectionTable, tmp_path, IMAGE, FRAME).close()
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    corners = {"x_min": "10.0", "y_min": "20.0", "x_max": "50.0", "y_max": "40.0"}
    shared = {"class": "dog, wild", "score": "0.9", **corners}
    assert rows == [
        {**shared, "file_name": "a/1.jpg", "frame": "", "image_id": "a/1"},
        {**shared, "file_name": "clip.mp4", "frame": "3", "image_id": "clip.mp4/000003"},
    ]


def test_yolo_labels_are_centres_and_sizes_as_fractions_of_the_image(tmp_path):
    write(YoloLabels, tmp_path, IMAGE).close()
    # Height 80, width 100: centre (30, 30), size 40 x 20.
    expected = "1 0.300000 0.375000 0.400000 0.250000\n"
    assert (tmp_path / "yolo/labels/a/1.txt").read_text() == expected
    assert (tmp_path / "yolo/classes.txt").read_text() == "cat\ndog, wild\n"


def test_an_image_without_objects_has_an_empty_file_of_yolo_labels(tmp_path):
    files = YoloLabels(tmp_path, LABELS, min_score=0.95)
    files.add(IMAGE, PREDICTION)
    assert (tmp_path / "yolo/labels/a/1.txt").read_text() == ""


def test_files_are_valid_after_every_image_and_while_empty(tmp_path):
    files = CocoResults(tmp_path, LABELS, 0.3)
    for count in (0, 2, 4):
        assert len(json.loads((tmp_path / "results.json").read_text())) == count
        files.add(IMAGE, PREDICTION)
    files.close()


def test_half_an_entry_of_an_interrupted_write_goes_when_the_file_is_closed(tmp_path):
    file = json_list(tmp_path / "x.json")
    file.add(["1", "2"])
    file._file.write(b', {"half": ')
    file.close()
    assert json.loads((tmp_path / "x.json").read_text()) == [1, 2]


def test_text_of_several_bytes_a_character_stays_whole(tmp_path):
    file = GrowingFile(tmp_path / "x.txt", "é\n", tail="ü")
    file.add(["ß\n"])
    file.add(["ø\n"])
    file.close()
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "é\nß\nø\nü"


def test_top_classes_have_the_name_of_their_file_and_are_printed_for_ten_images(tmp_path):
    files = TopClassesFile(tmp_path, LABELS, 0.3)
    classes = Classification(torch.tensor([0.75, 0.25]), torch.tensor([1, 0]))
    for number in range(12):
        image = ImageInfo(f"n{number}", f"n{number}.jpg", (4, 4))
        files.add(image, Prediction(classification=classes))
    lines = files.close()
    assert len(lines) == 11
    assert lines[0] == "n0: dog, wild 0.75, cat 0.25"
    content = json.loads((tmp_path / "classes.json").read_text())
    assert len(content) == 12
    assert content[1]["file_name"] == "n1.jpg"
    assert content[1]["classes"][0] == {"class": "dog, wild", "score": 0.75}


def test_the_classes_in_a_mask_are_a_table(tmp_path):
    label_map = LabelMap(("background", "dog, wild", "cat"), (0, 7, 3))
    files = IndexMaskFiles(tmp_path, label_map, 0.3)
    labels = torch.zeros(4, 5, dtype=torch.uint8)
    labels[:2, :2] = 1
    labels[3] = IGNORE_INDEX
    files.add(ImageInfo("a/n", "a/n.jpg", (4, 5)), Prediction(segmentation=SegmentationMap(labels)))
    frame = ImageInfo("clip/000002", "clip.mp4", (4, 5), frame=2)
    files.add(frame, Prediction(segmentation=SegmentationMap(torch.full_like(labels, 2))))
    files.close()
    rows = list(csv.reader((tmp_path / "masks.csv").read_text().splitlines()))
    assert rows[0] == ["file_name", "frame", "mask", "class", "value", "pixels", "share"]
    assert rows[1:] == [
        ["a/n.jpg", "", "masks/a/n.png", "background", "0", "11", "0.55"],
        ["a/n.jpg", "", "masks/a/n.png", "dog, wild", "7", "4", "0.2"],
        ["clip.mp4", "2", "masks/clip/000002.png", "cat", "3", "20", "1.0"],
    ]
