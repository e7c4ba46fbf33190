"""See `python tools/demo.py --help`."""

from mbv2det.cli.demo import main

if __name__ == "__main__":
    main()
