"""See `python tools/model_table.py --help`."""

from mbv2det.cli.model_table import main

if __name__ == "__main__":
    main()
