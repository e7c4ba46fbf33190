"""The studies of the paper's claims: their measurements equal what is computed by hand."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import block_cost
import block_measures
import bottlenecks
import few_images
import jaxtyping
import numpy as np
import pytest
import readme_picture
import relu_embedding
import repeated_runs
import support_matrix
import torch
from PIL import Image
from runs import DETECTION, ROOT, SEGMENTATION, run_command, write_config
from torch import nn

from mbv2det.backbones import MobileNetV1, MobileNetV2
from mbv2det.cli.study import studies

pytestmark = pytest.mark.usefixtures("one_thread")


def run_main(study, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{study.__name__}.py", *(str(a) for a in arguments)])
    study.main()


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


# ReLU in few and many dimensions


def measurements(num_matrices=200, seed=0):
    rng = np.random.default_rng(seed)
    points = relu_embedding.spiral()
    return [relu_embedding.measure(points, n, num_matrices, rng)[0] for n in (2, 3, 5, 15, 30)]


def test_more_dimensions_lose_fewer_points():
    results = measurements()
    errors = [result.error[1] for result in results]
    lost = [result.lost for result in results]
    assert errors == sorted(errors, reverse=True)
    assert lost == sorted(lost, reverse=True)


def test_points_are_lost_with_the_expected_probability():
    results = measurements(num_matrices=1000)
    # The probability that none or one of n signs is positive: (1 + n) / 2^n.
    assert [result.lost_expected for result in results[:3]] == [3 / 4, 4 / 8, 6 / 32]
    for result in results:
        # Points of one matrix are not independent: at most three standard deviations of the share
        # of 1000 matrices.
        assert result.lost == pytest.approx(result.lost_expected, abs=3 * 0.5 / 1000**0.5)


def test_the_embedding_alone_loses_nothing():
    matrices = np.random.default_rng(0).standard_normal((20, 3, 2))
    points = relu_embedding.spiral()
    hidden = relu_embedding.embed(points, matrices)
    reconstructed = relu_embedding.reconstruct(hidden, matrices, points)
    assert relu_embedding.relative_error(reconstructed, points).max() < 1e-10  # float64


def test_a_point_is_lost_where_fewer_than_two_dimensions_are_positive():
    matrices = np.array([[[1.0, 0], [0, 1], [1, 1]]])  # x, y and x + y
    points = np.array([[1.0, 1], [2, -1], [1, -2], [-1, -1]])
    activated = np.maximum(relu_embedding.embed(points, matrices), 0)
    # (1, 1, 2), (2, 0, 1), (1, 0, 0), (0, 0, 0)
    assert relu_embedding.lost_points(activated).tolist() == [[False, False, True, True]]


def test_the_embedding_study_is_reproducible(tmp_path, monkeypatch):
    for name in ("a", "b"):
        out = tmp_path / name
        run_main(relu_embedding, monkeypatch, "--matrices", 20, "--seed", 3, "--out", out)
    first, second = (tmp_path / n / "relu_embedding.json" for n in ("a", "b"))
    assert first.read_text() == second.read_text()
    assert [row["dimensions"] for row in json.loads(first.read_text())] == [2, 3, 5, 15, 30]
    assert is_png(tmp_path / "a/relu_embedding.png")


# Cost of the blocks


def costs(channels, cells):
    return {cost.variant: cost for cost in block_measures.stage_costs(channels, cells)}


@pytest.fixture(scope="module")
def stage():
    return costs(24, 8)


def test_counts_of_an_inverted_residual(stage):
    cost = stage["inverted"]
    # 24 -> 144, 3x3 on 144, 144 -> 24; each norm has two parameters a channel; 64 cells.
    weights = 24 * 144 + 9 * 144 + 144 * 24
    assert cost.parameters == weights + 2 * (144 + 144 + 24)
    assert cost.multiply_adds == 64 * weights


def test_counts_of_a_resnet_bottleneck(stage):
    cost = stage["ResNet, same ends"]
    # 24 -> 6, 3x3 on 6 -> 6, 6 -> 24
    weights = 24 * 6 + 9 * 6 * 6 + 6 * 24
    assert (cost.outer_channels, cost.inner_channels) == (24, 6)
    assert cost.parameters == weights + 2 * (6 + 6 + 24)
    assert cost.multiply_adds == 64 * weights


def test_the_equally_costly_bottleneck_is_the_largest_that_computes_no_more(stage):
    resnet, ours = stage["ResNet, same MAdds"], stage["inverted"]
    # p inner channels: 4 p p + 9 p p + 4 p p = 17 p p weights; ours 8208, p = 22 would take 8228.
    assert resnet.inner_channels == 21
    assert resnet.multiply_adds == 64 * 17 * 21 * 21 <= ours.multiply_adds


def test_peak_memory_of_the_blocks(stage):
    kilobytes = {variant: cost.kilobytes for variant, cost in stage.items()}
    kilobytes_of_a_channel = 64 * 2 / 1000
    expected = {
        # Last operation: shortcut 24, inner channels 6, result 24.
        "ResNet, same ends": 24 + 6 + 24,
        "ResNet, same MAdds": 84 + 21 + 84,
        # Depthwise convolution: shortcut 24, input 144, output 144.
        "inverted": 24 + 144 + 144,
        # Input 24 and the partial sum 24; input and output of the depthwise convolution.
        "inverted, 6 parts": 24 + 24 + 24 + 24,
        "inverted, by channel": 24 + 24 + 1 + 1,
    }
    for variant, channels in expected.items():
        assert kilobytes[variant] == pytest.approx(channels * kilobytes_of_a_channel), variant


def test_peak_memory_counts_only_activations_that_are_still_needed():
    wide, thin = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 1, 1)
    x = torch.zeros(1, 2, 3, 3)
    # The last convolution reads 8 channels and writes 1; the input is no longer needed.
    chain = nn.Sequential(wide, thin)
    assert block_measures.peak_elements(chain, chain, x) == 9 * (2 + 8)
    # The input has 2 channels and is needed until the end.
    assert block_measures.peak_elements(chain, lambda x: x + chain(x), x) == 9 * (2 + 8 + 1)
    # In place, ReLU does not write a second tensor of 8 channels.
    active = nn.Sequential(wide, nn.ReLU(inplace=True), thin)
    assert block_measures.peak_elements(active, active, x) == 9 * (2 + 8)
    copying = nn.Sequential(wide, nn.ReLU(), thin)
    assert block_measures.peak_elements(copying, copying, x) == 9 * (8 + 8)


@pytest.mark.parametrize("parts", [1, 2, 5, 48])
def test_a_block_run_in_parts_gives_the_same_output(parts):
    torch.manual_seed(0)
    block = block_measures.inverted_residual(8)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.bias)
    x = torch.randn(2, 8, 5, 7)
    output = block_measures.run_in_parts(block_measures.without_norms(block), x, parts)
    with torch.no_grad():
        expected = block.eval()(x)
    # float32 sums in another order; norms are folded into the weights.
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_folding_the_norms_of_a_resnet_bottleneck_keeps_its_output():
    torch.manual_seed(0)
    block = block_measures.resnet_bottleneck(4).eval()
    nn.init.uniform_(block.bn2.running_mean)
    x = torch.randn(2, 16, 5, 5)
    folded = block_measures.without_norms(block)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), block(x), rtol=1e-5, atol=1e-5)  # as above


def largest(network):
    tensors = block_measures.materialised(network)
    return {cells: (tensor.channels, tensor.kilobytes) for cells, tensor in tensors.items()}


def test_table_3_of_mobilenet_v2():
    tensors = largest(MobileNetV2)
    channels = {112: 16, 56: 24, 28: 32, 14: 96, 7: 320, 1: 1280}  # table 2
    assert tensors == {
        cells: (count, pytest.approx(count * cells * cells * 2 / 1000))
        for cells, count in channels.items()
    }
    # The paper rounds; its maximum is ours.
    assert max(kilobytes for _, kilobytes in tensors.values()) == pytest.approx(400, rel=0.01)
    assert tensors[7][1] == pytest.approx(32, abs=1)


def test_table_3_of_mobilenet_v1():
    tensors = largest(MobileNetV1)
    paper = block_cost._TABLE_3["MobileNetV1"]
    channels = {cells: count for cells, (count, _) in tensors.items()}
    assert channels == {cells: count for cells, (count, _) in paper.items()}
    for cells in (112, 56, 28, 14):  # at 7 cells the paper has twice what its channels take
        assert tensors[cells][1] == pytest.approx(paper[cells][1], rel=0.01)


def test_table_3_pairs_channels_with_the_input_resolution_of_their_stage():
    outputs = list(block_measures.layer_outputs(MobileNetV2).values())[1:-1]
    read = {}
    for before, after in pairwise(outputs):
        cells = before.shape[-1]
        read[cells] = max(read.get(cells, 0), after.shape[1])
    paper = block_cost._TABLE_3["MobileNetV2"]
    assert {c: read[c] for c in (56, 28, 14, 7)} == {c: paper[c][0] for c in (56, 28, 14, 7)}


def test_the_cost_study_writes_its_table_and_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(block_cost, "_STAGES", ((16, 7), (24, 7)))
    run_main(block_cost, monkeypatch, "--out", tmp_path)
    document = json.loads((tmp_path / "block_cost.json").read_text())
    assert len(document["blocks"]) == 10
    assert document["difference_in_parts"] < 1e-5  # float32
    assert document["networks"]["MobileNetV2"]["112"]["channels"] == 16
    assert is_png(tmp_path / "block_cost.png")


# Training with and without linear bottlenecks and shortcuts


def tiny(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    return [
        config, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--seeds=[3]",
        "--data.image_size=64", "--trainer.enable_progress_bar=false", f"--out={tmp_path / 'out'}",
    ]  # fmt: skip


def test_the_ablation_trains_every_variant_once(tmp_path, monkeypatch, capsys):
    arguments = tiny(tmp_path)
    trained = []

    def train(settings):
        network = settings.config.backbone
        switches = network.bottleneck, network.shortcut, network.zero_init_residual
        trained.append((*switches, settings.config.seed))
        rows = tmp_path / "metrics.csv"
        rows.write_text(
            "epoch,step,train/loss,val/AP,val/AP50,val/loss\n"
            ",0,,,,\n0,0,4.0,,,\n0,1,2.0,,,\n0,1,,0.25,0.5,3.5\n1,2,1.5,,,\n"
        )
        return tmp_path

    monkeypatch.setattr(repeated_runs, "train", train)
    run_main(bottlenecks, monkeypatch, *arguments)
    assert trained == [(*switches, 3) for switches in bottlenecks.VARIANTS.values()]
    document = json.loads((tmp_path / "out/bottlenecks.json").read_text())
    assert (document["relu6"]["AP"], document["relu6"]["train_loss"]) == ([0.25], [1.5])
    assert document["none"]["curves"]["3"] == [
        {"epoch": 1, "AP": 0.25, "AP50": 0.5, "val_loss": 3.5, "train_loss": 3.0},
        {"epoch": 2, "AP": None, "AP50": None, "val_loss": None, "train_loss": 1.5},
    ]
    assert is_png(tmp_path / "out/bottlenecks.png")
    assert "0.250" in capsys.readouterr().out
    # The second call trains nothing.
    run_main(bottlenecks, monkeypatch, *arguments)
    assert len(trained) == len(bottlenecks.VARIANTS)


def test_runs_with_other_settings_are_refused(tmp_path, monkeypatch, capsys):
    arguments = tiny(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,val/AP,val/loss\n0,0.5,1.0\n")
    monkeypatch.setattr(repeated_runs, "train", lambda settings: tmp_path)
    monkeypatch.setattr(bottlenecks, "VARIANTS", {"paper": ("linear", "bottleneck", False)})
    run_main(bottlenecks, monkeypatch, *arguments)
    with pytest.raises(SystemExit):
        run_main(bottlenecks, monkeypatch, *arguments, "--optim.lr=0.5")
    assert (
        "paper/seed_3 holds a run with other settings; choose another folder"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.logger=false"], "trainer.logger: expected null, with which runs write the"),
        (["--trainer.fast_dev_run=true"], "trainer.fast_dev_run: expected false, with which runs"),
        (
            ["--heads.detection=null", "--heads.segmentation.name=lraspp"],
            "heads.detection: expected a head, got none",
        ),
    ],
)
def test_runs_without_the_metrics_of_the_study_are_refused(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(repeated_runs, "train", None)
    with pytest.raises(SystemExit, match="2"):
        run_main(bottlenecks, monkeypatch, *tiny(tmp_path), *arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_the_table_shows_mean_and_deviation_of_the_seeds(capsys):
    curves = {
        seed: [bottlenecks.Epoch(1, ap, None, 1.0, None)] for seed, ap in ((0, 0.2), (1, 0.4))
    }
    bottlenecks.print_table({"none": curves})
    row = next(line for line in capsys.readouterr().out.splitlines() if "no shortcut" in line)
    # The standard deviation of two values is their distance over the root of two.
    assert [cell.strip() for cell in row.strip("│").split("│")[1:]] == [
        "2",
        "0.300 ± 0.141",
        "-",
        "-",
    ]


@pytest.mark.parametrize(("option", "seeds"), [("2", [0, 1]), ("[5]", [5])])
def test_seeds_are_a_count_or_a_list(option, seeds):
    assert repeated_runs.seeds_of(json.loads(option)) == seeds


@pytest.mark.slow
def test_the_ablation_end_to_end(tmp_path, monkeypatch):
    run_main(bottlenecks, monkeypatch, *tiny(tmp_path), "--seeds=1")
    document = json.loads((tmp_path / "out/bottlenecks.json").read_text())
    assert list(document) == list(bottlenecks.VARIANTS)
    for variant in document.values():
        (curve,) = variant["curves"].values()
        assert [epoch["epoch"] for epoch in curve] == [1]
        assert 0 <= curve[0]["AP"] <= curve[0]["AP50"] <= 1
        assert curve[0]["train_loss"] > 0
    losses = [variant["train_loss"] for variant in document.values()]
    assert all(losses.count(loss) == 1 for loss in losses)  # different networks


# Few images


def few_images_arguments(tmp_path, starts="{a: weights=x.pt, b: backbone.weights=y.pt}"):
    config = write_config(tmp_path, num_train=8, num_val=2)
    return config, f"--starts={starts}", "--counts=[2,8]", "--seeds=2", f"--out={tmp_path / 'out'}"


def test_few_images_are_chosen_from_all_and_trained_equally_long(tmp_path, monkeypatch, capsys):
    trained = []

    def train(settings):
        config = settings.config
        names = Path(config.data.train.list).read_text().split()
        trained.append((config.weights, config.backbone.weights, config.seed, names))
        assert settings.trainer["max_epochs"] == {2: 6, 8: 3}[len(names)]
        rows = tmp_path / "metrics.csv"
        rows.write_text(f"epoch,val/score\n0,0.1\n1,\n2,{len(names) / 100 + config.seed / 50}\n")
        return tmp_path

    monkeypatch.setattr(repeated_runs, "train", train)
    arguments = few_images_arguments(tmp_path)
    run_main(few_images, monkeypatch, *arguments, "--steps=6")
    assert len(trained) == 8
    assert [str(weights) for weights, *_ in trained] == ["x.pt", "None"] * 4
    assert [str(weights) for _, weights, *_ in trained] == ["None", "y.pt"] * 4
    few, many = trained[0][3], trained[2][3]
    assert len(few) == 2
    assert set(few) < set(many)
    assert trained[4][3] != few  # another seed
    records = json.loads((tmp_path / "out/few_images.json").read_text())
    assert records[0] == {"start": "a", "count": 2, "seed": 0, "score": 0.02}
    assert is_png(tmp_path / "out/few_images.png")
    table = capsys.readouterr().out
    assert re.search(r"2 .* 0\.030 ± 0\.014 ", table)
    assert re.search(r"8 .* 0\.090 ± 0\.014 ", table)
    run_main(few_images, monkeypatch, *arguments, "--steps=6")
    assert len(trained) == 8  # nothing again
    with pytest.raises(SystemExit):
        run_main(few_images, monkeypatch, *arguments, "--steps=9")
    assert "holds a run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--counts=[9]", "--counts: expected numbers of images from 1 to 8"),
        ("--starts={a: FILE}", "--starts: a: expected SETTING=FILE, got FILE"),
        ("--steps=0", "--steps: expected at least 1, got 0"),
        ("--starts={}", "--starts: expected settings of weights by name"),
    ],
)
def test_impossible_options_of_few_images_are_one_line(
    tmp_path, monkeypatch, capsys, changed, message
):
    with pytest.raises(SystemExit):
        run_main(few_images, monkeypatch, *few_images_arguments(tmp_path), changed)
    assert message in capsys.readouterr().err


# The README's picture


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_the_readme_picture_shows_predictions_side_by_side(tmp_path, monkeypatch, capsys):
    config = write_config(
        tmp_path, num_train=4, num_val=3, heads=f"{DETECTION}, {SEGMENTATION}", stride=16
    )
    run_command("train", config, "--trainer.max_epochs=1", "--data.image_size=65")
    (weights,) = tmp_path.rglob("best.safetensors")
    out = tmp_path / "picture.png"
    arguments = ["--weights", weights, "--data", tmp_path / "shapes", "--scenes", 0, 2]
    run_main(readme_picture, monkeypatch, *arguments, "--out", out)
    scenes = [size_of(tmp_path / f"shapes/val/{name}.jpg") for name in ("000001", "000003")]
    width, height = size_of(out)
    assert width == sum(width for width, _ in scenes) + 4  # the gap
    assert height >= max(height for _, height in scenes)  # and a legend if there is a label
    assert str(out) in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run_main(readme_picture, monkeypatch, *arguments, 3, "--out", out)
    assert "--scenes: expected numbers from 0 to 2, got 3" in capsys.readouterr().err


# Documentation


def test_the_readme_of_the_studies_lists_every_study():
    text = (ROOT / "tools/studies/README.md").read_text()
    assert [name for name in studies() if f"\n## {name}\n" not in text] == []


def test_the_support_matrix_lists_every_head_and_choice():
    listed = [(head, choice) for head, choice, _ in support_matrix.rows()]
    assert {("ssdlite", "inside"), ("ssdlite", "none"), ("lraspp", "logits")} < set(listed)
    assert len(set(listed)) == len(listed)


LRASPP_LOGITS = ("lraspp", "logits")


def test_a_cell_of_the_support_matrix_is_a_difference_or_a_refusal(tmp_path, monkeypatch):
    (info,) = (
        i for head, choice, i in support_matrix.rows() if (head, choice) == ("lraspp", "logits")
    )
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # for any number of images
    assert 0 < float(support_matrix.cell(info, "pt2", "fp32", "logits", tmp_path)) < 1e-4
    assert support_matrix.cell(info, "pt2", "int8", "logits", tmp_path) == "-"
