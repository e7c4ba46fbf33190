"""See `python tools/model_table.py --help`."""

from mbv2det.cli.study import run_study

if __name__ == "__main__":
    run_study("model_table")
