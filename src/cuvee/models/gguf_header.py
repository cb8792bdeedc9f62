"""The header of a GGUF file, read by itself: metadata, and the tensors' names, shapes and types.

In milliseconds, whatever the file's size: gguf's own reader makes arrays of every token and
merge and takes seconds. No weights are read. Format: ggml's docs/gguf.md, versions 2 and 3,
little-endian. Not here: what the keys mean.
"""

import dataclasses
import struct
from pathlib import Path
from typing import Any, BinaryIO

from cuvee.errors import DataError

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_LONGEST_TEXT = 1 << 26
"""Bytes of a text; a file that says more is not what it says it is."""
_MOST = 1 << 24
"""Entries of an array, keys and tensors."""
_MOST_DIMENSIONS = 8
_ALIGNMENT = 32
"""Bytes to a multiple of which the header is padded, where the file says no other."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header has it."""

    name: str
    shape: tuple[int, ...]
    """As GGUF counts: the fastest dimension first."""
    kind: int
    """ggml's number of its type."""
    offset: int
    """Bytes from where the weights begin to where its own do."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before a file's weights."""

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    size: int
    """Bytes of the header, before padding."""

    @property
    def weights_begin(self) -> int:
        """Return the byte of the file at which the weights begin."""
        alignment = int(self.metadata.get("general.alignment", _ALIGNMENT))
        return -(-self.size // alignment) * alignment


def read_header(file: Path) -> Header:
    """Return the header of a GGUF file.

    Raises DataError, naming the file, where it cannot be read or is no GGUF file of version 2
    or 3.
    """
    try:
        with file.open("rb") as stream:
            return _header(stream)
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a whole GGUF file: {error}") from error


def _header(stream: BinaryIO) -> Header:
    if stream.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = _number(stream, "I")
    if version not in (2, 3):
        raise ValueError(f"version {version}; 2 and 3 are known")
    tensors, keys = _count(stream), _count(stream)
    metadata = {_text(stream): _value(stream, _number(stream, "I")) for _ in range(keys)}
    infos = tuple(_tensor(stream) for _ in range(tensors))
    return Header(metadata, infos, stream.tell())


def _tensor(stream: BinaryIO) -> TensorInfo:
    name, dimensions = _text(stream), _number(stream, "I")
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name} of {dimensions} dimensions")
    shape = tuple(_number(stream, "Q") for _ in range(dimensions))
    kind, offset = _number(stream, "I"), _number(stream, "Q")
    return TensorInfo(name, shape, kind, offset)


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind in _NUMBERS:
        return _number(stream, _NUMBERS[kind])
    if kind == _BOOL:
        return bool(_number(stream, "B"))
    if kind == _STRING:
        return _text(stream)
    if kind != _ARRAY:
        raise ValueError(f"a value of type {kind}")
    inner, count = _number(stream, "I"), _count(stream)
    if inner == _ARRAY:
        raise ValueError("an array of arrays")
    if inner not in _NUMBERS:
        return [_value(stream, inner) for _ in range(count)]
    form = f"<{count}{_NUMBERS[inner]}"
    return list(struct.unpack(form, _read(stream, struct.calcsize(form))))


def _text(stream: BinaryIO) -> str:
    size = _number(stream, "Q")
    if size > _LONGEST_TEXT:
        raise ValueError(f"a text of {size} bytes")
    return _read(stream, size).decode("utf-8")


def _count(stream: BinaryIO) -> int:
    count = int(_number(stream, "Q"))
    if count > _MOST:
        raise ValueError(f"{count} entries")
    return count


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", _read(stream, struct.calcsize(form)))[0]


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("it ends within its header")
    return data
