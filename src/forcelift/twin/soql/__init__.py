"""SOQL: parse, compile to DuckDB SQL, and render results as Salesforce's APIs do."""

from forcelift.twin.soql.compile import compile_query
from forcelift.twin.soql.compiled import CompiledQuery, OutputColumn
from forcelift.twin.soql.errors import SoqlError
from forcelift.twin.soql.parse import parse
from forcelift.twin.soql.render import ChildPages, render_records, run, total_size

__all__ = [
    "ChildPages",
    "CompiledQuery",
    "OutputColumn",
    "SoqlError",
    "compile_query",
    "parse",
    "render_records",
    "run",
    "total_size",
]
