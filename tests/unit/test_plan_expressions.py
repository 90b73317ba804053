"""The grammar of computed fields: what is read, what is refused, at which line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from forcelift.errors import PlanError
from forcelift.plan import load_plan
from forcelift.plan.expressions import (
    EXPRESSIONS,
    Arithmetic,
    Case,
    ColumnPart,
    Concat,
    Divide,
    Expression,
    NumberPart,
    Piece,
    Slice,
    TextPart,
    expression_columns,
    parse_expression,
)
from forcelift.plan.json_schema import plan_json_schema

HEAD = """\
version: 1
project: P
source: {url: "sqlite:///a.db"}
target: {url: "twin:org.duckdb"}
tables:
  - table: T
    object: Thing__c
    key: ID
    external_id: Ext__c
    fields: {ID: Ext__c}
    computed:
"""


def raw(text: str) -> Any:
    """Data as the loader hands them over: every scalar is its text."""
    return YAML(typ="base", pure=True).load(text)


def parsed(text: str) -> Expression:
    found, faults = parse_expression(raw(text))
    assert faults == []
    assert found is not None
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_example_is_good_by_parser_and_schema(name: str) -> None:
    assert expression_columns(parsed(EXPRESSIONS[name]))[0] == "A"
    schema = plan_json_schema()
    one = {"$ref": "#/$defs/Expression", "$defs": schema["$defs"]}
    jsonschema.validate(YAML(typ="safe", pure=True).load(EXPRESSIONS[name]), one)


def test_operands_are_columns_literals_and_expressions() -> None:
    a, b = ColumnPart("A"), ColumnPart("B")
    assert parsed('{concat: [A, {text: "-"}, {column: B}]}') == Concat((a, TextPart("-"), b))
    assert parsed("{part: {column: A, from: 2}}") == Slice(a, 2, None)
    assert parsed('{part: {column: A, split: "-", take: -1}}') == Piece(a, "-", -1)
    assert parsed("{case: {column: A, when: {1: x}, else: y}}") == Case(a, (("1", "x"),), TextPart("y"))
    assert parsed("{case: {column: A, when: {1: x}, else: {column: B}}}") == Case(a, (("1", "x"),), b)
    nested = "{divide: {column: {add: [A, {number: 1.50}]}, by: B, scale: 0}}"
    assert parsed(nested) == Divide(Arithmetic("add", (a, NumberPart("1.50"))), b, 0)
    assert expression_columns(parsed(nested)) == ("A", "B")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("{}", "", "exactly one expression"),
        ("{concat: [A], add: [A, B]}", "", "exactly one expression"),
        ("{upper: A}", "", "there is no expression `upper`"),
        ("{coalesce: [A]}", "coalesce", "a list of two or more columns and texts"),
        ("{subtract: A}", "subtract", "a list of two or more columns and numbers"),
        ("{add: [A, {text: x}]}", "add.1", "a fixed number is written {number: ...}"),
        ("{add: [A, {number: 1e3}]}", "add.1.number", "plain decimal"),
        ("{add: [A, [B]]}", "add.1", "must be a column's name"),
        ("{concat: [A, {txet: x}]}", "concat.1", "there is no expression `txet`"),
        ("{part: {column: A, of: B, from: 1}}", "part.of", "has no key `of`"),
        ("{part: {from: 1}}", "part", "`part` needs `column`"),
        ("{part: {column: A, from: 0}}", "part.from", "a whole number from 1"),
        ("{part: {column: A, from: 1, length: x}}", "part.length", "a whole number from 1"),
        ("{part: {column: A, split: '-', take: 0}}", "part.take", "1 is the first"),
        ("{part: {column: A, split: '', take: 1}}", "part.split", "the text between"),
        ("{part: {column: A, split: '-', take: 1, from: 2}}", "part.from", "has no key `from`"),
        ("{letters: {column: A, to: big}}", "letters.to", "`upper`, `lower`, `title`"),
        ("{case: {column: A, when: {}}}", "case.when", "a map of texts to texts"),
        ("{case: {column: A, when: {x: [y]}}}", "case.when", "a map of texts to texts"),
        ("{divide: {column: A, by: B}}", "divide", "`divide` needs `scale`"),
        ("{divide: {column: A, by: {number: 0.0}, scale: 2}}", "divide.by", "divided by zero"),
        ("{divide: {column: A, by: B, scale: 19}}", "divide.scale", "from 0 to 18"),
        (
            "{concat: [{concat: [{concat: [{concat: [{concat: [A]}]}]}]}]}",
            "concat.0.concat.0.concat.0.concat.0",
            "4 deep",
        ),
    ],
)
def test_what_is_no_expression(text: str, path: str, message: str) -> None:
    found, faults = parse_expression(raw(text))
    assert found is None
    assert [".".join(map(str, fault.path)) for fault in faults] == [path]
    assert message in faults[0].message


def test_all_faults_of_all_fields_come_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        HEAD
        + """\
      Good__c: {part: {column: A, from: 1, length: 3}}
      One__c:
        divide:
          column: {add: [A, {text: 1}]}
          by: B
          scale: many
      Two__c: {concat: [A, {tex: x}]}
"""
    )
    with pytest.raises(PlanError) as caught:
        load_plan(file, env={})
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [
        ("tables.T.computed.One__c.divide.column.add[2]", 15),
        ("tables.T.computed.One__c.divide.scale", 17),
        ("tables.T.computed.Two__c.concat[2]", 18),
    ]


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("fields: {ID: Ext__c, A: {field: A__c, merge: latest}}\n    duplicates: merge", "fields.A.merge"),
        (
            "fields: {ID: Ext__c, A: {field: A__c, merge: min, values: {x: y}}}\n    duplicates: merge",
            "fields.A.merge",
        ),
        ("fields: {ID: {field: Ext__c, merge: first}}\n    duplicates: merge", "fields.ID.merge"),
    ],
)
def test_merge_rules_that_cannot_be(tmp_path: Path, lines: str, path: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(HEAD.replace("fields: {ID: Ext__c}", lines).replace("    computed:\n", ""))
    with pytest.raises(PlanError) as caught:
        load_plan(file, env={})
    assert [problem.path for problem in caught.value.problems] == [f"tables.T.{path}"]
