"""Run a torch model on a sample, and write down what it calls on what: the record that is read into a graph.

The sample is a tensor that remembers where it came from. Everything that is computed from it is computed, so that
shapes are there for the model to ask, and recorded; what is computed from weights alone is a constant.
"""

from __future__ import annotations

import inspect
import linecache
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.builder import REMEDIES

FACTS = frozenset(
    [
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "get_device",
        "element_size",
        "len",
        "type",
        "repr",
        "format",
        "is_same_size",
    ]
)
"""What a forward may ask of a tensor: it does not depend on the numbers in it."""
LIKE = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_tensor",
    ]
)
"""Functions of a tensor's shape alone; what they give is a constant."""
SAME = frozenset(["detach", "clone", "contiguous", "data", "requires_grad"])
"""Functions that give what they are handed: as states are cut off from their past, for one."""
LINE = 80
"""Characters of a user's line that a message shows."""
OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
COMPILER = Path(__file__).resolve().parent.parent
CALLING = (
    str(Path(str(sys.modules["unscan"].__file__)).parent), str(COMPILER), str(COMPILER.parent / "runtime"),
)  # fmt: skip
"""Where our own code stands that calls the model."""


class Origin(NamedTuple):
    """Where a tensor came from: a call, the place among its results, and its shape."""

    call: Call
    path: tuple[int | str, ...]
    shape: tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One call of a leaf module or of a function, with an `Origin` for every tensor that depends on the input.

    Attributes:
        target: the module, or the function; None for the input.
        name: the module's name in the model, or the function's, without underscores.
        args: of a module: in the order of its forward, None for those left out before others.
        result: what came out, with a `torch.Size` for every tensor.
        line: where in the user's file, and what stands there.
    """

    target: Any
    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    result: Any = None
    line: str = ""

    @property
    def is_module(self) -> bool:
        """Whether a module is called, and not a function."""
        return isinstance(self.target, nn.Module)


class Watched(torch.Tensor):
    """A tensor that depends on the model's input."""

    origin: Origin
    recorder: Recorder

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute, and record that it was."""
        kwargs = kwargs or {}
        watched = next(leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Watched))
        return watched.recorder.function(func, args, kwargs)


class Recorder:
    """The calls that a model makes, in order.

    Args:
        model: the model.
        is_leaf: says of a module whether it is recorded as a whole; others are recorded by what they call.
    """

    def __init__(self, model: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.is_leaf = is_leaf
        self.calls: list[Call] = []
        self.inside = False
        self.alive: dict[int, list[weakref.ref[Watched]]] = {}
        self.kept: list[torch.Tensor] = []

    def input(self, x: torch.Tensor) -> Watched:
        """Return the input, watched."""
        call = Call(None, "input")
        self.calls.append(call)
        return self._watch(call, x)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls of leaf modules."""
        original = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            watched = any(isinstance(leaf, Watched) for leaf in leaves((args, kwargs)))
            if self.inside or not watched or not self.is_leaf(module):
                return original(module, *args, **kwargs)
            self._unhooked(module)
            return self._module(original, module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            with torch.no_grad():
                yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def _unhooked(self, module: nn.Module) -> None:
        """Refuse hooks on a module that is read as a whole, but those of torch.nn.utils that compute its weights."""
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if not type(hook).__module__.startswith("torch.nn.utils"):
                raise Unsupported(
                    f"The module {self.names.get(module)!r} has a forward hook, {getattr(hook, '__name__', hook)}, "
                    "which may change what it computes, and is no part of a graph; remove it before the model is read."
                )

    def _module(
        self,
        original: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        name = self.names.get(module, type(module).__name__)
        self.inside = True
        try:
            handed = (mapped(widened(module), given) for given in (args, kwargs))
            result = original(module, *next(handed), **next(handed))
        except Exception as fault:
            shapes = [tuple(leaf.shape) for leaf in leaves(args) if isinstance(leaf, torch.Tensor)]
            folds = isinstance(module, nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d | nn.AvgPool2d)
            hint = (
                f" In a model of sequences {REMEDIES['folded']}; if the model is one step, say so (stepwise=True, "
                "--stepwise), or if it repeats one, as an image (static=True, --static)."
                if folds
                else ""
            )
            raise InvalidGraph(
                f"{type(module).__name__} {name!r} does not fit what feeds it, a tensor of shape "
                f"{', '.join(map(str, shapes))}: {first_line(fault)} ({user_line()}).{hint}"
            ) from None
        finally:
            self.inside = False
        return self._record(
            module, name, _in_order(module, args, kwargs), {}, result, _in_place(module, args)
        )

    def function(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Compute a function of watched tensors and record it."""
        name, property_ = function_name(func)
        if name == "hash":
            return id(args[0])
        if name == "setitem":
            raise Unsupported(
                f"The forward writes into a part of a tensor ({user_line()}); collect the parts in a list, and "
                "torch.stack them."
            )
        if name == "iter":
            func, name = torch.unbind, "unbind"
        with torch._C.DisableTorchFunctionSubclass():
            try:
                result = func(*mapped(plain, args), **mapped(plain, kwargs))
            except (RuntimeError, TypeError, IndexError, ValueError) as fault:
                raise InvalidGraph(
                    f"{name} fails on the shapes at hand ({user_line()}): {first_line(fault)}. Models are traced on "
                    "short sequences: take the number of steps from x.shape[0]."
                ) from None
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves(result)):
            if name in FACTS or (property_ and name != "data"):
                return result
            raise InvalidInput(
                f"The forward cannot be traced: it depends on the values of its input ({name}; {user_line()}). Write "
                "it so that the same modules and functions are called whatever the numbers are."
            )
        if name in LIKE:
            return result
        if name in SAME and isinstance(args[0], Watched):
            return self._watch(args[0].origin.call, result, args[0].origin.path)
        return self._record(func, name, args, kwargs, result, _writes(func, args, kwargs))

    def _record(
        self,
        target: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        changed: Any,
    ) -> Any:
        call = Call(
            target,
            name,
            mapped(origin_of, args),
            mapped(origin_of, kwargs),
            mapped(shape_of, result),
            user_line(),
        )
        self.calls.append(call)
        if isinstance(changed, Watched):
            same = self.alive.get(_storage(plain(changed)), [])
            if any(other is not None and other is not changed for other in (known() for known in same)):
                raise Unsupported(
                    f"{name} writes in place into a tensor that shares its memory with another ({call.line}); write "
                    "it as an expression, x = x + y."
                )
            changed.origin = Origin(call, (), tuple(plain(changed).shape))
            return changed
        return self._wrap(call, result, ())

    def _wrap(self, call: Call, result: Any, path: tuple[int | str, ...]) -> Any:
        if isinstance(result, torch.Tensor):
            return self._watch(call, result, path)
        if isinstance(result, Mapping):
            return type(result)({key: self._wrap(call, value, (*path, key)) for key, value in result.items()})  # type: ignore[call-arg]
        if isinstance(result, tuple | list):
            parts = [self._wrap(call, value, (*path, i)) for i, value in enumerate(result)]
            return like(result, parts)
        return result

    def _watch(self, call: Call, tensor: torch.Tensor, path: tuple[int | str, ...] = ()) -> Watched:
        tensor = plain(tensor)
        self.kept.append(tensor)
        watched = tensor.as_subclass(Watched)
        watched.origin = Origin(call, path, tuple(tensor.shape))
        watched.recorder = self
        self.alive.setdefault(_storage(tensor), []).append(weakref.ref(watched))
        return watched


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def plain(value: Any) -> Any:
    """Return a tensor as torch's own, anything else as it is."""
    if not isinstance(value, Watched):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(torch.Tensor)


def widened(module: nn.Module) -> Callable[[Any], Any]:
    """Return what takes a tensor to the format of a module's weights: spikes are float32 in many frameworks."""
    weights = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)

    def function(value: Any) -> Any:
        value = plain(value)
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(weights) if floating and weights is not None else value

    return function


def origin_of(value: Any) -> Any:
    """Return where a watched tensor came from, anything else as it is."""
    return value.origin if isinstance(value, Watched) else value


def shape_of(value: Any) -> Any:
    """Return a tensor's shape, None for anything else."""
    return value.shape if isinstance(value, torch.Tensor) else None


def leaves(value: Any) -> Iterator[Any]:
    """Yield what stands in nested tuples, lists and mappings."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list) and not isinstance(value, Origin | torch.Size):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return nested tuples, lists and mappings with a function applied to what stands in them."""
    if isinstance(value, Mapping):
        return {key: mapped(function, part) for key, part in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, Origin | torch.Size):
        return like(value, [mapped(function, part) for part in value])
    return function(value)


def like(value: Any, parts: list[Any]) -> Any:
    """Return parts in a sequence of the type of another."""
    if hasattr(value, "_fields"):
        return type(value)(*parts)
    return parts if isinstance(value, list) else tuple(parts)


def function_name(func: Any) -> tuple[str, bool]:
    """Return a function's name without underscores, and whether it is a property of tensors."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return func.__self__.__name__, True
    return name.strip("_"), False


def first_line(fault: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(fault).strip().partition("\n")[0].rstrip(".") or type(fault).__name__


def user_line() -> str:
    """Return the line of the user's code that is being run, as "line 12 of my_model.py: x = ..."."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN):
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(CALLING):
        return "in a forward of torch"
    file, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, number).strip()
    text = text if len(text) <= LINE else f"{text[: LINE - 3]}..."
    return f"line {number} of {Path(file).name}" + (f": {text}" if text else "")


def _writes(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the tensor that a function writes into, None where it writes into none."""
    name = getattr(func, "__name__", "")
    inside = (
        name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__invert__", "__iter__")
    )
    if inside or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace") is True:
        return args[0] if args else kwargs.get("input")
    if kwargs.get("out") is not None:
        raise Unsupported(
            f"{name} writes into a tensor that it is handed as out= ({user_line()}); use what it returns."
        )
    return None


def _in_place(module: nn.Module, args: tuple[Any, ...]) -> Any:
    return args[0] if args and getattr(module, "inplace", False) is True else None


def _in_order(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a module's forward in its order, those left out before others as None."""
    parameters = inspect.signature(module.forward).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return (*args, *kwargs.values())
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    last = max((i for i, name in enumerate(parameters) if name in given), default=-1)
    return tuple(given.get(name) for name in list(parameters)[: last + 1])
