"""The Metadata adapter against a served twin: sessions that end in the middle, what is missing, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from tests.integration.prepare_fixtures import AUTOMATIONS, OBJECTS, SANDBOX
from tests.integration.twin_http_fixtures import Client

from forcelift.errors import OrgRefused, SignInFailed
from forcelift.protocols.clock import SystemClock
from forcelift.protocols.setup import AutomationKind, ItemName
from forcelift.salesforce import AuthSettings, SalesforceOrg, connect, metadata
from forcelift.salesforce.setup import SalesforceSetup
from forcelift.salesforce.tooling import Entities
from forcelift.twin.auth import ConnectedApp
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

USER = "etl@example.com"
TRIGGER = ItemName(AutomationKind.TRIGGER, "SaleTrigger")


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    document = {"org": SANDBOX, "users": [{"username": USER}], "objects": OBJECTS, "automations": AUTOMATIONS}
    app = ConnectedApp(client_id="loader", client_secret=SecretStr("hush"), run_as=USER, users=(USER,))
    with TwinOrg.open(schema=schema_from_dict(document)) as twin, TwinServer(twin, apps=[app]) as started:
        yield started
        assert started.internal_errors == []


def end_sessions(server: TwinServer) -> None:
    with Client(server) as client:
        answer = client.delete("/__twin__/sessions", headers=client.control_headers)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def org(server: TwinServer) -> Iterator[SalesforceOrg]:
    auth = AuthSettings(flow="client_credentials", client_id="loader", client_secret="hush")
    made = connect(server.url, auth=auth)
    yield made
    made.close()


def test_a_session_that_ended_is_renewed_in_soap_calls(server: TwinServer, org: SalesforceOrg) -> None:
    end_sessions(server)
    (found,) = metadata.retrieve(org, {"ApexTrigger": ["SaleTrigger"]}, clock=SystemClock())
    assert found.full_name == "SaleTrigger"
    assert set(found.files) == {"triggers/SaleTrigger.trigger", "triggers/SaleTrigger.trigger-meta.xml"}
    assert "ยอดขาย" in found.files["triggers/SaleTrigger.trigger"].decode()
    end_sessions(server)
    setup = SalesforceSetup(org, clock=SystemClock())
    (state,) = setup.read([(TRIGGER, "01q000000000001AAA")]).values()
    end_sessions(server)
    setup.write([setup.switched_off(state)], run_tests=())
    assert not setup.read([(TRIGGER, "01q000000000001AAA")])[TRIGGER].is_active
    setup.write([state], run_tests=())
    assert setup.read([(TRIGGER, "01q000000000001AAA")])[TRIGGER] == state


def test_a_token_that_cannot_be_renewed_says_so(server: TwinServer) -> None:
    with TwinServer(server.org) as other:
        made = connect(other.url, auth=AuthSettings(flow="token", access_token=other.access_token))
        with Client(other) as client:
            client.delete("/__twin__/sessions", headers=client.control_headers)
        with pytest.raises(SignInFailed):
            metadata.retrieve(made, {"ApexTrigger": ["SaleTrigger"]}, clock=SystemClock())
        made.close()


def test_what_the_org_does_not_have_is_left_out(org: SalesforceOrg) -> None:
    found = metadata.retrieve(org, {"ApexTrigger": ["NoSuch"], "DuplicateRule": ["Sale__c.Twice"]}, clock=SystemClock())
    assert [(one.type, one.full_name) for one in found] == [("DuplicateRule", "Sale__c.Twice")]


def test_a_deploy_that_fails_names_component_and_problem(org: SalesforceOrg) -> None:
    broken = metadata.Component(type="DuplicateRule", full_name="Sale__c.Nothing", files={})
    with pytest.raises(OrgRefused, match=r"Sale__c\.Nothing") as caught:
        metadata.deploy(org, [broken], options={}, clock=SystemClock())
    assert caught.value.code == "DEPLOY_FAILED"
    assert "nothing" in str(caught.value.state)


def test_an_object_is_found_by_name_and_by_both_forms_of_its_id(org: SalesforceOrg) -> None:
    entities = Entities(org, ["Sale__c", "Other__c"])
    (row,) = org.read(
        "/tooling/query?q=SELECT+Id,DurableId+FROM+EntityDefinition+WHERE+QualifiedApiName='Sale__c'", what="ask"
    )["records"]
    assert entities.of("sale__C") == "Sale__c"
    assert entities.of(row["Id"]) == entities.of(row["DurableId"]) == "Sale__c"
    # Names that begin alike, and are as long as an Id at that place, are no Ids.
    assert entities.of("OpportunityLineItemSchedule") is None
    assert entities.of(None) is None
