"""
A worker takes no more turns than it may: one more is refused at once, and as soon as one has ended, by itself or because
its client left, the next is served.
"""
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from outcomes import Outcome, starts
from stack import directive, late, wait_for

LIMIT = 4


@pytest.fixture
def stack(make_stack):
    return make_stack(WORKERS='1', MAX_TURNS_PER_WORKER=LIMIT)


def refused(stack, route):
    outcome = Outcome(stack, route, 'one too many')
    assert outcome.status == 503 and outcome.detail and int(outcome.headers['Retry-After']) > 0, outcome
    assert outcome.seconds < late()


def test_one_turn_too_many_is_refused_at_once(stack):
    with ThreadPoolExecutor(LIMIT) as pool:
        running = [pool.submit(Outcome, stack, '/chat/stream', directive('runs', gap_ms=500)) for _ in range(LIMIT)]
        wait_for(lambda: len(starts(stack)) == LIMIT, what='the turns at Coze')
        for route in '/chat', '/chat/stream':
            refused(stack, route)
        # All else goes on.
        assert requests.get(stack.url + '/health', timeout=10).json()['status'] == 'healthy'
        assert stack.info('nobody').status_code == 404
        assert all(stream.result().good for stream in running)
    assert len(starts(stack, 'one')) == 0
    assert all(Outcome(stack, '/chat', 'next').good for _ in range(2 * LIMIT))


def test_turns_that_wait_count_too(stack):
    """In the queue of their session they hold memory as others do."""
    with ThreadPoolExecutor(LIMIT) as pool:
        running = [pool.submit(Outcome, stack, '/chat', directive('runs', gap_ms=250), session_id='same')
                   for _ in range(LIMIT)]
        link = redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))
        wait_for(lambda: link.llen('coze:{same}:waiting') == LIMIT - 1, what='a full worker')
        refused(stack, '/chat')
        assert all(answer.result().good for answer in running)
    assert Outcome(stack, '/chat', 'next').good


@pytest.mark.parametrize('route', ['/chat', '/chat/stream'])
def test_a_client_that_leaves_makes_room(stack, route):
    links = [stack.connect(route, directive('left', answer='啊' * 200, chunks=200, gap_ms=100)) for _ in range(LIMIT)]
    wait_for(lambda: len(starts(stack)) == LIMIT, what='the turns at Coze')
    refused(stack, route)
    left = time.monotonic()
    for link in links:
        link.close()
    wait_for(lambda: Outcome(stack, route, 'next').good, late(), 'room for the next')
    assert time.monotonic() - left < late()
    wait_for(lambda: stack.sim.stats()['running'] == 0, late(), 'the cancels')
