"""See `python tools/train.py --help`."""

from mbv2det.cli.huge_pages import use_huge_pages

if __name__ == "__main__":
    use_huge_pages()
    from mbv2det.cli.train import main

    main()
