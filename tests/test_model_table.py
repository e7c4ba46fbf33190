"""The counts of the paper's models, compared with the published figures and with counts by hand."""

import sys
from dataclasses import replace
from io import StringIO
from math import ceil, floor

import model_table
import pytest
from model_table import cells
from published import TABLES, Classifier, Trained
from rich.console import Console
from runs import ROOT, run_command

from mbv2det.counting import Counts

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

# Published figures: parameters, multiply-adds.
PUBLISHED = {
    "4": {
        "MobileNetV1": ("4.2M", "575M"),
        "MobileNetV2": ("3.4M", "300M"),
        "MobileNetV2 1.4": ("6.9M", "585M"),
    },
    "5": {"SSD": ("14.8M", "1.25B"), "SSDLite": ("2.1M", "0.35B")},
    "6": {"MobileNetV1 SSDLite": ("5.1M", "1.3B"), "MobileNetV2 SSDLite": ("4.3M", "0.8B")},
    "7": {
        "MobileNetV1 ASPP 16": ("11.15M", "14.25B"),
        "MobileNetV1 ASPP 8 MF": ("11.15M", "941.9B"),
        "MobileNetV2 ASPP 16": ("4.52M", "5.8B"),
        "MobileNetV2 ASPP 8 MF": ("4.52M", "387B"),
        "MobileNetV2 16": ("2.11M", "2.75B"),
        "MobileNetV2 8 MF": ("2.11M", "152.6B"),
        "ResNet-101 ASPP 16": ("58.16M", "81.0B"),
        "ResNet-101 ASPP 8 MF": ("58.16M", "4870.6B"),
    },
    "widths": {
        "1.4 at 224": ("6.06M", "582M"),
        "1.3 at 224": ("5.34M", "509M"),
        "1.0 at 224": ("3.47M", "300M"),
        "1.0 at 192": ("3.47M", "221M"),
        "1.0 at 160": ("3.47M", "154M"),
        "1.0 at 128": ("3.47M", "99M"),
        "1.0 at 96": ("3.47M", "56M"),
        "0.75 at 224": ("2.61M", "209M"),
        "0.75 at 192": ("2.61M", "153M"),
        "0.75 at 160": ("2.61M", "107M"),
        "0.75 at 128": ("2.61M", "69M"),
        "0.75 at 96": ("2.61M", "39M"),
        "0.5 at 224": ("1.95M", "97M"),
        "0.5 at 192": ("1.95M", "71M"),
        "0.5 at 160": ("1.95M", "50M"),
        "0.5 at 128": ("1.95M", "32M"),
        "0.5 at 96": ("1.95M", "18M"),
        "0.35 at 224": ("1.66M", "59M"),
        "0.35 at 192": ("1.66M", "43M"),
        "0.35 at 160": ("1.66M", "30M"),
        "0.35 at 128": ("1.66M", "20M"),
        "0.35 at 96": ("1.66M", "11M"),
    },
}
# Published figures that differ from our counts; a note in the table says why.
DIFFERENT = {
    ("MobileNetV1", "575M"),
    ("MobileNetV2 1.4", "6.9M"),
    ("MobileNetV2 1.4", "585M"),
    ("SSDLite", "0.35B"),
    ("MobileNetV1 ASPP 8 MF", "941.9B"),
    ("ResNet-101 ASPP 16", "58.16M"),
    ("ResNet-101 ASPP 16", "81.0B"),
    ("ResNet-101 ASPP 8 MF", "58.16M"),
    ("ResNet-101 ASPP 8 MF", "4870.6B"),
}
# Counted on other implementations of the networks; the multiply-adds of MobileNetV1 and ResNet-101
# are also counted by hand, below.
PARAMETERS = {
    ("4", "MobileNetV1"): 4_231_976,
    ("4", "MobileNetV2"): 3_504_872,
    ("4", "MobileNetV2 1.4"): 6_108_776,
    ("5", "SSD"): 14_776_629,
    ("5", "SSDLite"): 2_113_141,
    ("6", "MobileNetV1 SSDLite"): 5_100_661,
    ("6", "MobileNetV2 SSDLite"): 4_337_013,
    ("7", "MobileNetV1 ASPP 16"): 11_145_301,
    ("7", "MobileNetV1 ASPP 8 MF"): 11_145_301,
    ("7", "MobileNetV2 ASPP 16"): 4_523_541,
    ("7", "MobileNetV2 ASPP 8 MF"): 4_523_541,
    ("7", "MobileNetV2 16"): 2_113_557,
    ("7", "MobileNetV2 8 MF"): 2_113_557,
    ("7", "ResNet-101 ASPP 16"): 58_040_661,
    ("7", "ResNet-101 ASPP 8 MF"): 58_040_661,
}
MULTIPLY_ADDS = {
    ("4", "MobileNetV1"): "568.74M",
    ("4", "MobileNetV2"): "300.77M",
    ("4", "MobileNetV2 1.4"): "582.2M",
    ("5", "SSD"): "1259M",
    ("5", "SSDLite"): "177.6M",
    ("6", "MobileNetV2 SSDLite"): "788.8M",
    ("7", "MobileNetV1 ASPP 16"): "12.761B",
    ("7", "MobileNetV1 ASPP 8 MF"): "800.75B",
    ("7", "MobileNetV2 ASPP 16"): "5.364B",
    ("7", "MobileNetV2 ASPP 8 MF"): "327.9B",
    ("7", "MobileNetV2 16"): "2.741B",
    ("7", "MobileNetV2 8 MF"): "152.33B",
    ("7", "ResNet-101 ASPP 16"): "71.06B",
    ("7", "ResNet-101 ASPP 8 MF"): "4248.49B",
}
PADDED = {
    ("7", "MobileNetV1 ASPP 16"): "14.227B",
    ("7", "MobileNetV1 ASPP 8 MF"): "990.79B",
    ("7", "MobileNetV2 ASPP 16"): "5.823B",
    ("7", "MobileNetV2 ASPP 8 MF"): "387.48B",
    ("7", "MobileNetV2 8 MF"): "152.53B",
    ("7", "ResNet-101 ASPP 16"): "74.31B",
    ("7", "ResNet-101 ASPP 8 MF"): "4680.74B",
}


