"""
Chats start at Coze at least COZE_MIN_INTERVAL_MS apart, counted over all workers on all machines, in the order in which the
messages came. Who would wait longer than COZE_RATE_WAIT_SECONDS is refused at once; who leaves holds nobody up.
"""
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from outcomes import starts
from redis_server import left_in_redis
from stack import directive, late, wait_for

SLOT = 'coze:limit:start'
JITTER_MS = 40  # of a start on its way to the simulator, on an idle machine


def redis_of(stack):
    return redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))


@pytest.fixture(scope='module')
def machines(make_module_stack):
    """Two services on two addresses, with one Redis and one Coze between them."""
    limits = dict(WORKERS='1', COZE_MIN_INTERVAL_MS='500', COZE_RATE_WAIT_SECONDS='4')
    first = make_module_stack(**limits)
    second = make_module_stack(REDIS_URL='unix://%s/redis.sock' % first.run_dir,
                               COZE_BASE_URL='http://127.0.0.1:%d/v3' % first.sim.port, **limits)
    return first, second


@pytest.fixture
def both(machines):
    """With no slot taken."""
    machines[0].sim.reset()
    redis_of(machines[0]).delete(SLOT)
    return machines


def words(stack):
    return [entry['body']['additional_messages'][-1]['content'].split(' ')[0] for entry in starts(stack)]


def start_times(stack):
    return [entry['t_ms'] for entry in starts(stack)]


def gaps(stack):
    times = start_times(stack)
    return [later - earlier for earlier, later in zip(times, times[1:])]


def assert_kept_apart(stack, interval_ms=500):
    """
    Times are those at the simulator. On a busy machine one start gets there some milliseconds late and the next one does
    not; but however many there are, they take their time.
    """
    times = start_times(stack)
    for first in range(len(times)):
        for last in range(first + 1, len(times)):
            assert times[last] - times[first] >= (last - first) * interval_ms - JITTER_MS * late(), gaps(stack)


def test_twenty_messages_at_once_on_two_machines(both):
    def ask(number):
        began = time.monotonic()
        answer = both[number % 2].chat('m%02d' % number, session_id='burst-%d' % number)
        return answer, time.monotonic() - began, time.monotonic()

    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    good = [seconds for answer, seconds, _ in answers if answer.status_code == 200]
    refused = [(answer, seconds) for answer, seconds, _ in answers if answer.status_code != 200]
    # 4 s hold eight starts and a bit; while the twenty arrive, other slots come into reach.
    arriving = max(told for answer, _, told in answers if answer.status_code != 200) - began
    assert 8 <= len(good) <= 10 + arriving / 0.5 and len(starts(both[0])) == len(good)
    assert_kept_apart(both[0])
    assert max(gaps(both[0])) < 500 + late() * 1000
    assert max(good) < 4 + late()
    for answer, seconds in refused:
        assert answer.status_code == 503 and answer.json()['detail']
        assert 4 <= int(answer.headers['Retry-After']) <= 5, answer.headers['Retry-After']
        assert seconds < late(), 'refused only after %.1f s' % seconds
    assert left_in_redis(redis_of(both[0])) == []


def test_first_come_first_served(both):
    """Each message is sent when the one before it has its slot, now to this machine and now to that."""
    link = redis_of(both[0])
    with ThreadPoolExecutor(8) as pool:
        answers = []
        for number in range(8):
            before = link.get(SLOT)
            answers.append(pool.submit(both[number % 2].chat, 'm%d' % number))
            wait_for(lambda: link.get(SLOT) != before, what='a slot')
        assert [answer.result().status_code for answer in answers] == [200] * 8
    assert words(both[0]) == ['m%d' % number for number in range(8)]
    assert_kept_apart(both[0])


def test_a_retry_waits_for_a_slot_too(both):
    both[0].sim.queue(fault='occupied')
    with ThreadPoolExecutor(3) as pool:
        assert {answer.status_code for answer in pool.map(lambda number: both[number % 2].chat('m'), range(3))} == {200}
    assert len(starts(both[0])) == 4
    assert_kept_apart(both[0])


def test_a_quiet_service_makes_nobody_wait(both):
    took = []
    while not took or min(took) >= 0.45 and len(took) < 10:  # whoever waits for a slot does so each time
        redis_of(both[0]).delete(SLOT)
        began = time.monotonic()
        assert both[0].chat('alone').status_code == 200
        took.append(time.monotonic() - began)
    assert min(took) < 0.45
    assert 0 < redis_of(both[0]).pttl(SLOT) < 5000, 'the slot must not stay for ever'


@pytest.mark.parametrize('route', ['/chat', '/chat/stream'])
def test_who_leaves_while_waiting_for_a_slot_leaves_nothing(both, route):
    stack, link = both[0], redis_of(both[0])
    session = 'left' + route.replace('/', '-')
    # Three slots are taken, so that there is time to leave.
    with ThreadPoolExecutor(3) as pool:
        others = []
        for number in range(3):
            before = link.get(SLOT)
            others.append(pool.submit(both[1].chat, 'other'))
            wait_for(lambda: link.get(SLOT) != before, what='a slot')
        before = link.get(SLOT)
        with stack.connect(route, 'gone', session_id=session):
            wait_for(lambda: link.get(SLOT) != before, what='a slot of its own')
            assert link.hget('coze:{%s}:session' % session, 'turn_until') != b'0'
        wait_for(lambda: link.hget('coze:{%s}:session' % session, 'turn_until') == b'0', late(), 'the session being free')
        assert stack.request_log(session)[0]['status'] == '499'
        assert stack.chat('next', session_id=session).status_code == 200
        assert {answer.result().status_code for answer in others} == {200}
    assert words(stack) == ['other'] * 3 + ['next']
    assert left_in_redis(link) == []
    assert stack.info(session).json()['message_count'] == 1


def test_the_deadline_counts_while_waiting_for_a_slot(make_stack):
    stack = make_stack(WORKERS='1', COZE_MIN_INTERVAL_MS='5000', COZE_RATE_WAIT_SECONDS='10', CHAT_TIMEOUT_SECONDS='1')
    assert stack.chat('first').status_code == 200
    began = time.monotonic()
    answer = stack.chat('second', session_id='second')
    assert answer.status_code == 503 and 'timeout' in answer.json()['detail']
    assert time.monotonic() - began < 1 + late()
    cause = stack.request_log('second')[0]['cause']
    assert 'waiting for a slot' in cause and 'CHAT_TIMEOUT_SECONDS' in cause
    assert words(stack) == ['first'] and left_in_redis(redis_of(stack)) == []


def test_no_interval_no_limit(make_stack):
    stack = make_stack(WORKERS='2', COZE_MIN_INTERVAL_MS='0', COZE_RATE_WAIT_SECONDS='0')
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: stack.chat(directive('m%d' % number, gap_ms=20)), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    times = [entry['t_ms'] for entry in starts(stack)]
    assert max(times) - min(times) < 19 * 500 / 2
    assert redis_of(stack).keys('coze:limit*') == []


def test_no_waiting_at_all(make_stack):
    """COZE_RATE_WAIT_SECONDS=0: the slot is free, or the message is refused."""
    stack = make_stack(WORKERS='1', COZE_MIN_INTERVAL_MS='60000', COZE_RATE_WAIT_SECONDS='0')
    assert stack.chat('first').status_code == 200
    began = time.monotonic()
    answer = requests.post(stack.url + '/chat/stream', json={'message': 'second'}, timeout=10)
    assert answer.status_code == 503 and 55 <= int(answer.headers['Retry-After']) <= 61
    assert time.monotonic() - began < late()
