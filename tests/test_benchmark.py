"""The benchmark: structure of its results, whatever the times are."""

import json
import sys

import numpy as np
import pytest
import torch
from networks import randomise

from mbv2det.benchmark import memory, peers
from mbv2det.benchmark.benchmark import made_image, read_images
from mbv2det.benchmark.files import FileSetup, _TimedPredictor
from mbv2det.benchmark.peers import PeerSetup, installed_peers
from mbv2det.benchmark.plot import write_plot
from mbv2det.benchmark.report import Result, document
from mbv2det.benchmark.rounds import Times, batch_of, median_ratio, time_in_rounds
from mbv2det.benchmark.subject import STAGES, Facts, Setup, StageClock, Subject
from mbv2det.build import build_model
from mbv2det.cli.benchmark import main
from mbv2det.counting import count_parameters
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = LabelMap.of_masks(("cat", "dog"))
HEADS = {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config()}
METRICS = {"detection": {"AP": 0.25, "images": 3}, "segmentation": {"mIoU": 0.5, "images": 3}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights file of a small network for each task, by task."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    for task, head in HEADS.items():
        config = ModelConfig(BackboneConfig(width_mult=0.35), {task: head})
        spec = PreprocessSpec((96, 128))
        info = WeightsInfo(config, spec, {task: LABELS}, metrics={task: METRICS[task]})
        model = randomise(build_model(info.model, info.preprocess, info.label_maps))
        save_weights(folder / f"{task}.safetensors", model.state_dict(), info)
    return folder


@pytest.fixture(scope="module")
def results(weights, tmp_path_factory):
    """The command's JSON for both files, with two batches each."""
    out = tmp_path_factory.mktemp("out")
    files = [str(weights / f"{task}.safetensors") for task in HEADS]
    options = ["--batch", "1,2", "--rounds", "2", "--warm-up", "1", "--image-size", "60x80"]
    paths = ["--out", str(out / "bench.json"), "--plot", str(out / "bench.png")]
    main([*files, *options, "--no-memory", *paths])
    return json.loads((out / "bench.json").read_text()), out / "bench.png"


class TimesOf(Setup):
    """A network that takes the given seconds for each stage, by its own account."""

    name = "fixed"

    def load(self):
        return Subject(Facts((1, 1), 1, 1), lambda _: dict.fromkeys(STAGES, 0.5))


def rows_of(results):
    return results[0]["results"]


def test_every_combination_of_file_and_run_has_a_row(results):
    runs = [(row["name"].split("/")[1], row["batch"], row["threads"]) for row in rows_of(results)]
    assert runs == [
        ("detection.safetensors", 1, 1),
        ("detection.safetensors", 2, 1),
        ("segmentation.safetensors", 1, 1),
        ("segmentation.safetensors", 2, 1),
    ]


def test_stages_add_up_to_the_total(results):
    for row in rows_of(results):
        stages = [row["milliseconds"][stage] for stage in STAGES]
        assert all(0 < stage["median"] <= stage["p95"] for stage in stages)
        # In two rounds the median is the mean, and means add up; the clock takes microseconds.
        total = row["milliseconds"]["total"]["median"]
        assert sum(stage["median"] for stage in stages) == pytest.approx(total, rel=0.05)
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / total)


def test_ratios_are_to_the_first_row(results):
    first, *others = rows_of(results)
    assert first["ratio"] == 1
    assert all(row["ratio"] > 0 for row in others)


def test_costs_are_those_of_the_network_and_its_file(results, weights):
    for row in rows_of(results):
        file = weights / row["name"].split("/")[1]
        monitors = {"detection": "AP", "segmentation": "mIoU"}
        task = file.stem
        assert row["metrics"] == {f"{task} {monitors[task]}": METRICS[task][monitors[task]]}
        assert row["file_bytes"] == file.stat().st_size
        config = ModelConfig(BackboneConfig(width_mult=0.35), {task: HEADS[task]})
        model = build_model(config, PreprocessSpec((96, 128)), {task: LABELS})
        assert row["parameters"] == count_parameters(model)
        assert row["multiply_adds"] > 1e6
        assert row["input_size"] == [96, 128]


def test_the_load_of_the_machine_is_noted(results):
    machine = results[0]["machine"]
    assert machine["load_before"] >= 0
    assert machine["load_after"] >= 0
    assert machine["cores"] >= 1


def test_accuracy_against_latency_is_drawn(results):
    assert results[1].read_bytes().startswith(b"\x89PNG")


def test_tables_fit_a_narrow_terminal(weights, capsys):
    main([str(weights / "detection.safetensors"), "--rounds", "1", "--no-memory"])
    output = capsys.readouterr().out
    assert "detection.safetensors" in output
    assert "images/s" in output
    assert "load" in output
    assert max(len(line) for line in output.splitlines()) <= 80


def test_help_teaches_what_the_columns_mean(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    for word in ("total", "CPU", "ratio", "--peers", "--dtype float32,bfloat16"):
        assert word in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a weights file or an exported one, or --peers"),
        (["nowhere.safetensors"], "found no nowhere.safetensors"),
    ],
)
def test_what_cannot_be_timed_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("arguments", [["--batch", "0"], ["--threads", "1,x"]])
def test_numbers_are_checked(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["w.safetensors", *arguments])
    assert "expected a whole number from 1 up" in capsys.readouterr().err


def test_networks_take_turns(monkeypatch):
    order = []
    subjects = [
        Subject(Facts((1, 1), 1, 1), lambda _, n=n: order.append(n) or dict.fromkeys(STAGES, 0.0))
        for n in range(3)
    ]
    times = time_in_rounds([TimesOf()] * 3, subjects, made_image((4, 4)), rounds=2, warm_up=1)
    assert order == [0, 1, 2] * 3
    assert [len(one.wall["total"]) for one in times] == [2, 2, 2]
    assert [len(one.cpu) for one in times] == [2, 2, 2]


