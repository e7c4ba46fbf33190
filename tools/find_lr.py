"""See `python tools/find_lr.py --help`."""

from mbv2det.cli.find_lr import main

if __name__ == "__main__":
    main()
