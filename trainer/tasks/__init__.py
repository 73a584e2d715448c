"""Tasks to train on, each found by name; the data is read or generated when the task is loaded."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from unscan.compiler.errors import InvalidInput
from unscan.trainer.tasks.encoding import ENCODINGS, Encoding, encode
from unscan.trainer.tasks.task import IGNORED, Part, Targets, Task

__all__ = [
    "ENCODINGS",
    "IGNORED",
    "TASKS",
    "Encoding",
    "Part",
    "Targets",
    "Task",
    "encode",
    "load",
    "settings_of",
]

Loader = Callable[..., Task]
"""What loads a task: its first argument is the data directory or None, its keyword-only ones are its settings."""


def _late(module: str, function: str) -> Callable[[], Loader]:
    def find() -> Loader:
        loader: Loader = getattr(import_module(f"unscan.trainer.tasks.{module}"), function)
        return loader

    return find


TASKS: dict[str, Callable[[], Loader]] = {
    "digits": _late("digits", "digits"),
    "smnist": _late("mnist", "smnist"),
    "psmnist": _late("mnist", "psmnist"),
    "sfashion_mnist": _late("mnist", "sfashion_mnist"),
    "scifar10": _late("cifar", "scifar10"),
    "speech_commands": _late("speech", "speech_commands"),
    "listops": _late("listops", "listops"),
    "associative_recall": _late("recall", "associative_recall"),
    "copy": _late("copying", "copy"),
    "delayed_match": _late("matching", "delayed_match"),
}


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of a task with their defaults; raises InvalidInput for an unknown task."""
    parameters = inspect.signature(_find(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def load(
    name: str,
    *,
    settings: Mapping[str, Any] | None = None,
    encoding: Encoding = "direct",
    steps_per_pixel: int = 1,
    data_dir: Path | str | None = None,
) -> Task:
    """Load a task by name with its own `settings`, and encode its inputs (see `unscan.trainer.tasks.encoding`).

    `data_dir` is where data files are looked for, by default the environment variable UNSCAN_DATA. Raises
    InvalidInput for an unknown name, setting or encoding, for an encoding of anything but brightness, and what
    the task's loader raises.
    """
    loader = _find(name)
    given, allowed = dict(settings or {}), settings_of(name)
    for setting in given:
        if setting not in allowed:
            close = difflib.get_close_matches(setting, allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            listed = f"allowed: {', '.join(allowed)}" if allowed else "it has none"
            raise InvalidInput(f"unknown setting {setting!r} of the task {name}; {listed}{hint}")
    task = loader(Path(data_dir) if data_dir is not None else None, **given)
    return (
        task if encoding == "direct" and steps_per_pixel == 1 else _encoded(task, encoding, steps_per_pixel)
    )


def _find(name: str) -> Loader:
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"unknown task {name!r}; allowed: {', '.join(TASKS)}{hint}")
    return TASKS[name]()


def _encoded(task: Task, encoding: Encoding, steps_per_pixel: int) -> Task:
    x = task.train.x
    is_brightness = task.kind == "real" and bool(((x >= 0) & (x <= 1)).all())
    if not is_brightness or task.targets != "class" or task.fresh is not None:
        what = "are 0 and 1 already" if task.kind == "spike" else "are no fixed brightness in [0, 1]"
        raise InvalidInput(
            f"encoding {encoding} with steps_per_pixel {steps_per_pixel} is for brightness, and the inputs of the "
            f"task {task.name} {what}; allowed: encoding direct with steps_per_pixel 1"
        )
    parts, samples = [], 0
    for part in (task.train, task.test, *task.tests.values()):
        parts.append(Part(encode(part.x, encoding, steps_per_pixel, first_sample=samples), part.y))
        samples += len(part.y)
    train, test, *tests = parts
    plural = "" if steps_per_pixel == 1 else "s"
    return replace(
        task,
        description=f"{task.description}; {encoding} encoding, {steps_per_pixel} step{plural} per pixel",
        steps=train.x.shape[1],
        kind="real" if encoding == "direct" else "spike",
        train=train,
        test=test,
        tests=dict(zip(task.tests, tests, strict=True)),
    )
