"""The calls that need no session, or make one: versions, token, revoke, userinfo, identity.

Errors of the token endpoint are one object; those of identity and userinfo are a bare word with status 403, which is
what a client of a real org must recognise as an expired session.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import Any, Final

from forcelift.twin.auth import OAuthError, SignIn, parse_basic
from forcelift.twin.http_core import LIVE_VERSIONS, Call, Reply, json_reply
from forcelift.twin.sessions import Session

NO_STORE: Final = (("cache-control", "no-cache, no-store"), ("pragma", "no-cache"))
SEASONS: Final = ("Spring", "Summer", "Winter")


class OAuthCalls:
    """Handlers of `/services/data`, `/services/oauth2/*` and `/id/*`.

    Args:
        find_session: The session of an `Authorization` header, or None.
        describe_user: Facts about a user: `name` and `email`, by user Id.
    """

    def __init__(
        self,
        sign_in: SignIn,
        *,
        org_id: str,
        find_session: Callable[[str | None], Session | None],
        describe_user: Callable[[str], dict[str, Any]],
    ) -> None:
        self._sign_in = sign_in
        self._org_id = org_id
        self._find_session = find_session
        self._describe_user = describe_user

    def versions(self, call: Call) -> Reply:
        return json_reply([version_json(version) for version in LIVE_VERSIONS])

    def token(self, call: Call) -> Reply:
        try:
            basic = parse_basic(call.headers.get("authorization"))
            answer = self._sign_in.token(read_form(call), basic=basic, instance_url=call.host_url)
        except OAuthError as error:
            return oauth_error(error)
        return json_reply(answer, headers=NO_STORE)

    def revoke(self, call: Call) -> Reply:
        try:
            self._sign_in.revoke(read_form(call).get("token", ""))
        except OAuthError as error:
            return oauth_error(error)
        return Reply(headers=NO_STORE)

    def user_info(self, call: Call) -> Reply:
        session = self._find_session(call.headers.get("authorization"))
        if session is None:
            return _refused(call)
        return json_reply(self._facts(call, session, identity=False))

    def identity(self, call: Call) -> Reply:
        session = self._find_session(call.headers.get("authorization"))
        if session is None:
            return _refused(call)
        if call.params["org_id"][:15] != self._org_id[:15] or call.params["user_id"][:15] != session.user_id[:15]:
            return Reply(status=403, content=b"Wrong_Org", headers=(("content-type", "text/html;charset=UTF-8"),))
        return json_reply(self._facts(call, session, identity=True))

    def _facts(self, call: Call, session: Session, *, identity: bool) -> dict[str, Any]:
        """The documents of userinfo (OpenID words) and of the identity URL (Salesforce's own) share most facts."""
        user = self._describe_user(session.user_id)
        url = f"{call.host_url}/id/{self._org_id}/{session.user_id}"
        common = {
            "user_id": session.user_id,
            "organization_id": self._org_id,
            "email": user["email"],
            "email_verified": True,
            "urls": service_urls(call.host_url, self._org_id, session.user_id),
            "active": True,
            "user_type": "STANDARD",
            "language": "en_US",
            "locale": "en_US",
            "utcOffset": 0,
            "is_app_installed": True,
        }
        if identity:
            return {
                "id": url,
                "asserted_user": True,
                "username": session.username,
                "nick_name": session.username.partition("@")[0],
                "display_name": user["name"],
                **common,
            }
        return {
            "sub": url,
            "preferred_username": session.username,
            "nickname": session.username.partition("@")[0],
            "name": user["name"],
            "zoneinfo": "GMT",
            **common,
        }


def version_json(version: str) -> dict[str, str]:
    """One entry of `GET /services/data`. 30.0 is Spring '14; Winter is named for the year after."""
    number = int(float(version))
    years, season = divmod(number - 30, 3)
    year = 14 + years + (1 if season == 2 else 0)
    return {"label": f"{SEASONS[season]} '{year}", "url": f"/services/data/v{version}", "version": version}


def read_form(call: Call) -> dict[str, str]:
    """Parameters of the query and of a form body; the body wins."""
    values = dict(call.query)
    if call.content_type() == "application/x-www-form-urlencoded":
        text = call.body(bytes_max=1_000_000).decode("utf-8", "replace")
        values.update(urllib.parse.parse_qsl(text, keep_blank_values=True))
    return values


def oauth_error(error: OAuthError) -> Reply:
    body = {"error": error.error, "error_description": error.description}
    return json_reply(body, status=error.status, headers=NO_STORE)


def service_urls(base: str, org_id: str, user_id: str) -> dict[str, str]:
    """Urls of the services that the twin has; `{version}` is for the client to fill in."""
    data = f"{base}/services/data/v{{version}}"
    return {
        "rest": f"{data}/",
        "sobjects": f"{data}/sobjects/",
        "query": f"{data}/query/",
        "profile": f"{base}/{user_id}",
        "custom_domain": base,
    }


def _refused(call: Call) -> Reply:
    word = b"Bad_OAuth_Token" if call.headers.get("authorization") else b"Missing_OAuth_Token"
    return Reply(status=403, content=word, headers=(("content-type", "text/html;charset=UTF-8"),))
