"""Energy tables: picojoules per operation, each with its source; named ones, and files of users.

A file is YAML with the fields of `Table` beside its name, which is the path: `add`, `multiply` and `memory`, and where
wanted `write`, `neuron`, `updates`, `source` and `note`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from unscan.compiler.errors import InvalidInput

HOROWITZ = (
    'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V'
)
SRAM = (
    "A memory access is one of an 8 KB SRAM: 5 pJ for 32 bits; for 16 and 8 bits in proportion, as we assume."
)
LOIHI = (
    'M. Davies et al., "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE Micro 38(1), 2018, '
    "table 2: the first Loihi, 14 nm, 0.75 V, from simulations before silicon"
)
WITHIN = ("decay", "integrate", "compare", "reset", "adapt", "bias", "join")
"""Updates that a chip does within the update of a neuron, whose price holds them."""
KINDS = frozenset(
    (
        *WITHIN,
        "scale",
        "rescale",
        "product",
        "activation",
        "norm",
        "ssm",
        "write",
        "erase",
        "read",
        "pool",
        "top-k",
    )
)
"""Every kind of update that costs name (`costs.Operations`)."""


@dataclass(frozen=True)
class Table:
    """Picojoules per operation in one number format.

    Attributes:
        name: a name of `TABLES`, or the path of a user's file.
        add: one addition: an AC.
        multiply: one multiplication; with an addition a MAC.
        memory: reading one number, a weight or a state; 0 where operations hold it.
        write: writing one; as reading where None.
        neuron: the update of one neuron in one step, beside its updates by kind.
        updates: kind -> one state update. Where None: a multiplication, a MAC or an addition, as the kind has it. Where
            given, kinds that it leaves out have no price, and counts that have some are refused.
        source: where the numbers were published.
        note: what they leave out.
    """

    name: str
    add: float
    multiply: float
    memory: float
    write: float | None = None
    neuron: float = 0.0
    updates: Mapping[str, float] | None = field(default=None, hash=False)
    source: str = ""
    note: str = ""

    @property
    def mac(self) -> float:
        """One multiplication and one addition."""
        return self.multiply + self.add

    @property
    def store(self) -> float:
        """Writing one number."""
        return self.memory if self.write is None else self.write

    def update(self, kind: str) -> float:
        """Return the energy of one state update of a kind, in pJ. Raises InvalidInput where the table has none."""
        if self.updates is None:
            return {
                "decay": self.multiply,
                "scale": self.multiply,
                "rescale": self.multiply,
                "product": self.multiply,
                "activation": self.multiply,
                "norm": self.mac,
                "ssm": self.mac,
                "adapt": self.mac,
                "write": self.mac,
                "erase": self.mac,
            }.get(kind, self.add)
        if kind not in self.updates:
            raise InvalidInput(
                f"The energy table {self.name!r} has no price for updates of kind {kind!r}, which this network makes; "
                f"it prices {', '.join(self.updates)}. Take another table, or one of your own as a YAML file."
            )
        return self.updates[kind]


TABLES = {
    table.name: table
    for table in (
        Table("horowitz-45nm-float32", add=0.9, multiply=3.7, memory=5.0, source=HOROWITZ, note=SRAM),
        Table("horowitz-45nm-float16", add=0.4, multiply=1.1, memory=2.5, source=HOROWITZ, note=SRAM),
        Table("horowitz-45nm-int32", add=0.1, multiply=3.1, memory=5.0, source=HOROWITZ, note=SRAM),
        Table("horowitz-45nm-int8", add=0.03, multiply=0.2, memory=1.25, source=HOROWITZ, note=SRAM),
        Table(
            "loihi-1",
            add=23.6,
            multiply=0.0,
            memory=0.0,
            neuron=81.0,
            updates=dict.fromkeys(WITHIN, 0.0),
            source=LOIHI,
            note="An AC is one synaptic operation (the least that is given), with its memory access; a MAC is priced "
            "as one too, though this chip takes spikes alone; every neuron update costs as an active one (an inactive "
            "one 52 pJ). Spikes on their way (1.7 pJ within a tile, 3 to 4 pJ a hop) depend on placement and are left "
            "out, and so is static power.",
        ),
    )
}
DEFAULT = "horowitz-45nm-float32"
ABSENT = {
    "loihi-2": "No energy per operation of Loihi 2 is known to be published, only measurements of whole applications; "
    "loihi-1 holds what was published of the first Loihi."
}
"""Names that people look for and no table can have, and why."""


def find(name: str) -> Table:
    """Return the table of a name, or that of a YAML file by its path.

    Raises:
        InvalidInput: there is none of that name, or the file is missing or no table.
    """
    if name in TABLES:
        return TABLES[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return from_file(Path(name))
    why = f" {ABSENT[name]}" if name in ABSENT else ""
    raise InvalidInput(
        f"There is no energy table {name!r}; choose one of {', '.join(TABLES)}, or name a YAML file.{why}"
    )


def from_file(path: Path) -> Table:
    """Read a table of a user's own; its name is its path.

    Raises:
        InvalidInput: the file is missing, is no YAML, or has fields that a table has not or cannot have.
    """
    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(
            f"There is no energy table {path}; write one with add, multiply and memory, in picojoules, or name one of "
            f"{', '.join(TABLES)}."
        ) from None
    except OSError as fault:
        raise InvalidInput(
            f"The energy table {path} cannot be read: {fault.strerror}; name a file that you may read."
        ) from None
    except UnicodeDecodeError:
        raise InvalidInput(
            f"The energy table {path} is no text in UTF-8, as YAML is; write it again."
        ) from None
    except yaml.YAMLError as fault:
        reason = " ".join(str(fault).split())
        raise InvalidInput(f"The energy table {path} is no YAML: {reason}.") from None
    known = [each.name for each in fields(Table) if each.name != "name"]
    wrong = list(faults(given, known))
    if wrong:
        raise InvalidInput(
            f"The energy table {path} does not fit: {'; '.join(wrong)}. A table has the fields add, multiply and "
            "memory, each a number of picojoules from 0 up, and where wanted write, neuron, updates (kind: number), "
            "source and note."
        )
    return Table(name=str(path), **given)


def faults(given: Any, known: list[str]) -> list[str]:
    """Return what is wrong with the fields of a table, one clause each."""
    if not isinstance(given, dict):
        return ["it is empty" if given is None else f"it holds {given!r}, wanted fields"]
    found = [f"it has no field {name!r}" for name in ("add", "multiply", "memory") if name not in given]
    for name, value in given.items():
        if name not in known:
            found.append(f"it has a field {name!r}, which no table has")
        elif name in ("source", "note"):
            found += [] if isinstance(value, str) else [f"{name} is {value!r}, wanted text"]
        elif name == "updates":
            found += priced(value)
        elif not price(value):
            found.append(f"{name} is {value!r}, wanted a number of picojoules")
    return found


def priced(updates: Any) -> list[str]:
    """Return what is wrong with the prices of updates, one clause each."""
    if not isinstance(updates, dict):
        return [f"updates is {updates!r}, wanted a number for each kind"]
    wrong = [
        f"updates names {kind!r}, which is none of {', '.join(sorted(KINDS))}"
        for kind in updates
        if kind not in KINDS
    ]
    return wrong + [
        f"the update {kind!r} is {value!r}, wanted a number of picojoules"
        for kind, value in updates.items()
        if kind in KINDS and not price(value)
    ]


def price(value: Any) -> bool:
    """Say whether a value is a number from 0 up."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
