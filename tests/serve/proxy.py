"""nginx, as docs/howto/serve.md says to set it up: word for word but for ports and the certificate."""

import contextlib
import datetime
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "serve.md"
PUBLIC = "https://facts.example"


def find_nginx() -> str:
    """Where it is; the test is skipped without it."""
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found is None:
        pytest.skip("needs nginx")
    return found


def howto_block() -> str:
    """The configuration that the how-to shows."""
    [block] = re.findall(r"```nginx\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    return str(block)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_certificate(folder: Path) -> None:
    """A self-signed one and its key."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "facts.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("facts.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "privkey.pem").write_bytes(secret)


@contextlib.contextmanager
def behind_nginx(folder: Path, port: int, without: str = "") -> Iterator[int]:
    """Run nginx before a server, with the lines that hold ``without`` left out; yields its port."""
    nginx, own = find_nginx(), free_port()
    write_certificate(folder)
    block = "\n".join(line for line in howto_block().splitlines() if not without or without not in line)
    for theirs, ours in (
        ("443 ssl", f"127.0.0.1:{own} ssl"),
        ("/etc/letsencrypt/live/facts.example", str(folder)),
        ("127.0.0.1:7860", f"127.0.0.1:{port}"),
    ):
        assert theirs in block
        block = block.replace(theirs, ours)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{block}\n}}\n"
    )
    process = subprocess.Popen(
        [nginx, "-p", str(folder), "-c", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", own), 1):
                break
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        yield own
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, *options: str) -> Iterator[int]:
    """``detect serve`` in a process of its own; yields its port once it answers."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "crossfake.detect",
        "serve",
        "--bundle",
        str(bundle),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--device", "cpu", *options],
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "answers at" in line, line + process.stdout.read()
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
