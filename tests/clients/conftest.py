"""A running `edgellm serve` for the whole test run."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

MODEL = "smollm2:135m"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="session")
def server():
    """The base URL of a server that has the default model."""
    port = free_port()
    command = [os.environ["EDGELLM_BIN"], "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                break
        except OSError:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < deadline, "the server did not answer within a minute"
            time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0, "a server that is told to end exits with 0"
