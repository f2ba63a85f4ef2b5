"""The `ollama` package against our server."""

import asyncio

import ollama
import pytest

from conftest import MODEL

GREEDY = {"temperature": 0, "repeat_penalty": 1}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_generate(ollama_client):
    answer = ollama_client.generate(MODEL, "What is the capital of France?", options={**GREEDY, "num_predict": 40})
    assert "Paris" in answer.response
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 10 and 0 < answer.eval_count <= 40
    assert answer.prompt_eval_duration > 0 and answer.eval_duration > 0
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration


def test_generate_raw_stream_has_one_chunk_for_each_token(ollama_client):
    options = {**GREEDY, "num_predict": 16, "ignore_eos": True}
    chunks = list(ollama_client.generate(MODEL, "Once upon a time", raw=True, stream=True, options=options))
    assert len(chunks) == 17
    assert [chunk.done for chunk in chunks] == [False] * 16 + [True]
    assert chunks[-1].eval_count == 16 and chunks[-1].done_reason == "length"
    whole = ollama_client.generate(MODEL, "Once upon a time", raw=True, options=options)
    assert whole.response == "".join(chunk.response for chunk in chunks)


def test_a_seed_makes_sampling_reproducible(ollama_client):
    def say(seed):
        options = {"temperature": 1.5, "seed": seed, "num_predict": 20}
        return ollama_client.generate(MODEL, "Write a poem", options=options).response

    assert say(1) == say(1)
    assert say(1) != say(2)


def test_stop_strings_end_the_answer(ollama_client):
    options = {**GREEDY, "num_predict": 40, "stop": ["Paris"]}
    answer = ollama_client.chat(MODEL, QUESTION, options=options)
    assert answer.done_reason == "stop"
    assert "Paris" not in answer.message.content


def test_chat_and_its_stream_say_the_same(ollama_client):
    options = {**GREEDY, "num_predict": 24}
    whole = ollama_client.chat(MODEL, QUESTION, options=options)
    assert whole.message.role == "assistant" and "Paris" in whole.message.content
    chunks = list(ollama_client.chat(MODEL, QUESTION, stream=True, options=options))
    assert "".join(chunk.message.content for chunk in chunks) == whole.message.content
    assert chunks[-1].eval_count == whole.eval_count == len(chunks) - 1


def test_a_conversation_reaches_the_model_with_all_its_turns(ollama_client):
    options = {**GREEDY, "num_predict": 30}
    turns = [
        ("system", "You answer in rhymes."),
        ("user", "My name is Ada."),
        ("assistant", "Hello Ada."),
        ("user", "What is my name?"),
    ]
    chat = ollama_client.chat(MODEL, [{"role": role, "content": text} for role, text in turns], options=options)
    # The model's template, written out.
    prompt = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"
    raw = ollama_client.generate(MODEL, prompt, raw=True, options=options)
    assert (chat.message.content, chat.prompt_eval_count) == (raw.response, raw.prompt_eval_count)


def test_the_async_client_streams(url):
    async def say():
        client = ollama.AsyncClient(host=url)
        stream = await client.chat(MODEL, QUESTION, stream=True, options={**GREEDY, "num_predict": 8})
        return [chunk async for chunk in stream]

    assert asyncio.run(say())[-1].done


def test_list_names_the_model(ollama_client):
    models = {model.model: model for model in ollama_client.list().models}
    model = models[MODEL]
    assert model.size > 90_000_000 and len(model.digest) == 64
    assert model.details.family == "llama" and model.details.quantization_level == "Q4_1"


def test_show_tells_about_the_model(ollama_client):
    shown = ollama_client.show(MODEL)
    assert shown.details.format == "gguf"
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "im_start" in shown.template
    assert "completion" in shown.capabilities


def test_ps_shows_the_model_in_memory(ollama_client):
    ollama_client.generate(MODEL, keep_alive="5m")
    running = ollama_client.ps().models
    assert [model.model for model in running] == [MODEL]
    assert running[0].size > 90_000_000 and running[0].expires_at is not None


def test_load_and_unload(ollama_client):
    assert ollama_client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert ollama_client.ps().models == []
    assert ollama_client.generate(MODEL, keep_alive=-1).done_reason == "load"
    assert len(ollama_client.ps().models) == 1


def test_an_unknown_model_is_a_404_that_names_the_fix(ollama_client):
    calls = [
        lambda: ollama_client.generate("nope", "hi"),
        lambda: ollama_client.chat("nope", QUESTION),
        lambda: ollama_client.show("nope"),
        lambda: list(ollama_client.generate("nope", "hi", stream=True)),
    ]
    for call in calls:
        with pytest.raises(ollama.ResponseError) as error:
            call()
        assert error.value.status_code == 404
        assert "edgellm pull nope" in error.value.error


def test_what_is_not_supported_is_refused(ollama_client):
    with pytest.raises(ollama.ResponseError) as error:
        ollama_client.chat(MODEL, QUESTION, format="json")
    assert error.value.status_code == 400 and "format" in error.value.error
    with pytest.raises(ollama.ResponseError) as error:
        ollama_client.generate(MODEL, "word " * 2000)
    assert error.value.status_code == 400 and "1024" in error.value.error


def test_a_client_that_leaves_does_not_block_the_next(ollama_client):
    stream = ollama_client.generate(MODEL, "Tell me a very long story", stream=True, options={"ignore_eos": True})
    next(stream)
    stream.close()
    answer = ollama_client.generate(MODEL, "hi", options={"num_predict": 2})
    assert answer.eval_count <= 2
