"""See `python tools/eval.py --help`."""

from mbv2det.cli.eval import main

if __name__ == "__main__":
    main()