def test_each_network_runs_with_its_own_threads():
    before, seen = torch.get_num_threads(), []
    subject = Subject(
        Facts((1, 1), 1, 1),
        lambda _: seen.append(torch.get_num_threads()) or dict.fromkeys(STAGES, 0.0),
    )
    setups = [TimesOf(threads=1), TimesOf(threads=2)]
    time_in_rounds(setups, [subject] * 2, made_image((4, 4)), rounds=1, warm_up=0)
    assert seen == [1, 2]
    assert torch.get_num_threads() == before


def test_batches_go_round_the_images():
    images = [np.full((1, 1, 3), value, np.uint8) for value in range(3)]
    batches = [[image[0, 0, 0] for image in batch_of(images, 2, turn)] for turn in range(3)]
    assert batches == [[0, 1], [2, 0], [1, 2]]


def test_the_ratio_is_the_median_over_the_rounds_of_the_time_per_image():
    one, other = Times(), Times()
    one.wall["total"], other.wall["total"] = [4.0, 6.0, 40.0], [1.0, 2.0, 4.0]
    # Two images against one: 2, 1.5 and 5 times as long.
    assert median_ratio(one, other, 2, 1) == 2


def test_an_exported_files_runtime_is_the_network_stage():
    class Predictor:
        preprocessor = staticmethod(lambda image: image)
        tasks = ()

        def __init__(self):
            self.runtime = Runtime()

        def __call__(self, images):
            assert self.runtime.max_batch is None
            return [self.runtime(self.preprocessor(image)) for image in images]

    class Runtime:
        max_batch = None
        calls = 0

        def __call__(self, image):
            self.calls += 1
            return image

    predictor = Predictor()
    runtime = predictor.runtime
    seconds = _TimedPredictor(predictor, StageClock())(made_image((4, 4)) * 3)
    assert runtime.calls == 3
    assert all(seconds[stage] > 0 for stage in STAGES)


def test_weights_load_in_the_type_that_is_asked_for(weights, monkeypatch):
    asked = []

    def load(path, **options):
        asked.append((path.suffix, options))
        raise ConfigError("enough")

    monkeypatch.setattr("mbv2det.load", load)
    for setup in (
        FileSetup(path=weights / "a.safetensors", precision="bfloat16"),
        FileSetup(path=weights / "a.onnx", backend="openvino", precision="as exported", threads=2),
    ):
        with pytest.raises(ConfigError):
            setup.load()
    assert asked == [
        (".safetensors", {"device": "cpu", "dtype": "bfloat16"}),
        (".onnx", {"device": "cpu", "backend": "openvino", "threads": 2}),
    ]


def test_without_metrics_there_is_no_plot(tmp_path):
    with pytest.raises(ConfigError, match="expected weights whose header has metrics"):
        write_plot([{"metrics": {}}], tmp_path / "plot.png")


def test_the_plot_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'mbv2det\[studies\]'"):
        write_plot([{"metrics": {"AP": 0.1}}], tmp_path / "plot.png")


def test_peak_memory_is_that_of_a_process_of_its_own(weights):
    setup = FileSetup(path=weights / "detection.safetensors")
    # More than PyTorch alone, and less than a machine has.
    assert 50e6 < memory.peak_memory(setup, made_image((60, 80))) < 20e9


def test_images_can_be_given(tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    (image,) = read_images([tmp_path])
    assert image.shape == (10, 20, 3)
    assert image.flags.writeable


def test_the_made_image_is_always_the_same():
    (one,), (other,) = made_image((48, 64)), made_image((48, 64))
    assert one.shape == (48, 64, 3)
    np.testing.assert_array_equal(one, other)
    assert one.std() > 20  # contrast


def test_peers_are_those_that_are_installed(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == peers._SMP else object())
    assert [name.split()[0] for name in installed_peers()] == ["torchvision"] * 3


def predict_with(peer):
    with torch.inference_mode():
        (result,) = peer.postprocess(peer.network(peer.preprocess(made_image((60, 80)))))
    return result


def test_a_detecting_peer_has_a_usual_number_of_candidates():
    detections = predict_with(peers._ssdlite())
    # 300 candidates in 20 classes, of which few overlap one of their own class.
    assert 200 < len(detections["boxes"]) <= 300
    assert (detections["boxes"] <= torch.tensor([80, 60, 80, 60])).all()


def test_a_segmenting_peer_labels_the_pixels_of_the_image():
    build = peers.segmentation.lraspp_mobilenet_v3_large
    assert predict_with(peers._torchvision_segmenter(build)).shape == (60, 80)


def test_a_peer_is_timed_like_a_file():
    subject = PeerSetup(peer="torchvision ssdlite320_mobilenet_v3_large").load()
    seconds = subject.run(made_image((60, 80)))
    assert all(seconds[stage] > 0 for stage in STAGES)
    # 21 classes, of the 3.44 M that torchvision's page gives for 91; 0.58 G with them.
    assert 2e6 < subject.facts.parameters < 3.5e6
    assert 0.3e9 < subject.facts.multiply_adds < 0.6e9


def test_a_document_has_no_figure_for_what_was_not_measured():
    times = Times()
    for values in times.wall.values():
        values.append(1.0)
    times.cpu.append(1.0)
    content = document([Result(TimesOf(), Facts((1, 1), 1, 1), times)], (0.0, 0.0), 1)
    (row,) = content["results"]
    assert row["peak_memory_bytes"] is None
    assert row["file_bytes"] is None
    assert row["metrics"] == {}
