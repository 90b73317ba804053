"""The whole org protocol against a twin over HTTP: two products that share no code agree on Salesforce's API."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from forcelift.errors import OrgNotFound, OrgRefused, SignInFailed, TargetError
from forcelift.protocols.org import IngestJob, JobRequest, JobState, ResultKind
from forcelift.salesforce import AuthSettings, SalesforceOrg, connect
from forcelift.salesforce.results import split_error_expr
from forcelift.twin.auth import ConnectedApp
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

SCHEMA = {
    "org": {"name": "Adapter test", "sandbox": False},
    "users": [{"username": "etl@kpc.example"}],
    "objects": {
        "Tenant__c": {
            "fields": {"Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True}},
        },
        "Sale__c": {
            "fields": {
                "Sale_Id__c": {"type": "string", "length": 30, "externalId": True, "unique": True},
                "Number__c": {"type": "double", "precision": 18, "scale": 0, "externalId": True},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Must__c": {"type": "string", "length": 5, "required": True},
                "Tenant__c": {
                    "type": "reference",
                    "referenceTo": "Tenant__c",
                    "relationshipName": "Tenant__r",
                    "childRelationshipName": "Sales__r",
                },
            }
        },
    },
}
USER = "etl@kpc.example"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
PRIVATE_PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
APP = ConnectedApp(
    client_id="loader", client_secret=SecretStr("hush"), certificate=PUBLIC_PEM.decode(), run_as=USER, users=(USER,)
)
TENANTS = JobRequest(object="Tenant__c", operation="upsert", external_id_field="Code__c")
SALES = JobRequest(object="Sale__c", operation="upsert", external_id_field="Sale_Id__c")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinServer]:
    file: Path = tmp_path_factory.mktemp("twin") / "org.duckdb"
    with TwinOrg.open(file, schema=schema_from_dict(SCHEMA)) as twin, TwinServer(twin, apps=[APP]) as started:
        yield started
        assert started.internal_errors == []


def sign_in(server: TwinServer, **more: int) -> SalesforceOrg:
    auth = AuthSettings(flow="token", access_token=server.access_token)
    return connect(server.url, auth=auth, rng=random.Random(1), **more)  # type: ignore[arg-type]  # only ints here


@pytest.fixture
def org(server: TwinServer) -> Iterator[SalesforceOrg]:
    started = sign_in(server)
    yield started
    started.close()


def wait(org: SalesforceOrg, job_id: str) -> IngestJob:
    """Poll until the job has ended."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        job = org.get_job(job_id)
        if job.state.is_terminal:
            return job
        time.sleep(0.01)
    raise AssertionError("the job did not end")


def load(org: SalesforceOrg, request: JobRequest, csv: str) -> IngestJob:
    body = csv.encode()
    job = org.create_job(request)
    assert job.state is JobState.OPEN
    org.upload(job.id, content=lambda: [body], size=len(body))
    assert org.close_job(job.id).state is JobState.UPLOAD_COMPLETE
    return wait(org, job.id)


def results(org: SalesforceOrg, job: IngestJob, kind: ResultKind) -> pl.DataFrame:
    content = b"".join(org.results(job.id, kind))
    return pl.read_csv(io.BytesIO(content), infer_schema=False) if content.strip() else pl.DataFrame()


def test_who_and_what_it_is(org: SalesforceOrg, server: TwinServer) -> None:
    assert org.is_twin
    assert org.org_id == server.org.org_id
    assert org.user_name == server.username
    assert org.user_id.startswith("005")
    assert len(org.user_id) == 18


def test_a_twin_is_refused_where_an_org_is_meant(server: TwinServer) -> None:
    auth = AuthSettings(flow="token", access_token="00D000000000001!real")
    with pytest.raises(TargetError, match="is a twin"):
        connect(server.url, auth=auth, expect_twin=False)


def test_a_token_that_the_org_does_not_know(server: TwinServer) -> None:
    with pytest.raises(SignInFailed):
        connect(server.url, auth=AuthSettings(flow="token", access_token="00D000000000001!wrong"))


def test_client_credentials(server: TwinServer) -> None:
    auth = AuthSettings(flow="client_credentials", client_id="loader", client_secret="hush")
    org = connect(server.url, auth=auth)
    assert org.org_id == server.org.org_id
    org.close()
    wrong = AuthSettings(flow="client_credentials", client_id="loader", client_secret="wrong")
    with pytest.raises(SignInFailed, match="secret is wrong"):
        connect(server.url, auth=wrong)


def test_jwt(server: TwinServer) -> None:
    auth = AuthSettings(flow="jwt", client_id="loader", username=USER, private_key=PRIVATE_PEM.decode())
    org = connect(server.url, auth=auth)
    assert org.user_name == USER
    org.close()
    wrongs = [
        (replace(auth, audience="https://test.salesforce.com"), "audience"),
        (replace(auth, username="nobody@kpc.example"), "approved|does not exist|not been allowed"),
        (replace(auth, client_id="nothing"), "consumer key"),
    ]
    for wrong, cause in wrongs:
        with pytest.raises(SignInFailed, match=cause):
            connect(server.url, auth=wrong)


def test_describe_objects_and_limits(org: SalesforceOrg) -> None:
    assert {"Tenant__c", "Sale__c", "User"} <= set(org.objects())
    sale = org.describe("Sale__c")
    key = sale.fields["Sale_Id__c"]
    assert (key.external_id, key.unique, key.id_lookup, key.length) == (True, True, True, 30)
    assert sale.fields["Must__c"].required
    assert not sale.fields["CreatedDate"].createable
    tenant = sale.relationship("Tenant__r")
    assert tenant is not None
    assert tenant.reference_to == ("Tenant__c",)
    amount = sale.fields["Amount__c"]
    assert (amount.precision, amount.scale) == (18, 2)
    limits = org.limits()
    assert limits.bulk_batches_left is not None
    assert limits.api_requests_left is not None
    assert org.api_requests_left is not None
    with pytest.raises(OrgNotFound):
        org.describe("Nope__c")


