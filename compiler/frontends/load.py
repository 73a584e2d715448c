"""Build a model of a class in a user's Python file, and load its weights: FILE.py:NAME.

The file is run, as `python FILE.py` would. A weights file is read as numbers alone: what else a pickle holds is
refused, and never run.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.frontends.recorder import first_line
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Graph, Kind

NESTED = ("state_dict", "model_state_dict", "model")
"""Where checkpoints of training scripts keep the state dict among other things."""


def load_model(
    source: Path | str, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a model, load its weights, and put it into evaluation.

    Args:
        source: FILE.py:NAME, a class that is an nn.Module, or a function that returns one. The file is run.
        weights: a state dict, `.pt` (torch.save) or `.safetensors`; None leaves the weights as they are built, with
            torch's seed 0, so that they are the same each time. The model is in float32, or in float64 where the file
            holds float64.
        arguments: what NAME is called with.

    Raises:
        InvalidInput: no such file or name, arguments or weights that do not fit, or a file that fails as it is run.
        DamagedFile: weights that are truncated, or hold more than tensors.
    """
    path, name = _parts(source)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = _built(_namespace(path), path, name, dict(arguments or {}))
    if weights is not None:
        load_weights(made, weights)
    return made.eval()


def load_graph(
    source: Path | str,
    *,
    shape: tuple[int, ...] | None = None,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    kind: Kind | str = Kind.REAL,
    stepwise: bool = False,
    static: bool = False,
    steps: int | None = None,
    output: int | None = None,
) -> Graph:
    """Build a model as `load_model` does, and trace it on inputs of a shape (neurons, without time and batch).

    Raises as `load_model` and `trace`, and InvalidInput where the shape is missing; that of indices is ().
    """
    model = load_model(source, weights, arguments)
    kind = Kind(kind)
    if shape is None and kind is not Kind.INDEX:
        raise InvalidInput(
            f"The shape of one step that {source} takes is not known; give it, neurons without time and batch, with "
            "--shape, as in --shape 9 or --shape 2x34x34."
        )
    sample = np.zeros((1, 1, *(shape or ())), np.int64 if kind is Kind.INDEX else np.float32)
    graph = trace(model, sample, kind=kind, stepwise=stepwise, static=static, steps=steps, output=output)
    path, name = _parts(source)
    said = f"read {path.name}:{name}" + (
        f" with {weights.name}" if weights else ", its weights as built with seed 0"
    )
    return Graph(graph.nodes, graph.edges, history=(said, *graph.history), meta=graph.meta)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into a model whose names and shapes must be those of the file. Raises as `load_model`."""
    held = _state_dict(path)
    if any(tensor.dtype == torch.float64 for tensor in held.values()):
        model.double()
    wanted = model.state_dict()
    wrong = [
        *(f"{name} is missing" for name in wanted if name not in held),
        *(f"{name} is not a name of the model" for name in held if name not in wanted),
        *(
            f"{name} has shape {tuple(held[name].shape)}, wanted {tuple(wanted[name].shape)}"
            for name in wanted
            if name in held and held[name].shape != wanted[name].shape
        ),
    ]
    if wrong:
        shown = "; ".join(wrong[:12]) + (f"; and {len(wrong) - 12} more" if len(wrong) > 12 else "")
        raise InvalidInput(
            f"The weights in {path} do not fit {type(model).__name__}: {shown}. Build the model with the arguments "
            "that it was trained with (--arg name=value), and rename its modules as in the file."
        )
    try:
        model.load_state_dict(held)
    except RuntimeError as fault:
        raise InvalidInput(
            f"The weights in {path} do not fit {type(model).__name__}: {first_line(fault)}."
        ) from None


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InvalidInput(
            f"There is no weights file {path}; torch.save(model.state_dict(), PATH) writes one."
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(action="ignore"):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise DamagedFile(
            f"{path} holds something else than tensors, or is damaged, and a pickle's code is never run: "
            f"{first_line(fault)}. Save the weights alone, with torch.save(model.state_dict(), PATH)."
        ) from None
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, SafetensorError) as fault:
        raise DamagedFile(
            f"{path} is not a complete weights file: {first_line(fault)}. Copy it again, or save it again with "
            "torch.save(model.state_dict(), PATH)."
        ) from None
    for key in NESTED:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise InvalidInput(
            f"{path} holds {_described(held)}, and no state dict; save one with torch.save(model.state_dict(), PATH)."
        )
    return dict(held)


def _described(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"a dict of {', '.join(map(str, list(held)[:8])) or 'nothing'}"
    return f"a {type(held).__name__}"


def _parts(source: Path | str) -> tuple[Path, str]:
    file, colon, name = str(source).rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise InvalidInput(
            f"Got the source {source}; name a class in a Python file as FILE.py:NAME, as in my_model.py:Net."
        )
    path = Path(file)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; name a class in a Python file as FILE.py:NAME.")
    return path, name


def _namespace(path: Path) -> dict[str, Any]:
    """Run a file under a name of its own, so that it meets no module of that name, and return what it defines."""
    number = sum(name.startswith(f"unscan_user_{path.stem}_") for name in sys.modules)
    module = types.ModuleType(f"unscan_user_{path.stem}_{number}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as fault:
        del sys.modules[module.__name__]
        raise InvalidInput(
            f"{path} fails as it is run{_place(fault, path)}: {type(fault).__name__}: {first_line(fault)}. It is run "
            'to get at its classes; put what trains or tests under if __name__ == "__main__".'
        ) from fault
    finally:
        sys.path.remove(folder)
    return vars(module)


def _place(fault: BaseException, path: Path) -> str:
    if isinstance(fault, SyntaxError):
        return f" (line {fault.lineno})"
    trace_, line = fault.__traceback__, ""
    while trace_ is not None:
        if trace_.tb_frame.f_code.co_filename == str(path):
            line = f" (line {trace_.tb_lineno})"
        trace_ = trace_.tb_next
    return line


def _built(namespace: dict[str, Any], path: Path, name: str, arguments: dict[str, Any]) -> nn.Module:
    own = namespace["__name__"]
    models = [
        key
        for key, value in namespace.items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == own
    ]
    listed = f"its models are {', '.join(models)}" if models else "it defines no nn.Module"
    if name not in namespace:
        raise InvalidInput(f"{path} defines no {name}; {listed}.")
    maker: Callable[..., Any] = namespace[name]
    if isinstance(maker, nn.Module) and not arguments:
        return maker
    if not callable(maker) or isinstance(maker, nn.Module):
        raise InvalidInput(f"{name} in {path} is a {type(maker).__name__}, wanted a class; {listed}.")
    signature = inspect.signature(maker)
    try:
        signature.bind(**arguments)
    except TypeError as fault:
        takes = ", ".join(str(parameter) for parameter in signature.parameters.values()) or "nothing"
        raise InvalidInput(
            f"{name} in {path} is built with {arguments or 'no arguments'}, and takes {takes} ({first_line(fault)}); "
            "give what it needs with --arg name=value."
        ) from None
    try:
        made = maker(**arguments)
    except Exception as fault:
        raise InvalidInput(
            f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())}) in {path} fails"
            f"{_place(fault, path)}: {type(fault).__name__}: {first_line(fault)}."
        ) from fault
    if not isinstance(made, nn.Module):
        raise InvalidInput(f"{name} in {path} gives a {type(made).__name__}, wanted an nn.Module; {listed}.")
    return made
