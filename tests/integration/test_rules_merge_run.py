"""A whole run with merged copies and computed fields; the org's records are compared with the source's own sums."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from forcelift.cli.main import run_command

SCHEMA = """\
objects:
  Sale__c:
    fields:
      Name: {type: string}
      Sale__c: {type: string, externalId: true, unique: true}
      Amount__c: {type: currency, precision: 12, scale: 2}
      Net__c: {type: currency, precision: 12, scale: 2}
      Note__c: {type: string}
"""
PLAN = """\
version: 1
project: Merged copies
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: Sale__c
    changed_at: at
    duplicates: merge
    fields:
      amount: {field: Amount__c, merge: sum}
      note: {field: Note__c, merge: longest}
    computed:
      Net__c: {divide: {column: amount, by: {number: 1.07}, scale: 2}}
      Name: {letters: {column: {concat: [{text: "s-"}, sale_id]}, to: upper}}
chunks: {rows: 50}
"""


def test_copies_in_several_chunks_become_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "forcelift.yaml").write_text(PLAN)
    with duckdb.connect(str(tmp_path / "source.duckdb")) as source:
        source.execute(
            "CREATE TABLE sales AS SELECT 'k' || (i % 80) AS sale_id, (i * 1.5)::DECIMAL(12, 2) AS amount,"
            " repeat('n', (i % 7)::INT) AS note, TIMESTAMP '2024-01-01' + i * INTERVAL 1 HOUR AS at"
            " FROM range(200) AS r(i)"
        )
        wanted = source.execute(
            "SELECT sale_id, sum(amount), max(note) FROM sales GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as out:
        assert run_command(["run", "--json"]) == 0
    (table,) = json.loads(out.getvalue())["tables"]
    assert (table["extracted"], table["duplicate"], table["created"]) == (200, 120, 80)
    with duckdb.connect(str(tmp_path / "org.duckdb"), read_only=True) as org:
        records = org.execute(
            'SELECT Sale__c, Amount__c, Note__c, Net__c, Name FROM data."Sale__c" ORDER BY Sale__c'
        ).fetchall()
    assert [record[:3] for record in records] == [(key, amount, note or None) for key, amount, note in wanted]
    for key, amount, _, net, name in records:
        assert net == (amount / Decimal("1.07")).quantize(Decimal("0.01"))
        assert name == f"S-{key}".upper()