@pytest.fixture(scope="module")
def counts():
    """Returns the counts of every row, by table and name."""
    rows = [(name, row) for name, table in TABLES.items() for row in table.rows]
    return {(name, row.name): row.model.count() for name, row in rows}


def digits(number, figure, rounding=round):
    """Returns the number in the unit and with the decimals of the figure."""
    decimals = len(figure[:-1].partition(".")[2])
    return rounding(number / {"M": 1e6, "B": 1e9}[figure[-1]] * 10**decimals) / 10**decimals


def is_as_published(number, figure):
    """Returns whether a figure is the rounded or truncated number; both sources do either."""
    return float(figure[:-1]) in (digits(number, figure), digits(number, figure, floor))


# Counts of our models


def test_the_tables_contain_the_published_figures():
    figures = {
        name: {row.name: (row.parameters, row.multiply_adds) for row in table.rows}
        for name, table in TABLES.items()
    }
    assert figures == PUBLISHED


@pytest.mark.parametrize(("table", "row"), PARAMETERS)
def test_parameters_are_exact(table, row, counts):
    assert counts[table, row].parameters == PARAMETERS[table, row]


def test_parameters_without_norms_are_exact(counts):
    assert counts["4", "MobileNetV2"].parameters_without_norms == 3_470_760


@pytest.mark.parametrize(("table", "row"), MULTIPLY_ADDS)
def test_multiply_adds_are_exact(table, row, counts):
    figure = MULTIPLY_ADDS[table, row]
    assert digits(counts[table, row].multiply_adds, figure) == float(figure[:-1])


@pytest.mark.parametrize(("table", "row"), PADDED)
def test_padded_multiply_adds_are_exact(table, row, counts):
    figure = PADDED[table, row]
    assert digits(counts[table, row].padded_multiply_adds, figure) == float(figure[:-1])


@pytest.mark.parametrize(
    ("table", "row"), [(name, row) for name, rows in PUBLISHED.items() for row in rows]
)
def test_parameters_are_as_published(table, row, counts):
    figure, counted = PUBLISHED[table][row][0], counts[table, row]
    without = TABLES[table].without_norms
    number = counted.parameters_without_norms if without else counted.parameters
    assert is_as_published(number, figure) != ((row, figure) in DIFFERENT)


@pytest.mark.parametrize(
    ("table", "row"), [(name, row) for name, rows in PUBLISHED.items() for row in rows]
)
def test_multiply_adds_are_as_published(table, row, counts):
    figure, counted = PUBLISHED[table][row][1], counts[table, row]
    equal = is_as_published(counted.multiply_adds, figure)
    if TABLES[table].padded:
        # The last digits of 2.75 and 14.25 differ from our counts.
        ratio = counted.padded_multiply_adds / (float(figure[:-1]) * 1e9)
        equal = ratio == pytest.approx(1, abs=0.005)
    assert equal != ((row, figure) in DIFFERENT)


def test_every_difference_has_a_note():
    rows = [row for table in TABLES.values() for row in table.rows]
    explained = {row.name for row in rows if row.note}
    assert {name for name, _ in DIFFERENT} <= explained
    # 3.4M is 3.47M truncated.
    assert explained - {name for name, _ in DIFFERENT} == {"MobileNetV2"}


# Counts by hand: the positions of every layer times its weights


