"""Signatures of certificates: by the right key, of the right bytes, and refusals of keys that are none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from privacy.config import Privacy
from privacy.signing import fits, sign
from tests.keys import key_pair
from tests.rejects import rejects


def test_a_signature_is_of_these_bytes_by_this_key(tmp_path):
    private, public = key_pair(tmp_path)
    _, other = key_pair(tmp_path, "other")
    signature = sign("key", private, b"epsilon")
    assert len(signature) == 64
    assert signature == sign("key", private, b"epsilon")  # a resumed run signs alike
    assert fits(public, signature, b"epsilon")
    assert not fits(public, signature, b"epsilom")
    assert not fits(other, signature, b"epsilon")
    assert not fits(public, signature[:-1], b"epsilon")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_checks_it_too(tmp_path):
    private, public = key_pair(tmp_path)
    (tmp_path / "text").write_bytes(b"epsilon")
    (tmp_path / "sig").write_bytes(sign("key", private, b"epsilon"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", "text", "-sigfile", "sig"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def pem(path: Path, key, password: bytes | None = None) -> str:
    closed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed))
    return str(path)


def test_what_is_no_signing_key_is_refused_before_any_work(tmp_path):
    (tmp_path / "text").write_text("key")
    wrong = [
        str(tmp_path / "missing"),
        str(tmp_path / "text"),
        pem(tmp_path / "closed", ed25519.Ed25519PrivateKey.generate(), b"secret"),
        pem(tmp_path / "curve", ec.generate_private_key(ec.SECP256R1())),
        key_pair(tmp_path)[1],  # the public one
    ]
    for key in wrong:
        with rejects("privacy.signing_key", key):
            Privacy(epsilon=1.0, signing_key=key).check()
    with rejects("public_key", wrong[1]):
        fits(wrong[1], b"", b"")
    Privacy(epsilon=1.0, signing_key=key_pair(tmp_path)[0]).check()
