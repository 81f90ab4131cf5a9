"""Throwaway certificates, for servers that speak TLS."""

import subprocess
from pathlib import Path


def make_certificates(folder: Path, names: str = "IP:127.0.0.1", **others: str) -> None:
    """In *folder*: ca.pem and, signed by it, server.pem and client.pem with their .key; other-ca.pem signed neither.

    The server's and the client's are for *names* alone; each of *others* is one more, for the names given.
    """
    # A key on a curve takes a millisecond, one of RSA up to a second.
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem",
                "-subj", f"/CN={ca}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, subjects in {"server": names, "client": names, **others}.items():
        (folder / "extensions").write_text(
            f"subjectAltName={subjects}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "extensions")  # fmt: skip
