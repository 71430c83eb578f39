"""
How a message fared: what its client saw of it, what Coze saw of it, and what the log says of its retries.
"""
import time

from stack import parse_stream, text_of


class Outcome:
    """What a client saw: an HTTP error, an `error` event, or a whole answer, told once."""

    def __init__(self, stack, route, message, **fields):
        began = time.monotonic()
        self.event, self.text = None, ''
        if route == '/chat':
            answer = stack.chat(message, timeout=40, **fields)
        else:
            answer = stack.stream(message, timeout=40, **fields)
        self.status, self.headers = answer.status_code, answer.headers
        if self.headers['Content-Type'].startswith('text/event-stream'):
            events = parse_stream(answer.content)
            self.event, self.text = events[-1]['type'], text_of(events)
            self.detail, self.conversation = events[-1]['data'].get('message'), events[-1]['data']['conversation_id']
        else:
            self.detail, self.text = answer.json().get('detail'), answer.json().get('response', '')
            self.conversation = answer.json().get('conversation_id')
        self.seconds = time.monotonic() - began

    @property
    def good(self):
        return self.status == 200 and self.event in (None, 'complete')

    def __repr__(self):
        return '%s %s %r %r after %.1f s' % (self.status, self.event, self.detail, self.text, self.seconds)


def starts(stack, word=None):
    """The requests to begin a chat, oldest first; only those whose message begins with `word`."""
    return [entry for entry in stack.sim.log('/v3/chat')
            if word is None or entry['body']['additional_messages'][-1]['content'].split(' ')[0] == word]


def pauses(stack, word=None):
    times = [entry['t_ms'] for entry in starts(stack, word)]
    return [later - earlier for earlier, later in zip(times, times[1:])]


def retry_pauses(stack):
    """The pauses before retries, in ms, as the log tells them."""
    return [int(word[len('pause_ms='):]) for line in stack.api_log().splitlines() if ' event=retry ' in line
            for word in line.split() if word.startswith('pause_ms=')]


def expect_answer(outcome, word):
    assert outcome.good, outcome
    assert outcome.text.count('“%s”' % word) == 1, outcome.text
