"""
Proves that a session is what the contract says: info, clear and bind answer exactly so; the message count, the owner
and the conversation of a session are right, whichever worker serves it and whatever its id looks like; it lives in
Redis, for as long as it should; and without Redis the service says so at once and comes back by itself.
"""
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from urllib.parse import quote, unquote

import pytest
import redis

import fastcgi
from service import TOP, is_alive
from stack import directive, late, parse_stream, text_of, wait_for

ISO = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}')
DAY = 86400


def new_id():
    return 's-' + uuid.uuid4().hex


def call(stack, method, path, **body):
    """(status, headers, text) with the path sent as it is: requests would tidy it up."""
    link = http.client.HTTPConnection('127.0.0.1', stack.port, timeout=20)
    try:
        text = json.dumps(body, ensure_ascii=False).encode() if body else None
        link.request(method, path, text, {'Content-Type': 'application/json'} if body else {})
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        link.close()


def session_call(stack, session_id, what, **body):
    """Each byte of the id is percent-encoded, so that also `..` arrives as an id."""
    encoded = ''.join('%%%02X' % byte for byte in session_id.encode())
    return call(stack, 'GET' if what == 'info' else 'POST', '/session/%s/%s' % (encoded, what), **body)


def info(stack, session_id):
    status, _, text = session_call(stack, session_id, 'info')
    assert status == 200, text
    return json.loads(text)


def clear(stack, session_id):
    status, _, text = session_call(stack, session_id, 'clear')
    assert status == 200, text
    return json.loads(text)


def bind(stack, session_id, conversation_id):
    status, _, text = session_call(stack, session_id, 'bind', conversation_id=conversation_id)
    assert status == 200, text
    return json.loads(text)


def chat(stack, message, **fields):
    answer = stack.chat(message, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def round_of(answer):
    """The simulator counts the rounds of a conversation."""
    return int(re.search('第 ([0-9]+) 轮', answer['response']).group(1))


def redis_of(stack):
    return redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))


def keys_of(stack, session_id):
    with redis_of(stack) as client:
        return [key for key in client.scan_iter(count=1000) if session_id.encode() in key]


# --- the three answers ---


def test_info(stack):
    session = new_id()
    answer = chat(stack, '你好', session_id=session)
    status, headers, text = session_call(stack, session, 'info')
    assert status == 200
    assert headers['Content-Type'] == 'application/json'
    got = json.loads(text)
    assert list(got) == ['session_id', 'user_id', 'conversation_id', 'last_activity', 'message_count', 'status']
    assert ISO.fullmatch(got.pop('last_activity'))
    assert got == {'session_id': session, 'user_id': 'default_user', 'conversation_id': answer['conversation_id'],
                   'message_count': 1, 'status': 'active'}


def test_info_of_an_unknown_session(stack):
    session = '不存在的会话' + uuid.uuid4().hex
    status, _, text = session_call(stack, session, 'info')
    assert status == 404
    assert json.loads(text) == {'detail': '会话不存在: ' + session}
    assert '\\u' not in text


def test_clear(stack):
    session = new_id()
    chat(stack, '你好', session_id=session)
    status, headers, text = session_call(stack, session, 'clear')
    assert status == 200
    assert headers['Content-Type'] == 'application/json'
    assert '会话已成功清除' in text
    got = json.loads(text)
    assert list(got) == ['message', 'session_id', 'cleared_at']
    assert ISO.fullmatch(got.pop('cleared_at'))
    assert got == {'message': '会话已成功清除', 'session_id': session}


def test_bind(stack):
    session = new_id()
    status, headers, text = session_call(stack, session, 'bind', conversation_id='会话 7/1')
    assert status == 200
    assert headers['Content-Type'] == 'application/json'
    assert '会话ID绑定成功' in text and '会话 7/1' in text
    got = json.loads(text)
    assert list(got) == ['message', 'session_id', 'conversation_id', 'timestamp']
    assert ISO.fullmatch(got.pop('timestamp'))
    assert got == {'message': '会话ID绑定成功', 'session_id': session, 'conversation_id': '会话 7/1'}


