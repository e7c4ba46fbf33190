"""See `python tools/import_weights.py --help`."""

from mbv2det.cli.import_weights import main

if __name__ == "__main__":
    main()
