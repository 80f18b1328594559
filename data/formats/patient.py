"""Age and sex of a patient from what formats state. Dates are compared and never kept."""

from .wfdb_comments import SEXES


def sex_of(text: str | None) -> str | None:
    """`"male"` or `"female"` of a name or code (`M`, `f`, `MALE`); `None` for anything else."""
    return SEXES.get((text or "").strip().lower())


def age_between(birth: str, recorded: str) -> float | None:
    """Whole years from one date to another, both starting with `YYYYMMDD` or `YYYY-MM-DD`; `None` if one does not."""
    dates = []
    for text in (birth, recorded):
        digits = text.replace("-", "")[:8]
        if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
            return None
        dates.append((int(digits[:4]), int(digits[4:])))
    (year, day), (year_then, day_then) = dates
    age = year_then - year - (day_then < day)
    return float(age) if 0 <= age <= 130 else None
