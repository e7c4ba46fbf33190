"""See `python tools/predict.py --help`."""

from mbv2det.cli.predict import main

if __name__ == "__main__":
    main()
