"""Commands for Lava's own Python environment."""

from __future__ import annotations

import sys

import click


@click.group()
def lava() -> None:
    """Make and look at the Python environment that Lava runs in."""


@lava.command()
def install() -> None:
    """Make Lava's environment (0.4 GB, about half a minute), or mend it; UNSCAN_LAVA_ENV names another folder."""
    from unscan.runtime.lava.environment import environment, install
    from unscan.show import console

    found = environment()
    if not found.problem():
        console.print(f"Lava's environment stands in {found.folder}; nothing to do.")
        return
    with console.status(f"Making {found.folder}"):
        install(found)
    console.print(f"Lava's environment stands in {found.folder}.")


@lava.command()
def doctor() -> None:
    """Say whether Lava's environment is whole, by running one neuron in it."""
    from unscan.runtime.lava.environment import environment
    from unscan.runtime.lava.guard import try_out
    from unscan.show import console

    found = environment()
    if problem := found.problem():
        console.print(f"Lava cannot run: {problem}. `unscan lava install` makes it.")
        sys.exit(1)
    console.print(f"{found.folder}: {try_out(found)}")
