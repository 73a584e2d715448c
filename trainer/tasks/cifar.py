"""Sequential CIFAR-10: 1 024 pixels one by one, in reading order, gray or coloured."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.tasks.idx import Bytes
from unscan.trainer.tasks.settings import choice
from unscan.trainer.tasks.sources import Hub, Labelled, data_folder
from unscan.trainer.tasks.task import Part, Task

HUB_NAME = "uoft-cs/cifar10"
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
LUMINANCE = (0.299, 0.587, 0.114)
"""How much red, green and blue count in gray (ITU-R BT.601)."""

_SIZE = 32
_RECORD = 1 + 3 * _SIZE * _SIZE
_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1")


def scifar10(data_dir: Path | None = None, *, colour: str = "gray") -> Task:
    """Load CIFAR-10 as sequences (N, 1024, 1 or 3) of brightness in [0, 1], in reading order.

    `colour` is `gray`, 0.299 red + 0.587 green + 0.114 blue as in Long Range Arena's Image task but not rounded to
    bytes, or `rgb`, three features a step. 50 000 images train and 10 000 test, 1 000 of each class, so chance is
    1/10.

    The files are the binary version's `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, in `data_dir`
    (default: the environment variable UNSCAN_DATA) or in its folder `cifar-10-batches-bin`, or the archive
    `cifar-10-binary.tar.gz` as distributed. Python's pickled version is refused, since reading a pickle can run
    anything. Without files the data comes from the public hub. Raises DamagedFile for a file that is not what its
    name says, MissingDependency and InvalidInput where no data can be had.

    Source: Tay et al., Long Range Arena, arXiv 2011.04006, section 2.2.4; papers/003, Table 3 (IMAGE).
    """
    chosen = choice("scifar10", "colour", colour, ("gray", "rgb"))
    (train_x, train_y), (test_x, test_y), source = _images(data_dir)
    return Task(
        name="scifar10",
        description=(
            f"CIFAR-10, pixel by pixel in reading order, {chosen}; {len(train_x)} images train, {len(test_x)} "
            f"test{source}"
        ),
        classes=10,
        chance=0.1,
        input_shape=(3 if chosen == "rgb" else 1,),
        steps=_SIZE * _SIZE,
        kind="real",
        train=Part(_sequences(train_x, chosen), torch.from_numpy(train_y.astype(np.int64))),
        test=Part(_sequences(test_x, chosen), torch.from_numpy(test_y.astype(np.int64))),
    )


def _sequences(images: Bytes, colour: str) -> Tensor:
    """Turn images (N, 1024, 3) of bytes into brightness."""
    if colour == "rgb":
        return torch.from_numpy(images.astype(np.float32) / np.float32(255))
    weights = np.array(LUMINANCE, np.float32) / np.float32(255)
    gray = sum(images[:, :, [channel]] * weights[channel] for channel in range(3))
    return torch.from_numpy(np.minimum(gray, np.float32(1)))


def _images(data_dir: Path | None) -> tuple[Labelled, Labelled, str]:
    stated = data_folder(data_dir, "CIFAR-10")
    for folder in [] if stated is None else [stated, stated / FOLDER]:
        here = {path.name: path for name in (*TRAIN_FILES, TEST_FILE) if (path := folder / name).is_file()}
        if here:
            return *_parts({name: path.read_bytes() for name, path in here.items()}, folder), ""
    if stated is not None and (archive := stated / ARCHIVE).is_file():
        return *_parts(_unpacked(archive), archive), ""
    advice = f"put {ARCHIVE} into a folder and name it with --data-dir"
    pickles = [] if stated is None else [stated / name for name in _PICKLES if (stated / name).exists()]
    if pickles:
        raise InvalidInput(
            f"{pickles[0]} is the version of CIFAR-10 for Python, made of pickles, which can run anything when they "
            f"are read and so are not read here; fetch the binary version instead: {advice}"
        )
    looked = (
        "no data directory is named"
        if stated is None
        else f"there are no CIFAR-10 files in {stated} or {stated / FOLDER}"
    )
    (train_x, train_y), (test_x, test_y) = Hub(HUB_NAME, "CIFAR-10", images="img").fetch(looked, advice)
    train, test = (x.reshape(len(x), _SIZE * _SIZE, 3) for x in (train_x, test_x))
    return (train, train_y), (test, test_y), f", from the hub's {HUB_NAME}"


def _unpacked(archive: Path) -> dict[str, bytes]:
    """Read the data files of the archive, into memory alone."""
    contents = {}
    try:
        content = gzip.decompress(archive.read_bytes())  # as a whole, so that its checksum is compared
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as packed:
            for member in packed:
                name = member.name.rpartition("/")[2]
                if name in (*TRAIN_FILES, TEST_FILE) and (stream := packed.extractfile(member)) is not None:
                    contents[name] = stream.read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFile(
            f"{archive} is damaged or cut off ({str(error) or type(error).__name__}); fetch it again"
        ) from error
    return contents


def _parts(contents: dict[str, bytes], place: Path) -> tuple[Labelled, Labelled]:
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if name not in contents]
    if missing:
        raise InvalidInput(f"{place} lacks {missing[0]}, which belongs to the files of CIFAR-10")
    train = [_records(contents[name], f"{name} in {place}") for name in TRAIN_FILES]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    return (images, labels), _records(contents[TEST_FILE], f"{TEST_FILE} in {place}")


def _records(content: bytes, place: str) -> Labelled:
    """Read records of a label and 1 024 red, green and blue bytes each, as images (N, 1024, 3) and labels."""
    if not content or len(content) % _RECORD:
        raise DamagedFile(
            f"{place}: {len(content)} bytes, wanted a multiple of the {_RECORD} of an image; fetch the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise DamagedFile(f"{place}: a label is {records[:, 0].max()}, wanted 0 to 9; fetch the file again")
    return records[:, 1:].reshape(-1, 3, _SIZE * _SIZE).swapaxes(1, 2), records[:, 0]
