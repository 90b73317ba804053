"""How much a migration is, and how long it takes: sizes of its tables, and a calendar inside the org's limits."""

from forcelift.before.estimate.forecast import (
    BATCHES_PER_DAY,
    CALENDAR_DAYS_MAX,
    Allowance,
    Day,
    Forecast,
    TableForecast,
    forecast,
)
from forcelift.before.estimate.sizes import Counted, TableSize, measure_table

__all__ = [
    "BATCHES_PER_DAY",
    "CALENDAR_DAYS_MAX",
    "Allowance",
    "Counted",
    "Day",
    "Forecast",
    "TableForecast",
    "TableSize",
    "forecast",
    "measure_table",
]
