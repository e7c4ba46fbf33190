"""Counts the models of the paper and prints the counts beside the published figures."""

import argparse
import sys
import textwrap
from collections.abc import Sequence

from published import TABLES, PublishedTable, Row, Trained
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from mbv2det.console import one_line_errors
from mbv2det.counting import Counts

_DESCRIPTION = """
Builds the models of the MobileNetV2 paper (arXiv:1801.04381), counts their parameters and
multiply-adds, and prints the counts beside the published figures. Tables:

  4       ImageNet classifiers
  5       the heads of SSD and SSDLite without the backbone
  6       detectors: SSDLite on COCO
  7       segmenters: DeepLabv3 on Pascal VOC
  widths  MobileNetV2 by width multiplier and image size, from the README of TensorFlow's slim

Columns:

  parameters  all parameters, as counted here
  no norms    without those of batch norms
  MAdds       multiply-adds of one image; a multiply-add is one use of one weight of a convolution
              or a linear layer
  padded      multiply-adds that TensorFlow computes, which pads the input of atrous convolutions
  paper       the published figure (README: that of slim's README)
  ratio       the count that follows the rules of the publication, divided by the published figure

Below each table: why figures differ, and the command that trains each model.
"""

_UNITS = {"M": 1e6, "B": 1e9}
_UNLIMITED = 1000  # characters, wider than any table


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, help="print one table (default: all)")
    chosen = parser.parse_args(sys.argv[1:]).table
    console = Console()
    for name in [chosen] if chosen else TABLES:
        show(TABLES[name], console)


def show(published: PublishedTable, console: Console) -> None:
    """Prints a table, then its notes and commands."""
    notes = list(dict.fromkeys(row.note for row in published.rows if row.note))
    console.print(published.title, style="bold", highlight=False)
    _print_whole(_table(published, notes), console)
    if published.remark:
        _print_hanging(published.remark, console)
    for number, note in enumerate(notes, start=1):
        _print_hanging(f"({number}) {note}", console)
    console.print()
    for row in published.rows:
        if isinstance(row.model, Trained):
            _print_command(row.name, row.model.command, console)


def _table(published: PublishedTable, notes: Sequence[str]) -> Table:
    headings = [
        *("parameters", *["no norms"] * published.without_norms, published.source, "ratio"),
        *("MAdds", *["padded"] * published.padded, published.source, "ratio"),
    ]
    columns = [Column(heading, justify="right", no_wrap=True) for heading in headings]
    table = Table("model", *columns, "", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for row in published.rows:
        note = f"({notes.index(row.note) + 1})" if row.note else ""
        table.add_row(row.name, *cells(row, row.model.count(), published), note)
    return table


def _print_whole(table: Table, console: Console) -> None:
    """Prints a table without truncating a cell.

    On a terminal, names wrap until the table fits, if it can; in a pipe, lines are not wrapped.
    """
    options = console.options.update(max_width=_UNLIMITED)
    least, most = Measurement.get(console, options, table)
    table.width = min(max(console.width, least), most) if console.is_terminal else most
    console.print(table, soft_wrap=True)


def cells(row: Row, counts: Counts, published: PublishedTable) -> list[str]:
    """Returns the cells of a row; ratios compare counts of the same kind as the published ones."""
    sizes = [counts.parameters, counts.parameters_without_norms][: 1 + published.without_norms]
    costs = [counts.multiply_adds, counts.padded_multiply_adds][: 1 + published.padded]
    return [
        *(f"{size:,}" for size in sizes),
        row.parameters,
        f"{sizes[-1] / value(row.parameters):.2f}",
        *(in_unit_of(row.multiply_adds, cost) for cost in costs),
        row.multiply_adds,
        f"{costs[-1] / value(row.multiply_adds):.2f}",
    ]


def value(figure: str) -> float:
    """Returns the number that a published figure stands for: "4.2M" is 4.2e6."""
    return float(figure[:-1]) * _UNITS[figure[-1]]


def in_unit_of(figure: str, number: float) -> str:
    """Returns a number in the unit of a published figure, with one more decimal."""
    decimals = len(figure[:-1].partition(".")[2]) + 1
    return f"{number / _UNITS[figure[-1]]:.{decimals}f}{figure[-1]}"


def _print_hanging(text: str, console: Console) -> None:
    lines = textwrap.wrap(text, console.width, subsequent_indent="    ")
    console.print("\n".join(lines), highlight=False, markup=False)


def _print_command(name: str, command: str, console: Console) -> None:
    """Prints a command, wrapped by backslashes into lines that a shell joins."""
    width = console.width - len("    ") - len(" \\")
    lines = textwrap.wrap(command, width, break_long_words=False, break_on_hyphens=False)
    text = " \\\n    ".join(lines)
    console.print(f"{name}\n    {text}\n", highlight=False, markup=False, soft_wrap=True)
