import io
import tarfile

import numpy as np
import pytest
import torch

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.tasks import cifar, load

NAMES = [*cifar.TRAIN_FILES, cifar.TEST_FILE]


def batches(count=3):
    """Make images (count, 3, 32, 32) and labels for each file, and the files' contents."""
    draws = np.random.default_rng(4)
    made = {}
    for name in NAMES:
        images = draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = draws.integers(0, 10, count, dtype=np.uint8)
        content = b"".join(
            bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)
        )
        made[name] = (images, labels, content)
    return made


def write(folder, made):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, _, content) in made.items():
        (folder / name).write_bytes(content)


def pack(path, made):
    with tarfile.open(path, "w:gz") as packed:
        for name, (_, _, content) in {"batches.meta.txt": (0, 0, b"airplane\n"), **made}.items():
            member = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kept", ["folder", "inner", "archive"])
def test_pixels_come_in_reading_order_with_their_colours(tmp_path, kept):
    made = batches()
    if kept == "archive":
        pack(tmp_path / cifar.ARCHIVE, made)
    else:
        write(tmp_path if kept == "folder" else tmp_path / cifar.FOLDER, made)
    task = load("scifar10", settings={"colour": "rgb"}, data_dir=tmp_path)
    assert (task.steps, task.input_shape, task.classes, task.chance) == (1024, (3,), 10, 0.1)
    images, labels, _ = made["data_batch_2.bin"]
    pixel = task.train.x[4, 5 * 32 + 7]  # row 5, column 7 of the second file's second image
    np.testing.assert_array_equal(pixel.numpy(), images[1, :, 5, 7].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(task.train.y[3:6], labels)
    assert task.train.x.shape == (15, 1024, 3)
    np.testing.assert_array_equal(task.test.y, made[cifar.TEST_FILE][1])
    assert "rgb; 15 images train, 3 test" in task.description


def test_gray_weighs_the_colours(tmp_path):
    made = batches()
    write(tmp_path, made)
    task = load("scifar10", data_dir=tmp_path)
    assert task.input_shape == (1,)
    images = made[cifar.TEST_FILE][0].reshape(3, 3, 1024).astype(np.float64) / 255
    gray = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    # three products and two sums of numbers up to 1, and the rounded weights: 8 roundings of float32
    np.testing.assert_allclose(task.test.x[:, :, 0], gray, atol=8 * 2.0**-24, rtol=0)
    assert float(task.train.x.max()) <= 1


def test_white_is_at_most_one_and_can_be_encoded(tmp_path):
    white = (None, None, bytes([3]) + bytes([255]) * 3072)
    write(tmp_path, dict.fromkeys(NAMES, white))
    task = load("scifar10", data_dir=tmp_path, encoding="rate")
    assert task.kind == "spike"
    assert bool((load("scifar10", data_dir=tmp_path).train.x <= 1).all())
    assert task.train.x.mean() > 0.999


def test_missing_file_and_unknown_colour(tmp_path):
    write(tmp_path, batches())
    with pytest.raises(InvalidInput, match="colour of the task scifar10 is 'grey'; allowed: gray, rgb"):
        load("scifar10", settings={"colour": "grey"}, data_dir=tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(InvalidInput, match="lacks data_batch_4.bin"):
        load("scifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes, wanted a multiple of the 3073"),
        (bytes(3072), "3072 bytes, wanted a multiple of the 3073"),
        (bytes([10]) + bytes(3072), "a label is 10, wanted 0 to 9"),
    ],
)
def test_damaged_files_say_what_was_got_and_wanted(tmp_path, content, says):
    write(tmp_path, batches())
    (tmp_path / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DamagedFile, match=says) as raised:
        load("scifar10", data_dir=tmp_path)
    assert f"data_batch_3.bin in {tmp_path}" in str(raised.value)


@pytest.mark.parametrize("keep", [0, 10, 3000, -8])
def test_damaged_archive(tmp_path, keep):
    pack(tmp_path / cifar.ARCHIVE, batches())
    content = (tmp_path / cifar.ARCHIVE).read_bytes()
    (tmp_path / cifar.ARCHIVE).write_bytes(content[:keep] if keep else b"<html>")
    with pytest.raises(DamagedFile, match="is damaged or cut off"):
        load("scifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1"])
def test_pickles_are_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InvalidInput, match=r"pickles, which can run anything .* put cifar-10-binary.tar.gz"):
        load("scifar10", data_dir=tmp_path)


class Columns:
    """What the hub's client gives for a part."""

    def __init__(self, count):
        self.columns = {"img": np.arange(count * 3072, dtype=np.int64).reshape(count, 32, 32, 3) % 256}
        self.columns["label"] = np.arange(count)

    def with_format(self, kind):
        return self

    def __getitem__(self, rows):
        return self.columns


def test_the_hub_gives_the_same_order(monkeypatch):
    class Client:
        @staticmethod
        def load_dataset(name):
            assert name == "uoft-cs/cifar10"
            return {"train": Columns(4), "test": Columns(2)}

    monkeypatch.delenv("UNSCAN_DATA", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "datasets", Client)
    task = load("scifar10", settings={"colour": "rgb"})
    assert torch.equal(task.train.x[0, :2] * 255, torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    assert "4 images train, 2 test, from the hub's uoft-cs/cifar10" in task.description
