"""What `compile_table` refuses, and what it says about a table that fits."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rules_support import compiled, describe_field, object_of, plan_of, source_column

from forcelift.errors import PlanError
from forcelift.protocols.org import FieldDescribe, ObjectDescribe, RecordType
from forcelift.protocols.source import ColumnKind
from forcelift.rules import LookupTarget, ParentField, lookup_targets, owner_names

COLUMNS = (
    source_column("ID", ColumnKind.INTEGER),
    source_column("NAME"),
    source_column("AMOUNT", ColumnKind.DECIMAL, precision=20, scale=4),
    source_column("DAY", ColumnKind.DATE),
    source_column("AT", ColumnKind.TIMESTAMP),
    source_column("PIC", ColumnKind.BINARY),
    source_column("GEO", ColumnKind.UNSUPPORTED),
    source_column("PARENT"),
)
LOOKUP = describe_field("Parent__c", "reference", reference_to=("Other__c",), relationship_name="Parent__r")
WHO = describe_field("WhoId", "reference", reference_to=("Contact", "Lead"), relationship_name="Who")
FIELDS = (
    describe_field("Name__c", "string", length=10),
    describe_field("Amount__c", "currency", precision=18, scale=2),
    describe_field("Day__c", "date"),
    describe_field("At__c", "datetime"),
    describe_field("Formula__c", "string", calculated=True, createable=False),
    describe_field("ReadOnly__c", "string", createable=False, updateable=False),
    describe_field("Fixed__c", "string", updateable=False),
    describe_field("Shape__c", "location"),
    describe_field("Status__c", "picklist", length=40, restricted_picklist=True, picklist_values=("Open", "Closed")),
    LOOKUP,
    WHO,
)
PARENT = {"PARENT": ParentField(name="Code__c")}


def problems(fields: dict[str, Any], *more: FieldDescribe, **settings: Any) -> dict[str, str]:
    with pytest.raises(PlanError) as caught:
        compiled({"ID": {"field": "Key__c"}, **fields}, columns=COLUMNS, describe=object_of(*FIELDS, *more), **settings)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("column", "rule", "path", "words"),
    [
        ("NAMES", {"field": "Name__c"}, "fields.NAMES", "no column `NAMES`; did you mean `NAME`?"),
        ("NAME", {"field": "Nam__c"}, "fields.NAME.field", "no field `Nam__c`; did you mean `Name__c`?"),
        ("NAME", {"field": "Formula__c"}, "fields.NAME.field", "filled by Salesforce itself"),
        ("NAME", {"field": "ReadOnly__c"}, "fields.NAME.field", "cannot be written"),
        ("NAME", {"field": "Fixed__c"}, "fields.NAME.field", "cannot be updated"),
        ("NAME", {"field": "Shape__c"}, "fields.NAME.field", "type location"),
        ("NAME", {"field": "Key__c"}, "fields.NAME.field", "takes the key, ID"),
        ("PIC", {"field": "Amount__c"}, "fields.PIC.field", "BINARY cannot go into"),
        ("PIC", {"field": "Name__c"}, "fields.PIC.field", "BINARY cannot go into"),
        ("GEO", {"field": "Name__c"}, "fields.GEO", "cannot be read"),
        ("DAY", {"field": "Amount__c"}, "fields.DAY.field", "DATE cannot go into"),
        ("AMOUNT", {"field": "Day__c"}, "fields.AMOUNT.field", "DECIMAL cannot go into"),
        ("NAME", {"field": "Name__c", "negative": "warn"}, "fields.NAME.negative", "says nothing about a text value"),
        ("AMOUNT", {"field": "Amount__c", "too_long": "reject"}, "fields.AMOUNT.too_long", "says nothing"),
        ("AMOUNT", {"field": "Amount__c", "buddhist_era": "keep"}, "fields.AMOUNT.buddhist_era", "says nothing"),
        ("AMOUNT", {"field": "Amount__c", "unicode": "nfc"}, "fields.AMOUNT.unicode", "kind decimal"),
        ("NAME", {"field": "Name__c", "unmapped": "keep"}, "fields.NAME.unmapped", "needs `values`"),
        ("NAME", {"field": "Name__c", "encoding": "klingon"}, "fields.NAME.encoding", "no encoding `klingon`"),
        ("NAME", {"field": "Name__c", "merge": "latest"}, "fields.NAME.merge", "needs `duplicates: merge`"),
        ("NAME", {"field": "Name__c", "parent": "OTHERS"}, "fields.NAME.parent", "no lookup"),
        ("NAME", {"field": "Name__c", "missing_parent": "to_null"}, "fields.NAME.missing_parent", "no lookup"),
        ("AT", {"field": "At__c"}, "fields.AT", "times without a zone"),
        ("AT", {"field": "At__c", "timezone": "Asia/Bankok"}, "fields.AT.timezone", "no time zone"),
        ("AT", {"field": "At__c", "timezone": "UTC", "date_format": "%Y"}, "fields.AT.date_format", "needs no format"),
        ("NAME", {"field": "At__c", "date_format": "%d.%m.%Y"}, "fields.NAME", "times without a zone"),
        ("NAME", {"field": "Day__c", "date_format": "%Q"}, "fields.NAME.date_format", "no date format"),
        ("NAME", {"field": "Day__c", "empty": {"default": "soon"}}, "fields.NAME.empty.default", "not a date"),
        ("NAME", {"field": "Name__c", "empty": {"default": "x" * 11}}, "fields.NAME.empty.default", "longer"),
        ("NAME", {"field": "Status__c", "values": {"o": "Opn"}}, "fields.NAME.values.o", "did you mean `Open`?"),
        ("PARENT", {"field": "Paren__r.Code__c"}, "fields.PARENT.field", "did you mean `Parent__r`?"),
        ("PARENT", {"field": "Parent__r.Nope__c"}, "fields.PARENT.field", "`Other__c` has no field `Nope__c`"),
        ("PARENT", {"field": "Other__c:Parent__r.Code__c"}, "fields.PARENT.field", "one object only"),
        ("PARENT", {"field": "Who.Email"}, "fields.PARENT.field", "such as `Contact:Who.Email`"),
        ("PARENT", {"field": "User:Who.Email"}, "fields.PARENT.field", "does not point to `User`"),
    ],
)
def test_a_field_that_does_not_fit(column: str, rule: dict[str, Any], path: str, words: str) -> None:
    found = problems({column: rule})
    assert words in found[f"tables.THINGS.{path}"]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("settings", "path", "words"),
    [
        ({"key": ("IDS",)}, "key", "no column `IDS`"),
        ({"key": ("ID", "ID")}, "key", "twice"),
        ({"changed_at": "NOPE"}, "changed_at", "no column `NOPE`"),
        ({"created_field": "Nope__c"}, "created_field", "no field `Nope__c`"),
        ({"duplicates": "keep_latest"}, "duplicates", "needs `changed_at`"),
        ({"constants": {"Nope__c": "x"}}, "constants.Nope__c", "no field"),
        ({"constants": {"Amount__c": "many"}}, "constants.Amount__c", "is not a number"),
        ({"constants": {"Name__c": "#N/A"}}, "constants.Name__c", "null"),
        (
            {"constants": {"RecordTypeId": {"record_type": "Retial"}}},
            "constants.RecordTypeId",
            "did you mean `Retail`?",
        ),
        ({"constants": {"RecordTypeId": {"queue": "A"}}}, "constants.RecordTypeId", "not known"),
        ({"computed": {"Nope__c": {"concat": ["ID"]}}}, "computed.Nope__c", "no field"),
        ({"computed": {"Name__c": {"concat": ["NOPE"]}}}, "computed.Name__c", "no column `NOPE`"),
        ({"computed": {"Name__c": {"concat": [{"tex": "-"}]}}}, "computed.Name__c.concat.0", "no expression `tex`"),
        ({"computed": {"Name__c": {"sum": ["ID"]}}}, "computed.Name__c", "no expression `sum`"),
        ({"computed": {"Shape__c": {"concat": ["ID"]}}}, "computed.Shape__c", "type location"),
        ({"computed": {"At__c": {"concat": ["ID"]}}}, "computed.At__c", "times without a zone"),
    ],
)
def test_a_table_that_does_not_fit(settings: dict[str, Any], path: str, words: str) -> None:
    kind = describe_field("RecordTypeId", "reference", reference_to=("RecordType",), relationship_name="RecordType")
    types = (RecordType(id="012000000000001AAA", name="Retail", developer_name="Retail"),)
    fields = {"NAME": {"field": "Name__c"}} if settings.get("key") else {"ID": {"field": "Key__c"}}
    with pytest.raises(PlanError) as caught:
        compiled(fields, columns=COLUMNS, describe=object_of(*FIELDS, kind, record_types=types), **settings)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert words in found[f"tables.THINGS.{path}"]


def test_all_problems_come_at_once() -> None:
    found = problems({"NOPE": {"field": "Name__c"}, "NAME": {"field": "Nope__c"}, "AT": {"field": "At__c"}})
    assert len(found) == 3


def test_a_required_field_without_a_source_would_fail_each_insert() -> None:
    found = problems({}, describe_field("Must__c", "string", nillable=False))
    assert "`Must__c` of `Thing__c` is required" in found["tables.THINGS.fields"]


def test_a_required_field_may_come_from_constant_or_computed() -> None:
    must = (describe_field("Must__c", nillable=False, length=80), describe_field("Name", nillable=False, length=80))
    table = compiled(
        {"ID": {"field": "Key__c"}},
        columns=COLUMNS,
        describe=object_of(*must),
        constants={"Must__c": " x "},
        computed={"Name": {"concat": ["ID", {"text": "-"}, "NAME"]}},
    )
    assert table.target_columns == ("Key__c", "Must__c", "Name")
    assert table.source_columns == ("ID", "NAME")
    assert table.constants == {"Must__c": "x"}


def test_the_external_id_must_be_one() -> None:
    for attributes, words in (
        ({"type": "string"}, "not an external ID"),
        ({"type": "date", "external_id": True}, "cannot hold a key"),
    ):
        field = FieldDescribe(name="Key__c", label="Key", **attributes)
        describe = ObjectDescribe(name="Thing__c", label="T", key_prefix="a00", fields={"Key__c": field})
        with pytest.raises(PlanError, match=words):
            compiled({"ID": {"field": "Key__c"}}, columns=COLUMNS, describe=describe)


def test_a_composite_key_needs_a_text_field() -> None:
    field = FieldDescribe(name="Key__c", label="Key", type="double", precision=18, external_id=True)
    describe = ObjectDescribe(name="Thing__c", label="T", key_prefix="a00", fields={"Key__c": field})
    with pytest.raises(PlanError, match="needs text"):
        compiled({"DAY": {"field": "Day__c"}}, columns=COLUMNS, describe=describe, key=("ID", "NAME"))


def test_the_key_goes_into_the_external_id_even_if_not_mapped() -> None:
    table = compiled({"NAME": {"field": "Name__c"}}, columns=COLUMNS, describe=object_of(*FIELDS))
    assert table.target_columns == ("Key__c", "Name__c")
    assert table.source_columns == ("ID", "NAME")


@pytest.mark.parametrize("option", [{"too_long": "truncate"}, {"empty": "to_null"}])
def test_rules_that_would_break_a_key(option: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        compiled({"NAME": {"field": "Key__c", **option}}, columns=COLUMNS, describe=object_of(), key=("NAME",))


def test_a_required_lookup_cannot_be_a_link() -> None:
    must = describe_field(
        "Boss__c", "reference", reference_to=("Thing__c",), relationship_name="Boss__r", nillable=False
    )
    found = problems({"PARENT": {"field": "Boss__r.Key__c"}}, must, parents=PARENT, links=frozenset({"PARENT"}))
    assert "second pass" in found["tables.THINGS.fields.PARENT"]


def test_a_parent_must_be_found_by_an_external_id() -> None:
    parents = {"PARENT": ParentField(name="Code__c", id_lookup=False)}
    found = problems({"PARENT": {"field": "Parent__r.Code__c"}}, parents=parents)
    assert "not an external ID" in found["tables.THINGS.fields.PARENT.field"]


def test_an_upsert_may_set_the_parent_of_a_master_detail() -> None:
    master = describe_field(
        "Boss__c",
        "reference",
        reference_to=("Other__c",),
        relationship_name="Boss__r",
        nillable=False,
        updateable=False,
        cascade_delete=True,
    )
    fields = {"ID": {"field": "Key__c"}, "PARENT": {"field": "Boss__r.Code__c"}}
    table = compiled(fields, columns=COLUMNS, describe=object_of(master), parents=PARENT)
    assert table.target_columns == ("Key__c", "Boss__r.Code__c")


def test_what_a_compiled_table_says_of_itself() -> None:
    fields = {
        "PARENT": {"field": "Parent__r.Code__c", "parent": "OTHERS"},
        "AMOUNT": {"field": "Amount__c"},
        "ID": {"field": "Key__c"},
        "NAME": {"field": "Name__c", "personal": False},
    }
    table = compiled(fields, columns=COLUMNS, describe=object_of(*FIELDS), parents=PARENT, changed_at="AT")
    assert table.source_columns == ("ID", "PARENT", "AMOUNT", "NAME", "AT")
    assert table.target_columns == ("Key__c", "Parent__r.Code__c", "Amount__c", "Name__c")
    assert table.link_target_columns == ()
    assert table.key_field == "Key__c"
    assert table.order_by == ("PARENT",)
    assert table.personal_columns == ("PARENT",)
    assert table.numeric_over_15_digits == ("AMOUNT",)
    assert table.lookups["PARENT"].parent_table == "OTHERS"
    assert table.lookups["PARENT"].parent_object == "Other__c"


def test_record_types_are_found_by_either_name() -> None:
    kind = describe_field("RecordTypeId", "reference", reference_to=("RecordType",), relationship_name="RecordType")
    types = (RecordType(id="012000000000001AAA", name="Retail shop", developer_name="Retail"),)
    for name in ("Retail", "Retail shop"):
        table = compiled(
            {"ID": {"field": "Key__c"}},
            columns=COLUMNS,
            describe=object_of(kind, record_types=types),
            constants={"RecordTypeId": {"record_type": name}},
        )
        assert table.constants == {"RecordTypeId": "012000000000001AAA"}


def test_owners_are_named_by_username() -> None:
    owner = describe_field("OwnerId", "reference", reference_to=("User", "Group"), relationship_name="Owner")
    constants = {"OwnerId": {"owner": "etl@example.com"}}
    fields = {"ID": {"field": "Key__c"}}
    assert owner_names(plan_of(fields, constants=constants)) == ("etl@example.com",)
    with pytest.raises(PlanError, match="no active user"):
        compiled(fields, columns=COLUMNS, describe=object_of(owner), constants=constants)
    known = {"etl@example.com": "005000000000001AAA"}
    table = compiled(fields, columns=COLUMNS, describe=object_of(owner), constants=constants, owners=known)
    assert table.constants == {"OwnerId": "005000000000001AAA"}


def test_lookup_targets_names_the_parents_to_describe() -> None:
    plan = plan_of(
        {
            "ID": {"field": "Key__c"},
            "PARENT": {"field": "Parent__r.Code__c"},
            "NAME": {"field": "Lead:Who.Email"},
            "DAY": {"field": "Broken__r.X"},
        }
    )
    assert lookup_targets(plan, object_of(*FIELDS)) == {
        "PARENT": LookupTarget(parent_object="Other__c", key_field="Code__c", field="Parent__c"),
        "NAME": LookupTarget(parent_object="Lead", key_field="Email", field="WhoId"),
    }


def test_bytes_declared_binary_may_be_read_with_an_encoding_of_their_own() -> None:
    table = compiled({"PIC": {"field": "Name__c", "encoding": "TIS-620"}}, columns=COLUMNS, describe=object_of(*FIELDS))
    assert table.source_columns == ("ID", "PIC")
