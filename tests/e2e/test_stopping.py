"""
A worker that stops ends what it cannot finish: the client is told, Coze is told, and the session is free at once. Who comes
meanwhile is served by its successor.
"""
import contextlib
import json
import os
import signal
import time

import pytest
import redis

import fastcgi
from stack import directive, parse_stream, wait_for


def ended(stack):
    """What the log says of workers that ended: once the master has seen it, which is a moment after the end."""
    return [line for line in stack.api_log().splitlines() if 'event=worker_ended' in line]


@pytest.mark.parametrize('how', ['TERM and DRAIN_TIMEOUT_SECONDS', 'INT'])
def test_what_cannot_be_finished_is_ended(make_stack, how):
    stack = make_stack(WORKERS='1', DRAIN_TIMEOUT_SECONDS='0.3')
    with stack.stream(directive('long', gap_ms=800), session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        worker = stack.worker_pids()[0]
        os.kill(worker, signal.SIGINT if how == 'INT' else signal.SIGTERM)
        events = parse_stream(body + b''.join(pieces))
    assert events[-1]['type'] == 'error' and '重启' in events[-1]['data']['message']
    wait_for(lambda: [chat['status'] for chat in stack.sim.chats()] == ['canceled'], 3, 'Coze being told')
    wait_for(lambda: stack.worker_pids() not in ([worker], []), what='the next worker')
    link = redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))
    assert link.hget('coze:{s}:session', 'turn_until') == b'0'
    wait_for(lambda: stack.get('/health')[0] == 200, what='health')
    began = time.monotonic()
    assert stack.chat('next', session_id='s').status_code == 200
    assert time.monotonic() - began < 3  # its lock would have lasted longer


def test_who_comes_too_late_is_told_so(make_stack):
    """
    Without its master a worker has nobody to leave its kept connections to. What comes on one of them once it has broken off
    the others is not begun: it would be cut off without a word as soon as the last cancellation has left.
    """
    stack = make_stack(WORKERS='1', DRAIN_TIMEOUT_SECONDS='0.3')
    stack.sim.default(path='/v3/chat/cancel', stall_ms=5000)  # longer than a worker that leaves waits for it
    body = json.dumps({'message': directive('late', first_ms=5000)}).encode()
    with fastcgi.Link(fastcgi.worker_socket(stack)) as kept, stack.stream(directive('long', gap_ms=300, chunks=100)) as answer:
        kept.send(fastcgi.request('GET', '/health', keep=True))
        assert kept.answer()[0] == 200
        pieces = answer.iter_content(None)
        begun = next(pieces)
        os.kill(stack.pids()['workers'], signal.SIGKILL)
        assert '重启' in parse_stream(begun + b''.join(pieces))[-1]['data']['message']
        kept.send(fastcgi.request('POST', '/chat', body, keep=True))
        status, headers, detail = kept.answer()
    assert status == 503 and '重启' in json.loads(detail)['detail'] and headers['Retry-After']


def test_what_can_be_finished_is(make_stack):
    stack = make_stack(WORKERS='1')
    with stack.stream(directive('short', gap_ms=60), session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        os.kill(stack.worker_pids()[0], signal.SIGTERM)
        events = parse_stream(body + b''.join(pieces))
    assert events[-1]['type'] == 'complete'
    assert stack.sim.chats()[0]['status'] == 'completed'


def test_who_is_told_to_end_is_followed_at_once(make_stack):
    """By whoever sends a worker the signal: its socket must not wait for its last stream, which may take minutes."""
    stack = make_stack(WORKERS='1')
    with stack.stream(directive('long', gap_ms=100, chunks=60, answer_bytes=600), session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        worker = stack.worker_pids()[0]
        os.kill(worker, signal.SIGTERM)
        wait_for(lambda: 'event=draining' in stack.api_log(), what='the drain')
        began = time.monotonic()
        assert stack.chat('next').status_code == 200
        assert time.monotonic() - began < 3 and worker in stack.worker_pids()
        assert parse_stream(body + b''.join(pieces))[-1]['type'] == 'complete'
    wait_for(lambda: len(stack.worker_pids()) == 1 and worker not in stack.worker_pids(), what='the old worker being gone')
    ends = wait_for(lambda: ended(stack), what='the word of its end')
    assert len(ends) == 1 and ' info ' in ends[0], ends


def test_who_is_told_again_and_again_to_end_ends_well(make_stack):
    stack = make_stack(WORKERS='1')
    for attempt in range(5):
        worker = stack.worker_pids()[0]
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(worker, signal.SIGTERM)
        wait_for(lambda: stack.chat('hi').status_code == 200, what='the next worker')
        ends = wait_for(lambda: ended(stack)[attempt:] and ended(stack), what='the word of its end')
        assert len(ends) == attempt + 1 and all('exit=0 signal=0' in line for line in ends), ends
