"""A bitmap of entries that are looked at in their order, and one of its words that are not empty.

So it is read in order of the entries, whatever the history, in 1 / 4096 look for each entry there is and one for each
that is set.
"""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.synapses import unpack
from unscan.runtime.executors.event.vector import kernel, lowest_bit


@kernel
def mark(firing: Array, words: int, entry: int) -> None:
    """Set the bit of an entry."""
    word = entry >> 6
    firing[word] |= np.uint64(1) << np.uint64(entry & 63)
    firing[words + (word >> 6)] |= np.uint64(1) << np.uint64(word & 63)


@kernel
def unmark(firing: Array, words: int, entry: int) -> None:
    """Take back the bit of an entry."""
    word = entry >> 6
    firing[word] &= ~(np.uint64(1) << np.uint64(entry & 63))
    if firing[word] == np.uint64(0):
        firing[words + (word >> 6)] &= ~(np.uint64(1) << np.uint64(word & 63))


@kernel
def marked(firing: Array, words: int, entries: Array) -> int:
    """List the entries whose bits are set, in their order; return how many there are."""
    found = 0
    for group in range(words, len(firing)):
        filled = firing[group]
        while filled != np.uint64(0):
            word = ((group - words) << 6) + lowest_bit(filled)
            filled &= filled - np.uint64(1)
            found = unpack(firing[word], word << 6, entries, found)
    return found
