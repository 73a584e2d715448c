"""Options of passes as a user writes them, on the command line and in Python alike."""

from __future__ import annotations

from collections.abc import Iterable

from unscan.compiler.errors import InvalidInput
from unscan.compiler.passes.sparsify_top_k import Count, Kept, SparsifyTopK

TopK = Count | str | Iterable[str]
"""4, 0.25, "k=4,v=8", "gen2_1:k=4", or several of these in a list."""
PORTS = {"k": "keys", "v": "values"}


def parse_top_k(wanted: TopK) -> SparsifyTopK:
    """Return the pass that keeps as many keys and values as are wanted.

    4 keeps four keys and four values of every matrix memory; 0.25, a quarter of them; "k=4,v=8" four keys and eight
    values, and "k=4" leaves the values as they are; "gen2_1:k=4" holds for the memory gen2_1 alone, before what holds
    for all.

    Raises:
        InvalidInput: text that is none of these, or two settings for one memory.
    """
    if isinstance(wanted, int | float):
        return SparsifyTopK(wanted, wanted)
    found: dict[str, Kept] = {}
    for text in [wanted] if isinstance(wanted, str) else list(wanted):
        layer, colon, setting = text.rpartition(":")
        if layer in found:
            raise InvalidInput(
                f"The setting {text!r} is a second one for {layer or 'all memories'}; give one, as in k=4,v=8."
            )
        if colon and not layer:
            raise InvalidInput(f"The setting {text!r} names no layer before its colon; write gen2_1:k=4.")
        found[layer] = kept(text, setting)
    everywhere = found.pop("", Kept())
    return SparsifyTopK(everywhere.keys, everywhere.values, found or None)


def kept(text: str, setting: str) -> Kept:
    """Return how many keys and values one setting keeps."""
    named = [part.partition("=") for part in setting.split(",")]
    if len(named) == 1 and not named[0][1]:
        return Kept(count(text, setting), count(text, setting))
    given = {PORTS.get(port.strip(), port): count(text, number) for port, _, number in named}
    if len(given) < len(named) or not set(given) <= set(PORTS.values()):
        raise refused(text)
    return Kept(**given)


def count(text: str, number: str) -> Count:
    """Return a whole number as a count, and a decimal number as a share."""
    for form in (int, float):
        try:
            return form(number.strip())
        except ValueError:
            continue
    raise refused(text)


def refused(text: str) -> InvalidInput:
    """Say how a setting is written."""
    return InvalidInput(
        f"Got {text!r} for top-k; write a count (4), a share (0.25), either for keys and values (k=4,v=0.5), and in "
        "front of it a memory where it is meant for one (gen2_1:k=4)."
    )
