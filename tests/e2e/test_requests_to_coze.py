"""
What Coze gets from us: exactly the documented requests, each once, over few connections, and only over TLS that holds.
"""
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stack import BOT, Stack, directive, wait_for

TEXT = '你好，"quoted" \\ \n\t 😀 \u2028 é'


@pytest.fixture(scope='module', params=['stream', 'poll'])
def served(request):
    with Stack(WORKERS='1', COZE_CHAT_MODE=request.param).start() as stack:
        stack.mode = request.param
        yield stack


@pytest.fixture(scope='module')
def h2():
    with Stack(tls=True, WORKERS='1').start() as stack:
        yield stack


def body_of(text, stream, user='default_user'):
    question = {'role': 'user', 'type': 'question', 'content_type': 'text', 'name': 'User', 'content': text}
    return {'bot_id': BOT, 'user_id': user, 'stream': stream, 'auto_save_history': True,
            'additional_messages': [question]}


def test_the_question(served):
    """The same from both routes; what else the client says does not reach Coze."""
    served.sim.reset()
    more = dict(stream=False, bot_id='7', additional_messages=[], auto_save_history=False, custom_variables={})
    with ThreadPoolExecutor(4) as pool:
        for ask in served.chat, served.events:
            pool.submit(ask, TEXT, user_id=None, session_id=None, conversation_id=None)
            pool.submit(ask, TEXT, user_id='用户 1', **more)
    asked = served.sim.log('/v3/chat')
    for one in asked:
        assert one['method'] == 'POST' and one['query'] == {}
        assert one['headers']['content-type'] == 'application/json'
        assert one['headers']['authorization'] == {'present': True, 'matches': True}
        assert one['body'] == body_of(TEXT, served.mode == 'stream', one['body']['user_id'])
    assert sorted(one['body']['user_id'] for one in asked) == ['default_user'] * 2 + ['用户 1'] * 2


def test_the_conversation_is_in_the_query(served):
    served.sim.reset()
    first = served.chat('一', session_id='query').json()['conversation_id']
    with ThreadPoolExecutor(2) as pool:
        pool.submit(served.chat, '二', session_id='query')
        pool.submit(served.chat, '三', session_id='another', conversation_id=first)
    asked = served.sim.log('/v3/chat')
    assert [one['query'] for one in asked] == [{}] + [{'conversation_id': first}] * 2
    assert not any('conversation_id' in one['body'] for one in asked)
    assert served.info('another').json()['conversation_id'] == first


@pytest.mark.parametrize('conversation', ['a b&c=d#e?f/g%20+h', '会话😀'])
def test_odd_conversation_ids_are_encoded(make_stack, conversation):
    stack = make_stack(WORKERS='1', sim={'SIM_STRICT_CONVERSATIONS': 0})
    stack.chat('你好', conversation_id=conversation)
    assert stack.sim.log('/v3/chat')[0]['query'] == {'conversation_id': conversation}


def test_a_session_goes_on_under_the_user_who_began_it(h2):
    """Coze keeps contexts apart by user: a turn that names none belongs to the session's owner."""
    h2.sim.reset()
    h2.chat('一', session_id='owned', user_id='user123')
    h2.chat('二', session_id='owned')
    assert [one['body']['user_id'] for one in h2.sim.log('/v3/chat')] == ['user123', 'user123']


def test_streaming_is_one_request(h2, served):
    for stack in h2, served:
        if stack is served and served.mode == 'poll':
            continue
        stack.sim.reset()
        stack.chat('你好')
        stack.events('你好')
        assert [one['path'] for one in stack.sim.log()] == ['/v3/chat', '/v3/chat']


