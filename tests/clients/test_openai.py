"""What people do with the `openai` package."""

import openai
import pytest
from conftest import MODEL

PROMPT = "The capital of France is"


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def test_the_model_is_listed_and_can_be_retrieved(client):
    assert MODEL in [m.id for m in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_completion_counts_its_tokens(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)


def test_a_prompt_of_token_ids_is_the_same_prompt(client):
    text = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, temperature=0)
    ids = client.completions.create(model=MODEL, prompt=[504, 3575, 282, 4649, 314], max_tokens=8, temperature=0)
    assert ids.usage.prompt_tokens == 5
    assert ids.choices[0].text == text.choices[0].text


def test_a_streamed_completion_is_the_same_text_with_usage_at_the_end(client):
    whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=16, temperature=0)
    chunks = list(
        client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            max_tokens=16,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].text for c in chunks if c.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 16


def test_a_chat_answers_in_the_role_of_the_assistant(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Say hello."}],
        max_tokens=20,
        temperature=0,
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content.strip()
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_ends_with_a_finish_reason(client):
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=30, temperature=0, stream=True
        )
    )
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert len(reasons) == 1 and reasons[0] in ("stop", "length")
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip()


def test_a_stop_string_ends_the_answer(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=64, temperature=0, stop=["."])
    assert answer.choices[0].finish_reason == "stop"
    assert "." not in answer.choices[0].text


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="no-such-model", prompt="Hi")
    assert "no-such-model" in str(caught.value)


def test_a_parameter_out_of_range_is_a_bad_request_that_names_it(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="Hi", extra_body={"top_p": 7})
    assert "top_p" in str(caught.value)
