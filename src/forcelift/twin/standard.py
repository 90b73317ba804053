"""What every org and every object has: system fields, key prefixes, and the standard objects that loaders look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from forcelift.twin.schema import FieldSchema, ObjectSchema, RecordTypeSchema, Schema

# Prefixes of standard objects that a schema file may declare; custom objects get a00, a01, ... in order.
KEY_PREFIXES: Final = {
    "Account": "001",
    "Contact": "003",
    "Opportunity": "006",
    "Lead": "00Q",
    "Case": "500",
    "Campaign": "701",
    "CampaignMember": "00v",
    "Task": "00T",
    "Event": "00U",
    "Product2": "01t",
    "Pricebook2": "01s",
    "PricebookEntry": "01u",
    "OpportunityLineItem": "00k",
    "Order": "801",
    "OrderItem": "802",
    "Asset": "02i",
    "Contract": "800",
    "WorkOrder": "0WO",
    "User": "005",
    "Organization": "00D",
    "Group": "00G",
    "RecordType": "012",
    "Profile": "00e",
    "PermissionSet": "0PS",
    "PermissionSetAssignment": "0Pa",
    "FieldPermissions": "01k",
    "DuplicateRule": "0Bm",
    "AssignmentRule": "01Q",
    "FlowDefinitionView": "300",
    "UserPermissionAccess": "",  # its records are computed and have no prefix
}

# What the signed-in user may do, as `UserPermissionAccess` shows it: the name of a user's permission in a schema file,
# or None for what the twin lets everybody do.
USER_PERMISSIONS: Final = {
    "PermissionsApiEnabled": None,
    "PermissionsAuthorApex": None,
    "PermissionsBulkApiHardDelete": "bulk_hard_delete",
    "PermissionsCustomizeApplication": None,
    "PermissionsManageDataIntegrations": "manage_data_integrations",
    "PermissionsModifyAllData": None,
    "PermissionsModifyMetadata": None,
    "PermissionsViewSetup": None,
}


# Writable objects whose records take no data storage.
SETUP_OBJECTS: Final = frozenset({"PermissionSet", "PermissionSetAssignment", "FieldPermissions"})


def _system(name: str, label: str, kind: str, **attributes: object) -> FieldSchema:
    base: dict[str, object] = {"nillable": False, "createable": False, "updateable": False}
    return FieldSchema(name=name, label=label, type=kind, **{**base, **attributes})  # type: ignore[arg-type]  # plain forwarding of keyword arguments


ID_FIELD: Final = _system("Id", "Record ID", "id", length=18, defaulted_on_create=True, id_lookup=True)
OWNER_FIELD: Final = FieldSchema(
    name="OwnerId",
    label="Owner ID",
    type="reference",
    length=18,
    nillable=False,
    defaulted_on_create=True,
    reference_to=("User",),
    relationship_name="Owner",
)
AUDIT_FIELDS: Final = (
    _system("IsDeleted", "Deleted", "boolean", defaulted_on_create=True, default_value=False),
    _system("CreatedDate", "Created Date", "datetime", defaulted_on_create=True),
    _system(
        "CreatedById",
        "Created By ID",
        "reference",
        length=18,
        defaulted_on_create=True,
        reference_to=("User",),
        relationship_name="CreatedBy",
    ),
    _system("LastModifiedDate", "Last Modified Date", "datetime", defaulted_on_create=True),
    _system(
        "LastModifiedById",
        "Last Modified By ID",
        "reference",
        length=18,
        defaulted_on_create=True,
        reference_to=("User",),
        relationship_name="LastModifiedBy",
    ),
    _system("SystemModstamp", "System Modstamp", "datetime", defaulted_on_create=True),
)
RECORD_TYPE_FIELD: Final = FieldSchema(
    name="RecordTypeId",
    label="Record Type ID",
    type="reference",
    length=18,
    defaulted_on_create=True,
    reference_to=("RecordType",),
    relationship_name="RecordType",
)


def name_field(label: str) -> FieldSchema:
    """The Name of an object that declares none: text of 80, and the record's Id if an insert gives none."""
    return FieldSchema(
        name="Name",
        label=f"{label} Name",
        type="string",
        length=80,
        defaulted_on_create=True,
        id_lookup=True,
        name_field=True,
        extra_type_info=None,
    )


