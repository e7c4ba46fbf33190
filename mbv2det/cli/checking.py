"""The check of a data set: its steps, its table and its files."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from mbv2det.atomic_write import write_json
from mbv2det.checks.check import check_data, tasks_of
from mbv2det.checks.contact_sheets import write_sheets
from mbv2det.checks.corrected_copy import CHANGES, write_corrected_copy
from mbv2det.checks.finding import Finding, by_kind
from mbv2det.checks.report import Report
from mbv2det.cli.settings import Settings
from mbv2det.console import log

_SHOWN = 5  # findings of a kind in the table


def check(settings: Settings) -> Report:
    """Checks the data of a command line; prints and writes what was found."""
    report = check_data(settings.config, log)
    print_findings(report.findings, Path(settings.config.data.root))
    options = settings.options
    if options.json:
        write_json(Path(options.json), report.document())
        log(f"findings: {options.json}")
    if options.pictures:
        _draw(report, settings, Path(options.pictures))
    if options.fix:
        _fix(report, settings, Path(options.fix))
    count = len(report.faults)
    log(f"{count} fault{'' if count == 1 else 's'}" if count else "no faults")
    return report


def _draw(report: Report, settings: Settings, folder: Path) -> None:
    for name, split in report.splits.items():
        faults = [fault for fault in report.faults if fault.split == name]
        pages = write_sheets(split, tasks_of(split, settings.config), faults, folder, name)
        log(f"pictures: {pages} page{'s' if pages > 1 else ''} in {folder}/{name}_*.jpg")


def _fix(report: Report, settings: Settings, out: Path) -> None:
    copy = write_corrected_copy(report, out)
    log(f"corrected copy: {out}; {len(copy.changes)} changes, listed in {out / CHANGES}")
    log(shlex.join(["mbv2det", "check_data", settings.name, *copy.settings]))


def print_findings(findings: Sequence[Finding], root: Path) -> None:
    """Prints two tables on standard output: faults and remarks, with the first of each kind.

    Args:
        findings: What was found.
        root: Folder of the data set, relative to which files are shown.
    """
    console = Console()
    for title, is_fault in (("faults", True), ("remarks", False)):
        chosen = [finding for finding in findings if finding.kind.is_fault == is_fault]
        if chosen:
            console.print(_table(title, chosen, root))


def _table(title: str, findings: Sequence[Finding], root: Path) -> Table:
    table = Table(
        "split",
        Column("number", justify="right"),
        Column("what, and where", overflow="fold"),
        title=title,
        show_lines=True,
    )
    for (kind, split), group in by_kind(findings).items():
        heading = f"{kind.name}: {kind.remedy}" if kind.remedy else kind.name
        lines = [heading, *(f"  {_line(finding, root)}" for finding in group[:_SHOWN])]
        if len(group) > _SHOWN:
            lines.append(f"  and {len(group) - _SHOWN} more")
        table.add_row(split, str(len(group)), "\n".join(lines).replace("[", r"\["))
    return table


def _line(finding: Finding, root: Path) -> str:
    message = "" if finding.message == finding.kind.name else finding.message
    file = finding.file.removeprefix(f"{root}{os.sep}")
    return ": ".join(part for part in (file, message) if part)
