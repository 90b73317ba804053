"""One client's connection: accept, log on, and then call after call until it leaves."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.oracle_server import auth, network_services, replies
from tests.oracle_server.catalog import User
from tests.oracle_server.control import control
from tests.oracle_server.cursors import Cursor, Cursors
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.faults import Fault
from tests.oracle_server.lobs import Lobs
from tests.oracle_server.requests import (
    Execute,
    read_descriptors,
    read_end_to_end,
    read_execute,
    read_lob,
    read_rows,
    skip_freed_lobs,
)
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.values import utc_now
from tests.oracle_server.watch import Watch
from tests.oracle_server.wire import (
    ACCEPT,
    BREAK,
    CONNECT,
    DATA,
    FLAG_END_OF_RESPONSE,
    MARKER,
    REFUSE,
    RESET,
    Disconnected,
    Interrupted,
    Packets,
    Reader,
    Writer,
)

if TYPE_CHECKING:
    from tests.oracle_server.server import OracleServer

_PROTOCOL, _DATA_TYPES, _FUNCTION, _PIGGYBACK, _FAST_AUTH = 1, 2, 3, 17, 34
_FAST_AUTH_VERSION, _NEW_VERSION, _OLD_VERSION = 13, 24, 12


class Session:
    """Serves one socket until it closes."""

    def __init__(self, server: OracleServer, packets: Packets, number: int) -> None:
        self._server = server
        self._packets = packets
        self._reader = Reader(packets)
        self._number = number
        self._is_23ai = server.profile == "23ai"
        self._version = _NEW_VERSION if self._is_23ai else _OLD_VERSION
        self._has_end = False
        self._logon = auth.Logon()
        self._user = ""
        self.state: SessionState | None = None
        self.watch = Watch(packets)
        self.lobs = Lobs()
        self._cursors: Cursors | None = None
        self._sdu_max = server.sdu

    def serve(self) -> None:
        """Everything from the first packet to the last."""
        try:
            if self._accept():
                while self._call():
                    pass
        except Disconnected:
            pass
        finally:
            self.watch.close()
            if self.state is not None:
                self.state.rollback()
            self._packets.close()

    # Connecting.

    def _accept(self) -> bool:
        fault = self._server.faults.strike("connect")
        kind, body = self._packets.receive()
        if kind != CONNECT:
            return False
        length, offset = struct.unpack(">HH", body[16:20])
        text = body[offset - 8 :][:length]
        if not text:
            _, more = self._packets.receive()
            text = more[2:]
        service = re.search(r"\(SERVICE_NAME=([^)]*)\)", text.decode(), re.IGNORECASE)
        sid = re.search(r"\(SID=([^)]*)\)", text.decode(), re.IGNORECASE)
        if fault is not None:
            self._strike(fault, connecting=True)
        code = 0
        if service is None and sid is not None and sid[1].upper() != self._server.sid.upper():
            code = 12505
        elif service is not None and service[1].split(":")[0].lower() != self._server.service.lower():
            code = 12514
        if code:
            return self._refuse(code)
        wanted = struct.unpack(">I", body[50:54])[0]
        self._packets.sdu = max(512, min(wanted, self._sdu_max))
        version = 319 if self._is_23ai else 318
        flags = 0x12000000 if self._is_23ai else 0
        reply = struct.pack(">HH", version, 0)
        reply += struct.pack(">HHBBHH", min(self._packets.sdu, 65535), 65535, 0, 1, 0, 45)
        reply += bytes((4, 4)) + bytes(8) + struct.pack(">IIBI", self._packets.sdu, self._packets.sdu, 0, flags)
        self._packets.send(ACCEPT, reply)
        self._packets.long_lengths = True
        return True

    def _refuse(self, code: int) -> bool:
        text = f"(DESCRIPTION=(TMP=)(VSNNUM=0)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))".encode()
        self._packets.send(REFUSE, bytes((34, 0)) + struct.pack(">H", len(text)) + text)
        return False

    # Calls.

    def _call(self) -> bool:
        """One request and its reply. False when the session is to end."""
        try:
            if not self._reader.start():
                return False
            return self._request()
        except Interrupted:
            self._break()
            return True

    def _request(self) -> bool:
        while True:
            kind = self._reader.u8()
            if kind == _PROTOCOL:
                self._read_protocol()
                self._reply(self._protocol(), end=False)
                return True
            if kind == _DATA_TYPES:
                self._read_data_types()
                self._reply(Writer().u8(_DATA_TYPES).u16(0))
                return True
            if kind == _FAST_AUTH:
                return self._fast_auth()
            if kind == network_services.MAGIC[0] and self.state is None:
                network_services.read(self._reader)
                self._packets.send_data(network_services.answer(self._packets.subject))
                return True
            if kind not in (_FUNCTION, _PIGGYBACK):
                raise Disconnected
            function = self._reader.u8()
            self._reader.u8()
            if self._version >= 18:
                self._reader.ub()
            if kind == _PIGGYBACK:
                self._piggyback(function)
                continue
            return self._function(function)

    def _protocol(self) -> Writer:
        self._has_end = self._is_23ai
        compile_caps = bytearray(55)
        compile_caps[7] = _NEW_VERSION if self._is_23ai else _OLD_VERSION
        compile_caps[40] = 0x20 if self._is_23ai else 0
        runtime_caps = bytearray(7)
        runtime_caps[6] = 0x04
        out = Writer().u8(_PROTOCOL, 6, 0)
        out.extend(b"Forcelift test server\0" + (873).to_bytes(2, "little") + b"\x01" + bytes(2))
        out.u16(11)
        out.extend(bytes(9) + struct.pack(">H", 2000))
        return out.clr(bytes(compile_caps)).clr(bytes(runtime_caps))

    def _read_protocol(self) -> None:
        """The versions that the client speaks, the newest first, and its name."""
        self._reader.until_zero()
        self._reader.until_zero()

    def _read_data_types(self) -> None:
        reader = self._reader
        reader.raw(5)
        compile_caps = reader.clr() or b""
        if len(compile_caps) > 7:
            self._version = min(self._version, compile_caps[7])
        runtime_caps = reader.clr() or b""
        if len(runtime_caps) > 1 and runtime_caps[1] & 1:
            # The client's zone, as an interval. This server has not that capability, so its reply has none.
            reader.raw(11)
        while reader.u16():
            if reader.u16():
                reader.raw(4)

    def _fast_auth(self) -> bool:
        reader = self._reader
        reader.raw(3)
        reader.u8()
        self._read_protocol()
        reader.raw(6)
        reader.u8()
        self._read_data_types()
        function = reader.raw(2)[1]
        if function not in (auth.PHASE_ONE, auth.PHASE_TWO):
            raise Disconnected
        reader.u8()
        out = self._protocol()
        out += Writer().u8(_DATA_TYPES).u16(0)
        out += self._challenge() if function == auth.PHASE_ONE else self._log_on()
        self._reply(out)
        return True

    def _function(self, function: int) -> bool:
        if self.state is None:
            if function not in (auth.PHASE_ONE, auth.PHASE_TWO):
                raise Disconnected
            self._reply(self._challenge() if function == auth.PHASE_ONE else self._log_on())
            return True
        if function in (5, 4, 78, 94, 96):
            self._run(
                {94: self._execute, 5: self._fetch, 4: self._again, 78: self._again_and_fetch, 96: self._lob}[function]
            )
            return True
        state = self.state
        if function == 14:
            self._run(lambda: (state.commit(), self._status())[1])
        elif function == 15:
            self._run(lambda: (state.rollback(), self._status())[1])
        elif function in (9, 147):
            if function == 9:
                state.rollback()
            self._reply(self._status())
        else:
            raise not_taught(f"function {function}")
        return True

    def _run(self, work: Callable[[], Writer | bytearray]) -> None:
        """Do a call's work, answer an error with an error, and a wish to stop with ORA-01013."""
        try:
            out = work()
        except OracleError as error:
            if error.code == 1013 and self._packets.waiting():
                self._reader.start()
                raise Interrupted from error
            out = self._end(error)
        self._reply(out)

    def _reply(self, out: Writer | bytearray, *, end: bool = True) -> None:
        if self._has_end and end:
            out = out + bytes((replies.END_OF_RESPONSE,))
            self._packets.send_data(out, end_flag=FLAG_END_OF_RESPONSE)
        else:
            self._packets.send_data(out, end_flag=FLAG_END_OF_RESPONSE if self._has_end else 0)

    def _end(self, error: OracleError | None = None, **more: Any) -> Writer:
        in_transaction = self.state is not None and self.state.transaction is not None
        return replies.end_message(self._version, error=error, in_transaction=in_transaction, **more)

    def _status(self) -> Writer:
        return replies.status(in_transaction=self.state is not None and self.state.transaction is not None)

    def _break(self) -> None:
        """The client's wish to stop: both sides reset, then the call ends in ORA-01013."""
        self._packets.marker(BREAK)
        while True:
            kind, body = self._packets.receive()
            if kind == MARKER and body[2] == RESET:
                break
            if kind not in (MARKER, DATA):
                raise Disconnected
        self._packets.marker(RESET)
        self._reply(self._end(OracleError(1013)))

    # Logging on.

    def _challenge(self) -> Writer:
        self._user, _ = auth.read_request(self._reader)
        user = self._server.store.catalog.users.get(self._user.upper())
        out = self._logon.challenge(None if user is None else user.password)
        out += self._end()
        return out

    def _log_on(self) -> Writer:
        name, given = auth.read_request(self._reader)
        name, users = (name or self._user).upper(), self._server.store.catalog.users
        try:
            if not name and "AUTH_PASSWORD" not in given:
                proof, user = None, self._shown(self._packets.subject)
            else:
                proof = self._logon.prove(given)
                user = users[name]
            if user.locked:
                raise OracleError(28000, detail="The account is locked.")
            if user.is_expired:
                raise OracleError(28001, detail="the password has expired")
            if not user.may("CREATE SESSION"):
                raise OracleError(1045, detail="user lacks CREATE SESSION privilege; logon denied")
            if client := given.get("PROXY_CLIENT_NAME", "").strip('"').upper():
                if f"CONNECT THROUGH {client}" not in user.granted or client not in users:
                    raise OracleError(28150)
                user = users[client]
        except OracleError as error:
            return self._end(error)
        self.state = SessionState(
            store=self._server.store,
            user=user,
            schema=user.name,
            session_id=self._number,
            serial=self._number * 7 + 1,
            service=self._server.service,
            is_23ai=self._is_23ai,
        )
        self._cursors = Cursors(self.state, self._server.faults, self.watch, self.lobs)
        if "AUTH_ALTER_SESSION" in given:
            try:
                control(self.state, given["AUTH_ALTER_SESSION"])
            except OracleError as error:
                self.state = None
                return self._end(error)
        version = (23 << 24 | 4 << 16) if self._is_23ai else (19 << 24 | 3 << 16)
        out = auth.pairs(
            [
                *([] if proof is None else [("AUTH_SVR_RESPONSE", proof, 0)]),
                ("AUTH_VERSION_NO", str(version), 0),
                ("AUTH_SESSION_ID", str(self.state.session_id), 0),
                ("AUTH_SERIAL_NUM", str(self.state.serial), 0),
                ("AUTH_SC_SERVICE_NAME", self._server.service, 0),
                ("AUTH_INSTANCENAME", self._server.sid, 0),
                ("AUTH_SC_DBUNIQUE_NAME", self._server.sid, 0),
                ("AUTH_MAX_OPEN_CURSORS", "300", 0),
                ("AUTH_MAX_IDEN_LENGTH", "128", 0),
            ]
        )
        if user.is_in_grace:
            out += replies.warning(28002, "the password will expire within 7 days")
        out += self._end()
        return out

    def _shown(self, subject: str | None) -> User:
        """The user whom a certificate is of."""
        for user in self._server.store.catalog.users.values():
            if subject is not None and user.external == subject:
                return user
        raise OracleError(1017)

    def _piggyback(self, function: int) -> None:
        if self.state is None or self._cursors is None:
            raise Disconnected
        if function == 105:
            self._reader.u8()
            self._cursors.close([self._reader.ub() for _ in range(self._reader.ub())])
        elif function == 135:
            for key, value in read_end_to_end(self._reader).items():
                self.state.attributes.pop(key, None)
                if value is not None:
                    self.state.attributes[key] = value
        elif function == 152:
            self._reader.u8()
            self.state.schema = self._reader.lclr().decode().strip('"')
        elif function == 96:
            self.lobs.free(skip_freed_lobs(self._reader))
        else:
            raise not_taught(f"the piggyback {function}")

    # Executing.

    def _known(self) -> Cursors:
        if self._cursors is None:
            raise Disconnected
        return self._cursors

    def _execute(self) -> Writer | bytearray:
        reader, cursors = self._reader, self._known()
        request, binds, defines = read_execute(reader, self._version)
        cursor = cursors.of(request)
        if defines:
            request.defines = read_descriptors(reader, defines, self._version)
        elif binds:
            request.descriptors = read_descriptors(reader, binds, self._version)
            self._read_binds(cursor, request)
        return self._executed(cursor, request)

    def _read_binds(self, cursor: Cursor, request: Execute) -> None:
        if request.descriptors is not None:
            cursor.descriptors = request.descriptors
        sent = [one for at, one in enumerate(cursor.descriptors) if at not in cursor.return_binds]
        if sent:
            count = 1 if cursor.kind == "query" else request.iterations
            raw = read_rows(self._reader, sent, count, is_plsql=cursor.kind == "block")
            request.rows = [cursor.decoded(row, sent, self.lobs.values) for row in raw]

    def _again(self, *, fetch: bool = False) -> Writer | bytearray:
        reader = self._reader
        cursor = self._known().find(reader.ub())
        count = reader.ub()
        reader.ub()
        options = reader.ub()
        request = Execute(
            options=0x20 | (0x40 if fetch else 0) | (0x100 if options & 1 else 0), cursor_id=cursor.number
        )
        request.fetch_rows, request.iterations = count, 1 if fetch or cursor.kind == "query" else max(count, 1)
        self._read_binds(cursor, request)
        return self._executed(cursor, request)

    def _again_and_fetch(self) -> Writer | bytearray:
        return self._again(fetch=True)

    def _executed(self, cursor: Cursor, request: Execute) -> Writer | bytearray:
        fault = self._server.faults.strike("execute", cursor.statement)
        if fault is not None:
            self._strike(fault)
        if self.state is None:
            raise Disconnected
        self.state.now = utc_now()
        return self._known().execute(cursor, request, self._end, self._version)

    def _fetch(self) -> Writer | bytearray:
        cursor, rows = self._known().find(self._reader.ub()), self._reader.ub()
        return self._known().fetch(cursor, rows, self._end, self._strike)

    def _lob(self) -> Writer:
        out = self.lobs.operate(read_lob(self._reader))
        out += self._end()
        return out

    def _strike(self, fault: Fault, *, connecting: bool = False) -> None:
        """Do what a fault says."""
        if fault.action == "drop":
            raise Disconnected
        if fault.action == "refuse" and connecting:
            self._refuse(fault.code)
            raise Disconnected
        if fault.action == "error":
            raise OracleError(fault.code)
        if fault.action not in ("slow", "mute"):
            raise ValueError(f"no such fault here: {fault.action}")
        until = time.monotonic() + (fault.seconds if fault.action == "slow" else 3600)
        while time.monotonic() < until and not self._server.closing.wait(0.01):
            if self._packets.waiting():
                if connecting:
                    raise Disconnected
                raise OracleError(1013)
