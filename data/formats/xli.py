"""XLI, the compression of Philips XML recordings: for each lead LZW codes of second differences.

A block of a lead has 8 bytes of header (little-endian: int32 size of what follows, int16 that is always 1, int16 first
correction) and LZW codes of 10 bits, most significant bit first. They expand to the high bytes of all samples, then
their low bytes: two samples, then what has to be subtracted from the linear extrapolation of the two before, shifted
by one sample and by 64.

Description: https://github.com/sixlettervariables/sierra-ecg-tools/wiki (Watford), not a publication of Philips.
Verified on the four recordings published there: equal, sample by sample, to its reference implementation, and within
20 uV of the one that is there as HL7 aECG too (which went through a 60 Hz filter).
"""

import struct

import numpy as np

CODE_BITS = 10
MAX_SAMPLES = 2**20  # of a lead; resting recordings have thousands
_BIAS = 64
_HEADER = struct.Struct("<ihh")


def decompress_leads(content: bytes, num_leads: int, num_samples: int) -> np.ndarray:
    """Decompresses the blocks of all leads.

    Returns:
        int64 steps of shape `(num_leads, num_samples)`, leads as they are stored (III and the augmented leads as
        differences from what I and II give).

    Raises:
        ValueError: if a block is truncated, or expands to another number of samples, or if there are too many.
    """
    if num_samples > MAX_SAMPLES:
        raise ValueError(f"Expected at most {MAX_SAMPLES} samples in a compressed lead, got {num_samples}.")
    leads, position = [], 0
    for number in range(1, num_leads + 1):
        if position + _HEADER.size > len(content):
            raise ValueError(f"Expected {num_leads} compressed leads, the data end in lead {number}.")
        size, _, first = _HEADER.unpack_from(content, position)
        position += _HEADER.size
        if not 0 < size <= len(content) - position:
            raise ValueError(f"Compressed lead {number} declares {size} bytes, {len(content) - position} are left.")
        expanded = _expand(content[position : position + size], 2 * num_samples)
        position += size
        halves = np.frombuffer(expanded, dtype=np.uint8).reshape(2, num_samples).astype(np.uint16)
        leads.append(_integrate((halves[0] << 8 | halves[1]).view(np.int16), first))
    return np.stack(leads)


def _expand(content: bytes, num_bytes: int) -> bytearray:
    """LZW without clear or end codes; the dictionary stays as it is once it has all 1024 entries."""
    count = 8 * len(content) // CODE_BITS
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))[: count * CODE_BITS].reshape(count, CODE_BITS)
    codes = (bits @ (1 << np.arange(CODE_BITS - 1, -1, -1))).tolist()
    words = [bytes([value]) for value in range(256)]
    expanded, previous = bytearray(), b""
    for code in codes:
        if len(expanded) >= num_bytes:  # the bits that fill the last bytes
            break
        if code < len(words):
            word = words[code]
        elif code == len(words) and previous:
            word = previous + previous[:1]
        else:
            raise ValueError(f"Compressed data hold the code {code}, of {len(words)} known so far.")
        expanded += word
        if previous and len(words) < 1 << CODE_BITS:
            words.append(previous + word[:1])
        previous = word
    if len(expanded) != num_bytes:
        raise ValueError(f"A compressed lead expands to {len(expanded)} bytes. Expected {num_bytes}.")
    return expanded


def _integrate(codes: np.ndarray, first: int) -> np.ndarray:
    """Samples from two start values and corrections: `x[i] = 2 x[i-1] - x[i-2] - correction[i]`."""
    samples = codes.astype(np.int64)
    corrections = np.concatenate(([first], samples[2:-1] - _BIAS))
    if len(samples) > 2:
        slopes = (samples[1] - samples[0]) - np.cumsum(corrections)
        samples[2:] = samples[1] + np.cumsum(slopes)
    return samples
