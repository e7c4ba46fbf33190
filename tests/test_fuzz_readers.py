"""A few cases of the fuzzer of tests/benchmarks; the script runs 20,000."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import fuzz_readers


@pytest.mark.parametrize("name", [name for name in fuzz_readers.FILES if name != "config.yaml"])
def test_damaged_file_is_read_or_refused_in_one_line(tmp_path, name):
    fuzz_readers.make_files(tmp_path)
    random_ = random.Random(1)
    results = [fuzz_readers.run_case(tmp_path, name, random_) for _ in range(120)]
    assert [result for result in results if result not in ("read", "refused")] == []
    assert "refused" in results
