"""Made-up folders in the layouts in which corpora are published."""

import struct

import numpy as np
import pytest

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture
def write_cinc_record(tmp_path):
    """Writes a record as the PhysioNet/CinC challenges publish them, below `tmp_path / "data"`; returns its steps."""

    def write(name, codes, age="47", sex="Male", date="", rate=500, num_samples=20, unit="mV"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        steps = np.random.default_rng(len(name)).integers(-2000, 2000, (12, num_samples)).astype("<i2")
        matrix = struct.pack("<5i4s", 30, 12, num_samples, 0, 4, b"val\0")  # MATLAB 4: int16, named "val"
        path.with_suffix(".mat").write_bytes(matrix + steps.T.tobytes())
        lines = [f"{path.name} 12 {rate} {num_samples} {date}".strip()]
        lines += [
            f"{path.name}.mat 16+24 1000/{unit} 16 0 {row[0]} {int(row.sum()) & 0xFFFF} 0 {lead}"
            for row, lead in zip(steps, LEADS, strict=True)
        ]
        lines += [f"#Age: {age}", f"#Sex: {sex}", f"#Dx: {codes}", "#Rx: Unknown", "#Hx: Unknown", "#Sx: Unknown"]
        path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
        return steps

    return write
