"""Both packages at once: the server has two slots."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from conftest import MODEL

TOKENS = 24


def by_ollama(client):
    """The pieces of a text, each with its time."""
    options = {"temperature": 0, "repeat_penalty": 1, "num_predict": TOKENS, "ignore_eos": True}
    chunks = client.generate(MODEL, "The capital of France is", raw=True, stream=True, options=options)
    return [(time.monotonic(), chunk.response) for chunk in chunks]


def by_openai(client, tokens=TOKENS):
    """The same of another text."""
    request = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": tokens}
    chunks = client.completions.create(**request, stream=True, extra_body={"ignore_eos": True})
    return [(time.monotonic(), chunk.choices[0].text) for chunk in chunks]


def text(pieces):
    return "".join(piece for _, piece in pieces)


def test_two_streams_at_once_say_what_each_says_alone(ollama_client, openai_client):
    alone = [text(by_ollama(ollama_client)), text(by_openai(openai_client))]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(by_ollama, ollama_client), pool.submit(by_openai, openai_client)]
        both = [stream.result(timeout=60) for stream in both]
    assert [text(stream) for stream in both] == alone
    begins, ends = [stream[0][0] for stream in both], [stream[-1][0] for stream in both]
    assert max(begins) < min(ends), "they took turns"


def counter(url, name):
    """A counter of the server."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} "))


def test_a_client_that_leaves_gives_its_slot_to_the_next_and_disturbs_nobody(url, ollama_client, openai_client):
    # Long enough for a third client to come while it is answered.
    tokens = 5 * TOKENS
    alone = text(by_openai(openai_client, tokens))
    generated, cancelled = counter(url, "edgellm_generated_tokens_total"), counter(url, "edgellm_cancelled_total")
    # To the end of the context, hundreds of tokens after the others have ended.
    leaving = ollama_client.generate(MODEL, "Tell me a very long story", stream=True, options={"ignore_eos": True})
    next(leaving)
    with ThreadPoolExecutor() as pool:
        stays = pool.submit(by_openai, openai_client, tokens)
        next(leaving)
        leaving.close()
        comes = pool.submit(by_ollama, ollama_client)
        stays, comes = stays.result(timeout=60), comes.result(timeout=60)
    assert text(stays) == alone
    assert len(comes) == TOKENS + 1
    # Of two slots one is taken by the client that stays, so that the next one can only begin in the one that was left.
    assert comes[0][0] < stays[-1][0], "the slot was given free too late"
    assert counter(url, "edgellm_cancelled_total") == cancelled + 1
    of_leaving = counter(url, "edgellm_generated_tokens_total") - generated - tokens - TOKENS
    assert 0 < of_leaving < 2 * TOKENS, "the server went on without its client"
