"""See `python tools/find_batch_size.py --help`."""

from mbv2det.cli.find_batch_size import main

if __name__ == "__main__":
    main()
