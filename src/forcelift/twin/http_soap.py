"""SOAP calls over HTTP: the legacy login of the partner and enterprise API, and the frame of all SOAP endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from forcelift.twin.auth import LoginRefused, SignIn
from forcelift.twin.errors import ApiError
from forcelift.twin.http_core import LIVE_VERSIONS, Call, Reply, Session
from forcelift.twin.soap import ENTERPRISE, PARTNER, SoapFault, SoapRequest, answer, fault_reply, read_request, text_of

SOAP_BODY_MAX: Final = 100_000_000  # bytes; a deploy of 39 MB is 52 MB in base64
LOGIN_BODY_MAX: Final = 65_536
LOGIN_VERSION_MAX: Final = 64.0  # login() is absent from version 65.0 on
NO_SESSION: Final = "Invalid Session ID found in SessionHeader: Illegal Session"

SoapHandler = Callable[[Call, SoapRequest], Reply]


class SoapFrame:
    """Turns a SOAP handler into one of HTTP: reads the envelope, admits the session, shows every error as a fault.

    Args:
        admit: The session of an `Authorization` header; counts an API request. Raises ApiError.
        fault: Turns any exception into an error for the client; logs what was not foreseen.
    """

    def __init__(
        self,
        *,
        admit: Callable[[str | None], Session],
        fault: Callable[..., ApiError],
    ) -> None:
        self._admit = admit
        self._fault = fault

    def handler(self, run: SoapHandler, *, namespace: str, body_max: int = SOAP_BODY_MAX) -> Callable[[Call], Reply]:
        def handle(call: Call) -> Reply:
            try:
                version = call.params["number"]
                if version not in LIVE_VERSIONS:
                    raise SoapFault("UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL")
                return run(call, read_request(call.body(bytes_max=body_max)))
            except SoapFault as fault:
                return fault_reply(fault, namespace=namespace)
            except Exception as error:  # noqa: BLE001 - a SOAP client must get a fault; `fault` logs what is ours
                told = self._fault(error, method=call.method, path=call.path)
                return fault_reply(SoapFault(told.error_code, told.message), namespace=namespace)

        return handle

    def session(self, request: SoapRequest) -> Session:
        """Who is calling. Raises SoapFault without a living session, ApiError when the requests are used up."""
        if not request.session_id:
            raise SoapFault("INVALID_SESSION_ID", NO_SESSION)
        try:
            return self._admit(f"Bearer {request.session_id}")
        except ApiError as error:
            if error.error_code != "INVALID_SESSION_ID":
                raise
            raise SoapFault("INVALID_SESSION_ID", NO_SESSION) from error


class SoapLogin:
    """`login` of the partner (`/services/Soap/u`) and enterprise (`/services/Soap/c`) API.

    Args:
        describe_user: `name` and `email` by user Id.
        org: What `userInfo` tells of the org: `name` and `sandbox`.
    """

    def __init__(
        self,
        sign_in: SignIn,
        *,
        org_id: str,
        org_name: str,
        sandbox: bool,
        describe_user: Callable[[str], dict[str, Any]],
    ) -> None:
        self._sign_in = sign_in
        self._org_id = org_id
        self._org_name = org_name
        self._sandbox = sandbox
        self._describe_user = describe_user

    def partner(self, call: Call, request: SoapRequest) -> Reply:
        return self._login(call, request, kind="u", namespace=PARTNER)

    def enterprise(self, call: Call, request: SoapRequest) -> Reply:
        return self._login(call, request, kind="c", namespace=ENTERPRISE)

    def _login(self, call: Call, request: SoapRequest, *, kind: str, namespace: str) -> Reply:
        if request.operation != "login":
            raise SoapFault("soapenv:Client", f"No operation available for request {request.operation}")
        version = call.params["number"]
        if float(version) > LOGIN_VERSION_MAX:
            raise SoapFault("INVALID_OPERATION", f"SOAP API login() is not available in API version {version}.")
        try:
            granted = self._sign_in.soap_login(
                text_of(request.body, "username") or "", text_of(request.body, "password") or ""
            )
        except LoginRefused as refused:
            raise SoapFault(refused.code, refused.message) from refused
        user = self._describe_user(granted.user_id)
        result = {
            "metadataServerUrl": f"{call.host_url}/services/Soap/m/{version}/{self._org_id}",
            "passwordExpired": False,
            "sandbox": self._sandbox,
            "serverUrl": f"{call.host_url}/services/Soap/{kind}/{version}/{self._org_id}",
            "sessionId": granted.token,
            "userId": granted.user_id,
            "userInfo": {
                "accessibilityMode": False,
                "currencySymbol": "$",
                "orgDefaultCurrencyIsoCode": "USD",
                "organizationId": self._org_id,
                "organizationMultiCurrency": False,
                "organizationName": self._org_name,
                "sessionSecondsValid": int(self._sign_in.store.lifetime.total_seconds()),
                "userEmail": user["email"],
                "userFullName": user["name"],
                "userId": granted.user_id,
                "userLanguage": "en_US",
                "userLocale": "en_US",
                "userName": granted.username,
                "userTimeZone": "GMT",
                "userType": "Standard",
            },
        }
        return answer("login", result, namespace=namespace)
