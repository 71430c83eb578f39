"""
A message reaches Coze exactly once: not twice when a connection breaks under it, and not never when a server closes
its HTTP/2 connections after so many requests (GOAWAY), as servers do all the time.
"""
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from stack import directive, late, wait_for


@pytest.mark.parametrize('tls', [False, True], ids=['plain', 'h2'])
@pytest.mark.parametrize('how', ['rst', 'fin'])
def test_a_reused_connection_that_breaks_does_not_double_a_message(make_stack, tls, how):
    stack = make_stack(tls=tls, WORKERS='1')
    assert stack.chat('warm').status_code == 200
    answer = stack.chat(directive('once', fault='cut', cut_after=-1, cut_how=how))
    assert answer.status_code == 503 and 'Retry-After' in answer.headers
    assert [entry['ended'] for entry in stack.sim.log('/v3/chat')] == ['ok', 'cut']


def test_connections_that_go_away_lose_and_double_nothing(make_stack):
    stack = make_stack(tls=True, WORKERS='1', sim={'SIM_KEEPALIVE_REQUESTS': 20})
    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(lambda number: stack.chat('m%d' % number), range(600)))
    assert {answer.status_code for answer in answers} == {200}
    stats = stack.sim.stats()
    assert stats['chat_starts'] == 600
    assert stats['connections'] >= 600 / 20, 'no connection was closed in between: nothing was tested'


@pytest.mark.parametrize('fault', ['list_fault', 'retrieve_fault'])
@pytest.mark.parametrize('how', [{'http_status': 503}, {'code': 5000}, {'code': 4009}], ids=str)
def test_a_failed_look_at_a_polled_chat_does_not_send_its_message_again(make_stack, fault, how):
    stack = make_stack(WORKERS='1', COZE_CHAT_MODE='poll')
    answer = stack.chat(directive('once', **{fault: dict(how, times=2)}))
    assert answer.status_code == 200 and '“once”' in answer.json()['response']
    assert len(stack.sim.log('/v3/chat')) == 1


def test_a_look_that_keeps_failing_is_given_up_without_sending_again(make_stack):
    stack = make_stack(WORKERS='1', COZE_CHAT_MODE='poll')
    answer = stack.chat(directive('once', list_fault={'http_status': 503}))
    assert answer.status_code == 503 and answer.json()['detail'] == 'Coze API请求失败: 503 Service Unavailable'
    assert len(stack.sim.log('/v3/chat')) == 1


def test_who_left_the_queue_for_a_slot_holds_nobody_up(make_stack):
    stack = make_stack(WORKERS='1', COZE_MIN_INTERVAL_MS='4000', COZE_RATE_WAIT_SECONDS='120', CHAT_TIMEOUT_SECONDS='120')
    assert stack.chat('first').status_code == 200

    def leave(number):
        with pytest.raises(requests.exceptions.ReadTimeout):
            stack.chat('gone %d' % number, timeout=1)  # by then it waits for its slot, also on a busy machine

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(leave, number) for number in range(20)]:
            done.result()
    wait_for(lambda: stack.api_log().count('route=/chat status=499') == 20, what='the leaving being noticed')
    began = time.monotonic()
    assert stack.chat('next').status_code == 200
    assert time.monotonic() - began < 2 * 4 + late()  # its own slot, and perhaps one that was used meanwhile
    assert len(stack.sim.log('/v3/chat')) <= 4


def test_a_session_does_not_expire_under_its_turn(make_stack):
    stack = make_stack(WORKERS='2', SESSION_TTL_SECONDS='1', SESSION_LOCK_SECONDS='1')
    with stack.stream(directive('long', gap_ms=250), session_id='brief') as answer:
        lines = answer.iter_lines()
        next(lines)
        first = stack.info('brief').json()['conversation_id']
        assert stack.chat('behind it', session_id='brief').json()['conversation_id'] == first
        assert any(b'"complete"' in line for line in lines)
    assert stack.sim.stats()['overlaps'] == 0


def test_connections_that_break_unanswered_open_the_circuit(make_stack):
    stack = make_stack(WORKERS='1', COZE_MAX_RETRIES='0')
    stack.sim.queue(times=5, fault='cut', cut_after=-1)
    for _ in range(5):
        assert stack.chat('m').status_code == 503
    assert stack.get('/health')[2].count(b'"degraded"') == 1
    assert stack.chat('m').status_code == 503
    assert len(stack.sim.log('/v3/chat')) == 5
