"""
Operators see all sessions, the last used one first, page by page, and find the session of a conversation; at once after
each use, on whichever worker, for any id; and what is gone, cleared or bound elsewhere is not shown.
"""
import http.client
import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import quote

import pytest
import redis
import requests

from redis_server import RedisServer
from stack import directive, late, wait_for

ISO = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}')
INDEX = 'coze:{index}:sessions'


@pytest.fixture(scope='module')
def admin_stack(make_module_stack):
    return make_module_stack(WORKERS='2')


@pytest.fixture
def stack(admin_stack):
    admin_stack.sim.reset()
    link_to(admin_stack).flushall()
    return admin_stack


def link_to(stack):
    return redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))


def encoded(text):
    """Each byte, so that also `..` arrives as an id."""
    return ''.join('%%%02X' % byte for byte in text.encode())


def call(stack, path, method='GET', **body):
    """(status, headers, body) with the path sent as it is: requests would tidy it up."""
    link = http.client.HTTPConnection('127.0.0.1', stack.port, timeout=20)
    try:
        link.request(method, path, json.dumps(body) if body else None)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        link.close()


def listed(stack, **query):
    answer = requests.get(stack.url + '/sessions', params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(stack, **query):
    return [session['session_id'] for session in listed(stack, **query)['sessions']]


def holder(stack, conversation_id):
    """The session of a conversation, or None."""
    status, _, body = call(stack, '/conversation/%s/session' % encoded(conversation_id))
    answer = json.loads(body)
    if status == 404:
        assert answer == {'detail': '对话不存在: ' + conversation_id}
        return None
    assert status == 200, answer
    assert list(answer) == ['conversation_id', 'session_id', 'session_info', 'timestamp']
    assert list(answer['session_info']) == ['user_id', 'last_activity']
    assert answer['conversation_id'] == conversation_id and ISO.fullmatch(answer['timestamp'])
    return answer['session_id']


def chat(stack, session_id, message='你好', **fields):
    answer = stack.chat(message, session_id=session_id, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bind(stack, session_id, conversation_id):
    status, _, body = call(stack, '/session/%s/bind' % encoded(session_id), 'POST', conversation_id=conversation_id)
    assert status == 200, body


def clear(stack, session_id):
    status, _, body = call(stack, '/session/%s/clear' % encoded(session_id), 'POST')
    assert status == 200, body


def last_activity(stack, session_id):
    return stack.info(session_id).json()['last_activity']


# --- what is shown ---------------------------------------------------------------------------------------------------

def test_no_sessions(stack):
    got = listed(stack)
    assert ISO.fullmatch(got.pop('timestamp'))
    assert got == {'total': 0, 'limit': 10, 'offset': 0, 'sessions': []}
    assert listed(stack, offset=5)['sessions'] == []


def test_a_list_says_exactly_this(stack):
    conversation = chat(stack, 'a', user_id='用户')['conversation_id']
    bind(stack, 'b', 'elsewhere')
    clear(stack, 'b')
    got = listed(stack, limit=50)
    assert list(got) == ['total', 'limit', 'offset', 'sessions', 'timestamp']
    assert (got['total'], got['limit'], got['offset']) == (2, 50, 0)
    assert [list(session.items()) for session in got['sessions']] == [
        [('session_id', 'b'), ('user_id', 'default_user'), ('conversation_id', None),
         ('last_activity', last_activity(stack, 'b'))],
        [('session_id', 'a'), ('user_id', '用户'), ('conversation_id', conversation),
         ('last_activity', last_activity(stack, 'a'))]]


def test_a_conversation_says_exactly_this(stack):
    conversation = chat(stack, 'a', user_id='用户')['conversation_id']
    answer = requests.get('%s/conversation/%s/session' % (stack.url, conversation), timeout=10)
    got = answer.json()
    assert answer.status_code == 200 and ISO.fullmatch(got.pop('timestamp'))
    assert got == {'conversation_id': conversation, 'session_id': 'a',
                   'session_info': {'user_id': '用户', 'last_activity': last_activity(stack, 'a')}}


def test_each_use_moves_a_session_to_the_front(stack):
    for name in 'abcd':
        chat(stack, name)
    assert ids(stack) == list('dcba')
    uses = [('a', lambda: chat(stack, 'a')),
            ('c', lambda: clear(stack, 'c')),
            ('b', lambda: bind(stack, 'b', 'a conversation')),
            ('d', lambda: stack.events('你好', session_id='d')),
            ('new', lambda: bind(stack, 'new', 'another one'))]
    order = list('dcba')
    for name, use in uses:
        use()
        order = [name] + [other for other in order if other != name]
        assert ids(stack) == order
        sessions = listed(stack)['sessions']
        assert [one['last_activity'] for one in sessions] == [last_activity(stack, one['session_id']) for one in sessions]
    clear(stack, 'unknown')  # makes none
    stack.info('a')          # is no use
    assert ids(stack) == order


def test_a_refused_message_is_a_use_of_its_session(stack):
    chat(stack, 'a')
    chat(stack, 'b')
    stack.sim.queue(http_status=401)
    assert stack.chat('你好', session_id='a').status_code == 500
    assert ids(stack) == ['a', 'b']
    assert listed(stack)['sessions'][0]['last_activity'] == last_activity(stack, 'a')


def test_a_foreign_user_does_not_touch_a_session(stack):
    chat(stack, 'a', user_id='mine')
    chat(stack, 'b')
    assert stack.chat('你好', session_id='a', user_id='other').status_code == 403
    assert ids(stack) == ['b', 'a']


def test_a_running_turn_shows(stack):
    with stack.stream(directive(gap_ms=100, chunks=15), session_id='running') as answer:
        assert answer.status_code == 200
        wait_for(lambda: ids(stack) == ['running'], 2, 'the running session in the list')
        conversation = stack.info('running').json()['conversation_id']
        assert answer.content
    assert holder(stack, conversation) == 'running'


@pytest.mark.parametrize('query', [{}, {'limit': 1}, {'limit': 50, 'offset': 3}])
def test_head(stack, query):
    chat(stack, 'a')
    answer = requests.head(stack.url + '/sessions', params=query, timeout=10)
    assert answer.status_code == 200 and answer.content == b''
    assert answer.headers['Content-Type'] == 'application/json'


# --- pages -----------------------------------------------------------------------------------------------------------

def test_a_thousand_sessions_page_by_page(stack):
    names = ['s-%04d' % number for number in range(1000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: bind(stack, name, 'c-' + name), names))
    seen = []
    for offset in range(0, 1000, 50):
        page = listed(stack, limit=50, offset=offset)
        assert (page['total'], page['limit'], page['offset'], len(page['sessions'])) == (1000, 50, offset, 50)
        seen += page['sessions']
    assert sorted(one['session_id'] for one in seen) == names
    times = [one['last_activity'] for one in seen]
    assert times == sorted(times, reverse=True)
    assert all(one['conversation_id'] == 'c-' + one['session_id'] for one in seen)
    for limit, offset in (1, 0), (7, 3), (10, 990), (50, 975), (50, 999), (50, 1000), (50, 1000000000):
        assert listed(stack, limit=limit, offset=offset)['sessions'] == seen[offset:offset + limit]
    assert listed(stack)['sessions'] == seen[:10]


@pytest.mark.parametrize('query, name', [
    ('limit=0', 'limit'), ('limit=51', 'limit'), ('limit=', 'limit'), ('limit', 'limit'), ('limit=-1', 'limit'),
    ('limit=ten', 'limit'), ('limit=1.5', 'limit'), ('limit=1e99', 'limit'), ('limit=99999999999999999999', 'limit'),
    ('limit=%', 'limit'), ('limit=%00', 'limit'), ('limit=1%00', 'limit'), ('limit=%E4%BD%A0', 'limit'), ('limit=+1', 'limit'),
    ('limit=1&limit=1', 'limit'), ('limit=1&offset=0&limit=2', 'limit'), ('limit=' + '1' * 4000, 'limit'),
    ('offset=-1', 'offset'), ('offset=', 'offset'), ('offset=x', 'offset'), ('offset=1000000001', 'offset'),
    ('offset=18446744073709551616', 'offset'), ('offset=0&offset=0', 'offset'), ('limit=5&offset=0x1', 'offset'),
])
def test_a_bad_parameter_is_named(stack, query, name):
    status, _, body = call(stack, '/sessions?' + query)
    assert status == 400
    assert json.loads(body)['detail'].startswith('参数 %s 无效: 必须是 ' % name)


def test_other_parameters_are_ignored(stack):
    chat(stack, 'a')
    status, _, body = call(stack, '/sessions?page=x&&limit=1&=&sort=%FF')
    assert status == 200 and json.loads(body)['limit'] == 1


# --- conversations ---------------------------------------------------------------------------------------------------

def test_a_conversation_leads_to_the_session_that_is_in_it(stack):
    first = chat(stack, 'a')['conversation_id']
    assert holder(stack, first) == 'a'
    assert holder(stack, 'unknown') is None
    clear(stack, 'a')
    assert holder(stack, first) is None
    second = chat(stack, 'a')['conversation_id']
    assert second != first and holder(stack, second) == 'a' and holder(stack, first) is None
    bind(stack, 'a', first)
    assert holder(stack, first) == 'a' and holder(stack, second) is None
    chat(stack, 'a', conversation_id=second)
    assert holder(stack, second) == 'a' and holder(stack, first) is None


def test_of_two_sessions_in_a_conversation_the_later_one_wins(stack):
    conversation = chat(stack, 'a')['conversation_id']
    bind(stack, 'b', conversation)
    assert holder(stack, conversation) == 'b'
    chat(stack, 'c', conversation_id=conversation)
    assert holder(stack, conversation) == 'c'
    clear(stack, 'c')
    assert holder(stack, conversation) is None
    chat(stack, 'a')
    assert holder(stack, conversation) == 'a'


def test_a_clear_in_the_middle_of_a_turn_wins(stack):
    with stack.stream(directive(gap_ms=50, chunks=10), session_id='a') as answer:
        conversation = wait_for(lambda: (stack.info('a').json().get('conversation_id')), what='the binding')
        clear(stack, 'a')
        assert answer.content
    assert holder(stack, conversation) is None
    assert listed(stack)['sessions'][0]['conversation_id'] is None


@pytest.mark.parametrize('text', [
    'a/b', '../x', '..', '.', '%2F', '100%', '%', 'a?b#c&d=e', '{', '}', '{x}:session', 'index', '{index}', 'sessions', ':',
    'a b', ' ', '"\\', '会话 一', '😀', 'é' * 64, '%' * 128, 'x' * 128, '\u00a0', "it's", '+', ';', '[]', '-inf', '(1',
])
def test_any_id(stack, text):
    bind(stack, text, text)
    assert ids(stack) == [text]
    assert listed(stack)['sessions'][0]['conversation_id'] == text
    assert holder(stack, text) == text
    bind(stack, 'other', text)
    assert holder(stack, text) == 'other' and ids(stack) == ['other', text]


@pytest.mark.parametrize('path', ['', '%00', '%ff', '%0A', '%', 'x' * 129, quote('é' * 65)])
def test_a_bad_conversation_id(stack, path):
    status, _, body = call(stack, '/conversation/%s/session' % path)
    assert status == (404 if path == '' else 400)
    assert json.loads(body)['detail']


@pytest.mark.parametrize('path', ['/sessions', '/conversation/x/session'])
def test_other_methods(stack, path):
    for method in 'POST', 'PUT', 'DELETE':
        status, headers, _ = call(stack, path, method)
        assert status == 405 and headers['Allow'] == 'GET, HEAD'


# --- many at once ----------------------------------------------------------------------------------------------------

def test_what_was_answered_is_shown_at_once(stack):
    """Whichever workers serve the chat and the list."""
    def client(number):
        for turn in range(25):
            name = 's-%d-%d' % (number, turn)
            conversation = chat(stack, name)['conversation_id'] if turn % 2 else 'c-' + name
            if turn % 2 == 0:
                bind(stack, name, conversation)
            assert name in ids(stack, limit=50)
            assert holder(stack, conversation) == name

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert listed(stack)['total'] == 200


def test_pages_while_sessions_come_and_go(stack):
    stop = threading.Event()

    def client(number):
        count = 0
        while not stop.is_set():
            chat(stack, 'busy-%d' % number)
            clear(stack, 'busy-%d' % number)
            count += 1
        return count

    for name in 'abc':
        bind(stack, name, name)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client, number) for number in range(4)]
        try:
            wait_for(lambda: listed(stack)['total'] == 7, what='the clients')
            for _ in range(100):
                page = listed(stack, limit=50)
                assert page['total'] == len(page['sessions']) == 7
                times = [one['last_activity'] for one in page['sessions']]
                assert times == sorted(times, reverse=True)
                assert ids(stack, offset=4) == ['c', 'b', 'a']
        finally:
            stop.set()
        assert all(one.result() > 0 for one in running)


