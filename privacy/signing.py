"""A signature beside a certificate, by a key of the holder's: Ed25519 (RFC 8032), 64 bytes over the file as it is.

The keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them; OpenSSL alone can check a signature too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from errors import reject_unless, unusable

SIGNATURE = "privacy.json.sig"


def sign(setting: str, key_file: str, content: bytes) -> bytes:
    return private_key(setting, key_file).sign(content)


def private_key(setting: str, key_file: str) -> Any:
    """InputError, which names the setting, where it is not there, not an Ed25519 key, or closed by a passphrase."""
    ed25519, serialization = _cryptography(setting, key_file)
    content = _content(setting, key_file)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        problem = "it is closed by a passphrase; openssl pkey -in FILE -out OPEN writes an open copy, to be deleted after signing"
        raise unusable(setting, key_file, problem) from error
    except ValueError as error:
        raise unusable(setting, key_file, "it is no private key in PEM form") from error
    reject_unless(isinstance(key, ed25519.Ed25519PrivateKey), setting, key_file, "it is no Ed25519 key")
    return key


def fits(key_file: str, signature: bytes, content: bytes) -> bool:
    """Whether the signature is of this content by the owner of this public key; InputError where it is none."""
    setting, (ed25519, serialization) = "public_key", _cryptography("public_key", key_file)
    from cryptography.exceptions import InvalidSignature

    try:
        key = serialization.load_pem_public_key(_content(setting, key_file))
    except ValueError as error:
        raise unusable(setting, key_file, "it is no public key in PEM form") from error
    reject_unless(isinstance(key, ed25519.Ed25519PublicKey), setting, key_file, "it is no Ed25519 key")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _content(setting: str, key_file: str) -> bytes:
    reject_unless(Path(key_file).is_file(), setting, key_file, "there is no such file")
    return Path(key_file).read_bytes()


def _cryptography(setting: str, key_file: str) -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise unusable(setting, key_file, "signatures need another package: pip install cryptography") from error
    return ed25519, serialization
