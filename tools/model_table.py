"""See `python tools/model_table.py --help`."""

import sys

from mbv2det.cli.study import run_study

if __name__ == "__main__":
    run_study("model_table", sys.argv[1:])