def with_system_fields(
    *,
    name: str,
    label: str,
    declared: tuple[FieldSchema, ...],
    record_types: tuple[RecordTypeSchema, ...],
) -> tuple[FieldSchema, ...]:
    """The object's fields in describe order: Id, OwnerId, Name, audit fields, then the declared ones.

    A declared field of the same name stands in place of the standard one, except for the Id and the audit fields. A
    detail object has no owner of its own: it belongs to whoever owns its master.
    """
    own = {field.name.lower(): field for field in declared}
    fields = [ID_FIELD]
    is_detail = any(field.relationship_order == 0 for field in declared)
    if "ownerid" in own:
        fields.append(own["ownerid"])
    elif not is_detail:
        fields.append(OWNER_FIELD)
    fields.append(own.get("name", name_field(label)))
    fields.extend(AUDIT_FIELDS)
    if record_types or "recordtypeid" in own:
        fields.append(own.get("recordtypeid", RECORD_TYPE_FIELD))
    present = {field.name.lower() for field in fields}
    fields.extend(field for field in declared if field.name.lower() not in present)
    return tuple(fields)


def _text(name: str, label: str, length: int, *, kind: str = "string", **attributes: object) -> FieldSchema:
    return _system(name, label, kind, length=length, **{"nillable": True, **attributes})


def with_standard_objects(schema: Schema) -> Schema:
    """The schema with the standard objects that it lacks: a file that an earlier twin made has fewer."""
    for entry in STANDARD_OBJECTS:
        if schema.object(entry.name) is None:
            schema = schema.with_object(entry)
    return schema


def _read_only(name: str, label: str, fields: tuple[FieldSchema, ...]) -> ObjectSchema:
    return ObjectSchema(
        name=name,
        label=label,
        label_plural=f"{label}s",
        key_prefix=KEY_PREFIXES[name],
        custom=False,
        createable=False,
        updateable=False,
        deletable=False,
        bulk_capable=False,
        fields=(ID_FIELD, *fields, *AUDIT_FIELDS),
    )


def _link(name: str, label: str, target: str, **attributes: object) -> FieldSchema:
    return _system(
        name, label, "reference", length=18, reference_to=(target,), relationship_name=name[:-2],
        **{"nillable": True, **attributes},
    )  # fmt: skip


_REQUIRED: Final[dict[str, Any]] = {"nillable": False, "createable": True}
_FLAG: Final = {"nillable": False, "defaulted_on_create": True, "default_value": False}

