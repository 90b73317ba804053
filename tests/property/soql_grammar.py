"""Hypothesis strategies that make SOQL from a grammar of the small org of the SOQL tests, and damage it as text."""

from __future__ import annotations

from hypothesis import strategies as st

FIELDS = [
    "Id",
    "Name",
    "Amount__c",
    "Rate__c",
    "Count__c",
    "Day__c",
    "At__c",
    "Hour__c",
    "Ok__c",
    "Status__c",
    "Tags__c",
    "Notes__c",
    "Tenant__c",
    "Tenant__r.Name",
    "Tenant__r.Region__r.Code__c",
    "Owner.Name",
    "CreatedBy.Username",
    "IsDeleted",
    "CreatedDate",
    "Nope__c",
]
CALLS = [
    "COUNT(Id)",
    "COUNT(Status__c)",
    "SUM(Amount__c)",
    "AVG(Count__c)",
    "MIN(Name)",
    "MAX(At__c)",
    "CALENDAR_YEAR(Day__c)",
    "COUNT_DISTINCT(Tenant__c)",
    "HOUR_IN_DAY(At__c)",
    "DAY_ONLY(At__c)",
    "FORMAT(Amount__c)",
    "toLabel(Status__c)",
    "FIELDS(STANDARD)",
    "GROUPING(Name)",
    "convertCurrency(Amount__c)",
    "FORMAT(MAX(Day__c))",
    "COUNT()",
    "NOPE(Id)",
]
LITERALS = [
    "'x'",
    "''",
    "'a02000000000001'",
    "null",
    "true",
    "1",
    "-2.5",
    "1e400",
    "2026-01-31",
    "2026-01-31T12:00:00Z",
    "12:30:00.000Z",
    "TODAY",
    "LAST_N_DAYS:30",
    "NEXT_FISCAL_QUARTER",
    "N_YEARS_AGO:9999",
    "'\\u0041%'",
    "'it\\'s'",
]
WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "(",
    ")",
    ",",
    "'",
    "\\",
    "AND",
    "OR",
    "NOT",
    "IN",
    "GROUP BY",
    "\x00",
    "TYPEOF",
    "END",
]

# Fields that filter, sort or group, with literals that fit them.
FITTING = {
    "Name": ["'x'", "''", "null", "'it\\'s'", "'\\u0041%'"],
    "Status__c": ["'Open'", "null"],
    "Id": ["'a02000000000001'", "null"],
    "Tenant__c": ["'a01000000000001AAA'", "null"],
    "Count__c": ["1", "-2.5", "1e400", "null"],
    "Amount__c": ["1", "-2.5", "912260031", "null"],
    "Day__c": ["2026-01-31", "TODAY", "LAST_N_DAYS:30", "NEXT_FISCAL_QUARTER", "N_YEARS_AGO:9999", "null"],
    "At__c": ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5-07:00", "THIS_WEEK", "null"],
    "Hour__c": ["12:30:00.000Z", "null"],
    "Tenant__r.Name": ["'x'", "null"],
    "Tenant__r.Region__r.Code__c": ["'AS'", "null"],
    "CreatedBy.Username": ["'a@b.c'"],
    "CALENDAR_YEAR(Day__c)": ["2026"],
    "DAY_ONLY(At__c)": ["2026-01-31"],
    "toLabel(Status__c)": ["'Open'"],
}
PLAIN = [name for name in FIELDS if name != "Nope__c"]
GROUPS = ["Name", "Status__c", "Tenant__c", "Tenant__r.Region__r.Code__c", "Day__c", "Ok__c", "CALENDAR_YEAR(Day__c)"]
AGGREGATES = [
    "COUNT(Id)",
    "SUM(Amount__c) s",
    "AVG(Count__c)",
    "MIN(Name) m",
    "MAX(At__c)",
    "COUNT_DISTINCT(Tenant__c)",
]
CHILDREN = "(SELECT Id, Name, Tenant__r.Name FROM Sales__r WHERE Count__c > 0 ORDER BY Name DESC LIMIT 2)"

expressions = st.sampled_from(FIELDS) | st.sampled_from(CALLS)


def _list(elements: st.SearchStrategy[str], most: int = 3) -> st.SearchStrategy[str]:
    return st.lists(elements, min_size=1, max_size=most, unique=True).map(", ".join)


def _fitting(name: str) -> st.SearchStrategy[str]:
    literals = st.sampled_from(FITTING[name])
    operators = st.sampled_from(["=", "!=", "<", ">=", "<>"])
    return st.one_of(
        st.tuples(operators, literals).map(lambda parts: f"{name} {parts[0]} {parts[1]}"),
        st.tuples(st.sampled_from(["IN", "NOT IN"]), _list(literals)).map(
            lambda parts: f"{name} {parts[0]} ({parts[1]})"
        ),
    )


