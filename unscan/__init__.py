"""Train spiking state-space models with scans, deploy them without, and prove that they fire the same spikes."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A checkout keeps `trainer`, `compiler`, `runtime` and `targets` beside this folder; a wheel keeps them inside.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.insert(0, str(_checkout))

if TYPE_CHECKING:
    from unscan.compiler.errors import UnscanError
    from unscan.compiler.frontends.nir import read_nir
    from unscan.compiler.frontends.trace import trace
    from unscan.compiler.ir import Graph
    from unscan.compiler.storage import load
    from unscan.runtime import energy
    from unscan.runtime.judge import compile_on as compile
    from unscan.runtime.simulate import simulate, simulate_stream
    from unscan.runtime.stream import Stream
    from unscan.runtime.verify import verify
    from unscan.targets import export

__version__ = "0.1.0"

_PUBLIC = {
    "Graph": ("unscan.compiler.ir", "Graph"),
    "Stream": ("unscan.runtime.stream", "Stream"),
    "UnscanError": ("unscan.compiler.errors", "UnscanError"),
    "compile": ("unscan.runtime.judge", "compile_on"),
    "energy": ("unscan.runtime.energy", ""),
    "export": ("unscan.targets", "export"),
    "load": ("unscan.compiler.storage", "load"),
    "read_nir": ("unscan.compiler.frontends.nir", "read_nir"),
    "simulate": ("unscan.runtime.simulate", "simulate"),
    "simulate_stream": ("unscan.runtime.simulate", "simulate_stream"),
    "trace": ("unscan.compiler.frontends.trace", "trace"),
    "verify": ("unscan.runtime.verify", "verify"),
}

__all__ = [
    "Graph",
    "Stream",
    "UnscanError",
    "compile",
    "energy",
    "export",
    "load",
    "read_nir",
    "simulate",
    "simulate_stream",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing unscan costs nothing."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unscan' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = import_module(module)
    value = globals()[name] = getattr(found, attribute) if attribute else found
    return value
