"""TensorFlow checkpoints ("tensor bundles") without TensorFlow.

A checkpoint PREFIX consists of `PREFIX.index`, a table from the names of the variables to where
their values are, and of `PREFIX.data-00000-of-00001`, ..., the values one after the other.

The table has the format of LevelDB's tables (without compression, as TensorFlow writes it), its
values are protocol buffers. Every block and every variable carries a checksum (CRC-32C), which is
verified.

Source: tensorflow/core/util/tensor_bundle, tensorflow/core/protobuf/tensor_bundle.proto;
leveldb/doc/table_format.md.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import tensor_shape_pb2, types_pb2
from tensorboard.compat.tensorflow_stub import dtypes

from mbv2det.errors import ConfigError

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_BLOCK_TRAILER = struct.Struct("<BI")  # compression, checksum
_UNCOMPRESSED = 0
_BIG_ENDIAN = 1
_CHECKSUM_MASK = 0xA282EAD8


def read_bundle(prefix: str) -> dict[str, np.ndarray]:
    """Reads the variables of a checkpoint by name.

    Args:
        prefix: Path of the checkpoint without `.index`.

    Raises:
        ConfigError: If a file is missing, damaged, or of an unknown variant of the format.
    """
    index = Path(f"{prefix}.index")
    try:
        entries = dict(_entries(index.read_bytes()))
        header = _message("BundleHeaderProto", entries.pop(b""))
        if header.endianness == _BIG_ENDIAN:
            raise ValueError("its numbers are big-endian")
        return {
            name.decode(): _read_variable(prefix, header.num_shards, value)
            for name, value in entries.items()
        }
    except (OSError, ValueError, KeyError, IndexError, struct.error, DecodeError) as error:
        raise ConfigError(f"{prefix}: not a whole checkpoint ({error})") from None


def _read_variable(prefix: str, num_shards: int, value: bytes) -> np.ndarray:
    """Reads the values that an entry of the table points to."""
    entry = _message("BundleEntryProto", value)
    if entry.slices:
        raise ValueError("it holds variables in slices, which are not supported")
    file = Path(f"{prefix}.data-{entry.shard_id:05d}-of-{num_shards:05d}")
    with file.open("rb") as data:
        data.seek(entry.offset)
        content = data.read(entry.size)
    if len(content) != entry.size or _masked_checksum(content) != entry.crc32c:
        raise ValueError(f"{file.name} is cut short or its checksum does not match")
    shape = [dim.size for dim in entry.shape.dim]
    return np.frombuffer(content, dtypes.as_dtype(entry.dtype).as_numpy_dtype).reshape(shape)


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a table."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("its index is not a table of TensorFlow")
    _, position = _handle(footer, 0)  # of the block of metadata, which is empty
    index, _ = _handle(footer, position)
    for _, handle in _block(table, *index):
        block, _ = _handle(handle, 0)
        yield from _block(table, *block)


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Reads (offset, size) of a block, and returns the position after it."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return (offset, size), position


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block; keys share the beginning of the key before them."""
    content = table[offset : offset + size]
    compression, checksum = _BLOCK_TRAILER.unpack_from(table, offset + size)
    if compression != _UNCOMPRESSED:
        raise ValueError("its index is compressed, which is not supported")
    if _masked_checksum(content + bytes([compression])) != checksum:
        raise ValueError("the checksum of its index does not match")
    (num_restarts,) = struct.unpack("<I", content[-4:])
    end, position, key = len(content) - 4 * (num_restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(content, position)
        unshared, position = _varint(content, position)
        length, position = _varint(content, position)
        key = key[:shared] + content[position : position + unshared]
        position += unshared
        yield key, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Reads a number of 7 bits per byte, lowest first, and returns the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _message_file() -> descriptor_pb2.FileDescriptorProto:
    """Describes the two messages of tensor_bundle.proto, as far as they are read here."""
    file = descriptor_pb2.FileDescriptorProto(
        name="mbv2det/tensor_bundle.proto",
        package="mbv2det",
        syntax="proto3",
        dependency=[tensor_shape_pb2.DESCRIPTOR.name, types_pb2.DESCRIPTOR.name],
    )
    field = descriptor_pb2.FieldDescriptorProto
    shape = f".{tensor_shape_pb2.TensorShapeProto.DESCRIPTOR.full_name}"
    messages = {
        "BundleHeaderProto": (
            ("num_shards", 1, field.TYPE_INT32, ""),
            ("endianness", 2, field.TYPE_INT32, ""),
        ),
        "BundleEntryProto": (
            ("dtype", 1, field.TYPE_INT32, ""),
            ("shape", 2, field.TYPE_MESSAGE, shape),
            ("shard_id", 3, field.TYPE_INT32, ""),
            ("offset", 4, field.TYPE_INT64, ""),
            ("size", 5, field.TYPE_INT64, ""),
            ("crc32c", 6, field.TYPE_FIXED32, ""),
            ("slices", 7, field.TYPE_BYTES, ""),
        ),
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for label, number, kind, type_name in fields:
            repeated = field.LABEL_REPEATED if label == "slices" else field.LABEL_OPTIONAL
            message.field.add(
                name=label, number=number, type=kind, label=repeated, type_name=type_name or None
            )
    return file


_POOL = descriptor_pool.Default()
_POOL.Add(_message_file())


def _message(name: str, content: bytes) -> Any:
    """Parses a message of tensor_bundle.proto."""
    kind = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"mbv2det.{name}"))
    return kind.FromString(content)


def _masked_checksum(content: bytes) -> int:
    """Returns the CRC-32C as the format stores it: rotated right by 15 bits, plus a constant."""
    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + _CHECKSUM_MASK) & 0xFFFFFFFF
