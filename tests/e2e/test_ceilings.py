"""
An answer, an event and a body of Coze have their ceilings: what is larger is an error, and what just fits is not.
"""
import pytest

from stack import directive, text_of

ANSWER, EVENT = 2000, 65536


@pytest.fixture(scope='module', params=['stream', 'poll'])
def stack(request, make_module_stack):
    stack = make_module_stack(WORKERS='1', COZE_CHAT_MODE=request.param, MAX_ANSWER_BYTES=str(ANSWER),
                              COZE_MAX_EVENT_BYTES=str(EVENT))
    stack.mode = request.param
    return stack


def test_an_answer_that_just_fits(stack):
    message = directive('x', answer='a' * ANSWER)
    assert stack.chat(message).json()['response'] == 'a' * ANSWER
    assert text_of(stack.events(message)) == 'a' * ANSWER


@pytest.mark.parametrize('size', [ANSWER + 1, 40 * ANSWER])
def test_an_answer_beyond_its_ceiling(stack, size):
    message = directive('x', answer_bytes=size)
    answer = stack.chat(message)
    assert answer.status_code == 503 and 'response' not in answer.json(), answer.text
    with stack.stream(message) as stream:
        assert b'"type": "complete"' not in stream.content
        assert len(stream.content) < 10 * ANSWER


def test_an_event_beyond_its_ceiling(stack):
    if stack.mode == 'poll':
        pytest.skip('has no events')
    for size, status in (EVENT // 2, 200), (2 * EVENT, 503):
        assert stack.chat(directive('x', answer='a', huge_line_bytes=size)).status_code == status
