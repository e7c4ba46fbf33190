"""Frozen TensorFlow graphs without TensorFlow: variables that were turned into constants."""

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import graph_pb2
from tensorboard.util.tensor_util import make_ndarray

from mbv2det.errors import ConfigError

_READ = "/read"  # of the node that reads a variable, which freezing leaves in the graph


def read_frozen_graph(path: Path) -> dict[str, np.ndarray]:
    """Reads the variables of a frozen graph by name.

    Args:
        path: File of a serialised `GraphDef`, such as `frozen_inference_graph.pb`.

    Raises:
        ConfigError: If the file is missing, damaged, or holds no variables.
    """
    try:
        graph = graph_pb2.GraphDef.FromString(path.read_bytes())
        readers = {node.name for node in graph.node if node.op == "Identity"}
        variables = {
            node.name: make_ndarray(node.attr["value"].tensor)
            for node in graph.node
            if node.op == "Const" and node.name + _READ in readers
        }
    except (OSError, DecodeError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a whole frozen graph ({error})") from None
    if not variables:
        raise ConfigError(
            f"{path}: expected a frozen graph whose constants were variables, got none of them"
        )
    return variables