def test_a_bound_session_exists(stack):
    session = new_id()
    bind(stack, session, 'c1')
    got = info(stack, session)
    assert (got['conversation_id'], got['message_count'], got['user_id']) == ('c1', 0, 'default_user')


def test_last_activity_moves_on(stack):
    session = new_id()
    seen = []
    for act in (lambda: chat(stack, '一', session_id=session), lambda: stack.events('二', session_id=session),
                lambda: clear(stack, session), lambda: bind(stack, session, 'c1')):
        before = time.time()
        act()
        seen.append(info(stack, session)['last_activity'])
        assert_near_now(seen[-1], before)
    assert seen == sorted(seen) and len(set(seen)) == len(seen)


def assert_near_now(iso, before):
    """Local time, as a client's clock on this machine shows it."""
    told = time.mktime(time.strptime(iso[:19], '%Y-%m-%dT%H:%M:%S')) + float(iso[19:])
    assert before - 0.1 <= told <= time.time() + 0.1


# --- the count ---


def test_count_of_accepted_messages(stack):
    session = new_id()
    for expected in range(1, 4):
        chat(stack, '第 %d 条' % expected, session_id=session)
        assert info(stack, session)['message_count'] == expected
    stack.events('流式', session_id=session)
    assert info(stack, session)['message_count'] == 4


def test_a_message_that_coze_refused_is_not_counted(stack):
    session = new_id()
    for send in (stack.chat, stack.stream):
        assert send(directive(fault='json_error', code=4000), session_id=session).status_code >= 400
    chat(stack, '你好', session_id=session)
    assert send(directive(fault='json_error', code=4000), session_id=session).status_code >= 400
    assert info(stack, session)['message_count'] == 1


def test_a_message_that_was_accepted_counts_even_if_the_answer_fails(stack):
    session = new_id()
    assert stack.events(directive(fault='chat_failed_after_text'), session_id=session)[-1]['type'] == 'error'
    assert info(stack, session)['message_count'] == 1


def test_bad_requests_make_no_session(stack):
    session = new_id()
    assert stack.chat('  ', session_id=session).status_code == 400
    assert stack.chat('你好', session_id=session, user_id='').status_code == 400
    assert session_call(stack, session, 'info')[0] == 404


# --- time to live ---


def ttls(stack, session_id):
    keys = keys_of(stack, session_id)
    assert keys
    with redis_of(stack) as client:
        return [client.ttl(key) for key in keys]


def test_a_session_is_kept_for_a_day_after_its_last_use(stack):
    session = new_id()
    for use in (lambda: bind(stack, session, 'c1'), lambda: clear(stack, session),
                lambda: chat(stack, '你好', session_id=session), lambda: stack.events('你好', session_id=session)):
        use()
        assert all(DAY - 60 < ttl <= DAY for ttl in ttls(stack, session))
        with redis_of(stack) as client:
            for key in keys_of(stack, session):
                client.expire(key, 1000)


def test_a_session_ends_when_its_time_is_over(make_stack):
    stack = make_stack(SESSION_TTL_SECONDS='3')
    session = new_id()
    first = chat(stack, '你好', session_id=session)
    assert info(stack, session)['message_count'] == 1
    wait_for(lambda: session_call(stack, session, 'info')[0] == 404, what='the end of the session')
    again = chat(stack, '你好', session_id=session)
    assert again['conversation_id'] != first['conversation_id']
    assert info(stack, session)['message_count'] == 1


# --- the owner ---


def test_the_first_explicit_user_owns_the_session(stack):
    session = new_id()
    chat(stack, '没有名字', session_id=session)  # does not own
    chat(stack, '我是甲', session_id=session, user_id='甲')
    chats = len(stack.sim.chats())
    for send in (stack.chat, stack.stream):
        answer = send('我是乙', session_id=session, user_id='乙')
        assert answer.status_code == 403
        assert list(answer.json()) == ['detail']
        assert 'user_id' in answer.json()['detail'] and '甲' not in answer.json()['detail']
    assert len(stack.sim.chats()) == chats  # Coze heard nothing
    chat(stack, '没有名字', session_id=session)
    chat(stack, '又是甲', session_id=session, user_id='甲')
    got = info(stack, session)
    assert (got['user_id'], got['message_count']) == ('甲', 4)


