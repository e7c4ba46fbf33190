"""The console script: `mbv2det COMMAND ...`."""

import sys
from importlib import import_module

_COMMANDS = {
    "train": "train a model: mbv2det train CONFIG [--key.sub=value ...]",
    "eval": "measure weights on a data set: mbv2det eval CONFIG --weights FILE",
    "predict": "find objects in images: mbv2det predict --weights FILE INPUT... --out DIR",
    "export": "a file for another runtime: mbv2det export --weights FILE --format onnx --out FILE",
    "import_weights": "weights of other libraries: mbv2det import_weights FORMAT SOURCE --out FILE",
    "study": "a study of the paper's claims or a comparison: mbv2det study NAME ...",
    "model_table": "parameters and multiply-adds beside the published: mbv2det model_table",
}
_STUDIES = ("model_table",)  # studies that are commands of their own as well


def main() -> None:
    """Runs the command that the first argument names.

    `sys.argv` stays as it is: Lightning starts the other processes of a run with it.
    """
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in _STUDIES:
        import_module("mbv2det.cli.study").main([command, *arguments])
    elif command in _COMMANDS:
        import_module(f"mbv2det.cli.{command}").main(arguments, prog=f"mbv2det {command}")
    elif command in ("-h", "--help"):
        lines = [f"  {name:16}{what}" for name, what in _COMMANDS.items()]
        print(
            "\n".join(["usage: mbv2det COMMAND ...", "", *lines, "", "COMMAND --help tells more."])
        )
    else:
        sys.exit(f"mbv2det: error: no command {command!r}; there are {', '.join(_COMMANDS)}")
