"""MNIST and Fashion-MNIST as sequences: 784 pixels one by one, in reading order or in one fixed random order."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.tasks.idx import Bytes, read_idx
from unscan.trainer.tasks.sources import Hub, Labelled, data_folder
from unscan.trainer.tasks.task import Part, Task

PERMUTATION_SEED = 92916
TEST_SET_TRAIN = 8000

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class _Images:
    """A data set of gray images in MNIST's files: what it is called, in a folder and on the hub."""

    title: str
    folder: str
    hub: str


MNIST = _Images("MNIST", "mnist", "ylecun/mnist")
FASHION = _Images("Fashion-MNIST", "fashion-mnist", "zalando-datasets/fashion_mnist")


def smnist(data_dir: Path | None = None) -> Task:
    """Load MNIST as sequences (N, 784, 1) of brightness in [0, 1], in reading order.

    The files are the IDX files as distributed, plain or gzip, in `data_dir` (default: the environment variable
    UNSCAN_DATA) or in its folder `mnist`. With all four files the split is the standard one, 60 000 train and
    10 000 test; with the test set alone its first 8 000 images train and its last 2 000 test. Without files the
    data comes from the public hub, which needs the package `datasets` and a network. Raises DamagedFile for
    a file that is not what its name says, MissingDependency and InvalidInput where no data can be had.
    """
    folders = [folder for folder in _folders(data_dir, MNIST) if folder.name != FASHION.folder]
    return _load("smnist", MNIST, folders)


def psmnist(data_dir: Path | None = None) -> Task:
    """Load MNIST as `smnist` does, its pixels in one fixed random order.

    The order is numpy's `default_rng(92916).permutation(784)`, the same for every image and run.
    """
    task = smnist(data_dir)
    order = torch.from_numpy(np.random.default_rng(PERMUTATION_SEED).permutation(task.steps))
    split = task.description.partition("; ")[2]
    return replace(
        task,
        name="psmnist",
        description=f"MNIST, pixel by pixel in a fixed random order (seed {PERMUTATION_SEED}); {split}",
        train=Part(task.train.x[:, order], task.train.y),
        test=Part(task.test.x[:, order], task.test.y),
    )


def sfashion_mnist(data_dir: Path | None = None) -> Task:
    """Load Fashion-MNIST as sequences (N, 784, 1) of brightness in [0, 1], in reading order.

    Files, split and errors are those of `smnist`, but since the files have the same names as MNIST's, they are
    read only from a folder named `fashion-mnist`: `data_dir` itself or a folder in it.
    """
    folders = [folder for folder in _folders(data_dir, FASHION) if folder.name == FASHION.folder]
    return _load("sfashion_mnist", FASHION, folders)


def _folders(data_dir: Path | None, images: _Images) -> list[Path]:
    stated = data_folder(data_dir, images.title)
    return [] if stated is None else [stated, stated / images.folder]


def _load(name: str, images: _Images, folders: list[Path]) -> Task:
    (train_x, train_y), (test_x, test_y), split = _parts(images, folders)
    return Task(
        name=name,
        description=f"{images.title}, pixel by pixel in reading order; {split}",
        classes=10,
        chance=0.1,
        input_shape=(1,),
        steps=math.prod(train_x.shape[1:]),
        kind="real",
        train=Part(_sequences(train_x), torch.from_numpy(train_y.astype(np.int64))),
        test=Part(_sequences(test_x), torch.from_numpy(test_y.astype(np.int64))),
    )


def _parts(images: _Images, folders: list[Path]) -> tuple[Labelled, Labelled, str]:
    for folder in folders:
        test = _read_part(folder, "test", images.title)
        if test is None:
            continue
        train = _read_part(folder, "train", images.title)
        if train is not None:
            return train, test, f"{len(train[0])} images train, {len(test[0])} test"
        return _cut(folder, test)
    looked = (
        f"there are no {images.title} files in {' or '.join(map(str, folders))}"
        if folders
        else "no data directory is named"
    )
    place = f"a folder {images.folder}" if images is FASHION else "a folder"
    advice = f"put {_FILES['test'][0]}.gz and its three companions into {place} and name it with --data-dir"
    train, test = Hub(images.hub, images.title).fetch(looked, advice)
    return train, test, f"{len(train[0])} images train, {len(test[0])} test, from the hub's {images.hub}"


def _sequences(images: Bytes) -> Tensor:
    return torch.from_numpy(images.reshape(len(images), -1, 1).astype(np.float32) / np.float32(255))


def _cut(folder: Path, test: Labelled) -> tuple[Labelled, Labelled, str]:
    border = TEST_SET_TRAIN
    images, labels = test
    if len(images) <= border:
        raise InvalidInput(
            f"{folder} holds {len(images)} test images and no training set; wanted the training files "
            f"{' and '.join(_FILES['train'])}, or more than {border} test images to split"
        )
    split = f"only the test set: its first {border} images train, its last {len(images) - border} test"
    return (images[:border], labels[:border]), (images[border:], labels[border:]), split


def _read_part(folder: Path, part: str, title: str) -> Labelled | None:
    images_file, labels_file = (_find(folder, name) for name in _FILES[part])
    if images_file is None and labels_file is None:
        return None
    if images_file is None or labels_file is None:
        missing = _FILES[part][0 if images_file is None else 1]
        raise InvalidInput(
            f"{folder} lacks {missing} (or {missing}.gz), which belongs to its other {title} files"
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