def test_a_load_from_create_to_results(org: SalesforceOrg) -> None:
    tenants = load(org, TENANTS, "Code__c,Name\n" + "".join(f"L{n},Tenant {n}\n" for n in range(3)))
    assert (tenants.state, tenants.records_processed, tenants.records_failed) == (JobState.JOB_COMPLETE, 3, 0)
    rows = "l-1,12.5,x,L1\nl-2,1,,L1\nl-3,abc,x,L1\nl-4,2,x,L9\nl-5,3,too long,\n"
    sales = load(org, SALES, "Sale_Id__c,Amount__c,Must__c,Tenant__r.Code__c\n" + rows)
    assert (sales.state, sales.records_processed, sales.records_failed) == (JobState.JOB_COMPLETE, 5, 4)
    good = results(org, sales, ResultKind.SUCCESSFUL)
    assert good["Sale_Id__c"].to_list() == ["l-1"]
    assert good["sf__Created"].to_list() == ["true"]
    bad = results(org, sales, ResultKind.FAILED)
    codes = bad.select("Sale_Id__c", split_error_expr(pl.col("sf__Error")).struct.field("code")).rows()
    assert dict(codes) == {
        "l-2": "REQUIRED_FIELD_MISSING",
        "l-3": "INVALID_TYPE_ON_FIELD_IN_RECORD",
        "l-4": "INVALID_FIELD",
        "l-5": "STRING_TOO_LONG",
    }
    assert results(org, sales, ResultKind.UNPROCESSED).height == 0
    (record,) = org.query("SELECT Id, Sale_Id__c, Tenant__r.Code__c FROM Sale__c WHERE Sale_Id__c LIKE 'l-%'")
    assert record == {"Id": good["sf__Id"][0], "Sale_Id__c": "l-1", "Tenant__r": {"Code__c": "L1"}}


def test_a_query_of_several_pages_and_its_count(org: SalesforceOrg) -> None:
    load(org, TENANTS, "Code__c,Name\n" + "".join(f"P{n:05},x\n" for n in range(4500)))
    where = "Tenant__c WHERE Code__c LIKE 'P%'"
    assert org.count(f"SELECT COUNT() FROM {where}") == 4500
    assert len({row["Code__c"] for row in org.query(f"SELECT Code__c FROM {where}")}) == 4500


def test_find_by_text_and_by_number(org: SalesforceOrg) -> None:
    load(
        org, SALES, "Sale_Id__c,Number__c,Must__c\n" + "".join(f"f-{n},{n},x\n" for n in range(1200)) + "f-o'x,5000,x\n"
    )
    sale = org.describe("Sale__c")
    names = [f"f-{n}" for n in range(0, 1200, 2)] + ["f-o'x", "f-none"]
    assert {key for _, key in org.find("Sale__c", sale.fields["Sale_Id__c"], names)} == set(names) - {"f-none"}
    found = list(org.find("Sale__c", sale.fields["Number__c"], ["7", "5000", "9999"]))
    assert sorted(float(key) for _, key in found) == [7.0, 5000.0]


def test_a_bulk_query_in_pages(server: TwinServer) -> None:
    org = sign_in(server, bulk_page_rows=1000)
    load(org, TENANTS, "Code__c,Name\n" + "".join(f"B{n:05},x\n" for n in range(2500)))
    pages = list(org.bulk_query("SELECT Id, Code__c FROM Tenant__c WHERE Code__c LIKE 'B%'"))
    frames = [pl.read_csv(io.BytesIO(page), infer_schema=False) for page in pages]
    assert [frame.height for frame in frames] == [1000, 1000, 500]
    assert pl.concat(frames)["Code__c"].n_unique() == 2500
    empty = list(org.bulk_query("SELECT Id FROM Tenant__c WHERE Code__c = 'none'"))
    assert [pl.read_csv(io.BytesIO(page)).height for page in empty] in ([], [0])
    with pytest.raises(OrgRefused):
        list(org.bulk_query("SELECT COUNT() FROM Tenant__c"))
    org.close()


def test_jobs_are_listed_aborted_and_deleted(org: SalesforceOrg) -> None:
    opened = org.create_job(TENANTS)
    listed = {job.id: job for job in org.list_jobs()}
    assert (listed[opened.id].state, listed[opened.id].created_by_id) == (JobState.OPEN, org.user_id)
    assert {job.job_type for job in listed.values()} == {"V2Ingest"}
    assert org.abort_job(opened.id).state is JobState.ABORTED
    with pytest.raises(OrgRefused) as caught:
        org.close_job(opened.id)
    assert caught.value.code == "INVALIDJOBSTATE"
    org.delete_job(opened.id)
    with pytest.raises(OrgNotFound):
        org.get_job(opened.id)


def test_a_failed_job_tells_why(org: SalesforceOrg) -> None:
    job = load(org, TENANTS, "Code__c,Nope__c\nX,1\n")
    assert (job.state, job.records_processed) == (JobState.FAILED, 0)
    assert job.error_message is not None
    assert "Field name not found : Nope__c" in job.error_message


def test_a_compressed_upload(server: TwinServer) -> None:
    auth = AuthSettings(flow="token", access_token=server.access_token)
    org = connect(server.url, auth=auth, gzip_uploads=True)
    job = load(org, TENANTS, "Code__c,Name\n" + "".join(f"Z{n},x\n" for n in range(100)))
    assert (job.state, job.records_processed, job.records_failed) == (JobState.JOB_COMPLETE, 100, 0)
    org.close()
