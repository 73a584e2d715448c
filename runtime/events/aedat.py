"""Recordings of iniVation's cameras: AEDAT 4 by the package aedat, AEDAT 3.1 here.

An AEDAT 3.1 file is packets: a header of 28 bytes, little-endian (type and source as int16; bytes of an event, offset
of its time, overflows of the time, capacity, events and valid events as int32), then the events. Those of type 1 are
polarities: a word of validity (bit 0), polarity (bit 1), y (bits 2 to 16) and x (bits 17 to 31), and microseconds in 31
bits. (inivation.com, "AEDAT file formats", version 3.1.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.ir import Array
from unscan.runtime.events.events import Events
from unscan.runtime.events.files import Asked, cut, fixed_tick, package, unasked

MAGIC = b"#!AER-DAT"
POLARITY = 1
PACKET = np.dtype([("type", "<i2"), ("source", "<i2"), *((name, "<i4") for name in (
    "size", "time", "overflow", "capacity", "events", "valid"))])  # fmt: skip


def parts(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a recording part after part; see `files.chunks`."""
    fixed_tick(path, asked)
    with path.open("rb") as file:
        first = file.readline(64).strip()
    version = first[len(MAGIC) :].decode("latin-1") if first.startswith(MAGIC) else ""
    if version.startswith("4"):
        return fourth(path, asked)
    unasked(path, asked, "sample")
    if version.startswith("3.1"):
        return third(path, asked)
    raise Unsupported(
        f"{path} begins with {first[:24]!r}; wanted AEDAT 3.1 or 4. What addresses of earlier versions mean depends "
        "on the camera: convert the recording with the maker's software, or hand its decoded columns to Events.of."
    )


def fourth(path: Path, asked: Asked) -> Iterator[Events]:
    """Read AEDAT 4: its stream of events, or the one that was asked for."""
    aedat = package("aedat", path, "an AEDAT 4 recording")
    try:
        decoder = aedat.Decoder(str(path))
        streams = {key: each for key, each in decoder.id_to_stream().items() if each["type"] == "events"}
        chosen = asked.sample if asked.sample is not None or len(streams) != 1 else min(streams)
        if chosen not in streams:
            raise InvalidInput(
                f"{path} holds the streams of events {', '.join(map(str, streams)) or 'none'}; "
                + (f"got sample={chosen}" if chosen is not None else "nothing said which")
                + ": give the number of one as sample=NUMBER (on the command line --event sample=NUMBER)."
            )
        sensor = asked.sensor or (streams[chosen]["height"], streams[chosen]["width"])
        for packet in decoder:
            if packet["stream_id"] == chosen:
                listed = packet["events"]
                places = np.stack([listed["on"], listed["y"], listed["x"]], axis=1)
                events = Events(
                    listed["t"].astype(np.int64), places.astype(np.int32), sensor=sensor, source=str(path)
                )
                yield from cut(events, asked.size)
    except BaseException as fault:
        if not isinstance(fault, RuntimeError | KeyError) and type(fault).__name__ != "PanicException":
            raise
        raise DamagedFile(f"{path} is not a complete AEDAT 4 file ({fault}). Copy it again.") from None


def third(path: Path, asked: Asked) -> Iterator[Events]:
    """Read AEDAT 3.1; packets of other things than polarities are passed over, and so are events marked invalid."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        while True:
            here = file.tell()
            line = file.readline(4096)
            if not line.startswith(b"#"):
                file.seek(here)
                break
            if line.strip() == b"#!END-HEADER":
                break
        while header := file.read(PACKET.itemsize):
            packet = np.frombuffer(header, PACKET)[0] if len(header) == PACKET.itemsize else None
            size = 0 if packet is None else int(packet["size"]) * int(packet["capacity"])
            body = file.read(max(0, min(size, whole)))
            if (
                packet is None
                or size < 0
                or len(body) < size
                or not 0 <= packet["events"] <= packet["capacity"]
            ):
                raise DamagedFile(
                    f"{path} ends within a packet, or has one that says wrong sizes. Copy it again."
                )
            if packet["type"] == POLARITY:
                yield from cut(polarities(path, packet, body, asked), asked.size)


def polarities(path: Path, packet: Array, body: bytes, asked: Asked) -> Events:
    """Return the valid events of one packet of AEDAT 3.1."""
    if packet["size"] != 8 or packet["time"] != 4:
        raise DamagedFile(f"{path} has polarity events of {packet['size']} bytes, wanted 8. Copy it again.")
    words = np.frombuffer(body, "<u4").reshape(-1, 2)[: packet["events"]]
    valid = words[:, 0] & 1 == 1
    words = words[valid]
    word, t = words[:, 0], words[:, 1].astype(np.int64) + (int(packet["overflow"]) << 31)
    places = np.stack([word >> 1 & 1, word >> 2 & 0x7FFF, word >> 17], axis=1)
    return Events(
        t,
        places.astype(np.int32),
        sensor=asked.sensor,
        source=str(path),
        invalid=int(np.count_nonzero(~valid)),
    )
