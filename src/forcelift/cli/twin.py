"""`forcelift twin`: run a simulated org on this machine."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click
from pydantic import SecretStr

from forcelift.cli.twin_snapshot import snapshot
from forcelift.errors import StateConflict, UsageError
from forcelift.twin.auth import ConnectedApp, NoSuchUser, PasswordPolicy
from forcelift.twin.errors import SchemaError, StoreError, TwinError
from forcelift.twin.fault_orders import NAMED, FaultFileError, load_orders, named_order
from forcelift.twin.http_apps import load_connected_apps, load_password_policy
from forcelift.twin.http_faults import is_loopback
from forcelift.twin.org import TwinOrg
from forcelift.twin.pace import PACES
from forcelift.twin.schema_file import load_schema
from forcelift.twin.server import ServerFailed, TwinServer
from forcelift.twin.tls import Certificate, CertificateUnusable, own_certificate


@click.group()
def twin() -> None:
    """Simulate a Salesforce org on this machine"""


twin.add_command(snapshot)


@twin.command()
@click.option(
    "--schema",
    "schema_file",
    type=click.Path(exists=True, path_type=Path),
    help="Objects of the org: YAML, or describe JSON of a real one (a file or a folder); needed for a new data file",
)
@click.option(
    "--data",
    "data_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps the org; made if missing. Without it the org is gone when the command ends",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="a free one", help="Port to listen on")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of ids, result order and random faults")
@click.option(
    "--pace",
    type=click.Choice(list(PACES)),
    default="fast",
    show_default=True,
    help="How quickly jobs are worked on",
)
@click.option(
    "--log", "log_path", type=click.Path(dir_okay=False, path_type=Path), help="Append a line per request here"
)
@click.option(
    "--faults",
    "fault_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Arm the faults of this YAML or JSON list, named ones or full orders",
)
@click.option(
    "--fault",
    "fault_names",
    multiple=True,
    metavar="NAME[=VALUE]",
    help=f"Arm a named fault; repeat for more. Names: {', '.join(NAMED)}",
)
@click.option("--username", help="Whose access token is printed; the org's first active user if left out")
@click.option(
    "--session-minutes",
    type=click.FloatRange(min=0.01),
    default=120.0,
    show_default=True,
    help="How long a session lives without being used",
)
@click.option("--client-id", help="Register one more connected app under this consumer key")
@click.option("--client-secret", envvar="FORCELIFT_TWIN_CLIENT_SECRET", show_envvar=True, help="Its secret")
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its PEM certificate")
@click.option("--run-as", help="Its user in the client-credentials flow; as --username if left out")
@click.option(
    "--password",
    envvar="FORCELIFT_TWIN_PASSWORD",
    show_envvar=True,
    help="Password of `--username`; switches on SOAP login and the made app's password flow, off in new orgs",
)
@click.option("--tls", is_flag=True, help="Serve HTTPS with a certificate that is made for it")
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve HTTPS with this PEM certificate; needs `--tls-key`",
)
@click.option(
    "--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its unencrypted PEM private key"
)
def serve(
    schema_file: Path | None,
    data_file: Path | None,
    host: str,
    port: int,
    seed: int,
    pace: str,
    log_path: Path | None,
    fault_file: Path | None,
    fault_names: tuple[str, ...],
    username: str | None,
    session_minutes: float,
    client_id: str | None,
    client_secret: str | None,
    certificate: Path | None,
    run_as: str | None,
    password: str | None,
    tls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve an org over HTTP or HTTPS until interrupted

    The first line on stdout is one JSON document with url, access token, pid and, with HTTPS, the certificate that
    clients must trust; it holds secrets. Examples:

      forcelift twin serve --schema org.yaml --data org.duckdb --port 8765

      forcelift twin serve --schema org.yaml --tls
    """
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("`--tls-cert` and `--tls-key` belong together", hint="give both, or `--tls` alone")
    if schema_file is None and (data_file is None or not data_file.exists()):
        raise UsageError("a new org needs a schema", hint="add `--schema FILE`, or name an existing file with `--data`")
    _warn_if_open(host, is_plain=not (tls or tls_cert))
    stopped = _stop_on_signal()
    with ExitStack() as stack:
        log_file = None if log_path is None else stack.enter_context(log_path.open("a", encoding="utf-8"))
        try:
            schema = None if schema_file is None else load_schema(schema_file)
            org = TwinOrg.open(data_file, schema=schema, seed=seed, pace=PACES[pace])
            stack.callback(org.close)
            with_apps = schema_file if schema_file is not None and schema_file.is_file() else None
            apps = () if with_apps is None else load_connected_apps(with_apps)
            policy = PasswordPolicy() if with_apps is None else load_password_policy(with_apps)
            if client_id is not None:
                apps = (*apps, _app(client_id, client_secret, certificate, run_as or username))
            certificate_pair = None
            if tls_cert is not None and tls_key is not None:
                certificate_pair = Certificate(cert_file=tls_cert, key_file=tls_key)
            elif tls:
                certificate_pair = own_certificate(_tls_folder(data_file, stack), hosts=[host])
            if password is not None:
                first = next((user.username for user in org.users if user.active), "")
                policy = _with_password(policy, username or first, password)
            server = TwinServer(
                org, host=host, port=port, apps=apps, seed=seed, log_file=log_file, username=username,
                session_lifetime=timedelta(minutes=session_minutes), policy=policy, tls=certificate_pair,
            )  # fmt: skip
            orders = [] if fault_file is None else load_orders(fault_file)
            server.app.desk.arm([*orders, *map(named_order, fault_names)])
            server.start()
        except TwinError as error:
            raise _told(error) from error
        stack.callback(server.stop)
        for rule in org.automations.unread():
            click.echo(f"note: {rule.note}", err=True)
        _print_first_line(server, data_file)
        stopped.wait()


