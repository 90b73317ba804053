"""Which hosts may be spoken to: HTTPS except to loopback, and nothing but the host that was signed in to."""

from __future__ import annotations

import ipaddress
import re

import httpx

from forcelift.errors import TargetError, UsageError

_LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
_SALESFORCE_DOMAINS = (".salesforce.com", ".salesforce.mil", ".sfcrmproducts.cn")
_SANDBOX_HOST = re.compile(r"(?:\.sandbox\.|\.scratch\.|^test\.salesforce\.com$|--[a-z0-9-]+\.my\.salesforce\.com$)")


def is_loopback(host: str) -> bool:
    """True for `localhost` and for the loopback addresses of IPv4 and IPv6."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_login_host(host: str) -> bool:
    """True for the two hosts that only sign in and then name the org's own host."""
    return host in _LOGIN_HOSTS


def is_sandbox_host(host: str) -> bool:
    """True where the JWT audience must be `https://test.salesforce.com`."""
    return _SANDBOX_HOST.search(host) is not None


def base_url(url: str) -> httpx.URL:
    """Check and shorten an org's URL to scheme, host and port.

    Raises:
        UsageError: Not a URL of a host, plain HTTP to another machine, or a user name or password inside.
    """
    hint = "set `target.url` to the org's My Domain, such as https://example.my.salesforce.com"
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise UsageError("the org's URL cannot be read", hint=hint) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("the org's URL must begin with https:// and name a host", hint=hint)
    if parsed.userinfo:
        raise UsageError("the org's URL holds a user name or a password", hint="put them into `target.auth`")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise UsageError(
            f"the org's URL names `{parsed.host}` by plain HTTP: a token would cross the network readable by others",
            hint="write https:// (plain HTTP is allowed to this machine itself only)",
        )
    return httpx.URL(scheme=parsed.scheme, host=parsed.host, port=parsed.port)


def pinned_instance(signed_in_at: httpx.URL, instance_url: str) -> httpx.URL:
    """The org's own base URL out of a sign-in answer, if it may be trusted with the token.

    A sign-in at the org's own host must name that host again. login and test may name any of Salesforce's.

    Raises:
        TargetError: The answer names another host.
    """
    try:
        instance = base_url(instance_url)
    except UsageError as error:
        raise TargetError("the sign-in answer names no usable instance_url", hint=error.hint) from error
    if _same_host(signed_in_at, instance):
        return signed_in_at if is_loopback(instance.host) else instance
    if is_login_host(signed_in_at.host) and instance.scheme == "https" and instance.host.endswith(_SALESFORCE_DOMAINS):
        return instance
    raise TargetError(
        f"`{signed_in_at.host}` signed in, but names `{instance.host}` as the org's host: the token is not sent there",
        state="nothing was read from the org and nothing was written to it",
        hint=f"if `{instance.host}` is your org, set `target.url` to https://{instance.host}",
    )


def _same_host(one: httpx.URL, other: httpx.URL) -> bool:
    if one.scheme != other.scheme or one.port != other.port:
        return False
    return one.host == other.host or (is_loopback(one.host) and is_loopback(other.host))
