"""Both packages at once: the server has two slots."""

import time
from concurrent.futures import ThreadPoolExecutor

from conftest import MODEL

TOKENS = 24


def by_ollama(client):
    """The pieces of a text, each with its time."""
    options = {"temperature": 0, "repeat_penalty": 1, "num_predict": TOKENS, "ignore_eos": True}
    chunks = client.generate(MODEL, "The capital of France is", raw=True, stream=True, options=options)
    return [(time.monotonic(), chunk.response) for chunk in chunks]


def by_openai(client):
    """The same of another text."""
    request = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": TOKENS}
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


def test_a_client_that_leaves_gives_its_slot_to_the_next_and_disturbs_nobody(ollama_client, openai_client):
    alone = text(by_openai(openai_client))
    leaving = ollama_client.generate(MODEL, "Tell me a very long story", stream=True, options={"ignore_eos": True})
    next(leaving)
    with ThreadPoolExecutor() as pool:
        stays = pool.submit(by_openai, openai_client)
        next(leaving)
        leaving.close()
        comes = pool.submit(by_ollama, ollama_client)
        assert text(stays.result(timeout=60)) == alone
        assert len(comes.result(timeout=60)) == TOKENS + 1
