"""What training checks before it starts: the cheap part of `check_data`, which decodes nothing."""

from collections.abc import Iterator

from mbv2det.checks.boxes import are_fractions, looks_like_corners
from mbv2det.checks.files import UNUSABLE, check_files
from mbv2det.checks.finding import CORNERS, FRACTIONS, Finding, Kind
from mbv2det.checks.image_files import look_at_all, look_at_headers
from mbv2det.data.annotations import Annotations
from mbv2det.errors import DataError

MOST_HEADERS = 10_000  # images whose headers are read in a second or two
_SHOWN = 5  # files in a message


def refuse_misleading(split: Annotations, name: str) -> None:
    """Refuses a split on which a training would run to its end and be useless.

    Args:
        split: Split to check.
        name: Name of the split.

    Raises:
        DataError: With all such faults.
    """
    kinds = list(_misleading(split))
    if kinds:
        reasons = "; ".join(f"{kind.name}: {kind.remedy}" for kind in kinds)
        raise DataError(f"{name}: {split.name}: {reasons} (check_data shows the files)")


def _misleading(split: Annotations) -> Iterator[Kind]:
    if split.objects is None:
        return
    if are_fractions(split):
        yield FRACTIONS
    elif looks_like_corners(split):
        yield CORNERS


def unusable_files(split: Annotations, name: str) -> list[Finding]:
    """Returns the files that training cannot use, as far as their first bytes show.

    Damage further on is found when a file is decoded. Splits of more than `MOST_HEADERS` images
    are not looked at.

    Args:
        split: Split to check.
        name: Name of the split.
    """
    if len(split) > MOST_HEADERS:
        return []
    facts = look_at_all(split, look_at_headers, "", processes=1)
    return [finding for finding in check_files(split, facts, name) if finding.kind in UNUSABLE]


def describe_unusable(findings: list[Finding], split: Annotations, name: str) -> str:
    """Returns a line with the number of unusable files and the first few of them.

    Args:
        findings: The files; at least one.
        split: Their split.
        name: Name of the split.
    """
    shown = [f"{finding.file}: {finding.message}" for finding in findings[:_SHOWN]]
    more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    count = len({finding.index for finding in findings})
    return f"{name}: {count} of {len(split)} images cannot be used: {'; '.join(shown)}{more}"
