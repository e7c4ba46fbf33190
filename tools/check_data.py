"""See `python tools/check_data.py --help`."""

from mbv2det.cli.check_data import main

if __name__ == "__main__":
    main()