def test_polling():
    """Retrieve about once a second until an end state, the list only then, each with both ids in the query."""
    with Stack(WORKERS='1', COZE_CHAT_MODE='poll', COZE_MAX_RETRIES='0').start() as stack:
        cases = {'long': dict(gen_ms=2400), 'told': dict(poll_status=['created', 'in_progress', 'completed']),
                 'failed': dict(fault='chat_failed'), 'action': dict(fault='requires_action'),
                 'canceled': dict(fault='canceled'), 'at once': dict()}
        with ThreadPoolExecutor(len(cases)) as pool:
            asked = {name: pool.submit(stack.chat, directive(name, **sim)) for name, sim in cases.items()}
            answers = {name: chat.result().status_code for name, chat in asked.items()}
        assert answers['long'] == answers['told'] == answers['at once'] == 200
        assert min(answers[name] for name in ('failed', 'action', 'canceled')) >= 500
        log = stack.sim.log()
        for chat in stack.sim.chats():
            calls = [one for one in log if one.get('chat_id') == chat['id'] and one['path'] != '/v3/chat/cancel']
            posts = [one for one in calls if one['path'] == '/v3/chat']
            retrieves = [one for one in calls if one['path'] == '/v3/chat/retrieve']
            lists = [one for one in calls if one['path'] == '/v3/chat/message/list']
            assert len(posts) == 1 and calls[0] is posts[0]
            for call in retrieves + lists:
                assert call['method'] == 'GET' and not call['body']
                assert call['query'] == {'conversation_id': chat['conversation_id'], 'chat_id': chat['id']}
                assert call['headers']['authorization'] == {'present': True, 'matches': True}
            times = [one['t_ms'] for one in [posts[0]] + retrieves]
            assert all(900 <= later - before < 2500 for before, later in zip(times, times[1:])), times
            assert len(retrieves) == {'told': 3}.get(chat['text'], len(retrieves)) and len(retrieves) <= 5
            if chat['text'] in ('failed', 'action', 'canceled'):
                assert lists == [] and len(retrieves) == 1
            else:
                assert len(lists) == 1 and lists[0]['seq'] > retrieves[-1]['seq']
                assert lists[0]['t_ms'] >= retrieves[-1]['end_t_ms']
            if chat['text'] == 'long':
                assert len(retrieves) in (2, 3)


def test_each_message_is_asked_once(served):
    """Also when they come in crowds."""
    served.sim.reset()
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda i: served.chat('第%d条' % i).status_code, range(40)))
    assert statuses == [200] * 40
    asked = [one['body']['additional_messages'][0]['content'] for one in served.sim.log('/v3/chat')]
    assert sorted(asked) == sorted('第%d条' % i for i in range(40))
    assert len({chat['conversation_id'] for chat in served.sim.chats()}) == 40


@pytest.mark.parametrize('cut', [dict(fault='cut', cut_after=-1), dict(fault='cut', cut_after=1),
                                 dict(fault='stall_header', stall_ms=9000)],
                         ids=['before a byte', 'after a delta', 'silence'])
def test_a_question_that_coze_may_have_taken_is_not_repeated(make_stack, cut):
    """Nobody can know whether the first one was taken: a repetition would be a second chat."""
    stack = make_stack(WORKERS='1', COZE_FIRST_BYTE_TIMEOUT_SECONDS='2')
    assert stack.chat('先来一句').status_code == 200  # so that the connection is a reused one
    assert stack.chat(directive('只问一次', **cut)).status_code == 503
    asked = [one['body']['additional_messages'][0]['content'] for one in stack.sim.log('/v3/chat')]
    assert len([one for one in asked if one.startswith('只问一次')]) == 1


def test_connections_are_reused(served):
    if served.mode == 'poll':
        served.sim.reset()
        assert served.chat('你好').status_code == 200
        assert served.sim.stats()['connections'] <= 1, 'the calls of one turn share a connection'
        return
    served.sim.reset()
    for i in range(30):
        assert served.chat('第%d条' % i).status_code == 200
    assert served.sim.stats()['connections'] <= 2


def test_http2_carries_many_chats_at_once(h2):
    h2.sim.reset()
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(h2.events, directive(answer='啊' * 20, chunks=20, gap_ms=200)) for _ in range(40)]
        wait_for(lambda: h2.sim.stats()['open_streams'] == 40, what='40 streams at once')
        assert all(one.result()[-1]['type'] == 'complete' for one in asked)
    stats = h2.sim.stats()
    assert stats['requests'] == stats['http2_requests'] == 40
    assert stats['connections'] <= 2
    assert {one['headers']['http_version'] for one in h2.sim.log('/v3/chat')} == {'2'}