def test_a_clear_does_not_give_the_session_away(stack):
    session = new_id()
    chat(stack, '你好', session_id=session, user_id='甲')
    clear(stack, session)
    assert info(stack, session)['user_id'] == '甲'
    assert stack.chat('你好', session_id=session, user_id='乙').status_code == 403


def test_of_many_first_users_one_wins(stack):
    session = new_id()
    users = ['user-%d' % number for number in range(8)]
    answers = {}

    def claim(user):
        answers[user] = stack.chat(directive(fault='json_error', code=4000),
                                   session_id=session, user_id=user).status_code

    threads = [threading.Thread(target=claim, args=[user]) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [user for user in users if answers[user] != 403]
    assert len(winners) == 1
    assert info(stack, session)['user_id'] == winners[0]


def test_coze_is_told_the_user(stack):
    session = new_id()
    chat(stack, '没有名字', session_id=session)
    chat(stack, '我是甲', session_id=session, user_id='甲')
    assert [seen['user_id'] for seen in stack.sim.chats()] == ['default_user', '甲']


def test_the_default_user_can_be_set(make_stack):
    stack = make_stack(COZE_USER_ID='接待员 1')
    session = new_id()
    chat(stack, '你好', session_id=session)
    assert info(stack, session)['user_id'] == '接待员 1'
    assert stack.sim.chats()[0]['user_id'] == '接待员 1'


# --- which conversation ---


def test_a_session_goes_on_in_its_conversation(stack):
    session = new_id()
    first = chat(stack, '我叫小明', session_id=session)
    second = chat(stack, '我叫什么', session_id=session)
    assert second['conversation_id'] == first['conversation_id']
    assert '上一轮您说：“我叫小明”' in second['response']
    assert second['message_id'] != first['message_id']


def test_explicit_beats_bound_beats_new(stack):
    session, other = new_id(), new_id()
    bound = chat(stack, '你好', session_id=session)['conversation_id']
    explicit = chat(stack, '你好', session_id=other)['conversation_id']
    assert bound != explicit
    answer = chat(stack, '你好', session_id=session, conversation_id=explicit)
    assert answer['conversation_id'] == explicit
    assert round_of(answer) == 2
    # It is the session's conversation from now on.
    assert info(stack, session)['conversation_id'] == explicit
    assert round_of(chat(stack, '你好', session_id=session)) == 3


def test_a_null_conversation_is_none(stack):
    session = new_id()
    first = chat(stack, '你好', session_id=session, conversation_id=None, user_id=None)
    assert chat(stack, '你好', session_id=session, conversation_id=None)['conversation_id'] == first['conversation_id']


def open_chat(stack, route, message, session_id):
    """A request on its way, as a connection that the test can close."""
    link = http.client.HTTPConnection('127.0.0.1', stack.port, timeout=20)
    link.request('POST', route, json.dumps({'message': message, 'session_id': session_id}),
                 {'Content-Type': 'application/json'})
    return link


@pytest.mark.parametrize('route', ['/chat', '/chat/stream'])
def test_the_conversation_is_bound_before_the_end(stack, route):
    session = new_id()
    link = open_chat(stack, route, directive(gap_ms=1000, chunks=8), session)
    try:
        def bound():
            status, _, text = session_call(stack, session, 'info')
            return status == 200 and json.loads(text)['conversation_id']

        conversation = wait_for(bound, what='the binding')
        running = stack.sim.chats()[0]
        assert running['status'] != 'completed' and stack.sim.stats()['running'] == 1
        assert conversation == running['conversation_id']
        assert info(stack, session)['message_count'] == 1
    finally:
        link.close()
    # The reader has left; what it began is still the session's conversation.
    wait_for(lambda: stack.sim.chats()[0]['cancelled_ms'], what='the cancel')
    assert chat(stack, '你好', session_id=session)['conversation_id'] == conversation


def test_sessions_never_share(stack):
    failures = []

    def talk(name):
        session = new_id()
        conversations = set()
        for number in range(1, 5):
            answer = chat(stack, '%s 的第 %d 句' % (name, number), session_id=session, user_id=name)
            conversations.add(answer['conversation_id'])
            if number > 1 and '上一轮您说：“%s 的第 %d 句”' % (name, number - 1) not in answer['response']:
                failures.append(answer)
            if answer['session_id'] != session or round_of(answer) != number:
                failures.append(answer)
        seen.append(conversations)

    seen = []
    threads = [threading.Thread(target=talk, args=['用户%d' % number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) == 8 and all(len(one) == 1 for one in seen)
    assert len(set.union(*seen)) == 8


def test_a_clear_begins_a_new_conversation(stack):
    session = new_id()
    first = chat(stack, '我叫小明', session_id=session)
    clear(stack, session)
    got = info(stack, session)
    assert (got['conversation_id'], got['message_count']) == (None, 0)
    second = chat(stack, '我叫什么', session_id=session)
    assert second['conversation_id'] != first['conversation_id']
    assert '小明' not in second['response']
    assert info(stack, session)['message_count'] == 1


def test_a_clear_can_be_repeated(stack):
    unknown = new_id()
    for _ in range(2):
        assert clear(stack, unknown)['session_id'] == unknown
    assert session_call(stack, unknown, 'info')[0] == 404
    known = new_id()
    chat(stack, '你好', session_id=known)
    for _ in range(2):
        clear(stack, known)
        assert info(stack, known)['message_count'] == 0


def test_a_clear_during_an_answer_wins(stack):
    session = new_id()
    with stack.stream(directive(gap_ms=400, chunks=8), session_id=session) as answer:
        wait_for(lambda: info(stack, session)['message_count'] == 1, what='the count')
        clear(stack, session)
        assert stack.sim.stats()['running'] == 1
        events = parse_stream(answer.content)
    assert events[-1]['type'] == 'complete'  # whoever reads it still gets it
    got = info(stack, session)
    assert (got['conversation_id'], got['message_count']) == (None, 0)
    after = chat(stack, '你好', session_id=session)
    assert after['conversation_id'] != events[-1]['data']['conversation_id']


def test_the_next_message_goes_to_the_bound_conversation(stack):
    one, two = new_id(), new_id()
    first = chat(stack, '我叫小明', session_id=one)
    chat(stack, '你好', session_id=two)
    bind(stack, two, first['conversation_id'])
    answer = chat(stack, '我叫什么', session_id=two)
    assert answer['conversation_id'] == first['conversation_id']
    assert '上一轮您说：“我叫小明”' in answer['response']


# --- ids ---

IDS = ['a', '0', ' ', 'a b  c', '会话一', '会话😀🎉', '👨‍👩‍👧', 'a/b/c', '/', '..', '.', 'etc/../passwd', '{x}', '}{', '{}',
       '100%', '%41', '%', '"quoted"', "it's", 'back\\slash', 'a?b=c&d#e', 'a+b', ';:@,$!*()[]|^`~<>', 'info', 'null',
       '\u00a0', '\u200b', 'e\u0301', '\U0010ffff', 'x' * 128, '会' * 42 + 'ab', '😀' * 32, '%' * 128, '{' * 128]


@pytest.mark.parametrize('session', IDS, ids=lambda value: ascii(value)[:30])
def test_ids_of_any_text(stack, session):
    clear(stack, session)
    answer = stack.chat('你好', session_id=session, user_id=session)
    assert answer.status_code == 200, answer.text
    assert answer.json()['session_id'] == session
    assert answer.headers['X-Session-ID'] == quote(session, safe='')
    with stack.stream('再见', session_id=session) as stream:
        assert unquote(stream.headers['X-Session-ID']) == session
        events = parse_stream(stream.content)
    assert events[-1]['data']['session_id'] == session
    assert events[-1]['data']['conversation_id'] == answer.json()['conversation_id']
    got = info(stack, session)
    assert (got['session_id'], got['user_id'], got['message_count']) == (session, session, 2)
    bound = bind(stack, session, session)
    assert (bound['session_id'], bound['conversation_id']) == (session, session)
    assert info(stack, session)['conversation_id'] == session
    assert clear(stack, session)['session_id'] == session
    assert info(stack, session)['conversation_id'] is None


def test_an_id_that_climbs_out_of_the_path(stack):
    """It is an id like others, but nginx refuses each path that leads above the root, also an encoded one."""
    session = '../../etc/passwd'
    assert chat(stack, '你好', session_id=session)['session_id'] == session
    status, _, text = session_call(stack, session, 'info')
    assert status == 400
    assert '路径' in json.loads(text)['detail']


def test_ids_that_look_alike_are_different_sessions(stack):
    tail = uuid.uuid4().hex
    alike = [head + tail for head in ('a{', 'a%7B', 'a%257B', 'a}', 'A{', 'a{ ', 'é', 'e\u0301')]
    conversations = {chat(stack, '你好', session_id=session)['conversation_id'] for session in alike}
    assert len(conversations) == len(alike)


def test_a_path_may_be_encoded_or_not(stack):
    session = new_id()
    bind(stack, session, 'c1')
    for path in (session, '%73' + session[1:], quote(session[0]) + session[1:]):
        assert call(stack, 'GET', '/session/%s/info' % path)[0] == 200
    assert call(stack, 'GET', '/session/%s/info?limit=1&x' % session)[0] == 200


def test_generated_session_ids(stack):
    made = [chat(stack, '你好')['session_id'] for _ in range(10)]
    made += [stack.events('你好', session_id=None)[-1]['data']['session_id'] for _ in range(10)]
    assert all(re.fullmatch('session_[0-9a-f]{32}', session) for session in made)
    assert len(set(made)) == len(made)
    assert info(stack, made[0])['message_count'] == 1


# --- workers come and go ---


def test_any_worker_serves_any_session(stack):
    session = new_id()
    body = {'message': '我叫小明', 'session_id': session}
    sockets = [fastcgi.worker_socket(stack, number) for number in range(2)]
    for number in range(4):
        status, _, text = fastcgi.ask(sockets[number % 2], 'POST', '/chat', json.dumps(body).encode())
        assert status == 200
        assert round_of(json.loads(text)) == number + 1
    answers = [fastcgi.ask(path, 'GET', '/session/%s/info' % session) for path in sockets]
    assert answers[0][2] == answers[1][2]
    assert json.loads(answers[0][2])['message_count'] == 4


def test_sessions_survive_the_workers(make_stack):
    stack = make_stack()
    session = new_id()
    first = chat(stack, '我叫小明', session_id=session, user_id='甲')
    before = info(stack, session)
    workers = stack.worker_pids()
    os.kill(stack.pids()['workers'], signal.SIGKILL)
    wait_for(lambda: 'workers' not in stack.pids(), what='the end of the master')
    stack.up()
    assert not set(workers) & set(stack.worker_pids())
    assert info(stack, session) == before
    second = chat(stack, '我叫什么', session_id=session)
    assert second['conversation_id'] == first['conversation_id']
    assert '上一轮您说：“我叫小明”' in second['response']
    assert stack.chat('你好', session_id=session, user_id='乙').status_code == 403


# --- without Redis ---


class OwnRedis:
    """The stack's Redis, in the test's hands: it can be stopped, and started again as it was."""

    def __init__(self, stack):
        self.stack = stack
        self.pid = stack.pids()['redis']
        self.process = None

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        wait_for(lambda: not is_alive(self.pid), what='the end of Redis')

    def start(self):
        """Returns when it answers."""
        run_dir = self.stack.run_dir
        self.process = subprocess.Popen(
            ['redis-server', TOP + '/redis/redis.conf', '--unixsocket', run_dir + '/redis.sock',
             '--dir', run_dir + '/redis', '--logfile', run_dir + '/logs/redis.log'], stdin=subprocess.DEVNULL)
        wait_for(self.answers, what='Redis')

    def answers(self):
        try:
            with redis_of(self.stack) as client:
                return client.ping()
        except redis.RedisError:
            return False

    def close(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


@pytest.fixture
def redis_stack(make_stack):
    stack = make_stack()
    stack.redis = OwnRedis(stack)
    yield stack
    stack.redis.close()


def assert_unhealthy(stack):
    status, _, text = call(stack, 'GET', '/health')
    got = json.loads(text)
    assert status == 503
    assert list(got) == ['status', 'timestamp', 'coze_client_status', 'redis']
    assert ISO.fullmatch(got.pop('timestamp'))
    assert got == {'status': 'unhealthy', 'coze_client_status': 'initialized', 'redis': 'down'}


def assert_refused(stack, session_id, seconds):
    """Every route that needs Redis answers 503, within `seconds` on an idle machine."""
    for method, path, body in [('POST', '/chat', {'message': '你好', 'session_id': session_id}),
                               ('POST', '/chat/stream', {'message': '你好', 'session_id': session_id}),
                               ('GET', '/session/%s/info' % session_id, {}),
                               ('POST', '/session/%s/clear' % session_id, {}),
                               ('POST', '/session/%s/bind' % session_id, {'conversation_id': 'c1'})]:
        begun = time.monotonic()
        status, headers, text = call(stack, method, path, **body)
        assert status == 503, (path, text)
        assert time.monotonic() - begun < seconds * late(), path
        assert int(headers['Retry-After']) > 0
        assert headers['X-Request-ID']
        assert list(json.loads(text)) == ['detail']
        assert re.search('[\u4e00-\u9fff]', text)


def assert_back(stack, session_id):
    """Each of the workers serves again, within 2 s from now, and what a busy machine adds."""
    body = json.dumps({'message': '你好', 'session_id': session_id}).encode()
    end = time.monotonic() + 1 + late()
    for path in (fastcgi.worker_socket(stack, number) for number in range(2)):
        for request in (('GET', '/health'), ('POST', '/chat', body)):
            wait_for(lambda: fastcgi.ask(path, *request)[0] == 200,
                     seconds=end - time.monotonic(), what='%s %s' % request[:2])


def test_without_redis(redis_stack):
    stack, sessions = redis_stack, [new_id(), new_id()]
    chat(stack, '我叫小明', session_id=sessions[0])  # one of the streams goes on in a bound conversation
    streams = [stack.stream(directive('你好', gap_ms=700, chunks=8), session_id=session) for session in sessions]
    assert [stream.status_code for stream in streams] == [200, 200]
    for session in sessions:
        wait_for(lambda: info(stack, session)['conversation_id'], what='the binding')

    stack.redis.stop()
    assert_refused(stack, sessions[0], seconds=0.5)
    assert_unhealthy(stack)
    assert call(stack, 'GET', '/')[0] == 200  # needs no Redis
    assert stack.sim.stats()['running'] == 2

    for stream in streams:  # they go on to their end
        events = parse_stream(stream.content)
        assert events[-1]['type'] == 'complete'
        assert text_of(events).startswith('收到：“你好”')
    assert_refused(stack, sessions[0], seconds=0.5)

    stack.redis.start()
    assert_back(stack, sessions[1])
    again = chat(stack, '我叫什么', session_id=sessions[1])
    assert again['conversation_id'] == events[-1]['data']['conversation_id']  # nothing was forgotten


def test_a_frozen_redis(redis_stack):
    stack, session = redis_stack, new_id()
    first = chat(stack, '我叫小明', session_id=session)
    os.kill(stack.redis.pid, signal.SIGSTOP)
    try:
        assert_refused(stack, session, seconds=2.5)
        assert_unhealthy(stack)
    finally:
        os.kill(stack.redis.pid, signal.SIGCONT)
    assert_back(stack, session)
    second = chat(stack, '我叫什么', session_id=session)
    assert info(stack, session)['conversation_id'] == second['conversation_id']
    assert first['session_id'] == second['session_id']
