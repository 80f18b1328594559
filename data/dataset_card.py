"""The page (`README.md`) of a prepared corpus, with the metadata by which `datasets` finds its splits."""

import datasets
import yaml

from .corpus import HUB_LICENCES
from .prepared import PREPARED, Manifest

COLUMNS = {
    "record_id": "name of the recording, unique in the corpus",
    "patient_id": "pseudonym of the patient, where the corpus has one",
    "ecg": "`signal`: little-endian int16 in C order `(leads, samples)`, -32768 = not recorded; `gain`: mV per step "
    "of each lead; `leads`: names, in the order of the rows; `sampling_rate`: Hz; `unit`",
    "labels": "names of the classes",
    "fold": "fold by patient",
    "age": "years",
    "sex": "`male` or `female`",
    "source": "name of the corpus",
    "preview": "picture of the first 10 s on ECG paper, for the dataset viewer; `load_ecg` does not read it",
}


def dataset_card(manifest: Manifest, features: datasets.Features) -> str:
    """The text of `README.md`."""
    counts = {split: sum(shard.num_records for shard in shards) for split, shards in manifest.splits.items() if shards}
    licence = HUB_LICENCES.get(manifest.licence.lower())
    header = {
        **({"license": licence} if licence else {"license": "other", "license_name": manifest.licence}),
        "pretty_name": f"{manifest.corpus}, prepared",
        "tags": ["ecg", "electrocardiogram"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}-*.parquet"} for split in counts],
            }
        ],
    }
    columns = [f"| `{name}` | {COLUMNS.get(name, 'as in the corpus')} |" for name in features]
    options = ", ".join(f"{name}={value!r}" for name, value in manifest.options.items() if value is not None)
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {manifest.corpus}, prepared",
        f"{manifest.description[0].upper()}{manifest.description[1:]}, from {manifest.homepage}, converted by "
        f"`ecg-transformers prepare` {manifest.package_version}" + (f" with {options}." if options else "."),
        "| split | recordings |\n|---|---|\n" + "\n".join(f"| {split} | {n:,} |" for split, n in counts.items()),
        f"`bad_records.jsonl` names {manifest.num_bad_records} recordings that could not be read or have gaps; "
        "`manifest.json` has the checksum of every file.",
        "## Columns",
        "| column | holds |\n|---|---|\n" + "\n".join(columns),
        "Plain columns need no package of ours:",
        "```python\n"
        "import numpy as np\nimport pandas as pd\n\n"
        f'rows = pd.read_parquet("{next(shard.file for shards in manifest.splits.values() for shard in shards)}")\n'
        'ecg = rows["ecg"][0]\n'
        'steps = np.frombuffer(ecg["signal"], "<i2").reshape(len(ecg["leads"]), -1)\n'
        'millivolts = np.where(steps == -32768, np.nan, steps * ecg["gain"][:, None])\n'
        "```",
        "With it, from this folder, or from where it was published (`hf://datasets/...`, `s3://...`, `https://...`):",
        "```python\n"
        "from ecg_transformers.data import load_ecg\n\n"
        f'dataset = load_ecg("{PREPARED}", "this/folder", split="{next(iter(counts))}", streaming=True)\n'
        "```",
        "## Licence and citation",
        f"Licence of the recordings: {manifest.licence}.",
        *([manifest.citation] if manifest.citation else []),
    ]
    return "\n\n".join(sections) + "\n"
