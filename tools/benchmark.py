"""See `python tools/benchmark.py --help`."""

from mbv2det.cli.benchmark import main

if __name__ == "__main__":
    main()
