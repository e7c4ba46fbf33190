"""See `python tools/export.py --help`."""

from mbv2det.cli.export import main

if __name__ == "__main__":
    main()