def test_cancels_share_the_connection(h2):
    h2.sim.reset()
    links = [h2.connect('/chat/stream', directive(answer='啊' * 99, chunks=99, gap_ms=60)) for _ in range(10)]
    wait_for(lambda: len(h2.sim.chats()) == 10, what='10 chats')
    for link in links:
        link.close()
    wait_for(lambda: [chat['status'] for chat in h2.sim.chats()] == ['canceled'] * 10, what='10 cancels')
    assert h2.sim.stats()['connections'] <= 2


def test_connections_that_coze_closes_are_replaced(make_stack):
    """Coze may close after any number of requests: no message is lost, none asked twice."""
    for tls in False, True:
        stack = make_stack(tls=tls, WORKERS='1', sim={'SIM_KEEPALIVE_REQUESTS': 3})
        assert [stack.chat('第%d条' % i).status_code for i in range(20)] == [200] * 20
        assert len(stack.sim.log('/v3/chat')) == 20


def refused(stack):
    """The call fails at once, and Coze has got nothing of it."""
    began = time.monotonic()
    for answer in stack.chat('秘密'), stack.stream('秘密'):
        assert answer.status_code == 503, answer.text
        assert json.loads(answer.content)['detail'] and answer.headers['Retry-After']
    assert time.monotonic() - began < 10
    assert stack.sim.log() == []
    assert '秘密' not in stack.api_log()


def started(stack, **settings):
    """A stack with other settings than its simulator suggests."""
    stack.set(**settings)
    return stack.start()


def test_a_certificate_that_nobody_vouches_for_is_refused():
    with started(Stack(tls=True, WORKERS='1', COZE_MAX_RETRIES='0'), COZE_CA_FILE=None) as stack:
        refused(stack)


def test_a_certificate_for_another_name_is_refused():
    stack = Stack(tls=True, WORKERS='1', COZE_MAX_RETRIES='0', sim={'SIM_HOST': '0.0.0.0'})
    with started(stack, COZE_BASE_URL='https://127.0.0.2:%d/v3' % stack.sim.tls_port) as stack:
        refused(stack)


def test_a_certificate_with_the_right_name_is_taken():
    stack = Stack(tls=True, WORKERS='1')
    with started(stack, COZE_BASE_URL='https://127.0.0.1:%d/v3/' % stack.sim.tls_port) as stack:
        assert stack.chat('你好').status_code == 200
        assert stack.sim.log()[0]['path'] == '/v3/chat', 'a slash at the end of COZE_BASE_URL does no harm'


class Elsewhere(BaseHTTPRequestHandler):
    """Answers with a way to `target`, and keeps what it was asked."""

    def do_POST(self):
        self.server.asked.append(dict(self.headers))
        self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.send_response(self.server.status)
        self.send_header('Location', self.server.target)
        self.send_header('Set-Cookie', 'a=b')
        self.send_header('Content-Length', '0')
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


def listener():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Elsewhere)
    server.asked, server.status, server.target = [], 200, ''
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def test_token_and_words_are_sent_nowhere_else():
    """A Coze that points elsewhere is not followed, whatever its status, and nothing that it leaves is sent back."""
    coze, other = listener(), listener()
    coze.target = 'http://127.0.0.1:%d/v3/chat' % other.server_port
    stack = Stack(WORKERS='1', COZE_MAX_RETRIES='0')
    try:
        with started(stack, COZE_BASE_URL='http://127.0.0.1:%d/v3' % coze.server_port):
            for coze.status in (301, 302, 303, 307, 308, 201, 200, 401):
                assert stack.chat('秘密').status_code >= 500
    finally:
        for server in coze, other:
            server.shutdown()
            server.server_close()
    assert len(coze.asked) == 8 and all('Cookie' not in headers for headers in coze.asked)
    assert other.asked == []
