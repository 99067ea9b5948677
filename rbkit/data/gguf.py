"""Read GGUF, the file format of llama.cpp: metadata, and tensors with quantisation undone.

Enough of it for the packaged SmolLM2: tensors in F32, F16, Q8_0 and Q4_1. The format is
described in the ggml project's ``docs/gguf.md``. What becomes of it: :mod:`rbkit.data.llama`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9
# type -> (name, weights per block, bytes per block)
_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}


@dataclass
class _Tensor:
    shape: tuple[int, ...]  # rows first, as torch has it (GGUF writes it the other way round)
    kind: int
    offset: int


class GgufFile:
    """A GGUF file: its metadata, and its tensors as float32 arrays on demand.

    Parameters
    ----------
    path : path
        The file; it is memory-mapped.

    Raises
    ------
    InputError
        If it is not a GGUF file, or is cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(str(path), "no such file", "check the path")
        if self.path.stat().st_size < 24:
            raise self._broken("is too short to be a GGUF file")
        self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")
        self._at = 0
        if self._take(4) != b"GGUF":
            raise self._broken("is not a GGUF file")
        version, n_tensors, n_values = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise self._broken(f"has GGUF version {version}; versions 2 and 3 are known")
        if max(n_tensors, n_values) > len(self._bytes):
            raise self._broken("has a damaged header")
        self.metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._text()
            self.metadata[key] = self._value(self._number("I"))
        self._tensors = {self._text(): self._tensor_info() for _ in range(n_tensors)}
        alignment = int(self.metadata.get("general.alignment", 32))
        if alignment < 1:
            raise self._broken("has a damaged header")
        self._start = math.ceil(self._at / alignment) * alignment

    @property
    def names(self) -> list[str]:
        """Names of the tensors."""
        return list(self._tensors)

    def get(self, key: str) -> Any:
        """Return a metadata value that must be there."""
        if key not in self.metadata:
            raise self._broken(f"has no {key}")
        return self.metadata[key]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a metadata value that must be a whole number above 0."""
        value = self.get(key) if default is None else self.metadata.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise self._broken(f"has {key} = {value!r}"[:200])
        return value

    def texts(self, key: str) -> list[str]:
        """Return a metadata value that must be a list of texts."""
        values = self.get(key)
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self._broken(f"has no list of texts as {key}")
        return values

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, rows first."""
        if name not in self._tensors:
            raise self._broken(f"has no tensor {name}")
        return self._tensors[name].shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor, its quantisation undone."""
        shape = self.shape(name)
        tensor = self._tensors[name]
        if tensor.kind not in _TYPES:
            raise self._broken(f"holds {name} in the unknown format {tensor.kind}")
        _, weights, size = _TYPES[tensor.kind]
        count = math.prod(shape)
        first = self._start + tensor.offset
        end = first + count // weights * size
        if count % weights or end > len(self._bytes):
            raise self._broken(f"is cut short in {name}")
        with np.errstate(all="ignore"):  # damaged scales are found by the next line
            values = _dequantised(self._bytes[first:end], tensor.kind)
        if not np.isfinite(values).all():
            raise self._broken(f"holds numbers that are not finite in {name}")
        shaped: NDArray[np.float32] = values.reshape(shape)
        return shaped

    def _broken(self, what: str) -> InputError:
        return InputError(str(self.path), what, "get the file again")

    def _take(self, count: int) -> bytes:
        if count > len(self._bytes) - self._at:
            raise self._broken("is cut short or damaged")
        self._at += count
        return self._bytes[self._at - count : self._at].tobytes()

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._broken("is damaged (text that is not UTF-8)") from error

    def _value(self, kind: int, nested: bool = False) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY and not nested:
            inner, count = self._number("I"), self._number("Q")
            if count > len(self._bytes):
                raise self._broken("is damaged (an array longer than the file)")
            return [self._value(inner, nested=True) for _ in range(count)]
        if kind not in _SCALARS:
            raise self._broken(f"has a metadata value of the unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _tensor_info(self) -> _Tensor:
        n_dims = self._number("I")
        if n_dims > 4:
            raise self._broken(f"has a tensor of {n_dims} dimensions")
        shape = tuple(self._number("Q") for _ in range(n_dims))
        return _Tensor(shape[::-1], self._number("I"), self._number("Q"))


def _dequantised(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    name, weights, size = _TYPES[kind]
    if name == "F32":
        return raw.view("<f4").astype(np.float32)
    if name == "F16":
        return raw.view("<f2").astype(np.float32)
    blocks = np.ascontiguousarray(raw).reshape(-1, size)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    if name == "Q8_0":
        return (scale * blocks[:, 2:].view(np.int8)).reshape(-1)
    # Q4_1: scale and minimum, then 16 bytes: the low halves are weights 0-15, the high 16-31
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    packed = blocks[:, 4:]
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=1)
    assert nibbles.shape[1] == weights
    values: NDArray[np.float32] = scale * nibbles + minimum
    return values.reshape(-1)