STANDARD_OBJECTS: Final = (
    _read_only(
        "User",
        "User",
        (
            _text("Username", "Username", 80, nillable=False, id_lookup=True, unique=True),
            _text("Name", "Full Name", 121, name_field=True, nillable=False),
            _text("Email", "Email", 128, kind="email", nillable=False, id_lookup=True),
            _system("IsActive", "Active", "boolean", **_FLAG),
            _text("UserType", "User Type", 40, kind="picklist"),
        ),
    ),
    _read_only(
        "Group",
        "Group",
        (
            _text("Name", "Name", 40, name_field=True, nillable=False),
            _text("DeveloperName", "Developer Name", 80),
            _text("Type", "Type", 40, kind="picklist", nillable=False),
        ),
    ),
    _read_only(
        "Organization",
        "Organization",
        (
            _text("Name", "Name", 80, name_field=True, nillable=False),
            _text("OrganizationType", "Edition", 40, kind="picklist"),
            _system("IsSandbox", "Is Sandbox", "boolean", **_FLAG),
            _system("IsReadOnly", "Is Read Only", "boolean", **_FLAG),
            _text("InstanceName", "Instance Name", 5),
            _system("TrialExpirationDate", "Trial Expiration Date", "datetime", nillable=True),
            _text("NamespacePrefix", "Namespace Prefix", 15),
        ),
    ),
    _read_only(
        "RecordType",
        "Record Type",
        (
            _text("Name", "Name", 80, name_field=True, nillable=False, id_lookup=True),
            _text("DeveloperName", "Record Type Name", 80, nillable=False),
            _text("SobjectType", "SObject Type Name", 40, kind="picklist", nillable=False),
            _text("NamespacePrefix", "Namespace Prefix", 15),
            _text("Description", "Description", 255),
            _system("IsActive", "Active", "boolean", **_FLAG),
        ),
    ),
    _read_only(
        "Profile",
        "Profile",
        (
            _text("Name", "Name", 255, name_field=True, nillable=False, id_lookup=True),
            _text("UserType", "User Type", 40, kind="picklist"),
        ),
    ),
    replace(
        _read_only(
            "PermissionSet",
            "Permission Set",
            (
                _text("Name", "Permission Set Name", 80, name_field=True, id_lookup=True, unique=True, **_REQUIRED),
                _text("Label", "Permission Set Label", 80, **_REQUIRED),
                _text("Description", "Description", 255, createable=True, updateable=True),
                _link("ProfileId", "Profile ID", "Profile"),
                _system("IsOwnedByProfile", "Is Owned By Profile", "boolean", **_FLAG),
                _text("NamespacePrefix", "Namespace Prefix", 15),
            ),
        ),
        createable=True,
        updateable=True,
        deletable=True,
    ),
    replace(
        _read_only(
            "PermissionSetAssignment",
            "Permission Set Assignment",
            (
                _link("AssigneeId", "Assignee ID", "User", **_REQUIRED),
                _link("PermissionSetId", "Permission Set ID", "PermissionSet", **_REQUIRED),
            ),
        ),
        createable=True,
        deletable=True,
    ),
    replace(
        _read_only(
            "FieldPermissions",
            "Field Permissions",
            (
                _link("ParentId", "Parent ID", "PermissionSet", **_REQUIRED),
                _text("SobjectType", "SObject Type Name", 40, kind="picklist", **_REQUIRED),
                _text("Field", "Field Name", 255, **_REQUIRED),
                _system("PermissionsRead", "Read Access", "boolean", createable=True, **_FLAG),
                _system("PermissionsEdit", "Edit Access", "boolean", createable=True, **_FLAG),
            ),
        ),
        createable=True,
    ),
    _read_only(
        "AssignmentRule",
        "Assignment Rule",
        (
            _text("Name", "Name", 120, name_field=True, id_lookup=True),
            _text("SobjectType", "SObject Type", 40, kind="picklist"),
            _system("Active", "Active", "boolean", **_FLAG),
        ),
    ),
    _read_only(
        "DuplicateRule",
        "Duplicate Rule",
        (
            _text("DeveloperName", "Object Name", 80, nillable=False),
            _text("MasterLabel", "Rule Name", 255, nillable=False),
            _text("SobjectType", "Object", 40, kind="picklist", nillable=False),
            _system("IsActive", "Active", "boolean", **_FLAG),
            _text("NamespacePrefix", "Namespace Prefix", 15),
        ),
    ),
    _read_only(
        "FlowDefinitionView",
        "Flow Definition",
        (
            _text("DurableId", "Durable ID", 40, nillable=False),
            _text("ApiName", "API Name", 255, nillable=False),
            _text("Label", "Label", 255),
            _text("ProcessType", "Process Type", 40, kind="picklist"),
            _text("TriggerType", "Trigger", 40, kind="picklist"),
            _text("RecordTriggerType", "Record Trigger", 40, kind="picklist"),
            _text("TriggerObjectOrEventLabel", "Trigger Object or Event Label", 255),
            _text("TriggerObjectOrEventId", "Trigger Object or Event ID", 255),
            _system("IsActive", "Active", "boolean", **_FLAG),
            _text("ActiveVersionId", "Active Version ID", 40),
            _text("LatestVersionId", "Latest Version ID", 40),
            _system("VersionNumber", "Version Number", "int", nillable=True, digits=9),
            _text("NamespacePrefix", "Namespace Prefix", 15),
        ),
    ),
    _read_only(
        "UserPermissionAccess",
        "User Permission Access",
        tuple(
            _system(name, name.removeprefix("Permissions"), "boolean", createable=False, **_FLAG)
            for name in USER_PERMISSIONS
        ),
    ),
)
