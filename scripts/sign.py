"""The holder's signature beside the certificate of a release, given once it was approved, or of an export.

    python -m scripts.sign release=runs/…/release key=holder.key                # writes privacy.json.sig; nothing else changes
    python -m scripts.sign release=… key=holder.key sha256=1f0e…                # only if this is what was approved

`key` is a file with an Ed25519 private key (docs/privacy.md); it needs `pip install cryptography`. Refused are a release that is
not private, one that was changed, and one that is signed already: only what `scripts.verify` finds right is signed. The receiver
runs that with the public key. `sha256` is the certificate's, or its first characters, as a report has it. Nothing is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from conf.help import run_script
from disk import sha256_of
from errors import reject_unless, require
from privacy.inherited import CERTIFICATE
from privacy.signing import SIGNATURE
from scripts.verify import check_claims, check_files, failed, read_certificate
from store.seal import add_signature


@dataclass
class Signing:
    release: str = MISSING
    key: str = MISSING
    sha256: str | None = None  # of the certificate that was approved


def main(arguments: list[str]) -> None:
    # Setup
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Signing), OmegaConf.from_cli(arguments)))
    folder = Path(settings.release)
    document = read_certificate(folder)
    digest = sha256_of(folder / CERTIFICATE)
    approved = next((one.partition("=")[2] for one in arguments if one.startswith("sha256=")), None)  # 66e1 is no number
    alike = approved is None or (len(approved) >= 8 and digest.startswith(approved))
    require(alike, "sha256", approved, f"that of the certificate, {digest}, or its first 8 characters at least")
    reject_unless(not (folder / SIGNATURE).exists(), "release", folder, f"it is signed; delete {SIGNATURE} to sign it anew")
    wrong = failed([*check_files(folder, document), *check_claims(document)])
    reject_unless(not wrong, "release", folder, f"scripts.verify finds it wrong: {'; '.join(wrong)}")

    # Run
    add_signature(folder, "key", settings.key)

    # Report
    print(f"{folder / SIGNATURE}: of the certificate with id {document.get('id')}, sha256 {digest}")


if __name__ == "__main__":
    run_script(main, __doc__)
