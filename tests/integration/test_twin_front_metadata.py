"""The Metadata API of the twin: retrieve, deploy over REST and SOAP, tests in production, what is refused."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.twin_front_fixtures import (
    DEPLOY,
    METADATA_NS,
    PRODUCTION,
    SANDBOX,
    TOOLING,
    deployed,
    document,
    error_of,
    make_zip,
    one,
    package,
    rest_deploy,
    retrieved,
    soap,
    tag,
    tooling,
    trigger_zip,
    wait_deploy,
)
from tests.integration.twin_http_fixtures import BASE, Client

from forcelift.twin.org import Pace, TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

ALL = "".join(
    f"<types><members>*</members><name>{name}</name></types>"
    for name in ("ApexTrigger", "DuplicateRule", "ValidationRule", "WorkflowRule", "FlowDefinition", "CustomField")
)


def serve(facts: dict[str, Any], *, pace: Pace | None = None, **automations: Any) -> Iterator[Client]:
    with TwinOrg.open(schema=schema_from_dict(document(facts, **automations)), pace=pace) as org:
        with TwinServer(org) as server, Client(server) as made:
            yield made
        assert server.internal_errors == []


@pytest.fixture
def client() -> Iterator[Client]:
    yield from serve(SANDBOX)


@pytest.fixture
def production() -> Iterator[Client]:
    yield from serve(PRODUCTION)


@pytest.fixture(scope="module")
def reader() -> Iterator[Client]:
    yield from serve(SANDBOX)


def trigger_is_active(client: Client) -> bool:
    return bool(client.server.org.automations.active_on("Sale__c").triggers)


def test_a_retrieve_gives_the_files_of_what_is_listed(reader: Client) -> None:
    files = retrieved(reader, ALL)
    assert set(files) == {
        "package.xml",
        "triggers/SaleTrigger.trigger",
        "triggers/SaleTrigger.trigger-meta.xml",
        "duplicateRules/Sale__c.Twice.duplicateRule",
        "flowDefinitions/Sale_Flow.flowDefinition",
        "objects/Sale__c.object",
        "objects/Tenant__c.object",
        "workflows/Sale__c.workflow",
    }
    assert "<status>Active</status>" in files["triggers/SaleTrigger.trigger-meta.xml"]
    assert files["triggers/SaleTrigger.trigger"].startswith(
        "trigger SaleTrigger on Sale__c (before insert, after update)"
    )
    assert "<isActive>true</isActive>" in files["duplicateRules/Sale__c.Twice.duplicateRule"]
    assert "<activeVersionNumber>2</activeVersionNumber>" in files["flowDefinitions/Sale_Flow.flowDefinition"]
    sale = files["objects/Sale__c.object"]
    assert "<errorMessage>Not zero &amp; not &lt;less&gt;</errorMessage>" in sale
    assert "<fullName>Sale_Id__c</fullName>" in sale
    assert "<members>Sale__c.No_Zero</members>" in files["package.xml"]


def test_what_a_retrieve_cannot_find_is_told_beside_the_rest(reader: Client) -> None:
    types = "<types><members>Nope</members><members>saletrigger</members><name>ApexTrigger</name></types>"
    types += "<types><members>*</members><name>Layout</name></types>"
    request = f"<retrieveRequest><unpackaged>{types}</unpackaged></retrieveRequest>"
    started = soap(reader, f"<retrieve>{request}</retrieve>")
    found = soap(
        reader, f"<checkRetrieveStatus><asyncProcessId>{tag(started.text, 'id')}</asyncProcessId></checkRetrieveStatus>"
    )
    assert "named 'Nope' cannot be found" in found.text
    assert "'Layout' is unknown" in found.text
    assert "<fullName>SaleTrigger</fullName>" in found.text


def test_a_retrieved_archive_deploys_as_it_is_and_changes_nothing(client: Client) -> None:
    before = client.server.org.automations.current()
    files = retrieved(client, ALL.replace("<members>*</members><name>ValidationRule",
                                          "<members>Sale__c.No_Zero</members><name>ValidationRule"))  # fmt: skip
    result = deployed(client, make_zip(**files))
    assert result["status"] == "Succeeded", result
    assert [entry for entry in result["details"]["componentSuccesses"] if entry["changed"]] == []
    now = client.server.org.automations.current()
    assert now.validation_rules == before.validation_rules
    assert now.flows == before.flows
    assert now.duplicate_rules == before.duplicate_rules
    assert [entry.active for entry in now.triggers] == [True]


def test_a_trigger_is_switched_off_and_restored_by_deploys(client: Client) -> None:
    original = retrieved(client, "<types><members>SaleTrigger</members><name>ApexTrigger</name></types>")
    off = deployed(client, trigger_zip("Inactive"))
    assert (off["status"], off["success"], off["done"]) == ("Succeeded", True, True)
    assert (off["numberComponentsTotal"], off["numberComponentsDeployed"], off["numberComponentErrors"]) == (1, 1, 0)
    (success,) = off["details"]["componentSuccesses"]
    assert (success["fullName"], success["componentType"], success["changed"]) == ("SaleTrigger", "ApexTrigger", True)
    assert one(client, "SELECT Status FROM ApexTrigger")["Status"] == "Inactive"
    assert not trigger_is_active(client)
    assert deployed(client, make_zip(**original))["status"] == "Succeeded"
    assert trigger_is_active(client)
    assert deployed(client, trigger_zip("Deleted"))["details"]["componentSuccesses"][0]["deleted"] is True
    assert client.server.org.automations.current().triggers == ()


def test_a_duplicate_rule_is_switched_by_a_deploy_only(client: Client) -> None:
    name = "duplicateRules/Sale__c.Twice.duplicateRule"
    files = retrieved(client, "<types><members>Sale__c.Twice</members><name>DuplicateRule</name></types>")
    off = {**files, name: files[name].replace("<isActive>true", "<isActive>false")}
    assert deployed(client, make_zip(**off))["status"] == "Succeeded"
    assert client.query("SELECT IsActive FROM DuplicateRule")["records"][0]["IsActive"] is False
    assert client.server.org.automations.active_on("Sale__c").duplicate_rules == ()
    rule = client.query("SELECT Id FROM DuplicateRule")["records"][0]["Id"]
    refused = client.patch(f"{BASE}/sobjects/DuplicateRule/{rule}", json={"IsActive": True})
    assert refused.status_code == 400
    assert deployed(client, make_zip(**files))["status"] == "Succeeded"
    assert client.server.org.automations.active_on("Sale__c").duplicate_rules[0].action == "block"


def test_rules_and_fields_are_deployed_inside_their_objects_file(client: Client) -> None:
    rule = (
        "<validationRules><fullName>Fresh</fullName><active>true</active><errorConditionFormula>Count__c &gt; 9"
        "</errorConditionFormula><errorMessage>too many</errorMessage></validationRules>"
    )
    field = (
        "<fields><fullName>Legacy__c</fullName><type>Text</type><label>Legacy</label><length>20</length>"
        "<externalId>true</externalId><unique>true</unique><caseSensitive>false</caseSensitive></fields>"
    )
    files = {
        "package.xml": package(CustomField=["Sale__c.Legacy__c"], ValidationRule=["Sale__c.Fresh"]),
        "objects/Sale__c.object": f'<CustomObject xmlns="{METADATA_NS}">{field}{rule}</CustomObject>',
    }
    checked = deployed(client, make_zip(**files), checkOnly=True)
    assert (checked["status"], checked["checkOnly"]) == ("Succeeded", True)
    assert client.server.org.automations.find("validation_rules", "Sale__c.Fresh") is None
    result = deployed(client, make_zip(**files))
    assert result["status"] == "Succeeded", result
    assert all(entry["created"] and entry["id"] for entry in result["details"]["componentSuccesses"])
    made = client.server.org.automations.find("validation_rules", "Sale__c.Fresh")
    assert made is not None
    assert made.active
    rules = "SELECT ValidationName FROM ValidationRule WHERE EntityDefinition.QualifiedApiName = 'Sale__c'"
    assert len(tooling(client, rules)) == 3
    sale = client.server.org.schema.object("Sale__c")
    assert sale is not None
    assert sale.hidden_field("Legacy__c") is not None, "deployed fields need field-level security as well"
    again = deployed(client, make_zip(**files))
    assert [entry["changed"] for entry in again["details"]["componentSuccesses"]] == [False, False]


BAD_RULE = {
    "package.xml": package(ApexTrigger=["SaleTrigger"], ValidationRule=["Sale__c.No_Zero"]),
    "objects/Sale__c.object": f'<CustomObject xmlns="{METADATA_NS}"><validationRules><fullName>No_Zero</fullName>'
    "<active>false</active></validationRules></CustomObject>",
}


def mixed() -> bytes:
    """A trigger that can be deployed beside a rule that lacks required members."""
    return trigger_zip("Inactive", **BAD_RULE)


def test_one_bad_component_rolls_everything_back(client: Client) -> None:
    result = deployed(client, mixed(), rollbackOnError=True)
    assert (result["status"], result["success"]) == ("Failed", False)
    (failure,) = result["details"]["componentFailures"]
    assert failure["fullName"] == "Sale__c.No_Zero"
    assert failure["componentType"] == "ValidationRule"
    assert failure["problemType"] == "Error"
    assert "errorConditionFormula" in failure["problem"]
    assert failure["fileName"] == "objects/Sale__c.object"
    assert trigger_is_active(client)


@pytest.mark.parametrize("formula", ["Amount__c =", "Nope__c = 1", "VLOOKUP(Amount__c)", "Amount__c + 1"])
def test_a_deploy_with_a_formula_that_cannot_be_computed_fails(client: Client, formula: str) -> None:
    rule = (
        f"<validationRules><fullName>Broken</fullName><active>true</active><errorConditionFormula>{formula}"
        "</errorConditionFormula><errorMessage>no</errorMessage></validationRules>"
    )
    files = {
        "package.xml": package(ValidationRule=["Sale__c.Broken"]),
        "objects/Sale__c.object": f'<CustomObject xmlns="{METADATA_NS}">{rule}</CustomObject>',
    }
    result = deployed(client, make_zip(**files))
    assert result["status"] == "Failed"
    (failure,) = result["details"]["componentFailures"]
    assert (failure["componentType"], failure["problemType"]) == ("ValidationRule", "Error")
    assert "formula" in failure["problem"]
    assert client.server.org.automations.find("validation_rules", "Sale__c.Broken") is None


def test_without_rollback_the_good_components_stay(client: Client) -> None:
    result = deployed(client, mixed(), rollbackOnError=False)
    assert (result["status"], result["numberComponentErrors"]) == ("SucceededPartial", 1)
    assert not trigger_is_active(client)
    rules = client.server.org.automations.active_on("Sale__c").validation_rules
    assert "No_Zero" in [rule.name for rule in rules]


def test_production_demands_rollback_and_tests(production: Client) -> None:
    content = trigger_zip("Inactive")
    assert error_of(rest_deploy(production, content, rollbackOnError=False)) == (400, "INVALID_OPERATION")
    assert error_of(rest_deploy(production, content, purgeOnDelete=True)) == (400, "INVALID_OPERATION")
    result = deployed(production, content, testLevel="NoTestRun")
    assert (result["status"], result["success"]) == ("Failed", False)
    assert "NoTestRun cannot be used in production" in result["errorMessage"]
    assert trigger_is_active(production)


def test_a_rule_without_apex_needs_no_tests_in_production(production: Client) -> None:
    types = "<types><members>Sale__c.No_Zero</members><name>ValidationRule</name></types>"
    files = retrieved(production, types)
    sale = files["objects/Sale__c.object"].replace("<active>true", "<active>false")
    result = deployed(production, make_zip(**{**files, "objects/Sale__c.object": sale}))
    assert (result["status"], result["numberTestsTotal"]) == ("Succeeded", 0)


def test_tests_that_need_the_trigger_fail_because_it_is_off(production: Client) -> None:
    result = deployed(production, trigger_zip("Inactive"))
    assert (result["status"], result["numberTestErrors"], result["numberTestsTotal"]) == ("Failed", 2, 2)
    run = result["details"]["runTestResult"]
    assert {entry["name"] for entry in run["failures"]} == {"SaleTest", "OtherTest"}
    assert trigger_is_active(production)
    named = deployed(production, trigger_zip("Inactive"), testLevel="RunSpecifiedTests", runTests=["Nope"])
    assert named["status"] == "Failed"
    assert "Nope" in named["details"]["runTestResult"]["failures"][0]["message"]


@pytest.mark.parametrize(("coverage", "status"), [(75, "Succeeded"), (74, "Failed")])
def test_production_demands_three_quarters_coverage(coverage: int, status: str) -> None:
    tests = {"classes": ["SaleTest"], "coverage": coverage}
    for client in serve(PRODUCTION, apex_tests=tests):
        result = deployed(client, trigger_zip("Inactive"))
        assert result["status"] == status
        assert trigger_is_active(client) is (status == "Failed")
        warnings = result["details"]["runTestResult"]["codeCoverageWarnings"]
        assert len(warnings) == (status == "Failed")
    for client in serve(SANDBOX, apex_tests=tests):
        assert deployed(client, trigger_zip("Inactive"), testLevel="RunLocalTests")["status"] == "Succeeded"


def test_a_flow_lands_inactive_in_production_and_its_definition_overrides_its_status(production: Client) -> None:
    files = retrieved(production, "<types><members>Sale_Flow</members><name>Flow</name></types>")
    assert "<status>Active</status>" in files["flows/Sale_Flow.flow"]
    assert deployed(production, make_zip(**files))["status"] == "Succeeded"
    assert production.server.org.automations.active_on("Sale__c").flows == ()
    definition = f'<FlowDefinition xmlns="{METADATA_NS}"><activeVersionNumber>1</activeVersionNumber></FlowDefinition>'
    both = {
        **files,
        "package.xml": package(FlowDefinition=["Sale_Flow"], Flow=["Sale_Flow"]),
        "flowDefinitions/Sale_Flow.flowDefinition": definition,
    }
    assert deployed(production, make_zip(**both))["status"] == "Succeeded"
    assert production.server.org.automations.active_on("Sale__c").flows[0].active_version == 1


def test_destructive_changes_remove_what_is_there_and_warn_of_the_rest(client: Client) -> None:
    files = {
        "package.xml": package(),
        "destructiveChanges.xml": package(ValidationRule=["Sale__c.No_Zero", "Sale__c.Nope"]),
    }
    refused = deployed(client, make_zip(**files))
    assert refused["status"] == "Failed", "a warning counts unless ignoreWarnings is given"
    result = deployed(client, make_zip(**files), ignoreWarnings=True)
    assert result["status"] == "Succeeded"
    assert client.server.org.automations.find("validation_rules", "Sale__c.No_Zero") is None


def bomb() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package.xml", package())
        for number in range(9):
            archive.writestr(f"{number}", bytes(200_000))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 rest", "cannot be read"),
        (make_zip(**{"a.txt": "x"}), "No package.xml"),
        (make_zip(**{"package.xml": "<Package>"}), "package.xml"),
        (make_zip(**{"package.xml": '<!DOCTYPE a [<!ENTITY b "c">]><Package>&b;</Package>'}), "cannot be read"),
        (make_zip(**{"package.xml": package(), "../out": "x"}), "leads out"),
        (make_zip(**{"package.xml": package(Layout=["L"])}), "Unknown type name 'Layout'"),
        (make_zip(**{"package.xml": package(ApexTrigger=["SaleTrigger"])}), "was not found in zipped directory"),
        (trigger_zip("Sleeping"), "status"),
        (make_zip(**{"package.xml": package(ApexTrigger=["New"]), "triggers/New.trigger": "x",
                     "triggers/New.trigger-meta.xml": "<ApexTrigger/>"}), "declare it"),
    ],
)  # fmt: skip
def test_what_cannot_be_deployed_fails_with_a_reason(reader: Client, content: bytes, problem: str) -> None:
    result = deployed(reader, content)
    assert result["status"] == "Failed"
    assert problem in "".join(entry["problem"] for entry in result["details"]["componentFailures"])


def test_a_zip_bomb_is_stopped_at_the_limit(reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.twin.metadata_zip.UNZIPPED_BYTES_MAX", 1_000_000)
    result = deployed(reader, bomb())
    assert result["status"] == "Failed"
    assert "maximum size" in result["details"]["componentFailures"][0]["problem"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"testLevel": "Some"}, "INVALID_FIELD"),
        ({"checkOnly": "perhaps"}, "INVALID_FIELD"),
        ({"runTests": 1}, "INVALID_FIELD"),
    ],
)
def test_wrong_options_are_refused(reader: Client, options: dict[str, Any], code: str) -> None:
    assert error_of(rest_deploy(reader, trigger_zip("Active"), **options)) == (400, code)


def test_a_deploy_that_waits_can_be_cancelled() -> None:
    for client in serve(SANDBOX, pace=Pace(start_delay_s=600)):
        started = rest_deploy(client, trigger_zip("Inactive")).json()
        assert started["deployResult"]["status"] == "Pending"
        assert started["deployOptions"]["singlePackage"] is True
        url = f"{DEPLOY}/{started['id']}"
        cancelled = client.patch(url, json={"deployResult": {"status": "Canceling"}})
        assert cancelled.status_code == 202
        assert wait_deploy(client, started["id"])["status"] == "Canceled"
        assert trigger_is_active(client)
        assert client.patch(url, json={"deployResult": {"status": "Canceling"}}).status_code == 400
        assert error_of(client.get(f"{DEPLOY}/0Af000000000000AAA")) == (404, "NOT_FOUND")
        another = rest_deploy(client, trigger_zip("Inactive")).json()["id"]
        soap(client, f"<cancelDeploy><String>{another}</String></cancelDeploy>")
        assert wait_deploy(client, another)["status"] == "Canceled"


def test_deploy_over_soap_takes_the_rest_token_as_its_session(client: Client) -> None:
    content = base64.b64encode(trigger_zip("Inactive")).decode()
    options = (
        "<rollbackOnError>true</rollbackOnError><singlePackage>true</singlePackage><testLevel>NoTestRun</testLevel>"
    )
    started = soap(client, f"<deploy><ZipFile>{content}</ZipFile><DeployOptions>{options}</DeployOptions></deploy>")
    assert started.status_code == 200, started.text
    deploy_id = tag(started.text, "id")
    assert wait_deploy(client, deploy_id)["status"] == "Succeeded"
    status = soap(
        client,
        f"<checkDeployStatus><asyncProcessId>{deploy_id}</asyncProcessId><includeDetails>true</includeDetails>"
        "</checkDeployStatus>",
    )
    assert (tag(status.text, "status"), tag(status.text, "done")) == ("Succeeded", "true")
    assert "<componentSuccesses>" in status.text
    assert not trigger_is_active(client)


@pytest.mark.parametrize("token", ["", "00Dxx!nothing"])
def test_soap_without_a_living_session_is_a_fault(reader: Client, token: str) -> None:
    answer = soap(reader, "<describeMetadata><asOfVersion>66.0</asOfVersion></describeMetadata>", token=token)
    assert answer.status_code == 500
    assert tag(answer.text, "faultcode") == "sf:INVALID_SESSION_ID"
    text = "INVALID_SESSION_ID: Invalid Session ID found in SessionHeader: Illegal Session"
    assert tag(answer.text, "faultstring") == text


def test_listing_and_description(reader: Client) -> None:
    query = "<queries><type>ApexTrigger</type></queries><queries><type>DuplicateRule</type></queries>"
    listed = soap(reader, f"<listMetadata>{query}</listMetadata>").text
    assert "<fullName>SaleTrigger</fullName>" in listed
    assert "<fileName>duplicateRules/Sale__c.Twice.duplicateRule</fileName>" in listed
    described = soap(reader, "<describeMetadata/>").text
    assert "<xmlName>FlowDefinition</xmlName>" in described
    assert tag(described, "testRequired") == "false"
    unknown = soap(reader, "<listMetadata><queries><type>Nope</type></queries></listMetadata>")
    assert tag(unknown.text, "exceptionCode") == "INVALID_TYPE"
    missing = soap(reader, "<renameMetadata/>")
    assert tag(missing.text, "faultcode") == "soapenv:Client"
    old = soap(reader, "<describeMetadata/>", version="30.0")
    assert tag(old.text, "exceptionCode") == "UNSUPPORTED_API_VERSION"


INNER = st.sampled_from(
    ["<deploy>{}</deploy>", "<deploy><ZipFile>{}</ZipFile></deploy>", "<checkDeployStatus>{}</checkDeployStatus>",
     "<checkDeployStatus><asyncProcessId>{}</asyncProcessId></checkDeployStatus>", "<retrieve>{}</retrieve>",
     "<retrieve><retrieveRequest><unpackaged><types><members>{}</members><name>CustomField</name></types></unpackaged>"
     "</retrieveRequest></retrieve>", "<listMetadata><queries><type>{}</type></queries></listMetadata>", "{}",
     "<deploy><ZipFile/><DeployOptions><testLevel>{}</testLevel></DeployOptions></deploy>"]
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inner=INNER, text=st.text(max_size=40), content=st.binary(max_size=200), flip=st.integers(0, 400))
def test_random_bytes_never_are_a_fault_of_the_twin(
    reader: Client, inner: str, text: str, content: bytes, flip: int
) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    good = bytearray(trigger_zip("Active"))
    good[flip % len(good)] ^= 0xFF
    answers = [
        soap(reader, inner.format(escaped)),
        soap(reader, inner.format(text)),
        reader.post("/services/Soap/m/66.0", content=content, headers={"Content-Type": "text/xml"}),
        reader.post(DEPLOY, content=content, headers=headers),
        rest_deploy(reader, content),
        rest_deploy(reader, bytes(good)),
    ]
    for answer in answers:
        assert answer.status_code < 500 or "faultcode" in answer.text, answer.text
        assert "UNKNOWN_EXCEPTION" not in answer.text
        if answer.status_code == 201:
            result = wait_deploy(reader, answer.json()["id"])
            assert result["errorMessage"] is None, result
    assert reader.server.internal_errors == []


def test_the_roots_lead_to_the_metadata_calls(reader: Client) -> None:
    root = reader.get(BASE).json()
    assert reader.get(root["metadata"]).json() == {"deployRequest": DEPLOY}
    assert error_of(reader.post(DEPLOY, json={})) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert reader.get(f"{TOOLING}/sobjects").status_code == 200
