"""What a training cost: time, on which hardware, and energy and carbon where somebody measured them."""

import csv
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

EMISSIONS_NAME = "emissions.csv"


@dataclass(frozen=True)
class RunCosts:
    """Costs of a run.

    Args:
        seconds (`float`): Wall clock.
        hardware (`str`): Such as `"2 x NVIDIA H100"` or `"x86_64 CPU, 8 threads"`.
        energy_kwh, emissions_kg (`float`, *optional*): Estimates of `codecarbon`.
    """

    seconds: float
    hardware: str
    energy_kwh: float | None = None
    emissions_kg: float | None = None

    def sentence(self) -> str:
        """For the card."""
        spent = f"{self.seconds:.0f} s on {self.hardware}."
        if self.emissions_kg is None:
            return f"{spent} Energy and carbon were not measured."
        return (
            f"{spent} {self.energy_kwh:.3g} kWh and {self.emissions_kg:.3g} kg of CO2 equivalent, as `codecarbon` "
            "estimates them."
        )

    def metadata(self) -> dict[str, Mapping]:
        """`co2_eq_emissions` of the card's header (grams), or nothing."""
        if self.emissions_kg is None:
            return {}
        grams = round(1000 * self.emissions_kg, 3)
        return {"co2_eq_emissions": {"emissions": grams, "source": "codecarbon", "hardware_used": self.hardware}}


def run_costs(seconds: float, args: TrainingArguments) -> RunCosts:
    """Costs of a finished run: the time that was taken, the devices of `args`, and `emissions.csv` of its folder."""
    if args.device.type == "cuda":
        count = max(args.world_size, args.n_gpu)
        hardware = f"{count} x {torch.cuda.get_device_name(args.device)}"
    else:
        hardware = f"{platform.machine()} {args.device.type.upper()}, {torch.get_num_threads()} threads"
        hardware += f" in each of {args.world_size} processes" if args.world_size > 1 else ""
    energy, emissions = _read_emissions(Path(args.output_dir) / EMISSIONS_NAME)
    return RunCosts(seconds, hardware, energy, emissions)


def _read_emissions(path: Path) -> tuple[float, float] | tuple[None, None]:
    """Energy (kWh) and carbon (kg) of the last run in the table that `codecarbon` writes."""
    if not path.is_file():
        return None, None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return float(rows[-1]["energy_consumed"]), float(rows[-1]["emissions"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not what codecarbon writes: it needs the columns energy_consumed and emissions. Remove it, or "
            "let codecarbon write it again."
        ) from error
