"""Sequential MNIST: 784 pixels one by one, in reading order (smnist) or in one fixed random order (psmnist)."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unscan.compiler.errors import DamagedFile, InvalidInput, MissingDependency
from unscan.trainer.tasks.task import Part, Task

if TYPE_CHECKING:
    from datasets import Dataset

HUB_NAME = "ylecun/mnist"
PERMUTATION_SEED = 92916
TEST_SET_TRAIN = 8000

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

Bytes = NDArray[np.uint8]
Labelled = tuple[Bytes, Bytes]


def smnist(data_dir: Path | None = None) -> Task:
    """Load MNIST as sequences (N, 784, 1) of brightness in [0, 1], in reading order.

    The files are the IDX files as distributed, plain or gzip, in `data_dir` (default: the environment variable
    UNSCAN_DATA) or in its folder `mnist`. With all four files the split is the standard one, 60 000 train and
    10 000 test; with the test set alone its first 8 000 images train and its last 2 000 test. Without files the
    data comes from the public hub, which needs the package `datasets` and a network. Raises DamagedFile for
    a file that is not what its name says, MissingDependency and InvalidInput where no data can be had.
    """
    (train_x, train_y), (test_x, test_y), split = _images(data_dir)
    return Task(
        name="smnist",
        description=f"MNIST, pixel by pixel in reading order; {split}",
        classes=10,
        chance=0.1,
        input_shape=(1,),
        steps=math.prod(train_x.shape[1:]),
        kind="real",
        train=Part(_sequences(train_x), torch.from_numpy(train_y.astype(np.int64))),
        test=Part(_sequences(test_x), torch.from_numpy(test_y.astype(np.int64))),
    )


def psmnist(data_dir: Path | None = None) -> Task:
    """Load MNIST as `smnist` does, its pixels in one fixed random order.

    The order is numpy's `default_rng(92916).permutation(784)`, the same for every image and run.
    """
    task = smnist(data_dir)
    order = torch.from_numpy(np.random.default_rng(PERMUTATION_SEED).permutation(task.steps))
    split = task.description.partition("; ")[2]
    return Task(
        name="psmnist",
        description=f"MNIST, pixel by pixel in a fixed random order (seed {PERMUTATION_SEED}); {split}",
        classes=task.classes,
        chance=task.chance,
        input_shape=task.input_shape,
        steps=task.steps,
        kind=task.kind,
        train=Part(task.train.x[:, order], task.train.y),
        test=Part(task.test.x[:, order], task.test.y),
    )


def _sequences(images: Bytes) -> Tensor:
    return torch.from_numpy(images.reshape(len(images), -1, 1).astype(np.float32) / np.float32(255))


def _images(data_dir: Path | None) -> tuple[Labelled, Labelled, str]:
    stated = data_dir or (Path(os.environ["UNSCAN_DATA"]) if os.environ.get("UNSCAN_DATA") else None)
    if stated is not None and not stated.is_dir():
        raise InvalidInput(
            f"the data directory {stated} is not a folder; name one that holds the MNIST files"
        )
    for folder in [] if stated is None else [stated, stated / "mnist"]:
        test = _read_part(folder, "test")
        if test is None:
            continue
        train = _read_part(folder, "train")
        if train is not None:
            return train, test, f"{len(train[0])} images train, {len(test[0])} test"
        border = TEST_SET_TRAIN
        images, labels = test
        if len(images) <= border:
            raise InvalidInput(
                f"{folder} holds {len(images)} test images and no training set; wanted the training files "
                f"{' and '.join(_FILES['train'])}, or more than {border} test images to split"
            )
        split = f"only the test set: its first {border} images train, its last {len(images) - border} test"
        return (images[:border], labels[:border]), (images[border:], labels[border:]), split
    return _from_hub(stated)


def _read_part(folder: Path, part: str) -> Labelled | None:
    images_file, labels_file = (_find(folder, name) for name in _FILES[part])
    if images_file is None and labels_file is None:
        return None
    if images_file is None or labels_file is None:
        missing = _FILES[part][0 if images_file is None else 1]
        raise InvalidInput(
            f"{folder} lacks {missing} (or {missing}.gz), which belongs to its other MNIST files"
        )
    images, labels = read_idx(images_file, dimensions=3), read_idx(labels_file, dimensions=1)
    if len(images) != len(labels):
        raise DamagedFile(
            f"{images_file} holds {len(images)} images but {labels_file} {len(labels)} labels; wanted as many; "
            "fetch both files again"
        )
    return images, labels


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


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


def _from_hub(stated: Path | None) -> tuple[Labelled, Labelled, str]:
    looked = (
        f"{stated} and {stated / 'mnist'} hold no MNIST files" if stated else "no data directory is named"
    )
    advice = f"put {_FILES['test'][0]}.gz and its three companions into a folder and name it with --data-dir"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingDependency(
            f"{looked} (--data-dir or UNSCAN_DATA), and fetching MNIST from the public hub needs a package: "
            f"pip install 'unscan[hub]'; or {advice}"
        ) from error
    try:
        parts = load_dataset(HUB_NAME)
        train, test = (_hub_part(parts[name]) for name in ("train", "test"))
    # What a failed download raises is the hub client's affair and changes with its version.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            f"{looked} (--data-dir or UNSCAN_DATA), and {HUB_NAME} could not be fetched from the public hub "
            f"({reason}); connect to a network, or {advice}"
        ) from error
    return train, test, f"{len(train[0])} images train, {len(test[0])} test, from the hub's {HUB_NAME}"


def _hub_part(part: "Dataset") -> Labelled:
    columns = part.with_format("numpy")[:]
    return np.asarray(columns["image"], np.uint8), np.asarray(columns["label"], np.uint8)
