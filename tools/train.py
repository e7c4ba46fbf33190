"""See `python tools/train.py --help`."""

from mbv2det.cli.train import main

if __name__ == "__main__":
    main()
