"""IDX files: arrays of bytes as MNIST and Fashion-MNIST are distributed."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unscan.compiler.errors import DamagedFile

Bytes = NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes, plain or gzip, as an array of so many dimensions.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each size as a big-endian
    32-bit number, then the values. Raises DamagedFile with what the file has and what it should have.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedFile(
                f"{path}: the gzip data is damaged or cut off ({error}); fetch the file again"
            ) from error
    head = 4 + 4 * dimensions
    wanted = bytes([0, 0, 8, dimensions])
    if content[:4] != wanted:
        raise DamagedFile(
            f"{path}: not an IDX file of {dimensions}-dimensional bytes: it starts with "
            f"{content[:4].hex(' ') or 'nothing'}, wanted {wanted.hex(' ')}; fetch the file again"
        )
    if len(content) < head:
        raise DamagedFile(
            f"{path}: {len(content)} bytes, wanted at least the {head} of an IDX head; fetch the file again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if len(content) - head != math.prod(shape):
        raise DamagedFile(
            f"{path}: {len(content) - head} values after the head, wanted {math.prod(shape)} "
            f"for {' x '.join(map(str, shape))}; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