def _print_first_line(server: TwinServer, data_file: Path | None) -> None:
    document = {**server.describe(), "data": None if data_file is None else str(data_file.resolve())}
    click.echo(json.dumps(document))
    sys.stdout.flush()  # a program that started us waits for this line in a pipe


def _app(client_id: str, secret: str | None, certificate: Path | None, run_as: str | None) -> ConnectedApp:
    try:
        return ConnectedApp(
            client_id=client_id,
            client_secret=None if secret is None else SecretStr(secret),
            certificate=None if certificate is None else certificate.read_text(encoding="ascii"),
            run_as=run_as,
        )
    except ValueError as error:
        raise UsageError(f"`--certificate {certificate}` is not a PEM certificate or public key (RSA)") from error


def _tls_folder(data_file: Path | None, stack: ExitStack) -> Path:
    """Where the certificate is kept: beside the data file, or with an org in memory only as long as that."""
    if data_file is not None:
        return data_file.with_name(f"{data_file.name}.tls")
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forcelift-twin-tls-")))


def _with_password(policy: PasswordPolicy, username: str, password: str) -> PasswordPolicy:
    passwords = {**policy.passwords, username: SecretStr(password)}
    return PasswordPolicy(soap_login=True, passwords=passwords)


def _warn_if_open(host: str, *, is_plain: bool) -> None:
    if host != "localhost" and not is_loopback(host):
        clear = ", and tokens cross the network in clear" if is_plain else ""
        click.echo(
            f"warning: {host} is not a loopback address: whoever reaches it can read and change this org"
            f" with a token{clear}",
            err=True,
        )


def _stop_on_signal() -> threading.Event:
    """An event that SIGINT and SIGTERM set, from before the org is opened: an early signal must not be lost."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return stopped


def _told(error: TwinError) -> UsageError | StateConflict:
    """The twin's error in the form that the command line shows."""
    if isinstance(error, SchemaError):
        return UsageError(str(error), state="nothing was changed", hint="mend the schema file and start again")
    if isinstance(error, CertificateUnusable):
        return UsageError(str(error), state="the org is unchanged", hint="leave `--tls-cert` out to have one made")
    if isinstance(error, NoSuchUser):
        return UsageError(str(error), state="nothing was changed", hint="take one of these for `--username`")
    if isinstance(error, FaultFileError):
        return UsageError(str(error), state="nothing was changed", hint="mend `--faults` or `--fault` and start again")
    if isinstance(error, StoreError):
        return StateConflict(str(error), state="the data file is unchanged")
    if isinstance(error, ServerFailed):
        return StateConflict(str(error), state="the org is unchanged", hint="take another `--port`, or leave it out")
    return StateConflict(str(error))
