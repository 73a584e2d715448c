"""Speech Commands: a spoken word of one second, sample by sample; which word?"""

import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.tasks.settings import choice, whole
from unscan.trainer.tasks.sources import data_folder
from unscan.trainer.tasks.task import Part, Task

RATE = 16_000
"""Samples a second, and the samples of a file."""

FOLDERS = ("speech_commands_v0.02", "speech_commands")
ARCHIVE = "speech_commands_v0.02.tar.gz"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten words of the small task, in the order of their classes."""

WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow",
    "forward", "four", "go", "happy", "house", "learn", "left", "marvin", "nine",
    "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)  # fmt: skip
"""The 35 words of version 0.02, in the order of their classes."""


def speech_commands(data_dir: Path | None = None, *, classes: int = 35, downsample: int = 1) -> Task:
    """Load spoken words as sequences (N, 16000 / downsample, 1) of amplitude in [-1, 1).

    `classes` is 35, or 10 for the words yes, no, up, down, left, right, on, off, stop, go alone. With `downsample` D,
    which divides 16 000, a step is the mean of D neighbouring samples. Recordings shorter than a second have zeros
    at their end.

    The split is that of the data set: what `testing_list.txt` names tests, what `validation_list.txt` names is
    `tests["validation"]`, and the rest trains, ordered by file name, which begins with a code of the speaker, so
    that the end of the training part holds all words by other speakers. `chance` is the share of the commonest word
    in the test part. All 84 843 training sequences at 16 kHz take 5.4 GB.

    The files are version 0.02 as distributed and unpacked: folders named by word, of WAV files with one channel of
    16 bits at 16 kHz, in `data_dir` (default: the environment variable UNSCAN_DATA) or in its folder
    `speech_commands_v0.02` or `speech_commands`. Raises DamagedFile for a recording that is not that, or that is
    listed and missing; InvalidInput where there are no files.

    Source: Warden, Speech Commands, arXiv 1804.03209.
    """
    name = "speech_commands"
    words = WORDS if choice(name, "classes", classes, (35, 10)) == 35 else COMMANDS
    factor = whole(name, "downsample", downsample, 1, RATE)
    if RATE % factor:
        raise InvalidInput(
            f"the setting downsample of the task {name} is {factor}; allowed: a divisor of {RATE}"
        )
    folder = _folder(data_dir)
    parts = {part: _read(folder, files, words, factor) for part, files in _split(folder, words).items()}
    train, test = parts["train"], parts["test"]
    rate = f"{RATE / factor:g} Hz" + (f" (means of {factor} samples)" if factor > 1 else "")
    return Task(
        name=name,
        description=(
            f"Speech Commands, {len(words)} words at {rate}; {len(train.y)} recordings train, "
            f"{len(parts['validation'].y)} validate, {len(test.y)} test"
        ),
        classes=len(words),
        chance=(torch.bincount(test.y).max() / len(test.y)).item(),
        input_shape=(1,),
        steps=RATE // factor,
        kind="real",
        train=train,
        test=test,
        tests={"validation": parts["validation"]},
    )


def _folder(data_dir: Path | None) -> Path:
    stated = data_folder(data_dir, "Speech Commands")
    advice = f"unpack {ARCHIVE} into a folder and name it with --data-dir or UNSCAN_DATA"
    if stated is None:
        raise InvalidInput(f"no data directory is named; {advice}")
    for folder in (stated, *(stated / name for name in FOLDERS)):
        if (folder / LISTS["test"]).is_file():
            return folder
    raise InvalidInput(f"{stated} holds no {LISTS['test']}, nor do {' and '.join(FOLDERS)} in it; {advice}")


def _split(folder: Path, words: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files of each part, as `word/file`, ordered by file."""
    missing = [word for word in words if not (folder / word).is_dir()]
    if missing:
        raise InvalidInput(
            f"{folder} lacks the folder {missing[0]}; wanted one for each of {', '.join(words)}; unpack {ARCHIVE} again"
        )
    found = {f"{word}/{file.name}" for word in words for file in (folder / word).glob("*.wav")}
    listed = {part: _listed(folder, part, words) for part in LISTS}
    for part, files in listed.items():
        if lost := sorted(files - found):
            raise DamagedFile(
                f"{folder} lacks {lost[0]}, which {LISTS[part]} names ({len(lost)} in all); unpack {ARCHIVE} again"
            )
    split = {"train": found - listed["validation"] - listed["test"], **listed}
    for part, files in split.items():
        if not files:
            raise InvalidInput(f"{folder} has no recordings for the {part} part; unpack {ARCHIVE} again")
    return {part: sorted(files, key=lambda file: file.split("/")[::-1]) for part, files in split.items()}


def _listed(folder: Path, part: str, words: tuple[str, ...]) -> set[str]:
    path = folder / LISTS[part]
    try:
        lines = path.read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise InvalidInput(f"{folder} lacks {path.name}; unpack {ARCHIVE} again") from error
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{path} is not a list of files ({error}); unpack {ARCHIVE} again") from error
    return {line for line in lines if line.partition("/")[0] in words}


def _read(folder: Path, files: list[str], words: tuple[str, ...], factor: int) -> Part:
    x = np.zeros((len(files), RATE // factor, 1), np.float32)
    for index, file in enumerate(files):
        samples = np.zeros(RATE, np.float32)
        recording = read_wave(folder / file)
        samples[: len(recording)] = recording
        x[index, :, 0] = samples.reshape(-1, factor).mean(axis=1)
    y = np.array([words.index(file.partition("/")[0]) for file in files], np.int64)
    return Part(torch.from_numpy(x), torch.from_numpy(y))


def read_wave(path: Path) -> NDArray[np.float32]:
    """Return a recording's amplitude, in [-1, 1); raises DamagedFile if it is not up to 1 s of 16 bits at 16 kHz."""
    again = f"unpack {ARCHIVE} again"
    try:
        with wave.open(str(path), "rb") as recording:
            channels, width, rate, length = recording.getparams()[:4]
            content = recording.readframes(length)
    except (wave.Error, EOFError) as error:
        raise DamagedFile(f"{path}: not a WAV file ({str(error) or 'it is cut off'}); {again}") from error
    if (channels, width, rate) != (1, 2, RATE):
        raise DamagedFile(
            f"{path}: channels {channels}, {8 * width} bits, {rate} Hz; wanted channels 1, 16 bits, {RATE} Hz; {again}"
        )
    if len(content) != 2 * length:
        raise DamagedFile(
            f"{path}: {len(content)} bytes of sound, wanted {2 * length}; it is cut off; {again}"
        )
    if length > RATE:
        raise DamagedFile(f"{path}: {length} samples, wanted at most {RATE}; {again}")
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(2**15)
