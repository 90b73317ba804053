"""The twin's application: every path of the org's HTTP surface, and what all of them share.

`TwinApp.asgi` is what a server runs; `TwinServer` does so in this process.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import urllib.parse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import SecretStr
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp

from forcelift.twin.auth import (
    PRODUCTION_AUDIENCE,
    SANDBOX_AUDIENCE,
    ConnectedApp,
    PasswordPolicy,
    SignIn,
    default_app,
)
from forcelift.twin.errors import ApiError, TwinError, not_found
from forcelift.twin.http_batch import Batch
from forcelift.twin.http_composite import Composite
from forcelift.twin.http_core import Access, Call, Endpoint, Handler, Reply
from forcelift.twin.http_errors import HttpError
from forcelift.twin.http_faults import Control, FaultDesk, Faults
from forcelift.twin.http_jobs import IngestCalls, QueryJobCalls, jobs_root
from forcelift.twin.http_metadata import MetadataCalls
from forcelift.twin.http_oauth import OAuthCalls
from forcelift.twin.http_perimeter import Perimeter, RequestLog
from forcelift.twin.http_records import RecordCalls
from forcelift.twin.http_replication import ReplicationCalls
from forcelift.twin.http_rest import RestCalls
from forcelift.twin.http_soap import LOGIN_BODY_MAX, SoapFrame, SoapLogin
from forcelift.twin.http_tooling import ToolingCalls
from forcelift.twin.http_tree import TreeCalls
from forcelift.twin.http_workers import Workers
from forcelift.twin.org import TwinOrg
from forcelift.twin.query_jobs import QueryJobs
from forcelift.twin.recycle_bin import RecycleBin
from forcelift.twin.rest import QueryPages
from forcelift.twin.rest_unit import WorkUnits
from forcelift.twin.schema_models import QUERY_ROWS_ANY
from forcelift.twin.sessions import SESSION_LIFETIME, Session, SessionStore
from forcelift.twin.soap import ENTERPRISE, METADATA, PARTNER

log = logging.getLogger(__name__)

INTERNAL_ERRORS_KEPT: Final = 100
REQUESTS_UNSAVED_MAX: Final = 64  # API requests that a kill may lose from the count of the day
BASE: Final = "/services/data/v{version}"


class TwinApp:
    """One org's HTTP surface. Also the gatekeeper of its endpoints.

    Args:
        apps: Connected apps; without any, one is made and its id and secret are kept in the org's file.
        seed: Of faults that strike with a probability, and of ids in error texts.
    """

    def __init__(
        self,
        org: TwinOrg,
        *,
        apps: Sequence[ConnectedApp] = (),
        session_lifetime: timedelta = SESSION_LIFETIME,
        seed: int = 0,
        log: RequestLog | None = None,
        policy: PasswordPolicy | None = None,
    ) -> None:
        self.org = org
        self.workers = Workers()
        active = [user for user in org.users if user.active]
        if not active:
            raise TwinError("the org has no active user, so nobody could sign in")
        self._users = {user.id: user for user in org.users}
        self.default_username = active[0].username
        self.sessions = SessionStore(org.cursor(), org_id=org.org_id, now=org.clock.now, lifetime=session_lifetime)
        self._made_app = None if apps else self._keep_app(with_passwords=policy is not None and bool(policy.passwords))
        self.sign_in = SignIn(
            store=self.sessions,
            apps=apps or [self._made_app] if self._made_app else apps,
            user_ids={user.username: user.id for user in active},
            org_id=org.org_id,
            audience=SANDBOX_AUDIENCE if org.schema.org.sandbox else PRODUCTION_AUDIENCE,
            now=org.clock.now,
            policy=policy,
        )
        self.faults = Faults(seed)
        self.control_token = secrets.token_urlsafe(32)
        self.desk = FaultDesk(self.faults, org)
        self.recycle_bin = RecycleBin(org)
        self.units = WorkUnits(org.store)
        self.pages = QueryPages(org.schema, connect=self.units.connect, now=org.clock.now, rows_max=self._query_rows)
        self.query_jobs = QueryJobs(org)
        self.tooling = ToolingCalls(org)
        self._frame = SoapFrame(admit=self.admit, fault=self.fault)
        self.metadata = MetadataCalls(org, self._frame)
        self.internal_errors: list[str] = []
        self._error_ids = random.Random(seed)  # noqa: S311 - numbers in a text, nothing secret
        self._lock = threading.Lock()
        self.composite = Composite(find=self._find_handler, fault=self.fault, units=self.units)
        self.batch = Batch(find=self._find_handler, fault=self.fault)
        self._router = Router(routes=self._routes(), redirect_slashes=False, default=self._unknown_path())
        self.perimeter = Perimeter(
            self._router, faults=self.faults, now=org.clock.now, log=log, end_sessions=self.sessions.end_all
        )

    @property
    def asgi(self) -> ASGIApp:
        return self.perimeter

    def _query_rows(self) -> int | None:
        limit = self.org.usage.limit("query_rows")
        return limit if limit < QUERY_ROWS_ANY else None

    def close(self) -> None:
        """Let go of the org's file, once no request is at work on it. The application cannot be used any more."""
        if not self.workers.wait_idle():
            self.internal_errors.append("a request did not end in time when the twin was stopped")
        self.query_jobs.close()
        self.tooling.close()
        self.metadata.close()
        self.pages.close()
        self.sessions.close()
        self.org.usage.flush()

    def made_app_json(self) -> dict[str, str] | None:
        """Key and secret of the connected app that was made because none was registered."""
        app = self._made_app
        if app is None or app.client_secret is None:
            return None
        return {"client_id": app.client_id, "client_secret": app.client_secret.get_secret_value()}

    def admit(self, authorization: str | None) -> Session:
        session = self.find_session(authorization)
        if session is None:
            challenge = (("www-authenticate", "Token"),)
            raise HttpError(401, "INVALID_SESSION_ID", "Session expired or invalid", headers=challenge)
        usage = self.org.usage
        if usage.api_requests_used() >= usage.api_requests_max:
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        if usage.count_request() % REQUESTS_UNSAVED_MAX == 0:
            usage.flush()
        self.recycle_bin.purge_if_due()
        return session

    def find_session(self, authorization: str | None) -> Session | None:
        kind, _, token = (authorization or "").partition(" ")
        return self.sessions.use(token.strip()) if kind.lower() in ("bearer", "oauth") else None

    def usage_header(self) -> str:
        usage = self.org.usage
        return f"api-usage={usage.api_requests_used()}/{usage.api_requests_max}"

    def fault(self, error: BaseException, *, method: str, path: str) -> ApiError:
        if isinstance(error, ApiError):
            return error
        with self._lock:
            number = f"{self._error_ids.randrange(10**9)}-{self._error_ids.randrange(10**5)}"
            if len(self.internal_errors) < INTERNAL_ERRORS_KEPT:
                self.internal_errors.append(f"{method} {path}: {type(error).__name__} ({number})")
        # The trace stays here; values of rows may stand in the exception's text, so only its type is in the list.
        log.error("fault of the twin answering %s %s (%s)", method, path, number, exc_info=error)
        text = f"An unexpected error occurred. Please include this ErrorId if you contact support: {number}"
        return ApiError(500, "UNKNOWN_EXCEPTION", text)

    def state(self) -> dict[str, Any]:
        """What `/__twin__/state` shows to tests."""
        with self._lock:
            errors = list(self.internal_errors)
        return {
            "org_id": self.org.org_id,
            "now": self.org.clock.now().isoformat(),
            "requests": self.perimeter.requests,
            "api_usage": self.usage_header(),
            "sessions": self.sessions.count,
            "open_cursors": self.pages.open_cursors,
            "jobs": self._jobs_by_state(),
            "faults": self.desk.as_json(),
            "unread_rules": [rule.as_json() for rule in self.org.automations.unread()],
            "internal_errors": errors,
        }

    def _jobs_by_state(self) -> dict[str, int]:
        with self.org.cursor() as cursor:
            rows = cursor.execute("SELECT state, count(*) FROM meta.ingest_job GROUP BY state").fetchall()
        return {state: int(count) for state, count in rows}

    def _keep_app(self, *, with_passwords: bool) -> ConnectedApp:
        """The connected app of an org for which none was registered: made once, so that a restart knows it."""
        made = self._stored_app()
        return made.model_copy(update={"flows": (*made.flows, "password")}) if with_passwords else made

    def _stored_app(self) -> ConnectedApp:
        client_id = self.sessions.setting("client_id")
        secret = self.sessions.setting("client_secret")
        if client_id is not None and secret is not None:
            return ConnectedApp(client_id=client_id, client_secret=SecretStr(secret), run_as=self.default_username)
        app = default_app(self.default_username)
        assert app.client_secret is not None
        self.sessions.keep_setting("client_id", app.client_id)
        self.sessions.keep_setting("client_secret", app.client_secret.get_secret_value())
        return app

    def _routes(self) -> list[Route]:
        return [
            *self._open_routes(),
            *self._soap_routes(),
            *self._tooling_routes(),
            *self._metadata_routes(),
            *self._rest_routes(),
            *self._job_routes(),
            *self._control_routes(),
        ]

    def _route(self, path: str, /, **handlers: Handler) -> Route:
        return Route(path, Endpoint(self, handlers, access=Access.SESSION))

    def _open_route(self, path: str, /, **handlers: Handler) -> Route:
        return Route(path, Endpoint(self, handlers, access=Access.OPEN))

    def _open_routes(self) -> list[Route]:
        calls = OAuthCalls(
            self.sign_in, org_id=self.org.org_id, find_session=self.find_session, describe_user=self._describe_user
        )
        return [
            self._open_route("/services/data", GET=calls.versions),
            self._open_route("/services/oauth2/token", POST=calls.token),
            self._open_route("/services/oauth2/revoke", POST=calls.revoke, GET=calls.revoke),
            self._open_route("/services/oauth2/userinfo", GET=calls.user_info, POST=calls.user_info),
            self._open_route("/id/{org_id}/{user_id}", GET=calls.identity, POST=calls.identity),
        ]

    def _soap_routes(self) -> list[Route]:
        org = self.org.schema.org
        frame = self._frame
        login = SoapLogin(
            self.sign_in, org_id=self.org.org_id, org_name=org.name, sandbox=org.sandbox,
            describe_user=self._describe_user,
        )  # fmt: skip
        calls = {
            "u": frame.handler(login.partner, namespace=PARTNER, body_max=LOGIN_BODY_MAX),
            "c": frame.handler(login.enterprise, namespace=ENTERPRISE, body_max=LOGIN_BODY_MAX),
            "m": frame.handler(self.metadata.soap, namespace=METADATA),
        }
        return [
            self._open_route(f"/services/Soap/{kind}/{{number}}{rest}", POST=handle)
            for kind, handle in calls.items()
            for rest in ("", "/{org_id}")
        ]

    def _tooling_routes(self) -> list[Route]:
        calls, route, base = self.tooling, self._route, f"{BASE}/tooling"
        record = {"GET": calls.record, "PATCH": calls.update, "DELETE": calls.delete}
        return [
            route(base, GET=calls.root),
            route(f"{base}/query", GET=calls.query),
            route(f"{base}/query/{{locator}}", GET=calls.query_more),
            route(f"{base}/sobjects", GET=calls.objects),
            route(f"{base}/sobjects/{{object}}", GET=calls.object_info, POST=calls.create),
            route(f"{base}/sobjects/{{object}}/describe", GET=calls.describe),
            route(f"{base}/sobjects/{{object}}/{{id}}", **record),
        ]

    def _metadata_routes(self) -> list[Route]:
        calls, route, base = self.metadata, self._route, f"{BASE}/metadata"
        return [
            route(base, GET=calls.root),
            route(f"{base}/deployRequest", POST=calls.deploy),
            route(f"{base}/deployRequest/{{id}}", GET=calls.deploy_status, PATCH=calls.cancel),
        ]

    def _rest_routes(self) -> list[Route]:
        read = RestCalls(self.org, self.pages, modified_at=lambda: self.org.schema_changed_at)
        write = RecordCalls(self.org, read, self.units)
        tree = TreeCalls(self.org, read, self.units)
        replication = ReplicationCalls(self.org, read, self.pages)
        route = self._route
        record = {"GET": read.record, "PATCH": write.update, "DELETE": write.delete}
        by_key = {"GET": read.record_by_key, "PATCH": write.upsert, "DELETE": write.delete_by_key}
        many = {"POST": write.create_many, "PATCH": write.update_many, "DELETE": write.delete_many}
        return [
            route(BASE, GET=read.root),
            route(f"{BASE}/limits", GET=read.limits),
            route(f"{BASE}/limits/recordCount", GET=read.record_count),
            route(f"{BASE}/query", GET=read.query),
            route(f"{BASE}/queryAll", GET=read.query_all),
            route(f"{BASE}/query/{{locator}}", GET=read.query_more),
            route(f"{BASE}/queryAll/{{locator}}", GET=read.query_more),
            route(f"{BASE}/sobjects", GET=read.objects),
            route(f"{BASE}/sobjects/{{object}}", GET=read.object_info, POST=write.create),
            route(f"{BASE}/sobjects/{{object}}/describe", GET=read.describe),
            route(f"{BASE}/sobjects/{{object}}/updated", GET=replication.updated),
            route(f"{BASE}/sobjects/{{object}}/deleted", GET=replication.deleted),
            # An upsert by Id that names none is an insert.
            route(f"{BASE}/sobjects/{{object}}/Id", POST=write.create),
            route(f"{BASE}/sobjects/{{object}}/{{id}}", **record),
            route(f"{BASE}/sobjects/{{object}}/{{field}}/{{value}}", **by_key),
            route(f"{BASE}/composite", GET=read.composite_root, POST=self.composite.run),
            route(f"{BASE}/composite/batch", POST=self.batch.run),
            route(f"{BASE}/composite/tree/{{object}}", POST=tree.create),
            route(f"{BASE}/composite/sobjects", **many),
            route(f"{BASE}/composite/sobjects/{{object}}", GET=replication.retrieve, POST=replication.retrieve),
            route(f"{BASE}/composite/sobjects/{{object}}/{{field}}", PATCH=write.upsert_many),
        ]

    def _job_routes(self) -> list[Route]:
        ingest = IngestCalls(self.org, self.query_jobs)
        query = QueryJobCalls(self.query_jobs)
        route = self._route
        one = f"{BASE}/jobs/ingest/{{job_id}}"
        query_one = f"{BASE}/jobs/query/{{job_id}}"
        pages = {"GET": query.result_pages}
        return [
            route(f"{BASE}/jobs", GET=jobs_root),
            route(f"{BASE}/jobs/ingest", GET=ingest.list, POST=ingest.create),
            route(one, GET=ingest.get, PATCH=ingest.patch, DELETE=ingest.delete),
            route(f"{one}/batches", PUT=ingest.upload),
            route(f"{one}/successfulResults", GET=ingest.successful),
            route(f"{one}/failedResults", GET=ingest.failed),
            route(f"{one}/unprocessedrecords", GET=ingest.unprocessed),
            route(f"{one}/unprocessedRecords", GET=ingest.unprocessed),
            route(f"{BASE}/jobs/query", GET=query.list, POST=query.create),
            route(query_one, GET=query.get, PATCH=query.patch, DELETE=query.delete),
            route(f"{query_one}/results", GET=query.results),
            route(f"{query_one}/resultPages", **pages),
            route(f"{query_one}/resultpages", **pages),
            route(f"{BASE}/{{rest:path}}", **{"*": _no_such_resource}),
        ]

    def _control_routes(self) -> list[Route]:
        control = Control(
            self.desk,
            self.recycle_bin,
            seed=self.faults.seed,
            token=self.control_token,
            user_id=next(user.id for user in self._users.values() if user.active),
            state=self.state,
            end_sessions=self.sessions.end_all,
        )
        return [
            self._open_route(
                "/__twin__/faults",
                GET=control.show_faults,
                POST=control.arm_faults,
                DELETE=control.clear_faults,
            ),
            self._open_route("/__twin__/undelete", POST=control.undelete),
            self._open_route("/__twin__/state", GET=control.show_state),
            self._open_route("/__twin__/sessions", DELETE=control.end_sessions),
        ]

    def _unknown_path(self) -> ASGIApp:
        return Endpoint(self, {"*": _no_such_resource}, access=Access.OPEN)

    def _find_handler(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a subrequest and the parameters of its path."""
        scope = {"type": "http", "path": path, "root_path": "", "method": method}
        for route in self._router.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                endpoint = found["endpoint"]
                handler = endpoint.handlers.get(method) if isinstance(endpoint, Endpoint) else None
                params = {name: urllib.parse.unquote(value) for name, value in found["path_params"].items()}
                return None if handler is None else (handler, params)
        return None

    def _describe_user(self, user_id: str) -> dict[str, Any]:
        user = self._users[user_id]
        return {"name": user.name, "email": user.email}


def _no_such_resource(call: Call) -> Reply:
    raise not_found()
