"""See `python tools/prepare_data.py --help`."""

from mbv2det.cli.prepare_data import main

if __name__ == "__main__":
    main()
