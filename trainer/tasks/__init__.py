"""Tasks to train on, each found by name; the data is read when the task is loaded."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unscan.compiler.errors import InvalidInput
from unscan.trainer.tasks.encoding import ENCODINGS, Encoding, encode
from unscan.trainer.tasks.task import Part, Task

__all__ = ["ENCODINGS", "TASKS", "Encoding", "Part", "Task", "encode", "load"]

Loader = Callable[[Path | None], Task]


def _digits() -> Loader:
    from unscan.trainer.tasks.digits import digits

    return digits


def _smnist() -> Loader:
    from unscan.trainer.tasks.mnist import smnist

    return smnist


def _psmnist() -> Loader:
    from unscan.trainer.tasks.mnist import psmnist

    return psmnist


TASKS: dict[str, Callable[[], Loader]] = {"digits": _digits, "smnist": _smnist, "psmnist": _psmnist}


def load(
    name: str,
    *,
    encoding: Encoding = "direct",
    steps_per_pixel: int = 1,
    data_dir: Path | str | None = None,
) -> Task:
    """Load a task by name and encode its inputs (see `unscan.trainer.tasks.encoding`).

    `data_dir` is where data files are looked for, by default the environment variable UNSCAN_DATA. Raises
    InvalidInput for an unknown name or encoding, and what the task's loader raises.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"unknown task {name!r}; allowed: {', '.join(TASKS)}{hint}")
    task = TASKS[name]()(Path(data_dir) if data_dir is not None else None)
    if encoding == "direct" and steps_per_pixel == 1:
        return task
    train = encode(task.train.x, encoding, steps_per_pixel)
    test = encode(task.test.x, encoding, steps_per_pixel, first_sample=len(train))
    plural = "" if steps_per_pixel == 1 else "s"
    return replace(
        task,
        description=f"{task.description}; {encoding} encoding, {steps_per_pixel} step{plural} per pixel",
        steps=train.shape[1],
        kind="real" if encoding == "direct" else "spike",
        train=Part(train, task.train.y),
        test=Part(test, task.test.y),
    )
