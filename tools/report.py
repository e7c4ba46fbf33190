"""See `python tools/report.py --help`."""

from mbv2det.cli.report import main

if __name__ == "__main__":
    main()
