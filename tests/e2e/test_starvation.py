"""
Want of memory in a running worker (starving.py refuses it): each allocation of a request fails in its turn, whoever asks
for it, and then ten in a row. The worker lives; the client gets a whole answer or an error as it is documented; the next
message is answered, also in the same session; no session, memory or descriptor is lost.

Two libraries are not refused single allocations: libfcgi follows the NULL, json-c 0.16 leaves out what it had no memory
for and says nothing. Before each use of them the worker finds out whether all is there that they may ask for
(fcgi/base/memory.h): that allocation is refused, and where memory is bounded as a whole, they are no exception.

STARVE=all: every allocation of everything, of TLS handshakes and polled chats, too; else each of a /chat and /chat/stream
over plain HTTP, and of the rest a part that is always the same.
"""
import collections
import contextlib
import itertools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import requests

from fastcgi import Link, request, worker_socket
from install import read
from redis_server import left_in_redis
from service import free_port
from stack import directive, parse_stream, text_of, wait_for
from starving import CHATD, Starver
from test_redis_trouble import SlowPath

ALL = os.environ.get('STARVE') == 'all'
ROW = 10      # allocations that fail in a row
PARALLEL = 8
TIMEOUT = 15  # seconds for an answer: less than any time limit of the worker's own
CUT = 12      # 502s at most: the seven or eight places where there is no memory to find out what is asked, some met twice at times
SLACK = 100   # allocations by which a worker at rest differs from itself
MOST = 20000  # allocations of one request: an end to tests that would find none
GROWS_AT = 126  # descriptors: one of the sizes of libuv's table

STORE = '会话存储暂时不可用，请稍后重试'  # no memory for an answer of Redis: its connection is made anew
NOBODY = '服务暂时不可用，请稍后重试'  # nginx says so when a worker closes the connection
WANT = {STORE, NOBODY, '服务器内存不足，请稍后重试', '无法连接 Coze API，请稍后重试', '与 Coze API 的连接中断，请稍后重试'}

pytestmark = pytest.mark.skipif(b'__asan_init' in read(CHATD) or 'CHATD_WRAPPER' in os.environ,
                                reason='the allocator is a sanitizer\'s or valgrind\'s own')


