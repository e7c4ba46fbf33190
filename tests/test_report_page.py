"""The page of a report: its content, and in headless Chromium what a reader can do with it."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_models import planted_model, shapes_split

from mbv2det.report.analysis import analyse
from mbv2det.report.comparison import changed_classes, compare_tasks
from mbv2det.report.page import render, report_content, write_report
from mbv2det.report.plain import plain
from mbv2det.report.record import SplitRecord
from mbv2det.report.runs import spread_over_runs
from mbv2det.report.thumbnails import make_thumbnails, shrink
from mbv2det.report.training_curves import training_curves

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def silent(items, title):
    return items


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return shapes_split(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def models(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [
        planted_model(split, folder, "careless", errors=0.6),
        planted_model(split, folder, "careful", errors=0.1, seed=1),
    ]


@pytest.fixture(scope="module")
def page(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, models, silent)
    return path


def test_metrics_in_the_report_are_those_of_the_document_to_the_last_digit(models):
    content = report_content(models[:1], silent)
    for task in ("detection", "segmentation"):
        section = models[0].document[task]
        part = content["models"][0][task]
        shown = {metric["name"]: metric["value"] for metric in part["metrics"]}
        assert shown == {k: v for k, v in section.items() if v is None or isinstance(v, float)}
        key = {"detection": "ap", "segmentation": "iou"}[task]
        per_class = zip(part["classes"], part["per_class"], strict=True)
        assert {name: row[key] for name, row in per_class} == section["per_class"]


def test_a_perfect_model_has_no_errors_and_diagonal_matrices(split, tmp_path):
    perfect = planted_model(split, tmp_path, "perfect", errors=0.0)
    (model,) = report_content([perfect], silent)["models"]
    detection, segmentation = model["detection"], model["segmentation"]
    assert perfect.document["detection"]["AP"] == pytest.approx(1)
    for part in (detection, segmentation):
        matrix = np.array(part["confusion"])
        np.testing.assert_array_equal(matrix, np.diag(matrix.diagonal()))
    assert all(row["gain"] == 0 for row in detection["errors"])
    assert all(sum(row["accepted"]) == sum(row["all_scores"]) == 0 for row in detection["errors"])
    assert all(entries == [] for entries in model["galleries"].values())
    assert any("no kind of error" in sentence for sentence in model["sentences"])


def test_sentences_name_the_largest_gain(models):
    (model,) = report_content(models[:1], silent)["models"]
    largest = max(model["detection"]["errors"], key=lambda row: row["gain"])
    assert f"{largest['gain']:.3f} higher" in " ".join(model["sentences"])


def test_every_error_of_a_gallery_is_an_error(models, split):
    content = report_content(models[:1], silent)
    (model,) = content["models"]
    images = {image["index"]: image["models"][0] for image in content["images"]}
    assert model["galleries"]["wrong"]
    for entry in model["galleries"]["wrong"]:
        boxes = {tuple(box[1:5]): box[6] for box in images[entry["image"]]["detections"]}
        assert boxes[tuple(entry["box"])] == entry["kind"]
    for entry in model["galleries"]["missed"]:
        objects = [box[:5] for box in images[entry["image"]]["objects"]]
        assert [entry["label"], *entry["box"]] in objects


class Addresses(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_file_refers_to_nothing_outside(page):
    text = page.read_text()
    parser = Addresses()
    parser.feed(text)
    assert [address for address in parser.found if not address.startswith("#")] == []
    assert "@import" not in text
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}  # the name of SVG, not an address to fetch


def test_a_class_name_cannot_end_the_script(models, tmp_path):
    content = report_content(models[:1], silent)
    text = render({**content, "title": "</script><b>&"})
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(data)["title"] == "</script><b>&"
    assert "<title>&lt;/script&gt;&lt;b&gt;&amp;</title>" in text


def test_comparison_finds_the_better_model(models):
    first, second = (analyse(name, model, silent) for name, model in zip("ab", models, strict=True))
    compared = compare_tasks(first, second)
    averages = {row["name"]: row for row in compared["detection"]["metrics"]}
    scores = [model.document["detection"]["AP"] for model in models]
    assert averages["AP"]["difference"] == pytest.approx(scores[1] - scores[0], abs=1e-6)
    assert averages["AP"]["clear"]
    assert 0 < averages["AP"]["low"] <= averages["AP"]["difference"] <= averages["AP"]["high"]
    assert all(row["clear"] for row in changed_classes(compared["detection"]))
    best = compared["detection"]["images"][0]
    assert best["second"] < best["first"]
    same = compare_tasks(first, first)
    for task in same.values():
        assert not any(row["clear"] or row["difference"] for row in task["metrics"])
        assert task["images"] == []


def test_paired_intervals_are_shorter_than_those_of_single_models(models):
    first, second = (analyse(name, model, silent) for name, model in zip("ab", models, strict=True))
    np.testing.assert_array_equal(first.detection.images, second.detection.images)
    # The same images were drawn: a third model equal to the first has no difference in any draw.
    again = analyse("c", models[0], silent)
    np.testing.assert_array_equal(first.detection.samples, again.detection.samples)


def test_a_model_of_one_task_has_no_section_of_another(split, tmp_path):
    boxes = planted_model(split, tmp_path, "boxes", errors=0.3, tasks=("detection",))
    masks = planted_model(split, tmp_path, "masks", errors=0.3, tasks=("segmentation",))
    content = report_content([boxes, masks], silent)
    assert ["detection" in model for model in content["models"]] == [True, False]
    assert ["segmentation" in model for model in content["models"]] == [False, True]
    assert content["comparison"] == {}


def test_without_images_there_is_nothing_to_show(split, models):
    record = SplitRecord([part.task for part in models[0].record.tasks.values()], split)
    content = report_content([replace(models[0], record=record)], silent)
    assert not {"detection", "segmentation"} & set(content["models"][0])
    assert content["images"] == []
    render(content)


def test_without_detections_every_object_is_missed(split, tmp_path):
    nothing = planted_model(split, tmp_path, "nothing", errors=1.0, keep=0)
    content = report_content([nothing], silent)
    (model,) = content["models"]
    missed = sum(model["detection"]["errors"][-1]["accepted"])
    assert missed == (~split.objects.ignore).sum()
    assert "Nothing is found: there is not a single detection." in model["sentences"]
    render(content)


def test_runs_with_other_seeds_have_a_mean_and_an_interval(models):
    runs = spread_over_runs([model.document for model in models])
    (row,) = [row for row in runs["detection"] if row["name"] == "AP"]
    values = [model.document["detection"]["AP"] for model in models]
    assert row["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert row["low"] < min(values) < max(values) < row["high"]


def test_a_continued_run_has_one_curve(tmp_path):
    (tmp_path / "metrics.before_resume_1.csv").write_text(
        "epoch,step,train/loss,val/AP\n0,9,3.5,\n0,19,2.5,\n0,19,,0.1\n"
    )
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/AP\n1,19,2.0,\n1,29,1.5,0.2\n")
    assert training_curves(tmp_path) == {
        "train/loss": [[9, 19, 29], [3.5, 2.0, 1.5]],
        "val/AP": [[19, 29], [0.1, 0.2]],
    }
    assert training_curves(tmp_path / "none") == {}


def test_thumbnails_keep_within_their_budget():
    draw = np.random.default_rng(0)
    noise = {n: shrink(draw.integers(0, 255, (700, 900, 3), dtype=np.uint8)) for n in range(20)}
    files = make_thumbnails(noise, 400_000)
    assert len(files) == 20
    assert sum(map(len, files.values())) <= 400_000
    few = make_thumbnails(noise, 20_000)  # not even the smallest pictures have room
    assert 0 < len(few) < 20
    assert list(few) == list(range(len(few)))


def test_small_images_are_not_enlarged():
    picture = shrink(np.zeros((30, 40, 3), np.uint8))
    assert isinstance(picture, Image.Image)
    assert picture.size == (40, 30)


def test_nothing_to_measure_is_null_in_the_data():
    assert plain(np.array([[0.123456, np.nan]])) == [[0.1235, None]]
    assert plain(np.int64(3)) == 3


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; skips the test where it or its driver is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with driver.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1440, 900, "light"), (390, 844, "dark")], ids=["wide", "phone"])
def tab(request, browser, page):
    """The open report; after the test there were neither errors nor requests."""
    width, height, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    opened = context.new_page()
    errors, requests = [], []
    opened.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else 0)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda r: requests.append(r.url))
    opened.goto(page.as_uri())
    yield opened
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    context.close()


def texts(locator):
    return [text.strip() for text in locator.all_inner_texts()]


@pytest.mark.browser
def test_the_page_fits_its_width_and_has_every_section(tab):
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sections = tab.eval_on_selector_all("main section", "nodes => nodes.map(n => n.id)")
    assert sections == [
        "summary", "comparison", "detection", "segmentation", "errors", "curves",
        "confusion-detection", "confusion-segmentation", "groups", "calibration", "images",
        "data-statistics", "origin",
    ]  # fmt: skip
    links = tab.eval_on_selector_all("#bar nav a", "nodes => nodes.map(n => n.hash.slice(1))")
    assert links == sections


@pytest.mark.browser
def test_the_class_filter_filters_everything(tab, models):
    tab.select_option("#class", "star")
    classes = tab.locator('[data-table="detection-classes"] tbody th')
    assert texts(classes) == ["star"]
    assert texts(tab.locator('[data-table="detection-differences"] tbody th')) == ["star"]
    assert texts(tab.locator('[data-table="segmentation-classes"] tbody th')) == ["star"]
    pairs = tab.locator('[data-table="confusion-detection-pairs-0"] tbody tr')
    assert all("star" in text for text in texts(pairs))
    tab.get_by_role("button", name="Wrong detections, by score").click()
    assert all("star" in text for text in texts(tab.locator(".tile .caption")))
    star = models[0].document["detection"]["per_class"]["star"]
    assert f"{star:.3f}" in tab.locator("#summary .card").first.inner_text()
    tab.select_option("#class", "")
    assert len(texts(classes)) == 6


@pytest.mark.browser
def test_tables_sort_by_mouse_and_by_keyboard(tab):
    table = tab.locator('[data-table="detection-classes"]')
    names = table.locator("tbody th")
    before = texts(names)
    table.get_by_role("button", name="class", exact=True).click()
    assert texts(names) == sorted(before)
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Enter")  # the button keeps the focus
    assert texts(names) == sorted(before, reverse=True)
    table.get_by_role("button", name="objects", exact=True).click()
    counts = [int(text) for text in texts(table.locator("tbody td:nth-last-child(2)"))]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.browser
def test_an_image_enlarges_and_its_layers_switch_on_and_off(tab):
    tab.locator(".tile").first.focus()
    tab.keyboard.press("Enter")
    dialog = tab.locator("dialog[open]")
    assert dialog.count() == 1
    annotation, prediction = (
        dialog.locator(f'[data-layer="{name}"]') for name in ("annotation", "prediction")
    )
    assert annotation.locator(".box").count()
    shown = prediction.locator(".box").count()
    assert shown
    dialog.get_by_label("Prediction (P)").uncheck()
    assert prediction.count() == 0
    tab.keyboard.press("p")
    assert prediction.locator(".box").count() == shown
    tab.keyboard.press("a")
    assert annotation.count() == 0
    score = dialog.get_by_label("Lowest score")
    score.fill("1")
    assert prediction.locator(".box").count() < shown
    title = dialog.locator("h2").inner_text()
    dialog.get_by_role("button", name="Next image").click()
    assert dialog.locator("h2").inner_text() != title
    tab.keyboard.press("ArrowLeft")
    assert dialog.locator("h2").inner_text() == title
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0


@pytest.mark.browser
def test_a_chart_shows_the_values_under_the_pointer(tab):
    figure = tab.locator("#curves figure").nth(1)
    box = figure.locator("svg").bounding_box()
    figure.locator("svg").scroll_into_view_if_needed()
    box = figure.locator("svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    caption = figure.locator("figcaption").inner_text()
    assert re.match(r"lowest score 0\.\d+: careless [\d.]+, careful [\d.]+", caption)


@pytest.mark.browser
def test_confusion_is_shown_by_row_or_by_column(tab):
    section = tab.locator("#confusion-segmentation")
    cells = "nodes => nodes.map(n => n.getAttribute('fill')).join()"
    by_row = section.locator("svg").first.locator("rect.cell").evaluate_all(cells)
    section.get_by_role("button", name="Shares of what was predicted").click()
    assert section.locator("svg").first.locator("rect.cell").evaluate_all(cells) != by_row
    pressed = section.locator('button[aria-pressed="true"]')
    assert texts(pressed) == ["Shares of what was predicted"]