def test_what_a_turn_costs_redis(stack):
    """
    Begin and end, which also says that it was accepted, and for the index two plain commands; one write for each of what
    leaves together.
    """
    link = link_to(stack)
    chat(stack, 'warm')
    for _ in range(50):
        link.config_resetstat()
        reads = link.info('stats')['total_reads_processed']
        longest = 0
        for number in range(50):
            begun = time.monotonic()
            chat(stack, 's-%d' % number)
            longest = max(longest, time.monotonic() - begun)
        reads = link.info('stats')['total_reads_processed'] - reads
        if longest < 0.2:  # else it may have given a sign of life, as a turn does that takes a quarter of a second
            break
    assert longest < 0.2
    calls = {name[len('cmdstat_'):]: stat['calls'] for name, stat in link.info('commandstats').items()}
    tidied = calls.get('zrangebyscore', 0)
    assert tidied < 5, 'not every use tidies up'
    assert calls['evalsha'] == 100 + tidied
    assert calls['zadd'] == calls['set'] == 50
    assert reads <= 100 + 1


# --- time ------------------------------------------------------------------------------------------------------------

def test_sessions_leave_the_list_when_they_expire(make_stack):
    stack = make_stack(WORKERS='1', SESSION_TTL_SECONDS='1')
    link = link_to(stack)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: chat(stack, 's-%d' % number), range(150)))
    wait_for(lambda: listed(stack)['total'] == 0, 3, 'the end of all sessions')
    assert link.zcard(INDEX) > 0 and not link.keys('coze:{s-*')
    for number in range(128):  # each thirty-second use takes out fifty that lapsed
        chat(stack, 'later-%d' % number)
    assert link.zcard(INDEX) <= 128
    assert listed(stack)['total'] <= 128
    # Nobody comes any more: nothing is left at all.
    wait_for(lambda: not link.keys('coze:*'), 5, 'the index to go')


