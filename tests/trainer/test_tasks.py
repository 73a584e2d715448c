import builtins
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from unscan.cli import main
from unscan.compiler.errors import DamagedFile, InvalidInput, MissingDependency
from unscan.trainer import tasks
from unscan.trainer.tasks import encode, mnist

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_part(folder, part, count, seed=0, zipped=True):
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, (count, 4, 3), dtype=np.uint8)
    labels = draws.integers(0, 10, count, dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES[part], (images, labels), strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / name).write_bytes(idx(values))
    return images, labels


def test_digits_are_ordered_sequences_of_64_pixels():
    task = tasks.load("digits")
    assert task.train.x.shape == (1437, 64, 1)
    assert task.test.x.shape == (360, 64, 1)
    assert (task.steps, task.input_shape, task.classes, task.chance, task.kind) == (64, (1,), 10, 0.1, "real")
    assert task.train.x.min() == 0
    assert task.train.x.max() == 1
    assert task.train.y[:10].tolist() == list(range(10))  # unshuffled
    assert "first 1437" in task.description


def test_a_listing_reads_no_files_and_shows_every_task(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSCAN_DATA", str(tmp_path / "none"))
    said = CliRunner().invoke(main, ["tasks"], catch_exceptions=False).output
    for name in tasks.TASKS:
        assert name in said
        assert isinstance(tasks.settings_of(name), dict)


def test_every_task_and_setting_is_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text()
    for name in tasks.TASKS:
        assert f"| `{name}`" in page
        for setting, default in tasks.settings_of(name).items():
            shown = (
                list(default) if isinstance(default, tuple) else f"{default:g}" if default == 0 else default
            )
            assert f"{setting}: {shown}" in page, f"docs/tasks.md lacks {setting}: {shown}"


def test_settings_of_a_task_and_their_names():
    assert tasks.settings_of("digits") == {}
    assert tasks.settings_of("speech_commands") == {"classes": 35, "downsample": 1}
    assert tasks.settings_of("copy") == {"length": 10, "train": 10_000, "test": 2_000, "seed": 0}
    with pytest.raises(
        InvalidInput, match="unknown setting 'lenght' of the task copy; .* did you mean 'length'"
    ):
        tasks.load("copy", settings={"lenght": 3})
    with pytest.raises(InvalidInput, match="unknown setting 'seed' of the task digits; it has none"):
        tasks.load("digits", settings={"seed": 3})


@pytest.mark.parametrize("how", [{"encoding": "rate"}, {"steps_per_pixel": 2}])
def test_only_brightness_is_encoded(how):
    said = "for brightness, and the inputs of the task copy are 0 and 1 already; allowed: encoding direct"
    with pytest.raises(InvalidInput, match=said):
        tasks.load("copy", settings={"train": 1, "test": 1}, **how)


def test_every_part_of_a_task_is_encoded(monkeypatch):
    x = torch.full((4, 3, 1), 0.5)
    y = torch.zeros(4, dtype=torch.int64)
    more = {"more": tasks.Part(x, y)}
    made = tasks.Task(
        "half", "", 2, 0.5, (1,), 3, "real", tasks.Part(x, y), tasks.Part(x[:2], y[:2]), tests=more
    )
    monkeypatch.setitem(tasks.TASKS, "half", lambda: lambda data_dir: made)
    task = tasks.load("half", encoding="rate", steps_per_pixel=4)
    assert (task.steps, task.kind) == (12, "spike")
    assert torch.equal(task.tests["more"].x, encode(x, "rate", 4, first_sample=6))


@pytest.mark.parametrize("inside", [True, False])
def test_fashion_is_read_from_its_own_folder_alone(tmp_path, inside):
    write_part(tmp_path / "fashion-mnist", "train", 7, 1)
    images, labels = write_part(tmp_path / "fashion-mnist", "test", 5, 2)
    folder = tmp_path / "fashion-mnist" if inside else tmp_path
    task = tasks.load("sfashion_mnist", data_dir=folder)
    assert "Fashion-MNIST, pixel by pixel in reading order; 7 images train, 5 test" in task.description
    np.testing.assert_array_equal(task.test.x[:, :, 0] * 255, images.reshape(5, 12))
    np.testing.assert_array_equal(task.test.y, labels)


def test_fashion_and_digits_with_the_same_file_names_are_not_confused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", Client(ConnectionError("none")))
    for part in ("train", "test"):
        write_part(tmp_path / "fashion-mnist", part, 5)
    with pytest.raises(InvalidInput, match="there are no MNIST files in"):
        tasks.load("smnist", data_dir=tmp_path / "fashion-mnist")
    write_part(tmp_path / "mnist", "train", 5)
    write_part(tmp_path / "mnist", "test", 5)
    with pytest.raises(
        InvalidInput, match="there are no Fashion-MNIST files in .* into a folder fashion-mnist"
    ):
        tasks.load("sfashion_mnist", data_dir=tmp_path / "mnist")


def test_fashion_from_the_hub(monkeypatch):
    monkeypatch.delenv("UNSCAN_DATA", raising=False)
    monkeypatch.setitem(
        __import__("sys").modules, "datasets", Client({"train": Hub(6), "test": Hub(3)}, mnist.FASHION.hub)
    )
    assert "from the hub's zalando-datasets/fashion_mnist" in tasks.load("sfashion_mnist").description


def test_unknown_task_lists_the_names():
    with pytest.raises(
        InvalidInput, match=r"'smnst'; allowed: digits, smnist, psmnist, .*; did you mean 'smnist'\?"
    ):
        tasks.load("smnst")


@pytest.mark.parametrize("inner", [".", "mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_standard_split_when_all_files_are_there(tmp_path, inner, zipped):
    images, labels = write_part(tmp_path / inner, "train", 7, 1, zipped)
    write_part(tmp_path / inner, "test", 5, 2, zipped)
    task = tasks.load("smnist", data_dir=tmp_path)
    assert task.train.x.shape == (7, 12, 1)
    assert task.test.x.shape == (5, 12, 1)
    assert "7 images train, 5 test" in task.description
    np.testing.assert_array_equal(task.train.x[:, :, 0] * 255, images.reshape(7, 12))
    np.testing.assert_array_equal(task.train.y, labels)


def test_test_set_alone_is_cut_at_8000(tmp_path, monkeypatch):
    images, labels = write_part(tmp_path, "test", 8010)
    monkeypatch.setenv("UNSCAN_DATA", str(tmp_path))
    task = tasks.load("smnist")
    assert len(task.train.y) == 8000
    assert "only the test set: its first 8000 images train, its last 10 test" in task.description
    np.testing.assert_array_equal(task.test.x[:, :, 0] * 255, images[8000:].reshape(10, 12))
    np.testing.assert_array_equal(task.train.y, labels[:8000])


def test_permuted_pixels_are_the_same_pixels_in_one_fixed_order(tmp_path):
    write_part(tmp_path, "train", 7)
    write_part(tmp_path, "test", 5)
    plain, permuted = (tasks.load(name, data_dir=tmp_path) for name in ("smnist", "psmnist"))
    order = np.random.default_rng(92916).permutation(12)
    assert torch.equal(permuted.train.x, plain.train.x[:, order])
    assert torch.equal(permuted.test.x, plain.test.x[:, order])
    assert "92916" in permuted.description
    assert "7 images train" in permuted.description


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: gzip.compress(content[:-5]), r"55 values after the head, wanted 60 for 5 x 4 x 3"),
        (lambda content: gzip.compress(content + b"xy"), r"62 values after the head, wanted 60"),
        (lambda content: gzip.compress(content)[:-20], r"damaged or cut off"),
        (lambda content: gzip.compress(content[:9]), r"9 bytes, wanted at least the 16"),
        (lambda content: b"<html>", r"starts with 3c 68 74 6d, wanted 00 00 08 03"),
        (lambda content: b"", r"starts with nothing"),
        (lambda content: b"\x00\x00\x0d\x03" + content[4:], r"00 00 0d 03, wanted 00 00 08 03"),
    ],
)
def test_damaged_images_say_what_was_got_and_wanted(tmp_path, damage, says):
    images, _ = write_part(tmp_path, "test", 5)
    path = tmp_path / f"{NAMES['test'][0]}.gz"
    path.write_bytes(damage(idx(images)))
    with pytest.raises(DamagedFile, match=says) as raised:
        tasks.load("smnist", data_dir=tmp_path)
    assert str(path) in str(raised.value)


