"""All findings of a data set, and what the checks that follow need."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mbv2det.checks.finding import Finding, faults_of
from mbv2det.checks.image_files import ImageFacts
from mbv2det.data.annotations import Annotations


@dataclass(frozen=True)
class Report:
    """What the checks found.

    Attributes:
        splits: The splits that could be read, by name; images without an annotated size have the
            measured one.
        facts: Facts about the image files of each split.
        findings: Everything that was found.
    """

    splits: Mapping[str, Annotations]
    facts: Mapping[str, list[ImageFacts]]
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that are faults."""
        return faults_of(self.findings)

    def document(self) -> dict[str, object]:
        """Returns the report as JSON values."""
        return {
            "images": {name: len(split) for name, split in self.splits.items()},
            "faults": len(self.faults),
            "findings": [finding.document() for finding in self.findings],
        }
