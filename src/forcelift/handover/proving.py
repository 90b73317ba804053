"""Prove that what is recorded is as it was written: journal, audit rows, sealed files, reports, sign-offs. Offline.

Reads:   the plan file, audit database, storage, report files: neither source nor org.
Writes:  nothing, but for `sign_head` the file that it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct, field

from forcelift.account.recorded import open_recorded
from forcelift.account.signed import why_stale
from forcelift.account.state import State
from forcelift.audit.chain import JournalHead
from forcelift.audit.purges import purged_batches
from forcelift.audit.records import Batch, BatchState, ChunkStep, Part
from forcelift.audit.signoffs import SignOffRow, sha256_of
from forcelift.errors import ForceliftError, StateConflict, StorageError, UsageError
from forcelift.ledger import ledger_folder, marker_name
from forcelift.protocols.clock import Clock
from forcelift.storage.folder import sha256_of as sha256_of_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_KEY_HEAD_BYTES: Final = 200
_Read = TypeVar("_Read")


class Asked(Struct, frozen=True, kw_only=True):
    """What is compared beside what is recorded.

    Attributes:
        heads: Hashes of the journal's head that were printed earlier.
        signed_head: A file as `audit head --out` writes it, with `signature` and `public_key`.
        reports: Report files, wherever they are now.
    """

    heads: tuple[str, ...] = ()
    signed_head: Path | None = None
    signature: Path | None = None
    public_key: Path | None = None
    reports: tuple[Path, ...] = ()


class Proof(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        faults: What differs, with what and where; none is all as it was written.
        notes: What deserves to be known and is no fault, such as sign-offs that are out of date.
        purged: Files and batches whose personal data were removed on purpose, and journalled.
        rows: Audit rows compared; failed records are compared by chunk and counted as one.
        files: Files whose SHA-256 was compared.
        heads: Of the heads that were asked for, those that stand in the chain.
    """

    head: JournalHead
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    purged: tuple[str, ...]
    rows: int
    files: int
    heads: tuple[str, ...]


