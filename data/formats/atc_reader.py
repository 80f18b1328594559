"""KardiaMobile recordings (`.atc`): blocks of 16-bit samples, one for each limb lead, each with a checksum.

Format: AliveCor, Alive File Format Specification (names, sizes and order of the blocks as in the published ATCpy).
"""

import os
import struct
from typing import Unpack

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice, choose_channels
from .limits import read_bytes

SIGNATURE = b"ALIVE\0\0\0"
MAX_BYTES = 64 << 20
_HEADER_BYTES = 12
_LEADS = {b"ecg ": "I", b"ecg2": "II", b"ecg3": "III", b"ecg4": "aVR", b"ecg5": "aVL", b"ecg6": "aVF"}


def read_atc(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads a KardiaMobile file.

    Args:
        choice ([`ChannelChoice`]): Channels to take.

    Returns:
        the record in µV, int16: lead I, or the six limb leads. The average beats are left out.

    Raises:
        ValueError: for a file that is truncated, whose checksums do not fit, or that states no rate, no resolution or
            no lead.
    """
    path = os.fspath(path)
    blocks = _blocks(path, read_bytes(path, MAX_BYTES, "KardiaMobile recording"))
    names = [name for name in _LEADS if name in blocks]
    kind = blocks.get(b"fmt ", b"")
    if not names or len(kind) < 5:
        raise ValueError(f"{path}: expected a block of the format and blocks of leads, got {sorted(blocks)}.")
    rate, nanovolts = struct.unpack_from("<HH", kind, 1)
    lengths = {len(blocks[name]) for name in names}
    if not rate or not nanovolts or len(lengths) > 1 or min(lengths) < 2 or min(lengths) % 2:
        raise ValueError(
            f"{path}: expected a rate and a resolution above 0 and leads of one length, got {rate} Hz, {nanovolts} nV "
            f"and {sorted(lengths)} bytes."
        )
    channels = [Channel(_LEADS[name], "uV", float(rate), True) for name in names]
    chosen = choose_channels(path, channels, **choice)
    steps = np.stack([np.frombuffer(blocks[names[position]], "<i2") for position in chosen.positions])
    gain = [nanovolts / 1000] * len(steps)
    return EcgRecord(record_id, steps.astype(np.int16), chosen.leads, float(rate), "uV", gain, notes=chosen.notes)


def _blocks(path: str, content: bytes) -> dict[bytes, bytes]:
    """Name of each block → its content; its checksum is the sum of its bytes, name and length among them."""
    blocks, place = {}, _HEADER_BYTES
    while place < len(content):
        head = content[place : place + 8]
        length = struct.unpack("<I", head[4:])[0] if len(head) == 8 else 0
        end = place + 8 + length
        if len(head) < 8 or end + 4 > len(content):
            raise ValueError(f"{path} is truncated: a block at byte {place} of {len(content)} does not end.")
        name = head[:4]
        if int(np.frombuffer(content[place:end], np.uint8).sum()) % 2**32 != struct.unpack_from("<I", content, end)[0]:
            raise ValueError(f"{path} is damaged: the checksum of the block {name!r} does not fit.")
        if name in blocks:
            raise ValueError(f"{path} is damaged: the block {name!r} comes twice.")
        blocks[name], place = content[place + 8 : end], end + 4
    return blocks
