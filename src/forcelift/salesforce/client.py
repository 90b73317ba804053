"""The HTTP client below the transport: times, certificates, proxies, headers, and what httpx may log."""

from __future__ import annotations

import logging
import os
import ssl
from urllib.request import getproxies

import httpx
from msgspec import Struct

from forcelift.errors import UsageError
from forcelift.salesforce.hosts import is_loopback
from forcelift.salesforce.wide_reads import read_widely
from forcelift.version import __version__

_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Times and limits of the transport.

    A change may take as long as Salesforce's own limit of ten minutes for a request: giving up earlier would make a
    lost reply out of a slow one. A GET can be repeated, so it is given up earlier (a query may take two minutes).
    """

    connect_timeout_s: float = 20.0
    change_timeout_s: float = 600.0
    get_timeout_s: float = 180.0
    write_timeout_s: float = 120.0
    connections_max: int = 64
    get_attempts: int = 4
    backoff_s: float = 1.0
    backoff_s_max: float = 30.0

    def timeout(self, *, changes: bool) -> httpx.Timeout:
        """How long a request may take: to connect, between two pieces sent, between two pieces received."""
        read = self.change_timeout_s if changes else self.get_timeout_s
        return httpx.Timeout(connect=self.connect_timeout_s, read=read, write=self.write_timeout_s, pool=read)


def make_client(
    url: httpx.URL, *, settings: HttpSettings, ca_file: str | None, wire: httpx.BaseTransport | None
) -> httpx.Client:
    """A client for the org at `url` that carries no credentials of its own.

    Raises:
        UsageError: `ca_file` or `SSL_CERT_FILE` cannot be read, or a proxy's URL in the environment cannot be used.
    """
    logging.getLogger("httpx").addFilter(_hide_queries)
    # Plain HTTP is spoken to loopback only, where no certificate is ever asked for.
    verify = _ssl_context(ca_file) if url.scheme == "https" or ca_file else False
    limits = httpx.Limits(max_connections=settings.connections_max, max_keepalive_connections=16)
    try:
        client = httpx.Client(
            transport=wire,
            mounts=None if wire is not None or is_loopback(url.host) else _encrypted_proxy(verify, limits),
            # A loopback address is never reached through a proxy, whatever the environment says.
            trust_env=not is_loopback(url.host),
            verify=verify,
            follow_redirects=False,
            timeout=settings.timeout(changes=True),
            limits=limits,
            headers={
                "User-Agent": f"Forcelift/{__version__}",
                "Sforce-Call-Options": "client=Forcelift",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
        )
        read_widely(client)
        return client
    except (ValueError, httpx.InvalidURL, ImportError):
        # The cause may quote a part of the proxy's password, so it is told neither here nor as the cause.
        named = [name for name in _PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
        raise UsageError(
            f"the proxy settings in the environment cannot be used ({', '.join(named) or 'of this machine'})",
            state="nothing was read or written",
            hint="write http://host:port or http://user:password@host:port, other characters than letters and digits "
            "of the password as %XX; SOCKS proxies are not supported",
        ) from None


def _encrypted_proxy(
    verify: ssl.SSLContext | bool, limits: httpx.Limits
) -> dict[str, httpx.BaseTransport | None] | None:
    """The way through a proxy that is itself spoken to by TLS; httpx finds all other ways by itself.

    It would trust the public authorities alone for the proxy's own certificate, whatever `ca_file` says. What NO_PROXY
    excepts goes before, as a host is more than a scheme.
    """
    named = getproxies()
    proxy = named.get("https") or named.get("all") or ""
    excepted = [host.strip() for host in named.get("no", "").split(",")]
    if not proxy.lower().startswith("https://") or not isinstance(verify, ssl.SSLContext) or "*" in excepted:
        return None
    way = httpx.Proxy(proxy, ssl_context=verify)
    return {"https://": httpx.HTTPTransport(verify=verify, limits=limits, proxy=way)}


class _HideQueries(logging.Filter):
    """Takes the query out of the URLs that httpx logs: a query in SOQL holds keys of rows."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                str(part.copy_with(query=None)) if isinstance(part, httpx.URL) else part for part in record.args
            )
        return True


_hide_queries = _HideQueries()


def _ssl_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"`SSL_CERT_FILE` cannot be read as certificates: `{os.environ.get('SSL_CERT_FILE')}`",
            state="nothing was read or written",
            hint="name a file in PEM form, or unset it and name your company's own in `target.ca_file`",
        ) from error
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"`target.ca_file` cannot be read as certificates: `{ca_file}`", hint="name a file in PEM form"
            ) from error
    return context