class _Found(Struct):
    """What the look has found so far."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    files: int = 0


class SealedFile(Struct, frozen=True):
    """A file that something recorded names.

    `must_be` says that nothing may have removed it but a purge, and `is_purged` whether a purge removes it: a ledger
    file is written anew by it, and the new one counts.
    """

    name: str
    sha256: str
    batch_id: str
    must_be: bool
    is_purged: bool = True


def prove(plan_file: str | Path, asked: Asked | None = None, *, clock: Clock | None = None) -> Proof:
    """Compare all that is recorded with its digests.

    Raises:
        UsageError: A head, signature or key that is given cannot be read.
    """
    asked = asked or Asked()
    heads = frozenset(_head(text) for text in asked.heads)
    statement = _signed_statement(asked)
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        found = _Found()
        none: list[SignOffRow] = []
        rows = _readable(found, lambda: state.audit.sign_offs(loaded.plan.project), none)
        statement_head = {statement["hash"]} if statement is not None else set()
        wanted = heads | statement_head | {row.head.hash for row in rows}
        chain = state.audit.verify_rows(frozenset(wanted))
        found.faults += chain.faults
        if chain.is_cut:
            found.faults.append("and more; these are the first")
        if chain.uncovered:
            found.notes.append(
                f"{chain.uncovered} rows of MIGRATION_BACKUP_LOG were written by other programs and are not covered"
            )
        for head in sorted(heads | statement_head):
            if head not in chain.known_heads:
                found.faults.append(
                    f"the head {head} is not in the journal: rows were cut off, or it is another journal's"
                )
        # Rows that were changed may be of any form: what cannot be read of them is a fault like the others.
        _readable(found, lambda: _files(state, loaded.plan.project, found), None)
        _readable(found, lambda: _earlier_ledgers(state, found), None)
        _readable(found, lambda: _corrections(state, found), None)
        _readable(found, lambda: _reports(state, asked, found), None)
        _readable(found, lambda: _sign_offs(state, rows, chain.known_heads, loaded.sha256, found), None)
        return Proof(
            head=chain.head,
            faults=tuple(found.faults),
            notes=tuple(found.notes),
            purged=tuple(found.purged),
            rows=chain.rows,
            files=found.files,
            heads=tuple(sorted((heads | statement_head) & chain.known_heads)),
        )


def _readable(found: _Found, look: Callable[[], _Read], otherwise: _Read) -> _Read:
    """What a look gives; where the rows that it reads are no more as the program writes them, a fault."""
    try:
        return look()
    except (ValueError, TypeError, KeyError, AttributeError, OSError, StorageError, StateConflict) as error:
        what = error.message if isinstance(error, ForceliftError) else type(error).__name__
        found.faults.append(f"what is recorded cannot be read any more: {what}")
        return otherwise


def _files(state: State, project: str, found: _Found) -> None:
    purged = purged_batches(state.audit.purges())
    elsewhere = _elsewhere(state, project, purged, found)
    seen: set[tuple[str, str]] = set()
    for one in sealed_files(state):
        if (one.name, one.sha256) in seen or one.batch_id in elsewhere:
            continue
        seen.add((one.name, one.sha256))
        try:
            if not state.storage.exists(one.name):
                if one.batch_id in purged and one.is_purged:
                    found.purged.append(f"{one.name} (batch {one.batch_id})")
                elif one.must_be:
                    found.faults.append(f"the file `{one.name}` is lost: it is not there, and nothing purged it")
                continue
            found.files += 1
            state.storage.verify(one.name, one.sha256)
        except StorageError as error:
            found.faults.append(error.message)
        except (OSError, ValueError):
            # A name that no file can have.
            found.faults.append(f"what is recorded as a file of batch `{one.batch_id}` is none")
    for purge in state.audit.purges():
        ended = f"{purge.ended_at:%Y-%m-%d}" if purge.ended_at is not None else "not through: run it again"
        found.purged.append(f"personal data of batch {purge.batch_id}, by {purge.asked_by}, {ended}")


def _elsewhere(state: State, project: str, purged: frozenset[str], found: _Found) -> set[str]:
    """Batches of other plans that share the audit database and not the storage: their own plan proves their files."""
    others = set()
    for batch in state.audit.batches():
        if batch.project != project and not state.storage.list(ledger_folder(batch.batch_id)):
            others.add(batch.batch_id)
            if batch.batch_id not in purged and any(True for _ in _of_batch(state, batch.batch_id)):
                found.notes.append(
                    f"files of batch `{batch.batch_id}` of project `{batch.project}` are not in this storage: "
                    "`audit verify` under that project's plan compares them"
                )
    return others


def _earlier_ledgers(state: State, found: _Found) -> None:
    """Ledger files that no chunk names any more, as a retry or a rollback wrote the next, or that none ever named."""
    for batch in state.audit.batches():
        now = {chunk.ledger_file for chunk in state.audit.chunks(batch.batch_id, with_superseded=True)}
        now.add(marker_name(batch.batch_id))
        others = [name for name in state.storage.list(ledger_folder(batch.batch_id)) if name not in now]
        seals = state.audit.journalled_seals(batch.batch_id, "ledger") if others else {}
        for name in others:
            digest = sha256_of_file(state.storage.path(name))
            if name in seals:
                found.files += 1
                if digest not in seals[name]:
                    found.faults.append(f"the file `{name}`, an earlier state of a ledger, was changed after its seal")
            elif not is_at_work(state, batch):
                found.notes.append(
                    f"nothing recorded names the ledger file `{name}`: a process that was killed may have left it, or "
                    "somebody has put it there; nothing reads it"
                )


def _corrections(state: State, found: _Found) -> None:
    """Corrected values that wait for a retry; a seal is journalled before its file is written."""
    purged = purged_batches(state.audit.purges())
    for batch in state.audit.batches():
        for name, seals in state.audit.journalled_seals(batch.batch_id, "corrections").items():
            if state.storage.exists(name):
                found.files += 1
                if sha256_of_file(state.storage.path(name)) not in seals:
                    found.faults.append(f"the file of corrected values `{name}` was changed after it was written")
            elif seals[-1] and batch.batch_id not in purged:
                found.faults.append(f"the file of corrected values `{name}` is lost")


def is_at_work(state: State, batch: Batch) -> bool:
    """Whether a batch may be writing files just now, or has something that is to be gone on with."""
    audit, batch_id = state.audit, batch.batch_id
    if batch.state is BatchState.RUNNING or audit.runners(batch_id):
        return True
    return audit.open_retry(batch_id) is not None or audit.open_rollback(batch_id) is not None


def sealed_files(state: State) -> Iterator[SealedFile]:
    """Every file of which a digest is recorded, of all batches."""
    for batch in state.audit.batches():
        yield from _of_batch(state, batch.batch_id)


def _of_batch(state: State, batch_id: str) -> Iterator[SealedFile]:
    audit = state.audit
    for chunk in audit.chunks(batch_id, with_superseded=True):
        if chunk.ledger_file is not None and chunk.ledger_sha256 is not None:
            yield SealedFile(chunk.ledger_file, chunk.ledger_sha256, batch_id, must_be=True, is_purged=False)
        # A settled chunk needs its staged files no more, and the plan says how long they stay.
        needed = chunk.step in (ChunkStep.STAGED, ChunkStep.LOADED, ChunkStep.LINKING)
        if chunk.staged is not None:
            yield from _parts(chunk.staged.parts, batch_id, must_be=needed)
        yield from _parts(chunk.link_parts, batch_id, must_be=False)
    for name, sha256 in audit.image_files(batch_id):
        yield SealedFile(name, sha256, batch_id, must_be=True)
    for retry in audit.retries(batch_id):
        for sent in audit.retry_chunks(retry.retry_no):
            # Its lines go with its folder once it has ended; its images stay, as a rollback needs them.
            open_still = retry.ended_at is None
            yield SealedFile(sent.lines_file, sent.lines_sha256, batch_id, must_be=open_still)
            if sent.image_file is not None and sent.image_sha256 is not None:
                is_kept = not sent.image_file.startswith(f"{retry.folder}/")
                yield SealedFile(sent.image_file, sent.image_sha256, batch_id, must_be=open_still or is_kept)
    for rollback in audit.rollbacks(batch_id):
        for undone in audit.rollback_chunks(rollback.rollback_no):
            yield SealedFile(undone.decisions_file, undone.decisions_sha256, batch_id, must_be=True)
            yield from _parts((*undone.restores, *undone.deletes), batch_id, must_be=True)
    for kind, must_be in (("outcomes", True), ("results", False)):
        for name, seals in audit.journalled_seals(batch_id, kind).items():
            if seals[-1]:
                yield SealedFile(name, seals[-1], batch_id, must_be=must_be)


def _parts(parts: tuple[Part, ...], batch_id: str, *, must_be: bool) -> Iterator[SealedFile]:
    for part in parts:
        yield SealedFile(part.file, part.sha256, batch_id, must_be=must_be)


def _reports(state: State, asked: Asked, found: _Found) -> None:
    made = state.audit.reports_made()
    digests = {one.sha256 for one in made}
    # The last that was written in a place is what belongs there, and no other report, however well known it is.
    for file, digest in {one.file: one.sha256 for one in made if one.file is not None}.items():
        path = Path(file)
        try:
            if not path.exists():
                found.notes.append(f"the report `{file}` is not where it was written: `--report FILE` compares it")
                continue
            found.files += 1
            if sha256_of_file(path) != digest:
                found.faults.append(f"the report `{file}` was changed after it was written")
        except OSError as error:
            found.faults.append(f"the report `{file}` cannot be read: {error.strerror}")
    for path in asked.reports:
        try:
            digest = sha256_of_file(path)
        except OSError as error:
            raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error
        found.files += 1
        if digest not in digests:
            found.faults.append(f"`{path}` is no report as it was written here: its sha256 is {digest}")


def _sign_offs(
    state: State, rows: list[SignOffRow], known_heads: frozenset[str], plan_sha256: str, found: _Found
) -> None:
    for row in rows:
        named = f"sign-off {row.sign_off_no} ({row.phase}, {row.role}, {row.name})"
        if sha256_of(row.binds) != row.binds_sha256:
            found.faults.append(f"{named}: what it binds was changed")
        if row.head.hash not in known_heads:
            found.faults.append(f"{named}: the journal's head at its time is not in the journal")
        evidence = {one.evidence_no: one for one in state.audit.evidence(row.project)}
        for kind in ("check", "profile", "estimate"):
            bound = row.binds.get(kind)
            there = evidence.get(bound["evidence"]) if bound is not None else None
            if bound is not None and (there is None or sha256_of(there.document) != bound["sha256"]):
                found.faults.append(f"{named}: the {kind} that it binds is not as it was")
        if row.withdrawn_at is None:
            stale = why_stale(state, row, plan_sha256=plan_sha256)
            if stale is not None:
                found.notes.append(f"{named} is out of date: {stale}")


# Heads that are signed with a key from outside.


def head_statement(plan_file: str | Path, *, clock: Clock | None = None) -> bytes:
    """The journal's head as a file that can be kept and signed elsewhere: one line of JSON."""
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        head = state.audit.journal_head()
        document = {
            "forcelift": "journal head",
            "project": loaded.plan.project,
            "audit": state.audit.where,
            "seq": head.seq,
            "hash": head.hash,
            "at": state.audit.clock.now().isoformat(),
        }
    return (json.dumps(document, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_head(plan_file: str | Path, out: Path, *, sign_with: Path | None = None) -> Path | None:
    """Write the head's file, and with a key its signature beside it. Returns the signature's file.

    Args:
        sign_with: A private Ed25519 key, PEM or OpenSSH, without a passphrase.
    Raises:
        StateConflict: A file is there.
        UsageError: The key cannot be read.
    """
    key = _private_key(sign_with) if sign_with is not None else None
    statement = head_statement(plan_file)
    _write_new(out, statement)
    if key is None:
        return None
    signature = out.with_name(f"{out.name}.sig")
    _write_new(signature, key.sign(statement))
    return signature


def _write_new(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise StateConflict(f"`{path}` exists", state="it was not changed", hint="name another by `--out`") from None
    except OSError as error:
        raise StorageError(f"`{path}` cannot be written: {error.strerror}", state="nothing was written") from error


def _head(text: str) -> str:
    head = text.strip().lower()
    if len(head) != 64 or any(letter not in "0123456789abcdef" for letter in head):
        raise UsageError(
            f"`{text[:80]}` is no head of a journal",
            state="nothing was compared",
            hint="it has 64 hex digits, as `signoff` and reports print it",
        )
    return head


def _signed_statement(asked: Asked) -> dict[str, Any] | None:
    given = (asked.signed_head, asked.signature, asked.public_key)
    if all(one is None for one in given):
        return None
    if asked.signed_head is None or asked.signature is None or asked.public_key is None:
        raise UsageError(
            "`--signed-head`, `--signature` and `--public-key` go together",
            state="nothing was compared",
            hint="`audit head --out head.json --sign-with KEY` writes the first two",
        )
    from cryptography.exceptions import InvalidSignature

    statement, signature = _read(asked.signed_head), _read(asked.signature)
    try:
        _public_key(asked.public_key).verify(signature, statement)
    except InvalidSignature:
        raise StateConflict(
            f"`{asked.signature}` is no signature of `{asked.signed_head}` by the key `{asked.public_key}`",
            state="nothing else was compared",
            hint="one of the three was changed, or belongs to another",
        ) from None
    try:
        document = json.loads(statement)
        return {"seq": int(document["seq"]), "hash": _head(str(document["hash"]))}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"`{asked.signed_head}` is no head of a journal", state="nothing was compared") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}", state="nothing was compared") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = _read(path)
    try:
        if b"OPENSSH" in content[:_KEY_HEAD_BYTES]:
            key: Any = serialization.load_ssh_private_key(content, password=None)
        else:
            key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "private")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(path)
    try:
        if content.startswith(b"ssh-"):
            key: Any = serialization.load_ssh_public_key(content)
        else:
            key = serialization.load_pem_public_key(content)
    except (ValueError, TypeError) as error:
        raise _no_key(path, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "public")
    return key


def _no_key(path: Path, kind: str) -> UsageError:
    return UsageError(
        f"`{path}` is no {kind} Ed25519 key without a passphrase",
        state="nothing was signed or compared",
        hint="`openssl genpkey -algorithm ed25519 -out key.pem`, `openssl pkey -in key.pem -pubout -out key.pub`",
    )
