"""torch.compile for training (`trainer.compile`)."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException

from mbv2det.errors import ConfigError

_KEY = "trainer.compile"


def check_compiler() -> None:
    """Checks that there is the C++ compiler that PyTorch's inductor runs.

    Raises:
        ConfigError: If there is none.
    """
    default = "clang++" if sys.platform == "darwin" else "g++"
    compiler = os.environ.get("CXX", default)  # inductor's rule
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"{_KEY}: expected a C++ compiler, with which PyTorch compiles the network, found no "
            f"{compiler}; install it, name another in the environment variable CXX, or set "
            f"{_KEY}=false"
        )


@contextmanager
def compile_errors() -> Iterator[None]:
    """Raises a failure to compile as `ConfigError`.

    The compiler of the system runs at the first step, and may lack what it needs.
    """
    try:
        yield
    except TorchDynamoException as error:
        line = re.sub(r"\s+", " ", str(error)).strip()
        raise ConfigError(
            f"{_KEY}: PyTorch cannot compile the network here: {line:.300}; set {_KEY}=false"
        ) from error