def test_labels_must_be_as_many_as_images(tmp_path):
    write_part(tmp_path, "test", 5)
    (tmp_path / f"{NAMES['test'][1]}.gz").write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(DamagedFile, match=r"5 images .* 4 labels"):
        tasks.load("smnist", data_dir=tmp_path)


def test_missing_companion_too_few_images_and_no_folder(tmp_path):
    write_part(tmp_path, "test", 5)
    with pytest.raises(InvalidInput, match="holds 5 test images and no training set"):
        tasks.load("smnist", data_dir=tmp_path)
    (tmp_path / f"{NAMES['test'][1]}.gz").unlink()
    with pytest.raises(InvalidInput, match="lacks t10k-labels-idx1-ubyte"):
        tasks.load("smnist", data_dir=tmp_path)
    with pytest.raises(InvalidInput, match="is not a folder"):
        tasks.load("smnist", data_dir=tmp_path / "none")


def test_without_files_and_package_the_install_is_named(tmp_path, monkeypatch):
    original = builtins.__import__

    def without_datasets(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(MissingDependency, match=r"pip install 'unscan\[hub\]'"):
        tasks.load("smnist", data_dir=tmp_path)


class Hub:
    """What the hub's client gives for a part: columns of arrays."""

    def __init__(self, count):
        self.columns = {"image": np.full((count, 4, 3), 255, np.uint8), "label": np.arange(count)}

    def with_format(self, kind):
        assert kind == "numpy"
        return self

    def __getitem__(self, rows):
        return self.columns


class Client:
    """Stands for the package `datasets`."""

    def __init__(self, answer, name=mnist.MNIST.hub):
        self.answer, self.name = answer, name

    def load_dataset(self, name):
        assert name == self.name
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_hub_without_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", Client(ConnectionError("cannot reach it")))
    with pytest.raises(InvalidInput, match=r"cannot reach it\); connect to a network, or put t10k") as raised:
        tasks.load("smnist", data_dir=tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_hub_gives_the_standard_split(monkeypatch):
    monkeypatch.delenv("UNSCAN_DATA", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "datasets", Client({"train": Hub(6), "test": Hub(3)}))
    task = tasks.load("smnist")
    assert task.train.x.shape == (6, 12, 1)
    assert bool((task.test.x == 1).all())
    assert "6 images train, 3 test, from the hub's ylecun/mnist" in task.description


PIXELS = torch.tensor([[[0.0], [0.5], [1.0]], [[0.2], [0.8], [0.4]]])


def test_direct_holds_each_pixel():
    assert torch.equal(encode(PIXELS, "direct"), PIXELS)
    assert encode(PIXELS, "direct", 2)[0, :, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_latency_fires_once_per_pixel_and_earlier_when_brighter():
    spikes = encode(PIXELS, "latency", 5).reshape(2, 3, 5)
    assert bool((spikes.sum(dim=-1) == 1).all())
    assert spikes.argmax(dim=-1).tolist() == [[4, 2, 0], [3, 1, 2]]
    with pytest.raises(InvalidInput, match="from 2"):
        encode(PIXELS, "latency", 1)


def test_rate_is_the_same_for_a_sample_in_every_subset():
    x = torch.rand(6, 50, 1, generator=torch.Generator().manual_seed(1))
    spikes = encode(x, "rate", 3)
    assert torch.equal(spikes, encode(x, "rate", 3))
    assert torch.equal(spikes[4:], encode(x[4:], "rate", 3, first_sample=4))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(encode(x[:1], "rate"), encode(x[:1], "rate", first_sample=1))


def test_rate_follows_brightness():
    x = torch.tensor([0.0, 0.3, 1.0]).repeat(1, 4000)[:, :, None]
    means = encode(x, "rate").reshape(4000, 3).mean(dim=0)
    assert means[0] == 0
    assert means[1].item() == pytest.approx(0.3, abs=0.03)
    assert means[2] == 1


def test_encoded_task_has_its_length_kind_and_description():
    task = tasks.load("digits", encoding="rate", steps_per_pixel=2)
    assert (task.steps, task.kind, tuple(task.test.x.shape)) == (128, "spike", (360, 128, 1))
    assert "rate encoding, 2 steps per pixel" in task.description
    assert torch.equal(task.test.x[:2], encode(tasks.load("digits").test.x[:2], "rate", 2, first_sample=1437))


@pytest.mark.parametrize(("encoding", "steps", "says"), [("phase", 1, "direct, rate"), ("rate", 0, "from 1")])
def test_bad_encodings_are_refused(encoding, steps, says):
    with pytest.raises(InvalidInput, match=says):
        encode(PIXELS, encoding, steps)
