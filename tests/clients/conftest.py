"""A running `edgellm serve` with the real model, and both clients pointed at it."""

import os
import signal
import subprocess

import ollama
import openai
import pytest

MODEL = "smollm2:135m"


@pytest.fixture(scope="session")
def url(tmp_path_factory):
    """The base address of a server on a free port, which must end with exit code 0."""
    server = subprocess.Popen(
        [
            os.environ["EDGELLM_BIN"], "serve", "--port", "0", "--ctx", "1024", "--parallel", "2",
            # The text of so small a model hangs by a thread, and int8 activations differ between processors.
            "--precision", "exact",
            "--model", os.environ["EDGELLM_TEST_MODEL"], "--name", MODEL,
        ],
        env={**os.environ, "EDGELLM_HOME": str(tmp_path_factory.mktemp("home"))},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in server.stderr:
        if "serving on " in line:
            break
    else:
        pytest.fail(f"the server ended with exit code {server.wait()}")
    yield line.split("serving on ")[1].split()[0]
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0, server.stderr.read()


@pytest.fixture(scope="session")
def ollama_client(url):
    return ollama.Client(host=url)


@pytest.fixture(scope="session")
def openai_client(url):
    # Without retries, so that an error is seen as it comes.
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