def test_a_session_is_in_the_list_while_its_turn_outlives_it(make_stack):
    stack = make_stack(WORKERS='1', SESSION_TTL_SECONDS='1')
    with stack.stream(directive(gap_ms=500, chunks=10), session_id='long') as answer:
        conversation = wait_for(lambda: (stack.info('long').json().get('conversation_id')), what='the binding')
        wait_for(lambda: ids(stack) == ['long'], 2, 'the session in the list')
        begun, looks = time.monotonic(), []

        def read():
            assert b'"complete"' in answer.content
            return time.monotonic()

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            while not wait([reading], 0.05).done:
                page, held_by = listed(stack), holder(stack, conversation)
                looks.append((time.monotonic(), page, held_by))
            before_its_end = [look for look in looks if look[0] < reading.result()]
        for _, page, held_by in before_its_end:
            assert page['total'] == 1 and page['sessions'][0]['conversation_id'] == conversation
            assert held_by == 'long'
        assert before_its_end[-1][0] - begun > 1.5
    wait_for(lambda: listed(stack)['total'] == 0, 3, 'its end')
    assert holder(stack, conversation) is None


def test_a_lost_session_is_left_out_and_forgotten(stack):
    link = link_to(stack)
    conversations = {name: chat(stack, name)['conversation_id'] for name in 'abc'}
    link.delete('coze:{b}:session')
    assert holder(stack, conversations['b']) is None
    got = listed(stack)
    assert [one['session_id'] for one in got['sessions']] == ['c', 'a'] and got['total'] == 2
    wait_for(lambda: link.zscore(INDEX, 'b') is None, what='its place in the index to go')
    chat(stack, 'b')
    assert ids(stack) == ['b', 'c', 'a']