good_comparisons = st.one_of(
    st.sampled_from(sorted(FITTING)).flatmap(_fitting),
    st.sampled_from(
        [
            "Name LIKE '%a\\%_'",
            "Ok__c = true",
            "Tags__c INCLUDES ('A;B', 'C')",
            "Tags__c EXCLUDES ('A')",
            "IsDeleted = false",
        ]
    ),
)
wild_comparisons = st.one_of(
    st.tuples(expressions, st.sampled_from(["=", "!=", "LIKE", ">="]), st.sampled_from(LITERALS)).map(" ".join),
    st.tuples(expressions, st.sampled_from(["IN", "INCLUDES", "EXCLUDES"]), _list(st.sampled_from(LITERALS))).map(
        lambda parts: f"{parts[0]} {parts[1]} ({parts[2]})"
    ),
    st.sampled_from(["Id NOT IN (SELECT Tenant__c FROM Sale__c)", "Tenant__c IN (SELECT Id FROM Tenant__c LIMIT 1)"]),
)


def _conditions(comparisons: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        comparisons,
        lambda inner: st.one_of(
            inner.map(lambda text: f"NOT ({text})"),
            st.tuples(inner, st.sampled_from([" AND ", " OR "]), inner).map(lambda parts: f"({''.join(parts)})"),
        ),
        max_leaves=4,
    )


good_conditions = _conditions(good_comparisons)
SEMI_JOIN = " AND Tenant__c IN (SELECT Id FROM Tenant__c WHERE Name != null)"


@st.composite
def good_query(draw: st.DrawFn) -> str:
    """A query that the org carries out: records, children, groups or a count."""

    def perhaps(clause: st.SearchStrategy[str]) -> str:
        return draw(clause) if draw(st.booleans()) else ""

    where = perhaps(good_conditions.map(lambda text: f" WHERE {text}"))
    if where and draw(st.booleans()):
        where += SEMI_JOIN
    limit = perhaps(st.integers(0, 3).map(lambda number: f" LIMIT {number}"))
    match draw(st.sampled_from(["records", "records", "children", "groups", "count"])):
        case "records":
            select = draw(_list(st.sampled_from([*PLAIN, "FORMAT(Amount__c) f", "toLabel(Status__c) l"]), most=6))
            order = perhaps(_list(st.sampled_from(["Name DESC", "Status__c NULLS LAST", "Tenant__r.Name", "At__c"])))
            return f"SELECT {select} FROM Sale__c{where}{order and f' ORDER BY {order}'}{limit}"
        case "children":
            return f"SELECT Name, {CHILDREN} FROM Tenant__c WHERE Name != 'x' ORDER BY Name{limit}"
        case "groups":
            by = draw(_list(st.sampled_from(GROUPS), most=2))
            form = draw(st.sampled_from(["{}", "ROLLUP({})", "CUBE({})"])).format(by)
            having = perhaps(st.just(" HAVING COUNT(Id) > 0"))
            aggregates = draw(_list(st.sampled_from(AGGREGATES)))
            return (
                f"SELECT {by}, {aggregates} FROM Sale__c{where} GROUP BY {form}{having} ORDER BY COUNT(Id) DESC{limit}"
            )
    return f"SELECT COUNT() FROM Sale__c{where}{limit}"


@st.composite
def wild_query(draw: st.DrawFn) -> str:
    """A query that the grammar accepts; whether it means something is another matter."""
    select = draw(_list(expressions | st.just("(SELECT Id, Name FROM Sales__r ORDER BY Name LIMIT 2)")))
    clauses = [f"SELECT {select} FROM {draw(st.sampled_from(['Sale__c', 'Tenant__c', 'User', 'Group', 'Nope__c']))}"]
    for clause in (
        _conditions(wild_comparisons).map(lambda text: f"WHERE {text}"),
        _list(expressions).map(lambda text: f"GROUP BY {text}"),
        st.tuples(_list(expressions), st.sampled_from(["", " DESC", " ASC NULLS LAST"])).map(
            lambda parts: f"ORDER BY {parts[0]}{parts[1]}"
        ),
        st.sampled_from([0, 2000, 2001]).map(lambda number: f"OFFSET {number}"),
        st.sampled_from(["FOR VIEW", "ALL ROWS"]),
    ):
        if draw(st.integers(0, 2)) == 0:
            clauses.append(draw(clause))
    return " ".join(clauses)


@st.composite
def mutated_query(draw: st.DrawFn) -> str:
    """A query with some of its text replaced."""
    soql = draw(good_query() | wild_query())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(soql)))
        end = draw(st.integers(start, min(len(soql), start + 10)))
        put = draw(st.one_of(st.sampled_from([*WORDS, *LITERALS]), st.text(max_size=3)))
        soql = soql[:start] + put + soql[end:]
    return soql


def any_query() -> st.SearchStrategy[str]:
    """Queries made by the grammar, and damaged ones. No lone surrogates: they cannot stand in a URL."""
    return (good_query() | wild_query() | mutated_query()).map(lambda text: text.encode("utf-8", "replace").decode())
