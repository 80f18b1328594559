"""Checks of the fields of a configuration, stated as tables on its class; a subclass adds its own rows."""

from collections.abc import Mapping

from .recording_input import MAX_SAMPLING_RATE
from .remote_code import ShippedConfigMixin

MOST = {"num_hidden_layers": 1000, "num_attention_heads": 1000, "hidden_size": 2**16, "intermediate_size": 2**18}
MOST |= {"num_registers": 10_000, "extra_channels": 10_000, "num_samples": 2**26, "patch_size": 2**26}
"""Far beyond any model: a configuration must not decide alone how much memory is asked for."""


class CheckedConfigMixin(ShippedConfigMixin):
    """Base of a configuration whose class states what its fields may be."""

    choices: Mapping = {}  # field → values to choose from
    least: Mapping = {}  # field → smallest value
    fractions: tuple = ()  # fields from 0 to below 1
    ranges: Mapping = {}  # field of two numbers, low <= high → bounds of both; a low bound of 0 is excluded
    only: Mapping = {}  # field → the one value that this class can have
    only_because = "another value would be another method"

    def check_fields(self) -> None:
        """Raises `ValueError` for a field that a table of its class refuses, a size beyond `MOST`, also of a part
        (`predictor_num_hidden_layers`), or a rate that no recorder has. Brings ranges to tuples of floats."""
        for field, choices in self.choices.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"Expected {field} to be one of {list(choices)}, got {getattr(self, field)!r}.")
        for field, least in self.least.items():
            if getattr(self, field) < least:
                raise ValueError(f"Expected {field} of at least {least}, got {getattr(self, field)}.")
        for field in self.fractions:
            if not 0.0 <= getattr(self, field) < 1.0:
                raise ValueError(f"Expected 0 <= {field} < 1, got {getattr(self, field)}.")
        for field, (least, most) in self.ranges.items():
            values = tuple(float(value) for value in getattr(self, field))
            setattr(self, field, values)
            if len(values) != 2 or not least < values[0] <= values[1] <= most:
                raise ValueError(f"Expected {field} as two numbers, {least} < low <= high <= {most:g}, got {values}.")
        for field, only in self.only.items():
            if getattr(self, field) != only:
                got = getattr(self, field)
                raise ValueError(f"Expected {field} to be left at {only!r}, got {got!r}: {self.only_because}.")
        if not 0 < self.sampling_rate <= MAX_SAMPLING_RATE:
            raise ValueError(
                f"Expected sampling_rate above 0 and at most {MAX_SAMPLING_RATE:g} Hz, got {self.sampling_rate}."
            )
        for field, value in vars(self).items():
            for name, most in MOST.items():
                if (field == name or field.endswith(f"_{name}")) and isinstance(value, int) and value > most:
                    raise ValueError(f"Expected {field} of at most {most}, got {value}.")
