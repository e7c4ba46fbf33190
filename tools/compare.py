"""See `python tools/compare.py --help`."""

from mbv2det.cli.compare import main

if __name__ == "__main__":
    main()
