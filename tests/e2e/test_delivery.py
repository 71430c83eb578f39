"""
A message reaches Coze exactly once: not twice when a connection breaks under it, and not never when a server closes
its HTTP/2 connections after so many requests (GOAWAY), as servers do all the time.
"""
from concurrent.futures import ThreadPoolExecutor

import pytest

from stack import directive


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