class Starved:
    """A stack of one worker, who may be refused memory."""

    def __init__(self, make, **options):
        self.starver = Starver()
        self.stack = make(WORKERS='1', COZE_MIN_INTERVAL_MS='1', CHATD_WRAPPER=self.starver.wrapper, **options)
        self.pid, = self.stack.worker_pids()
        self.starver.watch(self.pid)
        self.http = requests.Session()
        self.sessions = []  # in which something failed
        self.number = 0
        self.ask('chat', 'known').raise_for_status()
        self.conversation = self.stack.info('known').json()['conversation_id']

    def ask(self, kind, session):
        return ASK[kind](self, session)

    def post(self, path, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(self.stack.url + path, body, headers={'Content-Type': 'application/json'}, timeout=TIMEOUT)

    def get(self, path):
        return self.http.get(self.stack.url + path, timeout=TIMEOUT)

    def message(self, session, **fault):
        return {'message': directive('你好', deltas=['答', session, '。'], **fault), 'session_id': session}

    def sleeps(self):
        with open('/proc/%d/stat' % self.pid) as file:
            return file.read().rsplit(') ', 1)[1][0] == 'S'

    def starve(self, kind, many=1, good=0, left=None):
        """One request in want. (what became of it, the Refusal or None when there was none)"""
        self.number += 1
        session = 'session-%d' % self.number
        self.starver.refuse(good, many) if left is None else self.starver.refuse(left=left)
        try:
            outcome = judge(kind, session, self.ask(kind, session))
        finally:
            wait_for(self.sleeps, what='the worker having nothing to do')
            refusal = self.starver.serve()
        if refusal is not None and kind in ('chat', 'stream', 'broken stream'):
            self.sessions.append(session)
        return outcome, refusal

    def recover(self):
        """There is memory: the next message is answered. Redis may have to be connected to, for which it has two seconds."""
        end = time.monotonic() + 2
        answer = self.ask('chat', 'next')
        while answer.status_code == 503 and answer.json()['detail'] == STORE and time.monotonic() < end:
            answer = self.ask('chat', 'next')
        assert judge('chat', 'next', answer) == 'whole'

    def scan(self, kind, many, step=1, first=0):
        """{what became of it: how often}, for one place after the other."""
        outcomes = collections.Counter()
        for good in range(first, MOST, step):
            outcome = refusal = None
            try:
                outcome, refusal = self.starve(kind, many, good)
                self.recover()
                assert self.stack.worker_pids() == [self.pid], 'the worker died'
            except (AssertionError, OSError) as error:
                raise AssertionError('%s, %d from %d: %s\n%s: %s' % (kind, many, good, error, outcome,
                                                                     refusal or self.starver.last())) from error
            if refusal is None:
                break
            outcomes[outcome] += 1
        else:
            raise AssertionError('%s: there is no end' % kind)
        self.try_again()
        return outcomes

    def try_again(self):
        """Sessions in which something failed are free again, at the latest when Redis is told a second time."""
        sessions, self.sessions = self.sessions, []
        with ThreadPoolExecutor(PARALLEL) as pool:
            answers = pool.map(lambda session: self.stack.chat(**self.message(session), timeout=TIMEOUT), sessions)
            assert [answer.text for session, answer in zip(sessions, answers) if judge('chat', session, answer) != 'whole'] == []

    def level(self):
        """(allocations, descriptors but for nginx' connections) of the worker at rest, after the same as ever."""
        self.sessions = ['warm-%d' % number for number in range(PARALLEL)] * 2
        self.try_again()
        least = []
        for _ in range(60):  # as many as fill the tables of a connection over HTTP/2
            self.recover()
            least.append((self.starver.live, len(os.listdir('/proc/%d/fd' % self.pid)) - self.gauge('connections')))
        return [min(values) for values in zip(*least[-5:])]

    def gauge(self, name):
        (_, value), = [line.rsplit(' ', 1) for line in self.get('/metrics').text.splitlines()
                       if line.startswith('coze_chat_%s{' % name) or line.startswith('coze_chat_%s ' % name)]
        return int(float(value))


def judge(kind, session, answer):
    """Whether it is whole, or what the error is; fails when it is neither."""
    if answer.status_code in (502, 503):
        detail = answer.json()['detail']
        assert detail in WANT and (answer.status_code == 502) == (detail == NOBODY), answer.text
        return str(answer.status_code)
    assert answer.status_code == EXPECTED.get(kind, 200), '%d %s' % (answer.status_code, answer.text)
    text = '答%s。' % session
    if kind.endswith('stream'):
        events = parse_stream(answer.content)
        if events[-1]['type'] == 'error':
            assert events[-1]['data']['message'] in WANT, answer.text
            assert text.startswith(text_of(events)), answer.text
            return 'error event'
        assert events[-1]['type'] == 'complete' and text_of(events) == text and kind == 'stream', answer.text
    elif kind.startswith('chat'):
        assert answer.json()['response'].endswith(text) and answer.json()['session_id'] == session, answer.text
    elif kind == 'info':
        assert answer.json()['user_id'] == 'default_user' and answer.json()['status'] == 'active'
    return 'whole'


LARGE = 'chat, a large body'
ASK = {
    'chat': lambda s, session: s.post('/chat', s.message(session)),
    'stream': lambda s, session: s.post('/chat/stream', s.message(session)),
    'broken stream': lambda s, session: s.post('/chat/stream', s.message(session, fault='cut', cut_after=2, gap_ms=5)),
    LARGE: lambda s, session: s.post('/chat', {**s.message(session), 'padding': 'x' * 300_000}),
    'info': lambda s, session: s.get('/session/known/info'),
    'clear': lambda s, session: s.post('/session/%s/clear' % session, b''),
    'bind': lambda s, session: s.post('/session/%s/bind' % session, {'conversation_id': 'c'}),
    'conversation': lambda s, session: s.get('/conversation/%s/session' % s.conversation),
    'sessions': lambda s, session: s.get('/sessions?limit=3'),
    'root': lambda s, session: s.get('/'),
    'openapi': lambda s, session: s.get('/openapi.json'),
    'metrics': lambda s, session: s.get('/metrics'),
    'no JSON': lambda s, session: s.post('/chat', b'{"message": "x'),
    'no object': lambda s, session: s.post('/chat/stream', b'[[[]]]'),
    'blank': lambda s, session: s.post('/chat', {'message': ' '}),
    'bad id': lambda s, session: s.post('/chat', {'message': 'x', 'session_id': 'a\n'}),
    'no route': lambda s, session: s.get('/session/a/b/c'),
}
EXPECTED = {'no JSON': 400, 'no object': 400, 'blank': 400, 'bad id': 400, 'no route': 404}


@pytest.fixture(scope='module')
def plain(make_module_stack):
    return Starved(make_module_stack)


@pytest.fixture(scope='module')
def h2(make_module_stack):
    return Starved(make_module_stack, tls=True)


@pytest.fixture(params=['plain', 'h2'])
def starved(request):
    return request.getfixturevalue(request.param)


TURNS = ['chat', 'stream']
FEW = 1 if ALL else 3


@pytest.mark.parametrize('kind', TURNS)
def test_each_allocation_of_a_turn(starved, plain, kind):
    step = 1 if starved is plain else FEW
    outcomes = starved.scan(kind, 1, step)
    assert outcomes['503'] > 50 // step and (outcomes['whole'] > 0 or step > 1), outcomes  # few may fail unnoticed
    assert (outcomes['error event'] > 0) == (kind == 'stream'), outcomes
    assert outcomes['502'] <= CUT, outcomes


@pytest.mark.parametrize('kind', TURNS)
def test_many_in_a_row(starved, kind):
    outcomes = starved.scan(kind, ROW, FEW)
    assert outcomes['503'] > 50 // FEW and outcomes['502'] <= CUT, outcomes


def test_an_answer_that_breaks_off(starved):
    """Each is told so. (What is still said to Coze of the one before asks for memory, too: more places are met twice.)"""
    outcomes = starved.scan('broken stream', ROW, FEW)
    assert outcomes['error event'] > 15 // FEW and outcomes['502'] <= 2 * CUT, outcomes


@pytest.mark.parametrize('many', [1, ROW])
@pytest.mark.parametrize('kind', [kind for kind in ASK if kind not in (*TURNS, 'broken stream')])
def test_each_allocation_of_other_requests(plain, kind, many):
    outcomes = plain.scan(kind, many, FEW if many > 1 or kind == LARGE else 1)
    assert outcomes['502'] + outcomes['503'] > 0 or many == 1, outcomes
    assert outcomes['502'] <= CUT or kind == LARGE, outcomes


@pytest.mark.parametrize('kind', TURNS)
def test_new_connections_to_coze(make_stack, kind):
    cold = Starved(make_stack, sim={'SIM_KEEPALIVE_REQUESTS': 1})
    assert cold.scan(kind, 1, FEW)['503'] > 50 // FEW


def test_new_connections_over_tls(make_stack):
    """Thousands of allocations, nearly all of them OpenSSL's. Where one address fails, libcurl tries the next one."""
    cold = Starved(make_stack, tls=True, sim={'SIM_KEEPALIVE_REQUESTS': 1})
    outcomes = cold.scan('chat', 1, 1 if ALL else 211)
    assert sum(outcomes.values()) > 5, outcomes


def test_what_is_kept_of_a_new_connection_over_tls(make_stack):
    """
    Of the thousands the last, when the connection is there or nearly: libcurl 7.88 breaks when it cannot keep the TLS session,
    and takes a handshake that has failed for good for one that goes on.
    """
    cold = Starved(make_stack, tls=True, COZE_MAX_RETRIES='0', sim={'SIM_KEEPALIVE_REQUESTS': 1})
    cold.starve('chat', 1, MOST)
    outcomes = cold.scan('chat', 1, first=cold.starver.order.asked - 200)
    assert 100 < sum(outcomes.values()) < 300, outcomes
    assert cold.stack.api_log().count('it is given up') < 20, 'the loop span'


@pytest.mark.skipif(not ALL, reason='each takes a second or two: with STARVE=all')
def test_polled_chats(make_stack):
    assert Starved(make_stack, COZE_CHAT_MODE='poll').scan('chat', 1)['503'] > 50


@pytest.mark.parametrize('kind', TURNS)
def test_memory_is_short(starved, kind):
    """Whatever would take more than so many bytes is refused, also to libfcgi and json-c."""
    refused = 0
    for left in itertools.count(0, 256 if ALL else 2000):
        _, refusal = starved.starve(kind, left=left)
        starved.recover()
        if refusal is None:
            break
        refused += 1
    starved.try_again()
    assert refused > 5 and starved.stack.worker_pids() == [starved.pid]


def test_nothing_is_lost(starved):
    """As often as before again: the worker holds no more than then, and no turn is left over, nor anything in Redis."""
    starved.scan('stream', ROW, FEW)
    before = starved.level()
    for kind in TURNS:
        starved.scan(kind, 1, 2 * FEW)
        starved.scan(kind, ROW, 2 * FEW)
    after = starved.level()
    assert after[0] <= before[0] + SLACK and after[1] <= before[1] + 2, (before, after)
    link = redis.Redis(unix_socket_path=os.path.join(starved.stack.run_dir, 'redis.sock'))
    wait_for(lambda: left_in_redis(link) == [], what='all sessions being free')
    assert starved.gauge('requests_active') == 1  # the one that asks


def test_libuv_is_not_asked_for_more_than_there_is(plain):
    """Its table of descriptors grows when there are many; without memory for that it would abort."""
    path = worker_socket(plain.stack)

    def next_one():
        taken = set(map(int, os.listdir('/proc/%d/fd' % plain.pid)))
        return min(set(range(len(taken) + 1)) - taken)

    with contextlib.ExitStack() as links:
        while next_one() < GROWS_AT:
            link = links.enter_context(Link(path))
            link.send(request('GET', '/', keep=True))
            assert link.answer()[0] == 200  # so it was accepted
        assert next_one() == GROWS_AT
        plain.starver.refuse(good=1, many=ROW)  # the connection itself is granted
        with Link(path) as refused:
            assert refused.socket.recv(1) == b''
        assert plain.starver.serve() is not None and plain.stack.worker_pids() == [plain.pid]
        with Link(path) as link:
            link.send(request('GET', '/'))
            assert link.answer()[0] == 200


@pytest.mark.parametrize('broken', [False, True], ids=['and answers', 'and is reset'])
def test_a_connection_to_coze_that_is_not_read_any_more(make_stack, broken):
    """
    OpenSSL has no memory for the first record of an answer, and its connection has failed for good; libcurl takes that for
    "not yet", as nothing but session tickets had come before.
    """
    sim_port = free_port()
    path = SlowPath(sim_port, 0)
    try:
        cold = Starved(make_stack, tls=True, sim={'SIM_TLS_PORT': sim_port, 'SIM_HTTP2': 0},
                       COZE_BASE_URL='https://localhost:%d/v3' % path.port)
        path.reset()  # so that the next message meets a new connection
        message = directive(first_ms=1000)
        for number in range(2, 7):  # somebody else may ask for as much before
            with ThreadPoolExecutor(1) as pool:
                asking = pool.submit(cold.stack.chat, message, timeout=TIMEOUT)
                wait_for(lambda count=number: len(cold.stack.sim.log('/v3/chat')) == count, what='the message at Coze')
                for _ in range(5):  # meanwhile the tickets are read; if not, it fails at once with them
                    cold.get('/')
                wait_for(cold.sleeps, what='the worker having nothing to do')
                cold.starver.refuse(left=8000)  # enough for anything but a record
                if broken:
                    path.reset()
                wait_for(cold.starver.last, what='the refusal')
                refusal = cold.starver.serve()
                assert asking.result().status_code == 503
            if refusal.who in ('libssl', 'libcrypto'):
                break
            path.reset()
        assert refusal.who in ('libssl', 'libcrypto'), str(refusal)
        cold.recover()
    finally:
        path.close()
