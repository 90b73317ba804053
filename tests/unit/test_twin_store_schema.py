"""The twin's schema: YAML form, describe documents in and out, and every problem told with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.twin_store_support import make_org, make_schema

from forcelift.twin.errors import SchemaError
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import load_schema, schema_from_describes, schema_from_dict

# Attributes of a field in a describe document of API version 52, as recorded from a real org.
FIELD_ATTRIBUTES = [
    "aggregatable",
    "aiPredictionField",
    "autoNumber",
    "byteLength",
    "calculated",
    "calculatedFormula",
    "cascadeDelete",
    "caseSensitive",
    "compoundFieldName",
    "controllerName",
    "createable",
    "custom",
    "defaultValue",
    "defaultValueFormula",
    "defaultedOnCreate",
    "dependentPicklist",
    "deprecatedAndHidden",
    "digits",
    "displayLocationInDecimal",
    "encrypted",
    "externalId",
    "extraTypeInfo",
    "filterable",
    "filteredLookupInfo",
    "formulaTreatNullNumberAsZero",
    "groupable",
    "highScaleNumber",
    "htmlFormatted",
    "idLookup",
    "inlineHelpText",
    "label",
    "length",
    "mask",
    "maskType",
    "name",
    "nameField",
    "namePointing",
    "nillable",
    "permissionable",
    "picklistValues",
    "polymorphicForeignKey",
    "precision",
    "queryByDistance",
    "referenceTargetField",
    "referenceTo",
    "relationshipName",
    "relationshipOrder",
    "restrictedDelete",
    "restrictedPicklist",
    "scale",
    "searchPrefilterable",
    "soapType",
    "sortable",
    "type",
    "unique",
    "updateable",
    "writeRequiresMasterRead",
]
OBJECT_ATTRIBUTES = [
    "actionOverrides",
    "activateable",
    "associateEntityType",
    "associateParentEntity",
    "childRelationships",
    "compactLayoutable",
    "createable",
    "custom",
    "customSetting",
    "deepCloneable",
    "defaultImplementation",
    "deletable",
    "deprecatedAndHidden",
    "extendedBy",
    "extendsInterfaces",
    "feedEnabled",
    "fields",
    "hasSubtypes",
    "implementedBy",
    "implementsInterfaces",
    "isInterface",
    "isSubtype",
    "keyPrefix",
    "label",
    "labelPlural",
    "layoutable",
    "listviewable",
    "lookupLayoutable",
    "mergeable",
    "mruEnabled",
    "name",
    "namedLayoutInfos",
    "networkScopeFieldName",
    "queryable",
    "recordTypeInfos",
    "replicateable",
    "retrieveable",
    "searchLayoutable",
    "searchable",
    "sobjectDescribeOption",
    "supportedScopes",
    "triggerable",
    "undeletable",
    "updateable",
    "urls",
]


def test_describe_has_every_attribute_of_the_real_one() -> None:
    with make_org() as org:
        document = org.describe("trip__C")
    assert sorted(document) == sorted(OBJECT_ATTRIBUTES)
    for field in document["fields"]:
        assert sorted(field) == sorted(FIELD_ATTRIBUTES)
    fields = {field["name"]: field for field in document["fields"]}
    assert (fields["Ext__c"]["length"], fields["Ext__c"]["byteLength"], fields["Ext__c"]["idLookup"]) == (20, 60, True)
    assert (fields["Miles__c"]["precision"], fields["Miles__c"]["scale"], fields["Miles__c"]["length"]) == (8, 2, 0)
    assert (fields["Open__c"]["nillable"], fields["Open__c"]["defaultedOnCreate"]) == (False, True)
    assert fields["Plane__c"]["relationshipName"] == "Plane__r"
    assert [entry["value"] for entry in fields["State__c"]["picklistValues"] if not entry["active"]] == ["Old"]
    for name in ("Id", "CreatedDate", "SystemModstamp", "IsDeleted", "Sum__c"):
        assert not fields[name]["createable"]
        assert not fields[name]["updateable"]
    required = [
        f["name"] for f in document["fields"] if f["createable"] and not f["nillable"] and not f["defaultedOnCreate"]
    ]
    assert required == ["Place__c"]
    assert [child["childSObject"] for child in document["childRelationships"]] == ["Trip__c", "Leg__c", "Leg__c"]
    assert [info["developerName"] for info in document["recordTypeInfos"]] == ["LongHaul", "Master"]
    assert document["recordTypeInfos"][1]["recordTypeId"] == "012000000000000AAA"


def test_lookups_ignore_case_and_a_detail_has_no_owner() -> None:
    schema = make_schema()
    trip = schema.object("TRIP__C")
    assert trip is not None
    assert trip.field("ext__C") is trip.field("Ext__c")
    assert trip.relationship("plane__R") is trip.field("Plane__c")
    assert schema.object_of_id(trip.key_prefix + "0" * 12) is trip
    leg = schema.object("Leg__c")
    assert leg is not None
    assert leg.field("OwnerId") is None
    assert trip.field("OwnerId") is not None


def test_a_schema_survives_its_document_and_its_own_describes(tmp_path: Path) -> None:
    schema = make_schema()
    assert Schema.from_document(json.loads(json.dumps(schema.to_document()))) == schema
    with make_org() as org:
        documents = [org.describe(name) for name in ("Plane__c", "Trip__c", "Leg__c")]
    for document in documents:
        (tmp_path / f"{document['name']}.json").write_text(json.dumps(document))
    (tmp_path / "all.json.list").write_text("not read")
    again = load_schema(tmp_path)
    for name in ("Plane__c", "Trip__c", "Leg__c"):
        first, second = schema.object(name), again.object(name)
        assert first is not None
        assert second is not None
        assert second.describe_json(schema=again)["fields"] == first.describe_json(schema=schema)["fields"]
        assert second.key_prefix == first.key_prefix
        assert tuple(replace(entry, id=None) for entry in second.record_types) == first.record_types
        assert all(entry.id for entry in second.record_types), "a described record type keeps its Id"


def test_describes_with_lookups_to_objects_that_are_not_there_lose_those_targets() -> None:
    field = {"name": "A__c", "type": "reference", "referenceTo": ["Gone__c"], "relationshipName": "A__r", "new": 1}
    schema = schema_from_describes([{"name": "X__c", "fields": [field, {"name": "Spot__c", "type": "location"}]}])
    entry = schema.object("X__c")
    assert entry is not None
    assert entry.field("A__c").reference_to == ()  # type: ignore[union-attr]  # the field was just declared
    assert "Spot__c" not in [field.name for field in entry.stored_fields]


def test_every_problem_is_told_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text(
        "objects:\n"
        "  A__c:\n"
        "    fields:\n"
        "      B__c: {type: strng}\n"
        "      C__c: {type: reference, referenceTo: [D__c, a__c]}\n"
        "      E__c: {type: double, precision: 4, scale: 5}\n"
        "      F__c: {type: int, length: 3}\n"
        "      CreatedDate: {type: datetime}\n"
        "      f__C: {type: string, caseSensitive: true}\n"
        "  User: {}\n"
    )
    with pytest.raises(SchemaError) as caught:
        load_schema(file)
    problems = "\n".join(caught.value.problems)
    for part in (
        "objects.A__c.fields.B__c.type: unknown type `strng` (nearest: `string`)",
        "objects.A__c.fields.C__c.referenceTo: no object `a__c` (nearest: `A__c`)",
        "objects.A__c.fields.E__c: `scale` 5 is larger than `precision` 4",
        "objects.A__c.fields.F__c: `length` belongs to text fields; int has none",
        "objects.A__c.fields.CreatedDate: the twin brings this field itself",
        "objects.A__c.fields.f__C: declared twice",
        "objects.A__c.fields.f__C: `caseSensitive` needs `unique: true`",
        "objects.User: the twin brings this object itself",
    ):
        assert part in problems
    assert "schema.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {"objects": {"A__c": {"fields": {"B__c": {"type": "string", "lenght": 3}}}}},
            "objects.A__c.fields.B__c.lenght: unknown key (nearest: `length`)",
        ),
        ({"objects": {"A__c": {"feilds": {}}}}, "objects.A__c.feilds: unknown key (nearest: `fields`)"),
        ({"object": {}}, "object: unknown key (nearest: `objects`)"),
        ([], "the file must hold a mapping with the key `objects`"),
    ],
)
def test_unknown_keys_are_refused(content: object, problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema_from_dict(content)
    assert problem in caught.value.problems


@pytest.mark.parametrize("name", ["none.yaml", "bad.yaml", "bad.json", "."])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "bad.json").write_text("{")
    folder = tmp_path / "empty"
    folder.mkdir()
    path = folder if name == "." else tmp_path / name
    with pytest.raises(SchemaError, match=str(path)):
        load_schema(path)
