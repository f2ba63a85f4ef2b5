"""What people do with the `ollama` package."""

import ollama
import pytest
from conftest import MODEL

GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "seed": 1}
PROMPT = "The capital of France is"


@pytest.fixture
def client(server):
    return ollama.Client(host=server)


def test_list_names_the_model_with_its_size_and_digest(client):
    entry = next(m for m in client.list().models if m.model == MODEL)
    assert entry.size == 98362432
    assert entry.digest.removeprefix("sha256:") == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert entry.details.family == "llama"
    assert entry.details.quantization_level == "Q4_1"


def test_show_gives_architecture_template_and_context(client):
    shown = client.show(MODEL)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "im_start" in shown.template
    assert "completion" in shown.capabilities


def test_generate_counts_what_it_did(client):
    answer = client.generate(MODEL, PROMPT, raw=True, options=GREEDY | {"num_predict": 12})
    assert answer.done and answer.done_reason == "length"
    assert answer.eval_count == 12
    assert answer.prompt_eval_count == 5
    assert answer.response
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration > 0


def test_a_stream_carries_one_token_a_chunk_and_the_same_text(client):
    options = GREEDY | {"num_predict": 16}
    whole = client.generate(MODEL, PROMPT, raw=True, options=options)
    chunks = list(client.generate(MODEL, PROMPT, raw=True, options=options, stream=True))
    assert [c.done for c in chunks] == [False] * 16 + [True]
    assert "".join(c.response for c in chunks) == whole.response
    assert chunks[-1].eval_count == 16


def test_chat_applies_the_template_and_hears_every_turn(client):
    turns = [{"role": "user", "content": "Repeat this word: banana"}]
    first = client.chat(MODEL, turns, options=GREEDY | {"num_predict": 40})
    assert first.message.role == "assistant"
    assert "banana" in first.message.content.lower()
    turns += [first.message, {"role": "user", "content": "Thank you."}]
    second = client.chat(MODEL, turns, options=GREEDY | {"num_predict": 8})
    assert second.prompt_eval_count > first.prompt_eval_count


def test_a_chat_streams(client):
    chunks = list(client.chat(MODEL, [{"role": "user", "content": "Hi"}], options=GREEDY, stream=True))
    assert chunks[-1].done and chunks[-1].done_reason == "stop"
    assert "".join(c.message.content for c in chunks).strip()


def test_the_same_seed_gives_the_same_sample(client):
    options = {"temperature": 1.0, "seed": 42, "num_predict": 24}
    first, second = (client.generate(MODEL, PROMPT, options=options).response for _ in range(2))
    other = client.generate(MODEL, PROMPT, options=options | {"seed": 43}).response
    assert first == second != other


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client):
    options = GREEDY | {"num_predict": 64, "stop": ["."]}
    answer = client.generate(MODEL, PROMPT, raw=True, options=options)
    assert answer.done_reason == "stop"
    assert "." not in answer.response


def test_ps_shows_the_model_while_it_is_loaded_and_keep_alive_0_unloads_it(client):
    client.generate(MODEL, PROMPT, options={"num_predict": 1})
    assert MODEL in [m.model for m in client.ps().models]
    assert client.generate(MODEL, "", keep_alive=0).done_reason == "unload"
    assert MODEL not in [m.model for m in client.ps().models]


def test_an_unknown_model_is_404_and_says_what_to_do(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("no-such-model", "Hi")
    assert caught.value.status_code == 404
    assert "no-such-model" in caught.value.error and "pull" in caught.value.error


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(MODEL, "word " * 600, raw=True, options={"num_ctx": 512})
    assert caught.value.status_code == 400
    assert "512" in caught.value.error


def test_the_async_client_streams_too(server):
    import asyncio

    async def tokens() -> int:
        client = ollama.AsyncClient(host=server)
        stream = await client.generate(MODEL, PROMPT, raw=True, options=GREEDY | {"num_predict": 5}, stream=True)
        return len([part async for part in stream if not part.done])

    assert asyncio.run(tokens()) == 5
