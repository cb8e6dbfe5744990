"""A synthetic study: dm, ex, lb and ae of STUDY_001 in SDTM's shape, as they stood at the end of each month.

Nobody in it exists. The whole study is drawn from one seed, by arithmetic that gives the same values on every
machine; a cut is what was known of it by its last day, so later cuts have more subjects, more visits, and events that
were still going on before.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import InvalidRequestError

STUDY = "STUDY_001"
TABLES = ("dm", "ex", "lb", "ae")
CUTS = range(1, 10)
"""The cuts there are; by the sixth, 48 subjects are enrolled."""

_SEED = 20260105
_FIRST_DAY = date(2026, 1, 5)
_SUBJECTS_A_MONTH = 8
_TREATMENT_DAYS = 168

_FACTOR = pa.dictionary(pa.int32(), pa.string())

_ARMS = (
    # code, name, dose in mg
    ("PBO", "Placebo", 0.0),
    ("LOW", "Zelavirine 25 mg", 25.0),
    ("HIGH", "Zelavirine 75 mg", 75.0),
)

_SITES = (("101", "USA"), ("102", "USA"), ("201", "DEU"), ("202", "DEU"), ("301", "JPN"))

_VISITS = (
    # day, number, name
    (-7, 1.0, "SCREENING"),
    (1, 2.0, "BASELINE"),
    (14, 3.0, "WEEK 2"),
    (28, 4.0, "WEEK 4"),
    (56, 5.0, "WEEK 8"),
    (84, 6.0, "WEEK 12"),
    (112, 7.0, "WEEK 16"),
    (140, 8.0, "WEEK 20"),
    (_TREATMENT_DAYS, 9.0, "WEEK 24"),
)

_LAB_TESTS = (
    # code, name, category, unit, lower and upper limit of normal, decimals
    ("ALB", "Albumin", "CHEMISTRY", "g/L", 35.0, 50.0, 0),
    ("ALT", "Alanine Aminotransferase", "CHEMISTRY", "U/L", 7.0, 55.0, 0),
    ("AST", "Aspartate Aminotransferase", "CHEMISTRY", "U/L", 8.0, 48.0, 0),
    ("BILI", "Bilirubin", "CHEMISTRY", "umol/L", 3.4, 20.5, 1),
    ("CREAT", "Creatinine", "CHEMISTRY", "umol/L", 53.0, 115.0, 0),
    ("GLUC", "Glucose", "CHEMISTRY", "mmol/L", 3.9, 6.1, 1),
    ("HGB", "Hemoglobin", "HEMATOLOGY", "g/L", 120.0, 175.0, 0),
    ("PLAT", "Platelets", "HEMATOLOGY", "10^9/L", 150.0, 450.0, 0),
    ("WBC", "Leukocytes", "HEMATOLOGY", "10^9/L", 4.5, 11.0, 2),
)

_EVENTS = (
    # as reported, preferred term, system organ class
    ("headache", "Headache", "Nervous system disorders"),
    ("feeling dizzy", "Dizziness", "Nervous system disorders"),
    ("nausea after dose", "Nausea", "Gastrointestinal disorders"),
    ("loose stools", "Diarrhoea", "Gastrointestinal disorders"),
    ("tiredness", "Fatigue", "General disorders and administration site conditions"),
    ("common cold", "Nasopharyngitis", "Infections and infestations"),
    ("raised ALT", "Alanine aminotransferase increased", "Investigations"),
    ("itchy rash, forearm", "Rash pruritic", "Skin and subcutaneous tissue disorders"),
    ("back pain", "Back pain", "Musculoskeletal and connective tissue disorders"),
)

_LEVELS = {
    "SEX": ("F", "M", "U"),
    "RACE": ("ASIAN", "BLACK OR AFRICAN AMERICAN", "WHITE", "OTHER"),
    "ARM": tuple(name for _, name, _ in _ARMS),
    "LBNRIND": ("LOW", "NORMAL", "HIGH"),
    "AESEV": ("MILD", "MODERATE", "SEVERE"),
}


# Columns not named here are text.
_TYPES = {
    **dict.fromkeys(_LEVELS, _FACTOR),
    **dict.fromkeys(("AGE", "EXSEQ", "EXSTDY", "EXENDY", "LBSEQ", "LBDY", "AESEQ", "AESTDY", "AEENDY"), pa.int32()),
    **dict.fromkeys(("EXDOSE", "LBSTRESN", "LBSTNRLO", "LBSTNRHI", "VISITNUM"), pa.float64()),
}


def cut_day(number: int) -> date:
    """The last day that cut `number` knows of.

    Raises:
        InvalidRequestError: ``invalid_argument`` when there is no such cut.
    """
    if number not in CUTS:
        raise InvalidRequestError(f'no cut "{number}"', hint=f"cuts are numbered {CUTS[0]} to {CUTS[-1]}")
    return date(2026, number, calendar.monthrange(2026, number)[1])


def cut(number: int) -> dict[str, pa.Table]:
    """The tables as they stood at the end of `cut_day`, by name; the same values at every call, everywhere.

    Raises:
        InvalidRequestError: ``invalid_argument`` when there is no such cut.
    """
    last_day = cut_day(number)
    subjects = [subject for subject in _subjects() if subject.screening <= last_day]
    return {
        "dm": _table(_demographics(subject, last_day) for subject in subjects),
        "ex": _table(row for subject in subjects for row in _exposures(subject, last_day)),
        "lb": _table(row for subject in subjects for row in _laboratory(subject, last_day)),
        "ae": _table(row for subject in subjects for row in _events(subject, last_day)),
    }


@dataclass(frozen=True, slots=True)
class _Subject:
    """One person; `last` is the last day on treatment."""

    number: int
    site: str
    country: str
    age: int
    sex: str
    race: str
    arm: int
    first: date
    last: date

    @property
    def id(self) -> str:
        return f"{STUDY}-{self.site}-{self.number:04d}"

    @property
    def screening(self) -> date:
        return _on(self.first, _VISITS[0][0])

    def random(self, what: str) -> Random:
        """A source of its own for each topic, so that more draws in one change nothing in another."""
        return _random(self.number, what)


def _random(subject: int, what: str) -> Random:
    return Random(f"{_SEED}/{subject}/{what}")  # noqa: S311 - made-up data, not a secret


def _subjects() -> Iterator[_Subject]:
    for index in range(_SUBJECTS_A_MONTH * len(CUTS)):
        chance = _random(index + 1, "dm")
        month, place = divmod(index, _SUBJECTS_A_MONTH)
        first = date(2026, 1 + month, _FIRST_DAY.day + 4) + timedelta(days=2 * place + chance.randrange(2))
        site, country = chance.choice(_SITES)
        stays = chance.random() < 0.85
        yield _Subject(
            number=index + 1,
            site=site,
            country=country,
            age=chance.randrange(19, 80),
            sex=chance.choice("FM"),
            race=chance.choice(_LEVELS["RACE"]),
            arm=index % len(_ARMS),
            first=first,
            last=_on(first, _TREATMENT_DAYS if stays else chance.randrange(10, _TREATMENT_DAYS)),
        )


def _demographics(subject: _Subject, last_day: date) -> dict[str, Any]:
    code, arm, _ = _ARMS[subject.arm]
    return {
        "STUDYID": STUDY,
        "DOMAIN": "DM",
        "USUBJID": subject.id,
        "SUBJID": f"{subject.number:04d}",
        "RFSTDTC": _known(subject.first, last_day),
        "RFENDTC": _known(subject.last, last_day),
        "SITEID": subject.site,
        "AGE": subject.age,
        "AGEU": "YEARS",
        "SEX": subject.sex,
        "RACE": subject.race,
        "ARMCD": code,
        "ARM": arm,
        "COUNTRY": subject.country,
    }


def _exposures(subject: _Subject, last_day: date) -> Iterator[dict[str, Any]]:
    """One row for each four weeks of treatment."""
    _, arm, dose = _ARMS[subject.arm]
    for index, offset in enumerate(range(1, _TREATMENT_DAYS, 28)):
        start = _on(subject.first, offset)
        end = min(_on(subject.first, offset + 27), subject.last)
        if start > min(last_day, subject.last):
            return
        yield {
            "STUDYID": STUDY,
            "DOMAIN": "EX",
            "USUBJID": subject.id,
            "EXSEQ": index + 1,
            "EXTRT": arm.split(" ")[0].upper(),
            "EXDOSE": dose,
            "EXDOSU": "mg",
            "EXDOSFRM": "TABLET",
            "EXDOSFRQ": "QD",
            "EXROUTE": "ORAL",
            "EXSTDTC": start.isoformat(),
            "EXENDTC": _known(end, last_day),
            "EXSTDY": _study_day(subject, start),
            "EXENDY": _study_day(subject, end) if end <= last_day else None,
        }


def _laboratory(subject: _Subject, last_day: date) -> Iterator[dict[str, Any]]:
    chance = subject.random("lb")
    levels = [chance.uniform(0.15, 0.85) for _ in _LAB_TESTS]
    sequence = 0
    for offset, visit_number, visit in _VISITS:
        day = _on(subject.first, offset)
        if day > min(last_day, subject.last):
            return
        for level, (code, name, category, unit, low, high, decimals) in zip(levels, _LAB_TESTS, strict=True):
            sequence += 1
            drawn = chance.random() >= 0.03
            value = max(0.0, low + (high - low) * (level + chance.uniform(-0.3, 0.3)))
            result = f"{value:.{decimals}f}" if drawn else None
            number = float(result) if result is not None else None
            yield {
                "STUDYID": STUDY,
                "DOMAIN": "LB",
                "USUBJID": subject.id,
                "LBSEQ": sequence,
                "LBTESTCD": code,
                "LBTEST": name,
                "LBCAT": category,
                "LBORRES": result,
                "LBORRESU": unit,
                "LBSTRESC": result,
                "LBSTRESN": number,
                "LBSTRESU": unit,
                "LBSTNRLO": low,
                "LBSTNRHI": high,
                "LBNRIND": _range_indicator(number, low, high),
                "LBSTAT": None if drawn else "NOT DONE",
                "LBBLFL": "Y" if drawn and visit == "BASELINE" else None,
                "VISITNUM": visit_number,
                "VISIT": visit,
                "LBDTC": day.isoformat(),
                "LBDY": _study_day(subject, day),
            }


def _events(subject: _Subject, last_day: date) -> Iterator[dict[str, Any]]:
    chance = subject.random("ae")
    days = range(1, _TREATMENT_DAYS + 1)
    # The lesser of two draws: most events fall into the first weeks.
    starts = sorted(min(chance.choice(days), chance.choice(days)) for _ in range(chance.randrange(8)))
    for sequence, offset in enumerate(starts, 1):
        term, decoded, body_system = chance.choice(_EVENTS)
        severity = chance.choices(_LEVELS["AESEV"], (70, 25, 5))[0]
        serious = severity == "SEVERE" and chance.random() < 0.5
        related = chance.choice(("NOT RELATED", "POSSIBLY RELATED", "RELATED"))
        start = _on(subject.first, offset)
        end = start + timedelta(days=chance.randrange(1, 45))
        if start > min(last_day, subject.last):
            return
        over = end <= last_day
        yield {
            "STUDYID": STUDY,
            "DOMAIN": "AE",
            "USUBJID": subject.id,
            "AESEQ": sequence,
            "AETERM": term,
            "AEDECOD": decoded,
            "AEBODSYS": body_system,
            "AESEV": severity,
            "AESER": "Y" if serious else "N",
            "AEREL": related,
            "AEOUT": "RECOVERED/RESOLVED" if over else "NOT RECOVERED/NOT RESOLVED",
            "AESTDTC": start.isoformat(),
            "AEENDTC": _known(end, last_day),
            "AESTDY": _study_day(subject, start),
            "AEENDY": _study_day(subject, end) if over else None,
        }


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    found = list(rows)
    return pa.table({name: _column(name, [row[name] for row in found]) for name in found[0]})


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    """The values; a factor gets all its levels, used or not, as R would write it."""
    kind = _TYPES.get(name, pa.string())
    if kind != _FACTOR:
        return pa.array(values, kind)
    levels = _LEVELS[name]
    codes = [None if value is None else levels.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(levels))


def _on(first: date, study_day: int) -> date:
    """The date of a study day; there is no day 0."""
    return first + timedelta(days=study_day - 1 if study_day > 0 else study_day)


def _study_day(subject: _Subject, day: date) -> int:
    days = (day - subject.first).days
    return days + 1 if days >= 0 else days


def _known(day: date, last_day: date) -> str | None:
    return day.isoformat() if day <= last_day else None


def _range_indicator(value: float | None, low: float, high: float) -> str | None:
    if value is None:
        return None
    return "LOW" if value < low else "HIGH" if value > high else "NORMAL"
