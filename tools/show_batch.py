"""See `python tools/show_batch.py --help`."""

from mbv2det.cli.show_batch import main

if __name__ == "__main__":
    main()
