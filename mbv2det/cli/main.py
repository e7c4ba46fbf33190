"""The console script: `mbv2det COMMAND ...`."""

import sys
from importlib import import_module

from mbv2det.cli.huge_pages import use_huge_pages

_COMMANDS = {
    "train": "train a model: mbv2det train CONFIG [--key.sub=value ...]",
    "eval": "measure weights on a data set: mbv2det eval CONFIG --weights FILE",
    "report": "show where models fail, and why: mbv2det report CONFIG --weights FILE...",
    "compare": "show what changed between two models: mbv2det compare A B --config CONFIG",
    "predict": "find objects in images: mbv2det predict --weights FILE INPUT... --out DIR",
    "prepare_data": "find out what your data is, and configure it: mbv2det prepare_data ROOT",
    "check_data": "find every fault of a data set: mbv2det check_data CONFIG [--fix OUT]",
    "show_batch": "draw batches as the network gets them: mbv2det show_batch CONFIG --out DIR",
    "find_lr": "find a learning rate to start with: mbv2det find_lr CONFIG [--out lr.png]",
    "find_batch_size": "find the largest batch that fits: mbv2det find_batch_size CONFIG",
    "benchmark": "time networks side by side: mbv2det benchmark FILE... [--peers]",
    "demo": "run a model in the browser: mbv2det demo --weights FILE [--static OUT]",
    "export": "write a file for another runtime: mbv2det export --weights FILE --out model.onnx",
    "import_weights": "convert other weights: mbv2det import_weights FORMAT SOURCE --out FILE",
    "study": "run a study of the paper's claims: mbv2det study NAME ...",
    "model_table": "compare parameters and multiply-adds with published ones: mbv2det model_table",
}
_STUDIES = ("model_table",)  # studies that are also commands


def main() -> None:
    """Runs the command that the first argument names.

    `sys.argv` is not changed: Lightning starts the other processes of a run with it.
    """
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in _STUDIES:
        import_module("mbv2det.cli.study").main([command, *arguments])
    elif command in _COMMANDS:
        if command == "train":
            use_huge_pages()
        import_module(f"mbv2det.cli.{command}").main(arguments, prog=f"mbv2det {command}")
    elif command in ("-h", "--help"):
        lines = [f"  {name:16}{summary}" for name, summary in _COMMANDS.items()]
        print(
            "\n".join(
                [
                    "usage: mbv2det COMMAND ...",
                    "",
                    *lines,
                    "",
                    "mbv2det COMMAND --help explains each.",
                ]
            )
        )
    else:
        sys.exit(f"mbv2det: error: expected one of {', '.join(_COMMANDS)}, got {command!r}")