# --- Redis -----------------------------------------------------------------------------------------------------------

def test_sessions_from_before_the_index_appear_with_their_next_use(stack):
    link = link_to(stack)
    conversations = {name: chat(stack, name)['conversation_id'] for name in 'abc'}
    for key in link.keys('coze:{index}:*'):
        link.delete(key)
    assert listed(stack)['total'] == 0 and holder(stack, conversations['a']) is None
    chat(stack, 'b')
    clear(stack, 'c')
    assert ids(stack) == ['c', 'b'] and holder(stack, conversations['b']) == 'b'


def test_redis_lost_its_memory_and_its_scripts(stack):
    link = link_to(stack)
    old = chat(stack, 'old')['conversation_id']
    with stack.stream(directive(gap_ms=400, chunks=10), session_id='running') as answer:
        conversation = wait_for(lambda: (stack.info('running').json().get('conversation_id')), what='the binding')
        wait_for(lambda: 'running' in ids(stack), what='the session in the list')
        link.flushall()
        link.script_flush()
        assert listed(stack)['total'] == 0 and holder(stack, old) is None
        assert b'"complete"' in answer.content
    assert ids(stack) == ['running'] and holder(stack, conversation) == 'running'
    chat(stack, 'old')
    assert ids(stack) == ['old', 'running']


