"""The `openai` package against our server."""

import openai
import pytest

from conftest import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_chat(openai_client):
    answer = openai_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=40)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and "Paris" in choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stream_with_usage(openai_client):
    whole = openai_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    # A chunk for each token, one for the end, one for the usage.
    assert len(chunks) == whole.usage.completion_tokens + 2


def test_completion_of_text_and_stream(openai_client):
    request = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 16}
    whole = openai_client.completions.create(**request)
    assert whole.usage.completion_tokens == 16 and whole.choices[0].finish_reason == "length"
    chunks = list(openai_client.completions.create(**request, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_completion_of_token_ids(openai_client):
    answer = openai_client.completions.create(
        model=MODEL, prompt=[1, 4093, 198], temperature=0, max_tokens=12, extra_body={"ignore_eos": True}
    )
    assert answer.usage.prompt_tokens == 3 and answer.usage.completion_tokens == 12


def test_models(openai_client):
    assert MODEL in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("nope")


def test_an_unknown_model_is_not_found(openai_client):
    with pytest.raises(openai.NotFoundError) as error:
        openai_client.chat.completions.create(model="nope", messages=QUESTION)
    assert error.value.code == "model_not_found" and "edgellm pull nope" in error.value.message


def test_what_is_wrong_is_a_bad_request_with_the_field(openai_client):
    wrong = [
        ("n", {"n": 2}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("messages", {"messages": []}),
    ]
    for param, change in wrong:
        with pytest.raises(openai.BadRequestError) as error:
            openai_client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **change})
        assert error.value.param == param
    with pytest.raises(openai.BadRequestError) as error:
        openai_client.completions.create(model=MODEL, prompt="word " * 2000)
    assert error.value.code == "context_length_exceeded"