def plain(size, rate):
    return size**2


def padded(size, rate):
    return (rate * ceil(size / rate)) ** 2


def deeplab(grid, channels, rates, positions):
    """Returns the full ASPP: pooling, 1x1, three atrous branches of 256 channels; 21 labels."""
    branches = 1 + grid**2 + 9 * sum(positions(grid, rate) for rate in rates)
    return channels * 256 * branches + grid**2 * (5 * 256 * 256 + 256 * 21)


def mobilenet_v1(size, output_stride, rates, positions):
    grid, stride, rate, channels = ceil(size / 2), 2, 1, 32
    total = grid**2 * 9 * 3 * 32
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for outputs, nominal_stride in [*blocks, (1024, 2), (1024, 1)]:
        step = nominal_stride if stride < output_stride else 1
        grid, stride = ceil(grid / step), stride * step
        total += positions(grid, rate) * 9 * channels + grid**2 * channels * outputs
        rate, channels = rate * nominal_stride // step, outputs
    return total + deeplab(grid, 1024, rates, positions)


def resnet_101(size, output_stride, rates, positions):
    """Returns torchvision's ResNet-101, with strides in the 3x3 of a stage's first block."""
    grid = ceil(size / 2)
    total = grid**2 * 49 * 3 * 64
    grid, stride, rate, channels = ceil(grid / 2), 4, 1, 64
    for inside, blocks, nominal_stride in ((64, 3, 1), (128, 4, 2), (256, 23, 2), (512, 3, 2)):
        for block in range(blocks):
            nominal = nominal_stride if block == 0 else 1
            step = nominal if stride < output_stride else 1
            outputs, stride = ceil(grid / step), stride * step
            total += grid**2 * channels * inside
            total += positions(outputs, rate) * 9 * inside**2
            total += outputs**2 * inside * 4 * inside
            if block == 0:
                total += outputs**2 * channels * 4 * inside
            grid, rate, channels = outputs, rate * nominal // step, 4 * inside
    return total + deeplab(grid, 2048, rates, positions)


@pytest.mark.parametrize(
    ("name", "by_hand"), [("MobileNetV1 ASPP", mobilenet_v1), ("ResNet-101 ASPP", resnet_101)]
)
def test_multiply_adds_equal_the_count_by_hand(name, by_hand, counts):
    sizes = [round(512 * scale) + 1 for scale in SCALES]
    single, views = counts["7", f"{name} 16"], counts["7", f"{name} 8 MF"]
    for positions, field in ((plain, "multiply_adds"), (padded, "padded_multiply_adds")):
        assert getattr(single, field) == by_hand(513, 16, (6, 12, 18), positions)
        assert getattr(views, field) == 2 * sum(
            by_hand(size, 8, (12, 24, 36), positions) for size in sizes
        )


# The numbers in the notes


def test_the_published_ssdlite_counts_operations(counts):
    assert is_as_published(2 * counts["5", "SSDLite"].multiply_adds, "0.35B")


def test_mobilenet_v1_with_other_rates():
    sizes = [round(512 * scale) + 1 for scale in SCALES]
    other = 2 * sum(mobilenet_v1(size, 8, (12, 18, 24), padded) for size in sizes)
    assert digits(other, "940.3B") == 940.3
    assert other / 941.9e9 == pytest.approx(1, abs=0.002)


def tensorflows_resnet_101(size, output_stride, rates):
    """Returns padded multiply-adds of DeepLabv3 on slim's `resnet_v1_101_beta`."""
    grid = ceil(size / 2)
    total = grid**2 * 9 * (3 * 64 + 64 * 64 + 64 * 128)
    grid, stride, rate, channels = ceil(grid / 2), 4, 1, 128
    for inside, blocks in ((64, 3), (128, 4), (256, 23), (512, 3)):
        for block in range(blocks):
            strided = inside < 512 and block == blocks - 1
            outputs = grid
            if strided and stride < output_stride:
                outputs, stride = ceil(grid / 2), 2 * stride
            multi_grid = 2**block if inside == 512 else 1
            total += grid**2 * channels * inside
            total += padded(outputs, rate * multi_grid) * 9 * inside**2
            total += outputs**2 * inside * 4 * inside
            if channels != 4 * inside:
                total += outputs**2 * channels * 4 * inside
            if strided and outputs == grid:
                rate *= 2
            grid, channels = outputs, 4 * inside
    return total + deeplab(grid, 2048, rates, padded)


def test_tensorflows_resnet_explains_the_published_one():
    single = tensorflows_resnet_101(513, 16, (6, 12, 18))
    sizes = [round(512 * scale) + 1 for scale in SCALES]
    views = 2 * sum(tensorflows_resnet_101(size, 8, (12, 24, 36)) for size in sizes)
    assert digits(single, "80.8B") == 80.8
    assert digits(views, "4868.9B") == 4868.9
    assert single / 81.0e9 == pytest.approx(1, abs=0.0025)
    assert views / 4870.6e9 == pytest.approx(1, abs=0.0005)