def test_redis_away(make_stack):
    with RedisServer() as server:
        server.start()
        stack = make_stack(WORKERS='2', REDIS_URL=server.url)
        conversation = chat(stack, 'a')['conversation_id']
        paths = ['/sessions', '/conversation/%s/session' % conversation, '/conversation/unknown/session']
        server.stop()
        for path in paths * 3:
            answer = requests.get(stack.url + path, timeout=10)
            assert answer.status_code == 503 and answer.headers['Retry-After'] and answer.json()['detail']
        assert requests.get(stack.url + '/sessions?limit=0', timeout=10).status_code == 400
        server.start()
        wait_for(lambda: all(requests.get(stack.url + '/sessions', timeout=10).status_code == 200 for _ in range(6)),
                 2 + late(), 'the list')
        assert ids(stack) == ['a'] and holder(stack, conversation) == 'a'


def test_frozen_redis_and_clients_that_leave(make_stack):
    """Who asked and left before Redis answered costs nothing; who stays is told in time."""
    with RedisServer() as server:
        server.start()
        stack = make_stack(WORKERS='1', REDIS_URL=server.url)
        chat(stack, 'a')
        pids = stack.worker_pids()
        server.freeze()
        try:
            with ThreadPoolExecutor(8) as pool:
                def leave(number):
                    """Whether it had to: who asks when Redis is known to be away is told so at once."""
                    try:
                        answer = requests.get(stack.url + ('/sessions', '/conversation/x/session')[number % 2], timeout=0.2)
                    except requests.exceptions.Timeout:
                        return True
                    assert answer.status_code == 503
                    return False
                assert any(pool.map(leave, range(8)))
            answer = requests.get(stack.url + '/sessions', timeout=10)
            assert answer.status_code == 503 and answer.elapsed.total_seconds() < 2 + late()
        finally:
            server.thaw()
        wait_for(lambda: requests.get(stack.url + '/sessions', timeout=10).status_code == 200, 4, 'the list')
        assert ids(stack) == ['a'] and stack.worker_pids() == pids
