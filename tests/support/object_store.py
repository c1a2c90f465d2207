"""A real S3 server on this machine (moto's, in a process of its own), which checks signatures, and a bad line to it.

Import the fixtures `store` and `s3` by name.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "rows-of-tests"
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
"""Ends when its input is closed, and so with the tests."""


@dataclass
class Store:
    """An S3 server with one bucket, and the one user that it lets in.

    Args:
        port: where it listens, at 127.0.0.1.
        key, secret: the user's credentials.
    """

    port: int
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a command has to tell."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, kind: str = "s3") -> Any:
        import boto3

        return boto3.client(
            kind, endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id=self.key, aws_secret_access_key=self.secret,
        )  # fmt: skip

    def put(self, key: str, content: bytes | Path) -> str:
        """Store a file, or all files below a folder; returns the address."""
        with closing(self.client()) as client:
            if isinstance(content, bytes):
                client.put_object(Bucket=BUCKET, Key=key, Body=content)
            else:
                files = (
                    [path for path in content.rglob("*") if path.is_file()] if content.is_dir() else [content]
                )
                for path in files:
                    below = f"{key}/{path.relative_to(content)}" if content.is_dir() else key
                    client.put_object(Bucket=BUCKET, Key=below, Body=path.read_bytes())
        return f"s3://{BUCKET}/{key}"


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The server."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            admin = Store(_port(server.stdout), "ADMIN", "admin")
            with closing(admin.client("iam")) as iam:
                iam.create_user(UserName="reader")
                allowed = {
                    "Version": "2012-10-17",
                    "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"},
                }
                iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(allowed))
                made = iam.create_access_key(UserName="reader")["AccessKey"]
            with closing(admin.client()) as client:
                client.create_bucket(Bucket=BUCKET)
            # from now on each request needs a signature
            address, plain = (
                f"http://127.0.0.1:{admin.port}/moto-api/reset-auth",
                {"Content-Type": "text/plain"},
            )
            urlopen(Request(address, data=b"0", headers=plain)).close()
            yield Store(admin.port, made["AccessKeyId"], made["SecretAccessKey"])
        finally:
            server.stdin.close()
            server.wait(30)


def _port(stdout: Any) -> int:
    for line in stdout:
        with suppress(ValueError):
            return int(line)
    raise AssertionError("the server ended")


@pytest.fixture
def s3(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """The server, known to the environment of this process; the cache is empty."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MTL_OFFLINE", raising=False)
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    return store


@dataclass
class BadLine:
    """A line to a server that breaks within long answers.

    Args:
        port: where it listens.
        breaks: how often it will break; -1: always.
        after: the bytes of an answer that come through before it breaks.
        broken: how often it broke.
    """

    port: int
    breaks: int
    after: int
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def breaks_now(self) -> bool:
        with self.lock:
            if self.breaks == 0:
                return False
            self.breaks -= 1
            self.broken += 1
            return True


@contextmanager
def bad_line(to: int, breaks: int, after: int) -> Iterator[BadLine]:
    """A proxy before the server at the port `to`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = BadLine(listening.getsockname()[1], breaks, after)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(
                        target=_relay, args=(listening.accept()[0], to, line), daemon=True
                    ).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield line
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _relay(caller: socket.socket, to: int, line: BadLine) -> None:
    """Pass on what both say, until one hangs up or an answer gets so long that the line breaks."""
    with caller, socket.create_connection(("127.0.0.1", to)) as server, suppress(OSError):
        came = 0
        while True:
            for ready in select.select([caller, server], [], [])[0]:
                data = ready.recv(1 << 14)
                if not data:
                    return
                came = came + len(data) if ready is server else 0
                if came > line.after and line.breaks_now():
                    # hang up at once, instead of an orderly end
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                (server if ready is caller else caller).sendall(data)
