"""An object that shows whether a file was unpickled."""


class RunsCode:
    """Unpickling this writes the file `witness`."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (str(self.witness), "w")
