"""Checking the values of a task's settings, which come from recipes: numbers, lists of numbers, choices."""

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from unscan.compiler.errors import InvalidInput

Choice = TypeVar("Choice", str, int)


def whole(task: str, name: str, value: object, lowest: int, highest: int | None = None) -> int:
    """Return a whole number of the range, both ends included; raises InvalidInput for anything else."""
    if not _is_whole(value, lowest, highest):
        _refuse(task, name, value, f"a whole number {_range(lowest, highest)}")
    assert isinstance(value, int)
    return value


def wholes(task: str, name: str, value: object, lowest: int, highest: int | None = None) -> tuple[int, ...]:
    """Return one whole number or several different ones in ascending order; raises InvalidInput otherwise."""
    several = [value] if isinstance(value, int) else value
    if (
        not isinstance(several, list | tuple)
        or not several
        or not all(_is_whole(one, lowest, highest) for one in several)
        or len(set(several)) < len(several)
    ):
        _refuse(
            task,
            name,
            value,
            f"a whole number {_range(lowest, highest)}, or a list of different ones",
        )
    return tuple(sorted(several))


def share(task: str, name: str, value: object) -> float:
    """Return a number from 0 to 1; raises InvalidInput for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        _refuse(task, name, value, "a number from 0 to 1")
    return float(value)


def choice(task: str, name: str, value: object, allowed: Sequence[Choice]) -> Choice:
    """Return one of the allowed values; raises InvalidInput for anything else."""
    for one in allowed:
        if type(value) is type(one) and value == one:
            return one
    _refuse(task, name, value, ", ".join(map(str, allowed)))


def _is_whole(value: object, lowest: int, highest: int | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return lowest <= value and (highest is None or value <= highest)


def _range(lowest: int, highest: int | None) -> str:
    return f"from {lowest}" if highest is None else f"from {lowest} to {highest}"


def _refuse(task: str, name: str, value: object, allowed: str) -> NoReturn:
    raise InvalidInput(f"the setting {name} of the task {task} is {value!r}; allowed: {allowed}")
