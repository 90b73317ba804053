"""Heads that are signed outside: which keys do, and what a wrong or missing one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.integration.test_audit_export import plan

from forcelift.errors import StateConflict, UsageError
from forcelift.handover.proving import Asked, prove, write_head

__all__ = ["plan"]

PEM, RAW = serialization.Encoding.PEM, serialization.NoEncryption()


def keep(
    folder: Path, name: str, key: object, *, form: str = "PKCS8", secret: bytes | None = None
) -> tuple[Path, Path]:
    """Private and public half as files."""
    lock = serialization.BestAvailableEncryption(secret) if secret else RAW
    private = key.private_bytes(PEM, getattr(serialization.PrivateFormat, form), lock)  # type: ignore[attr-defined]
    if form == "OpenSSH":
        kind = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    else:
        kind = (PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    files = folder / f"{name}.key", folder / f"{name}.pub"
    files[0].write_bytes(private)
    files[1].write_bytes(key.public_key().public_bytes(*kind))  # type: ignore[attr-defined]
    return files


@pytest.mark.parametrize("form", ["PKCS8", "OpenSSH"])
def test_a_head_signed_by_either_form_of_key_is_known(plan: Path, tmp_path: Path, form: str) -> None:
    private, public = keep(tmp_path, "mine", Ed25519PrivateKey.generate(), form=form)
    head = tmp_path / "head.json"
    signature = write_head(plan, head, sign_with=private)
    assert signature is not None
    asked = Asked(signed_head=head, signature=signature, public_key=public)
    assert prove(plan, asked).heads == (json.loads(head.read_bytes())["hash"],)
    # Another's key, a signature of which a bit was turned, a head that says something else.
    _, other = keep(tmp_path, "other", Ed25519PrivateKey.generate())
    with pytest.raises(StateConflict, match="is no signature of"):
        prove(plan, Asked(signed_head=head, signature=signature, public_key=other))
    for file in (signature, head):
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(StateConflict, match="is no signature of"):
            prove(plan, asked)
        content[5] ^= 1
        file.write_bytes(bytes(content))
    with pytest.raises(StateConflict, match="exists"):
        write_head(plan, head, sign_with=private)


def test_other_kinds_of_keys_and_missing_parts_are_told(plan: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.json"
    private, public = keep(tmp_path, "mine", Ed25519PrivateKey.generate())
    signature = write_head(plan, head, sign_with=private)
    others = {
        "rsa": keep(tmp_path, "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "ec": keep(tmp_path, "ec", ec.generate_private_key(ec.SECP256R1())),
        "locked": keep(tmp_path, "locked", Ed25519PrivateKey.generate(), secret=b"secret"),
        "none": (plan, plan),
        "gone": (tmp_path / "gone", tmp_path / "gone"),
    }
    for name, (one, half) in others.items():
        with pytest.raises(UsageError, match=r"is no private Ed25519 key|cannot be read"):
            write_head(plan, tmp_path / f"{name}.json", sign_with=one)
        assert not (tmp_path / f"{name}.json").exists(), "no head without the signature that was asked for"
        if name != "locked":
            with pytest.raises(UsageError, match=r"is no public Ed25519 key|cannot be read"):
                prove(plan, Asked(signed_head=head, signature=signature, public_key=half))
    for asked in (
        Asked(signed_head=head, signature=signature),
        Asked(signed_head=head, public_key=public),
        Asked(signature=signature, public_key=public),
    ):
        with pytest.raises(UsageError, match="go together"):
            prove(plan, asked)
    for text in ("", "5f0c", "g" * 64, "0" * 63):
        with pytest.raises(UsageError, match="is no head of a journal"):
            prove(plan, Asked(heads=(text,)))
    assert prove(plan, Asked(heads=("f" * 64,))).faults[-1].startswith(f"the head {'f' * 64} is not in the journal")
