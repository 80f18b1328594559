"""Every Python snippet of docs/formats.md runs, in order, on small files of the formats that it reads."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from ..data.formats.test_aecg_reader import digits_of, document, sequence, series
from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("formats.md")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = np.arange(12 * 50).reshape(12, 50)
    Path("0001.xml").write_text(document(series("".join(sequence(lead, digits_of(lead)) for lead in ("I", "II")))))
    np.save("0001.npy", steps / 1000)
    savemat("0001.mat", {"val": steps.astype(np.int16), "other": steps})
    for name, leads in (("icu", ("II", "V", "ABP")), ("holter", ("MLII",))):
        lines = [
            f"{name}.dat 16 {100 if lead == 'ABP' else 1000}/{'mmHg' if lead == 'ABP' else 'mV'} 16 0 0 0 0 {lead}"
            for lead in leads
        ]
        Path(f"{name}.hea").write_text("\n".join([f"{name} {len(leads)} 500 50", *lines]))
        steps[: len(leads)].T.astype("<i2").tofile(f"{name}.dat")
    np.savetxt("0001.csv", steps[:3].T, delimiter=",", header="I,II,V1", comments="")
    np.save("all.npy", np.stack([steps.T, steps.T + 1]) / 1000)
    snippets = snippets_of(PAGE)
    assert len(snippets) == 4
    names, read = {}, []
    run_snippets([snippets[0]], names)
    assert names["record"].leads == ("I", "II") and names["record"].to_millivolts().dtype == np.float32
    reader = names["read_recording"]
    names["read_recording"] = lambda *args, **options: (read.append(reader(*args, **options)), read[-1])[1]
    run_snippets(snippets[1:], names)
    assert [record.leads for record in read[:3]] == [("II", "V"), ("V",), ("II",)]
    assert [record.leads for record in read[3:]] == [tuple(names["twelve"])] * 2 + [("I", "II")]
    for record in read[3:]:
        np.testing.assert_allclose(record.to_millivolts(), steps[: len(record.leads)] / 1000, rtol=1e-5)
    assert capsys.readouterr().out.split() == ["all-0", "all-1"]
