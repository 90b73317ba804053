"""Oracle's errors, as the server raises them inside itself and sends them to clients."""

from __future__ import annotations

_TEXTS = {
    1: "unique constraint ({}) violated",
    54: "resource busy and acquire with NOWAIT specified or timeout expired",
    60: "deadlock detected while waiting for resource",
    904: "{}: invalid identifier",
    911: "invalid character",
    913: "too many values",
    918: "column ambiguously defined",
    923: "FROM keyword not found where expected",
    933: "SQL command not properly ended",
    936: "missing expression",
    932: "inconsistent datatypes: expected {} got {}",
    937: "not a single-group group function",
    942: "table or view does not exist",
    947: "not enough values",
    955: "name is already used by an existing object",
    979: "not a GROUP BY expression",
    997: "illegal use of LONG datatype",
    1000: "maximum open cursors exceeded",
    1001: "invalid cursor",
    1008: "not all variables bound",
    1013: "user requested cancel of current operation",
    1017: "invalid username/password; logon denied",
    1031: "insufficient privileges",
    1086: "savepoint '{}' never established in this session or is invalid",
    1400: "cannot insert NULL into ({})",
    1403: "no data found",
    1407: "cannot update ({}) to NULL",
    1410: "invalid ROWID",
    1427: "single-row subquery returns more than one row",
    1438: "value larger than specified precision allowed for this column",
    1418: "specified index does not exist",
    1426: "numeric overflow",
    1430: "column being added already exists in table",
    1476: "divisor is equal to zero",
    1555: 'snapshot too old: rollback segment number 7 with name "_SYSSMU7$" too small',
    1722: "invalid number",
    1756: "quoted string not properly terminated",
    1830: "date format picture ends before converting entire input string",
    1839: "date not valid for month specified",
    1861: "literal does not match format string",
    2289: "sequence does not exist",
    2290: "check constraint ({}) violated",
    2291: "integrity constraint ({}) violated - parent key not found",
    2292: "integrity constraint ({}) violated - child record found",
    3001: "unimplemented feature",
    8180: "no snapshot found based on specified time",
    8181: "specified number is not a valid system change number",
    1456: "may not perform insert/delete/update operation inside a READ ONLY transaction",
    1466: "unable to read data - table definition has changed",
    12899: "value too large for column {} (actual: {}, maximum: {})",
    6550: "line 1, column 1",
    16000: "database or pluggable database open for read-only access",
    28150: "proxy not authorized to connect as client",
    29497: "DBMS_PARALLEL_EXECUTE: duplicate task name",
    29498: "DBMS_PARALLEL_EXECUTE: task not found",
    22816: "unsupported feature with RETURNING clause",
    1795: "maximum number of expressions in a list is {}",
    24381: "error(s) in array DML",
    30006: "resource busy; acquire with WAIT timeout expired",
    32795: "cannot insert into a generated always identity column",
}


class OracleError(Exception):
    """An ORA- error: its number, its text with the names filled in, and where in the statement it was found."""

    def __init__(self, code: int, *names: object, detail: str = "", position: int = 0) -> None:
        self.code = code
        self.position = position
        text = _TEXTS.get(code, "error").format(*names)
        self.text = f"ORA-{code:05d}: {text}" + (f": {detail}" if detail else "")
        super().__init__(self.text)


def not_taught(what: str) -> OracleError:
    """The refusal of whatever this server was not taught; it never guesses."""
    return OracleError(3001, detail=f"this test server was not taught {what}")
