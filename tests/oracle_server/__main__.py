"""Serve alone: `python -m tests.oracle_server [--profile 19c|23ai] [--port N] [--user NAME --password WORD]`."""

from __future__ import annotations

import argparse
import sys

from tests.oracle_server.server import PROFILES, OracleServer


def main() -> None:
    """Serve until stdin ends. Prints the address first."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle_server", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="23ai", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--user", default="KPS", help="a user with all privileges (default: %(default)s)")
    parser.add_argument("--password", default="kps", help="(default: %(default)s)")
    parser.add_argument(
        "--auditor", metavar="NAME=WORD", help="a second user, who may connect and make tables in a schema of its own"
    )
    given = parser.parse_args()
    with OracleServer(given.profile, port=given.port) as server:
        server.add_user(given.user, given.password, "DBA", "CREATE TABLE")
        if given.auditor:
            name, _, word = given.auditor.partition("=")
            server.add_user(name, word, "CREATE TABLE", "CREATE SEQUENCE")
        sys.stdout.write(f"{server.dsn}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
