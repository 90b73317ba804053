"""Numbers of bulk results against a reference in Python."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forcelift.twin.query_results import java_double_sql


@pytest.fixture(scope="module")
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    yield connection
    connection.close()


def java_double(number: float) -> str:
    """`Double.toString` out of Python's shortest digits."""
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return str(number)
    shortest = repr(number)
    mantissa, _, power = shortest.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) + (len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1))
    digits = digits.rstrip("0") or "0"
    return f"{'-' if number < 0 else ''}{digits[0]}.{digits[1:] or '0'}E{exponent}"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    numbers=st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.decimals(min_value=-(10**16), max_value=10**16, places=2).map(float),
            st.decimals(min_value=-1, max_value=1, places=9).map(float),
            st.integers(-(10**18), 10**18).map(float),
        ),
        min_size=1,
        max_size=50,
    )
)
@example(numbers=[912260031.0, 896852810.0, 500.0, 1e7, 9999999.0, 0.001, 0.0001, 0.00099, 1e-5, 1e16, 1e22, 5e-324])
def test_numbers_are_written_as_java_writes_doubles(cursor: duckdb.DuckDBPyConnection, numbers: list[float]) -> None:
    numbers = [number or 0.0 for number in numbers]
    cursor.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT unnest(CAST(? AS DOUBLE[])) AS d", [numbers])
    rows = cursor.execute(
        f"SELECT d, {java_double_sql('d', 'x')} FROM (SELECT d, CAST(abs(d) AS VARCHAR) AS x FROM given)"
    ).fetchall()
    assert [text for _, text in rows] == [java_double(number) for number, _ in rows]
    assert [float(text) for _, text in rows] == numbers


def test_the_reference_knows_published_values() -> None:
    assert java_double(912260031.0) == "9.12260031E8"
    assert java_double(896852810.0) == "8.9685281E8"
    assert java_double(500.0) == "500.0"
    assert java_double(0.0001) == "1.0E-4"
    assert java_double(-1.5e-7) == "-1.5E-7"
    assert java_double(1e22) == "1.0E22"