def test_tensorflows_stem_explains_the_published_parameters():
    stem = 9 * (3 * 64 + 64 * 64 + 64 * 128) - 49 * 3 * 64
    norms = 2 * (64 + 64 + 128 - 64)
    first_block = 64 * 64 + 64 * 256  # its two 1x1 convolutions have 64 more input channels
    assert 58_040_661 + stem + norms + first_block == 58_164_437


# The command


def run(monkeypatch, *arguments, columns=100):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["model_table", *arguments])
    model_table.main()


def test_a_table_is_printed(monkeypatch, capsys):
    run(monkeypatch, "--table=6")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if "SSDLite " in line]
    assert rows == [
        ["MobileNetV1", "SSDLite", "5,100,661", "5.1M", "1.00", "1.31B", "1.3B", "1.01"],
        ["MobileNetV2", "SSDLite", "4,337,013", "4.3M", "1.01", "0.79B", "0.8B", "0.99"],
    ]
    assert "    mbv2det train ssdlite_coco --backbone.name=mobilenet_v1" in lines


@pytest.fixture
def widest(monkeypatch):
    """Returns table 7 with the largest counts in every row, and its cells."""
    most = Counts(58_040_661, 57_932_245, 4_248_491_504_896, 4_680_738_125_056)
    monkeypatch.setattr(Trained, "count", lambda _: most)
    table = TABLES["7"]
    return table, [[row.name, *cells(row, most, table)] for row in table.rows]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_in_a_pipe_every_row_is_one_line_without_truncation(columns, widest, monkeypatch, capsys):
    run(monkeypatch, "--table=7", columns=columns)
    text = capsys.readouterr().out
    assert "…" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    table, rows = widest
    for row, whole in zip(table.rows, rows, strict=True):
        line = next(line for line in lines if line.startswith(f"{row.name} 5"))
        assert line.removesuffix("(1)").removesuffix("(2)").strip() == " ".join(whole)
    commands = " ".join(text.replace("\\\n", "").split())
    assert commands.count("mbv2det train ") == commands.count("mbv2det eval ") == 4
    assert commands.split().count("--weights=FILE") == 4
    assert "(2)" in text


def shown_at(columns, name, counts, monkeypatch):
    """Returns the lines of a table at a terminal width, without its notes and commands."""
    counted = {id(row.model): counts[name, row.name] for row in TABLES[name].rows}
    for kind in (Classifier, Trained):
        monkeypatch.setattr(kind, "count", lambda model: counted[id(model)])
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=columns, color_system=None)
    model_table.show(replace(TABLES[name], remark="END"), console)
    text = file.getvalue()
    assert "…" not in text
    return text.partition("END")[0].splitlines()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_fits_80_columns(name, counts, monkeypatch):
    lines = shown_at(80, name, counts, monkeypatch)
    assert max(map(len, lines)) <= 80
    for row in TABLES[name].rows:  # only the name may wrap
        numbers = " ".join(cells(row, counts[name, row.name], TABLES[name]))
        assert any(numbers in " ".join(line.split()) for line in lines)


@pytest.mark.parametrize(("columns", "width"), [(40, 80), (85, 85), (200, 90)])
def test_the_widest_table_is_no_wider_than_needed(columns, width, counts, monkeypatch):
    lines = shown_at(columns, "7", counts, monkeypatch)
    assert max(map(len, lines)) == width


def test_all_tables_are_printed_if_none_is_chosen(monkeypatch, capsys):
    chosen = {name: TABLES[name] for name in ("4", "6")}
    monkeypatch.setattr(model_table, "TABLES", chosen)
    run(monkeypatch)
    text = capsys.readouterr().out
    assert "Table 4" in text
    assert "Table 6" in text


def test_an_unknown_table_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--table=8")
    assert "invalid choice: '8'" in capsys.readouterr().err


def test_it_runs_from_any_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "--table=5")
    assert "14,776,629" in capsys.readouterr().out


def test_it_is_a_command_and_a_study(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    run(monkeypatch, "--table=5")
    printed = capsys.readouterr().out
    assert run_command("study", "model_table", "--table=5").stdout == printed
    assert run_command("main", "model_table", "--table=5").stdout == printed


@pytest.mark.parametrize(("table", "row"), [("5", "SSDLite"), ("7", "MobileNetV2 8 MF")])
def test_the_commands_name_shipped_configurations(table, row):
    model = next(one.model for one in TABLES[table].rows if one.name == row)
    name = model.command.split()[2]
    assert (ROOT / "configs" / f"{name}.yaml").is_file()
