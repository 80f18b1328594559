"""Many WFDB records of one layout: headers are parsed once, then samples go from the files into one batch.

For training straight from a folder of format-16 records in random order. Where the samples may be copied, `prepare` is
faster still, and reads any format.
"""

import os
from collections.abc import Sequence

import numpy as np

from ..records import known_lead_names, millivolts_per
from ..safe_paths import inside
from .limits import check_file
from .wfdb_header import WfdbHeader, read_header


class WfdbIndex:
    """The headers of records that have leads, rate and length in common.

    Args:
        paths: Paths of the records, with or without `.hea`. All samples of a record lie in one file of format 16.

    Attributes:
        leads (`tuple[str, ...]`): Names of the leads, in the order of the file.
        sampling_rate (`float`): Rate in Hz.
        num_samples (`int`): Of each lead.
        gain (float32 `(num_records, num_leads)`): mV per step.
        baseline (int32 `(num_records, num_leads)`): Steps that stand for 0 mV.

    Raises:
        ValueError: for a header that cannot be read, another storage format, or another layout than the first record
            has; names the record. ([`read_record`] reads each record by itself, whatever its layout.)

    Example:

    ```python
    >>> index = WfdbIndex(sorted(Path("records500").rglob("*.hea")))
    >>> steps = index.read_steps([17, 3, 92])  # int16 (3, 5000, 12)
    >>> millivolts = (steps - index.baseline[[17, 3, 92], None]) * index.gain[[17, 3, 92], None]
    ```
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        if not len(paths):
            raise ValueError("Expected at least one record, got none.")
        self._files, gains, baselines, layout = [], [], [], None
        for path in paths:
            path = os.fspath(path).removesuffix(".hea")
            header = read_header(path)
            _check_storage(path, header)
            leads = known_lead_names(tuple(signal.name for signal in header.signals))
            offset = header.signals[0].byte_offset
            found = (leads, header.sampling_rate, header.num_samples, offset)
            if layout is not None and found != layout:
                raise ValueError(f"Record {path} has (leads, Hz, samples, offset) = {found}, the first has {layout}.")
            layout = found
            self._files.append(inside(os.path.dirname(path), header.signals[0].file_name))
            gains.append([millivolts_per(signal.unit) / signal.gain for signal in header.signals])
            baselines.append([signal.baseline for signal in header.signals])
        self.leads, self.sampling_rate, self.num_samples, self._offset = layout
        self.gain = np.array(gains, dtype=np.float32)
        self.baseline = np.array(baselines, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def read_steps(self, numbers: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Samples as stored.

        Args:
            numbers: Positions of the records in `paths`.
            out (int16 `(>= len(numbers), num_samples, num_leads)`, *optional*): Buffer to fill, in C order.

        Returns:
            int16 `(len(numbers), num_samples, num_leads)`, `-32768` where a sample is missing; checksums are not
            compared.

        Raises:
            ValueError: for a signal file that is missing or too short, or a buffer of another form.
        """
        shape = (self.num_samples, len(self.leads))
        if out is None:
            out = np.empty((len(numbers), *shape), dtype=np.int16)
        elif out.dtype != np.int16 or out.shape[1:] != shape or len(out) < len(numbers) or not out.flags.c_contiguous:
            raise ValueError(
                f"Expected a buffer of int16, C order, (>= {len(numbers)}, {shape[0]}, {shape[1]}), "
                f"got {out.dtype} {out.shape}."
            )
        flat = memoryview(out).cast("B")
        size = 2 * shape[0] * shape[1]
        for place, number in enumerate(numbers):
            path = self._files[number]
            check_file(path)
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(self._offset)
                    count = file.readinto(flat[place * size : (place + 1) * size])
            except OSError as error:
                raise ValueError(f"Cannot read signal file {path}: {error.strerror}.") from None
            if count != size:
                raise ValueError(f"Signal file {path} is truncated: expected {size} bytes of samples, got {count}.")
        return out[: len(numbers)]


def _check_storage(path: str, header: WfdbHeader):
    signals = header.signals
    plain = all(s.storage_format == "16" and s.samples_per_frame == 1 and s.skew == 0 for s in signals)
    if not signals or not plain or len({signal.file_name for signal in signals}) > 1 or header.num_samples is None:
        raise ValueError(
            f"Record {path} is not all of format 16 in one file, its length in the header: read it by read_record."
        )
