"""Writes TensorFlow's files as TensorFlow lays them out, for the tests of their readers."""

import struct
import tarfile
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import graph_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_tensor_proto

FLOAT, INT64 = 1, 9  # numbers of the types in types.proto
MAGIC = 0xDB4775248B80FB57


def varint(value):
    content = b""
    while value >= 128:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def field(number, content):
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(tag, value):
    return varint(tag << 3) + varint(value)


def block(entries, restart_every=16):
    """A block of a table: keys share the beginning of the key before them, but at restarts."""
    content, restarts, previous = b"", [], b""
    for row, (key, value) in enumerate(entries):
        if row % restart_every == 0:
            restarts.append(len(content))
            previous = b""
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        lengths = varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += lengths + key[shared:] + value
        previous = key
    return (
        content
        + b"".join(struct.pack("<I", r) for r in restarts)
        + struct.pack("<I", len(restarts))
    )


def with_trailer(content, compression=0):
    kind = bytes([compression])
    return content + kind + struct.pack("<I", masked_crc32c(content + kind))


def entry(array, shard, offset, content):
    shape = b"".join(field(2, number(1, side)) for side in array.shape)
    kind = INT64 if array.dtype == np.int64 else FLOAT
    message = number(1, kind) + field(2, shape)
    if shard:
        message += number(3, shard)
    if offset:
        message += number(4, offset)
    message += number(5, len(content))
    return message + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(content))


def write_checkpoint(prefix, arrays, num_shards=1, blocks=2, compression=0):
    """Writes PREFIX.index and its data files, the variables dealt out to the shards in turn."""
    data = [b""] * num_shards
    entries = [(b"", number(1, num_shards) + field(3, number(1, 1)))]
    for row, name in enumerate(sorted(arrays)):
        array, shard = np.ascontiguousarray(arrays[name]), row % num_shards
        content = array.tobytes()
        entries.append((name.encode(), entry(array, shard, len(data[shard]), content)))
        data[shard] += content
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}").write_bytes(content)
    table, handles = b"", []
    for part in np.array_split(np.arange(len(entries)), blocks):
        rows = [entries[i] for i in part]
        content = block(rows)
        handles.append((rows[-1][0] + b"\xff", varint(len(table)) + varint(len(content))))
        table += with_trailer(content, compression)
    footer = b""
    for content in (block([]), block(handles)):
        footer += varint(len(table)) + varint(len(content))
        table += with_trailer(content)
    table += footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    Path(f"{prefix}.index").write_bytes(table)
    return prefix


def write_frozen_graph(path, arrays):
    """Writes a graph of constants, each read by an Identity, beside one that was no variable."""
    graph = graph_pb2.GraphDef()
    for name, array in arrays.items():
        constant = graph.node.add(name=name, op="Const")
        constant.attr["value"].tensor.CopyFrom(make_tensor_proto(array))
        graph.node.add(name=f"{name}/read", op="Identity", input=[name])
    shape = graph.node.add(name="Reshape/shape", op="Const")
    shape.attr["value"].tensor.CopyFrom(make_tensor_proto(np.array([1, -1], np.int32)))
    path.write_bytes(graph.SerializeToString())
    return path


def write_release(path, folder):
    """Packs the files of a folder as TensorFlow publishes models: in a folder of that name."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=path.name.removesuffix(".tar.gz"))
    return path
