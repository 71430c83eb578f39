"""
Whatever Redis does - stop, die and forget, freeze, dawdle, refuse writes, forget scripts, change its password -, each
request is answered in time, running streams go on to their end, what they must save is saved when Redis is back, the
workers live, the log stays readable, and service resumes by itself within two seconds.
"""
import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from outcomes import Outcome, starts
from redis_group import bulk
from redis_server import RedisServer, left_in_redis
from stack import directive, late, wait_for

LIMIT = 2   # seconds within which every request is answered while Redis is in trouble, and service is back after it
OUTAGE = 3  # seconds that a trouble lasts
CLIENTS = 6
STREAMS = 8


@pytest.fixture
def server():
    with RedisServer() as server:
        yield server.start()


@pytest.fixture(scope='module')
def talker(make_module_stack):
    """A stack whose Redis says whatever one likes."""
    with RedisServer() as server:
        path = SlowPath(server.start().port, 0)
        stack = make_module_stack(WORKERS='2', REDIS_URL='redis://127.0.0.1:%d' % path.port)
        stack.redis = server
        yield stack, path, stack.worker_pids()
        path.close()


@pytest.fixture
def stack(request, server, make_stack):
    """Two workers; afterwards they are the same, and nothing is left of any turn."""
    url = server.tcp_url if getattr(request, 'param', None) == 'tcp' else server.url
    stack = make_stack(WORKERS='2', REDIS_URL=url, SESSION_LOCK_SECONDS='3')
    pids = stack.worker_pids()
    yield stack
    assert stack.worker_pids() == pids, 'a worker died'
    if not server.runs:  # the test has failed
        server.start()
    wait_for(lambda: left_in_redis(server.link()) == [], 5, 'all sessions being free')
    assert stack.sim.stats()['overlaps'] == 0


class Load:
    """Clients that send one message after the other, each in its own session, for as long as the block lasts."""

    def __init__(self, stack):
        self.stack = stack
        self.outcomes = []  # (when it was told, status, seconds)
        self.counts = {}    # session: answers
        self.stopping = threading.Event()
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.clients = []

    def client(self, session):
        while not self.stopping.is_set():
            began = time.monotonic()
            answer = self.stack.chat('载', session_id=session, timeout=30)
            self.outcomes.append((time.monotonic(), answer.status_code, time.monotonic() - began))
            if answer.status_code == 200:
                self.counts[session] = self.counts.get(session, 0) + 1
            else:
                assert answer.headers['Retry-After'] and answer.json()['detail']
                self.stopping.wait(0.05)  # a client that is refused does not ask again at once

    def statuses(self, since=0):
        """Of messages that were sent since then: however late a busy client looks at an answer, it knows when it asked."""
        return {status for told, status, seconds in self.outcomes if told - seconds > since}

    def lasted(self, seconds, since):
        """Whether answers came, for so long."""
        return any(told > since + seconds for told, _, _ in self.outcomes)

    def __enter__(self):
        self.clients = [self.pool.submit(self.client, 'load-%d' % number) for number in range(CLIENTS)]
        wait_for(lambda: len(self.counts) == CLIENTS, what='answers to all clients')
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for client in self.clients:
            client.result()
        self.pool.shutdown()

    def check(self):
        assert self.statuses() <= {200, 503}, self.statuses()
        assert max(seconds for _, _, seconds in self.outcomes) < LIMIT + late(), 'an answer came too late'


@contextlib.contextmanager
def streams(stack, word, **sim):
    """So many streams, each in its session; at the end all must have completed."""
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(Outcome, stack, '/chat/stream', directive(word, **sim), session_id='%s-%d' % (word, number))
                   for number in range(STREAMS)]
        wait_for(lambda: len(starts(stack, word)) == STREAMS, what='the streams at Coze')
        yield running
        for stream in running:
            assert stream.result().good, stream.result()


def log_of_trouble(stack):
    """The log lines that are neither a request's one closing line nor of the start."""
    return [line for line in stack.api_log().splitlines() if ' event=request ' not in line and ' event=serving' not in line]


def expect_quiet_log(stack, before, seconds):
    """A line a second and worker, and besides each connection's going and coming: two for each of a worker."""
    lines = log_of_trouble(stack)[before:]
    workers = len(stack.worker_pids())
    assert len(lines) <= workers * (seconds + 1 + 4), '%d lines in %.1f s, such as\n%s' % (
        len(lines), seconds, '\n'.join(lines[:40]))


def is_back(stack):
    """Both workers serve: nginx gives each its share of messages one after the other."""
    return all(stack.chat('回').status_code == 200 for _ in range(6))


def expect_back(stack, since):
    wait_for(lambda: is_back(stack), LIMIT + late(), 'the service after the trouble')
    assert time.monotonic() - since < LIMIT + late()
    assert requests.get(stack.url + '/health', timeout=10).json()['redis'] == 'up'


def expect_saved(stack, word, count=1):
    """Each session is bound to the conversation of its stream, and has counted it."""
    spoken = {entry['conversation_id'] for entry in starts(stack, word)}
    assert len(spoken) == STREAMS, 'the sessions are new: each has a conversation of its own'

    def saved():
        infos = [stack.info('%s-%d' % (word, number)) for number in range(STREAMS)]
        return [(info.json().get('conversation_id'), info.json().get('message_count')) for info in infos]

    with contextlib.suppress(AssertionError):  # the next lines say what is wrong
        wait_for(lambda: all(bound in spoken and count in (None, counted) for bound, counted in saved()), LIMIT + late())
    assert {bound for bound, _ in saved()} == spoken
    if count is not None:
        assert [counted for _, counted in saved()] == [count] * STREAMS, 'wrong message_count of "%s"' % word


def expect_counts(stack, load):
    """Nothing was counted twice or never."""
    def counts():
        return {session: stack.info(session).json()['message_count'] for session in load.counts}

    with contextlib.suppress(AssertionError):
        wait_for(lambda: counts() == load.counts, LIMIT + late())
    assert counts() == load.counts


# --- it goes, and comes back -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('stack, how', [('unix', 'stopped'), ('tcp', 'killed and forgetful')], indirect=['stack'])
def test_redis_away(stack, server, how):
    mark = len(log_of_trouble(stack))
    with Load(stack) as load, streams(stack, 'long', answer='长' * 50, gap_ms=200, chunks=50), \
            streams(stack, 'late', first_ms=4000) as accepted_then, streams(stack, 'short', gap_ms=300, chunks=12) as short:
        gone = time.monotonic()
        server.stop() if how == 'stopped' else server.kill(forget=True)
        away = time.monotonic()
        health = requests.get(stack.url + '/health', timeout=10)
        assert health.status_code == 503
        assert health.json() == dict(health.json(), status='unhealthy', redis='down')
        wait_for(lambda: load.lasted(OUTAGE, gone) and 503 in load.statuses(gone), what='the outage')
        wait_for(lambda: all(stream.done() for stream in accepted_then + short), 20, 'the end of those that end meanwhile')
        # What had its session before may still be answered; all others are refused, and at once.
        assert 200 not in load.statuses(away)
        refused = sorted(seconds for _, status, seconds in load.outcomes if status == 503)
        assert refused[len(refused) // 2] < 0.1 * late(), refused
        back = time.monotonic()
        server.start()
        expect_back(stack, back)
        wait_for(lambda: all(client.running() for client in load.clients) and 200 in load.statuses(back), what='the load')
    seconds = time.monotonic() - gone
    load.check()
    # "late" was accepted by Coze, and "short" ended, while Redis was away.
    expect_saved(stack, 'late')
    for word in 'long', 'short':
        expect_saved(stack, word, count=1 if how == 'stopped' else None)
    if how == 'stopped':
        expect_counts(stack, load)
    expect_quiet_log(stack, mark, seconds)


@pytest.mark.parametrize('stack', ['unix', 'tcp'], indirect=True)
def test_redis_is_found_again_soon(stack, server):
    """A refused connection is noticed at once: only the pause between two attempts, a second at most, may be lost."""
    gone = time.monotonic()
    server.stop()
    wait_for(lambda: stack.chat('m').status_code == 503, what='the loss being noticed')
    wait_for(lambda: time.monotonic() - gone > 2.2, what='some attempts')
    server.start()
    back = time.monotonic()
    wait_for(lambda: is_back(stack), LIMIT * 2, 'the service after the trouble')
    assert time.monotonic() - back < 1 + late()


def test_a_running_turn_counts_also_when_redis_forgot(stack, server):
    """Accepted and counted before, and still running when Redis comes back empty: it is all that the session has."""
    with streams(stack, 'running', gap_ms=300, chunks=25):
        link = server.link()
        wait_for(lambda: all(link.hget('coze:{running-%d}:session' % number, 'count') == b'1' for number in range(STREAMS)),
                 what='the counting')
        server.kill(forget=True)
        server.start()
    expect_saved(stack, 'running', count=1)
    again = [stack.chat('again', session_id='running-%d' % number) for number in range(STREAMS)]
    assert all('第 2 轮' in answer.json()['response'] for answer in again)


def test_who_waits_for_a_session_is_answered_too(stack, server):
    with ThreadPoolExecutor(1) as pool:
        with stack.stream(directive('busy', gap_ms=400, chunks=12), session_id='waiting') as answer:
            assert answer.status_code == 200
            waiter = pool.submit(Outcome, stack, '/chat', 'waiter', session_id='waiting')
            wait_for(lambda: server.link().llen('coze:{waiting}:waiting') == 1, what='its place in the queue')
            gone = time.monotonic()
            server.stop()
            assert waiter.result().status == 503
            assert time.monotonic() - gone < LIMIT + late()
            server.start()
            assert b'"complete"' in answer.content
    assert [entry['ended'] for entry in starts(stack, 'waiter')] == []
    assert stack.chat('next', session_id='waiting').status_code == 200


# --- it is there, and does not answer --------------------------------------------------------------------------------

def test_redis_frozen(stack, server):
    """SIGSTOP: it still takes connections and commands. What it then does with them after all must not count twice."""
    mark = len(log_of_trouble(stack))
    with Load(stack) as load, streams(stack, 'long', gap_ms=110, chunks=60), \
            streams(stack, 'late', first_ms=600, gap_ms=50), streams(stack, 'short', gap_ms=100, chunks=5) as short:
        frozen = time.monotonic()
        server.freeze()
        stands = time.monotonic()
        try:
            for stream in short:
                assert stream.result().good, 'a stream stops with Redis'
                assert stream.result().seconds < 0.5 + LIMIT + late()
            began = time.monotonic()
            assert requests.get(stack.url + '/health', timeout=10).status_code == 503
            assert time.monotonic() - began < LIMIT + late()
            wait_for(lambda: load.lasted(OUTAGE, frozen) and 503 in load.statuses(frozen), what='the outage')
            assert 200 not in load.statuses(stands)
        finally:
            server.thaw()
        back = time.monotonic()
        expect_back(stack, back)
        wait_for(lambda: 200 in load.statuses(back), what='the load')
    seconds = time.monotonic() - frozen
    load.check()
    for word in 'long', 'late', 'short':
        expect_saved(stack, word)
    expect_quiet_log(stack, mark, seconds)


def unread(port):
    """Bytes that wait in the sockets of a TCP server for it to read them."""
    with open('/proc/net/tcp', encoding='utf-8') as file:
        sockets = [line.split() for line in list(file)[1:]]
    return sum(int(fields[4].split(':')[1], 16) for fields in sockets
               if int(fields[1].split(':')[1], 16) == port and fields[3] == '01')  # established


def test_a_short_freeze_is_only_a_delay(server, make_stack):
    """Shorter than the limit of a command."""
    stack = make_stack(WORKERS='2', REDIS_URL=server.tcp_url)
    with ThreadPoolExecutor(CLIENTS) as pool:
        server.freeze()
        try:
            answers = [pool.submit(stack.chat, 'm', session_id='brief-%d' % number) for number in range(CLIENTS)]
            wait_for(lambda: unread(server.port), what='commands that wait')
        finally:
            server.thaw()
        assert {answer.result().status_code for answer in answers} == {200}


# --- it is slow ------------------------------------------------------------------------------------------------------

class SlowPath:
    """A TCP proxy whose answers take `delay` seconds longer, each way half of it, and which can break its connections."""

    def __init__(self, port, delay):
        self.target = port
        self.delay = delay / 2
        self.writers = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        listener = socket.create_server(('127.0.0.1', 0))
        self.port = listener.getsockname()[1]
        self.thread.start()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self.serve, sock=listener), self.loop).result(10)

    async def serve(self, reader, writer):
        self.writers.add(writer)
        there, back = await asyncio.open_connection('127.0.0.1', self.target)
        await asyncio.gather(self.pass_on(reader, back), self.pass_on(there, writer))

    async def pass_on(self, reader, writer):
        """Bytes that are under way do not hold up those behind them."""
        queue = asyncio.Queue()

        async def deliver():
            while True:
                when, piece = await queue.get()
                await asyncio.sleep(when - self.loop.time())
                if not piece:
                    break
                writer.write(piece)
            writer.close()

        delivery = asyncio.ensure_future(deliver())
        piece = b'-'
        while piece:
            try:
                piece = await reader.read(65536)
            except ConnectionError:
                piece = b''
            queue.put_nowait((self.loop.time() + self.delay, piece))
        await delivery

    async def reset_all(self):
        for writer in self.writers:
            if writer.is_closing():
                continue
            writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            writer.transport.abort()
        self.writers.clear()

    def reset(self):
        """Every connection breaks with a RST, as when a router or a fail-over has forgotten it."""
        asyncio.run_coroutine_threadsafe(self.reset_all(), self.loop).result(10)

    async def say_to_all(self, words):
        for writer in self.writers:
            writer.write(words)

    def say(self, words):
        """In the server's name, to whoever is connected."""
        asyncio.run_coroutine_threadsafe(self.say_to_all(words), self.loop).result(10)

    async def end(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self):
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def test_redis_slow(server, make_stack):
    """By 70 ms: everything works, a little later; the order within a session stays, and nobody waits for another."""
    path = SlowPath(server.port, 0.07)
    try:
        stack = make_stack(WORKERS='2', REDIS_URL='redis://127.0.0.1:%d' % path.port)
        with ThreadPoolExecutor(40) as pool:
            began = time.monotonic()
            outcomes = list(pool.map(lambda number: Outcome(stack, '/chat/stream', 'm%d' % number,
                                                            session_id='slow-%d' % number), range(80)))
            assert time.monotonic() - began < min(80 * 0.14 / 2 * late(), 80 * 0.14), 'one waits for the other'
            assert all(outcome.good for outcome in outcomes), outcomes
            assert sorted(outcome.seconds for outcome in outcomes)[40] < 0.14 + late()
            same = list(pool.map(lambda number: Outcome(stack, '/chat', 's%d' % number, session_id='same'), range(10)))
        assert all(outcome.good for outcome in same), same
        assert stack.info('same').json()['message_count'] == 10
        assert len({outcome.conversation for outcome in same}) == 1 and stack.sim.stats()['overlaps'] == 0
        assert requests.get(stack.url + '/health', timeout=10).status_code == 200
        assert left_in_redis(server.link()) == []
    finally:
        path.close()


def test_connections_are_reset(server, make_stack):
    """
    Each worker has two: one for commands, and one that only listens for whose turn it is. That one never writes, so only
    the reset itself tells that it is gone.
    """
    path = SlowPath(server.port, 0)
    try:
        stack = make_stack(WORKERS='2', REDIS_URL='redis://127.0.0.1:%d' % path.port, SESSION_LOCK_SECONDS='60')
        link = server.link()
        channels = set(wait_for(lambda: len(link.pubsub_channels('coze:wake:*')) == 2 and link.pubsub_channels('coze:wake:*')))
        path.reset()
        broken = time.monotonic()
        assert stack.chat('m').status_code in (200, 503) and time.monotonic() - broken < 1 + late()
        wait_for(lambda: is_back(stack), LIMIT + late(), 'the service after the reset')
        wait_for(lambda: set(link.pubsub_channels('coze:wake:*')) == channels, LIMIT + late(), 'both workers listening again')
    finally:
        path.close()


# --- it talks nonsense -----------------------------------------------------------------------------------------------

UNASKED = {
    'a status': b'+OK\r\n',
    'an error': b'-ERR max number of clients reached\r\n',
    'a number': b':1\r\n',
    'a text': b'$2\r\nhi\r\n',
    'nothing': b'$-1\r\n',
    'no list': b'*-1\r\n',
    'an empty list': b'*0\r\n',
    'two': b'+OK\r\n+OK\r\n',
    'a list of one': bulk('message'),
    'a list of numbers': b'*3\r\n:1\r\n:2\r\n:3\r\n',
    'a list of nothings': b'*3\r\n$-1\r\n$-1\r\n$-1\r\n',
    'a list of lists': b'*3\r\n*0\r\n*0\r\n*0\r\n',
    'a message without text': bulk('message', 'CHANNEL'),
    'a message that is a number': bulk('message', 'CHANNEL', '')[:-6] + b':5\r\n',
    'a message of another channel': bulk('message', 'other', 'x'),
    'a message by pattern': bulk('pmessage', 'coze:*', 'CHANNEL', 'x'),
    'an odd message': bulk('message', 'CHANNEL', '\0\n'),
    'a word for the channel': bulk('unsubscribe', 'CHANNEL'),
    'an end with a word': bulk('unsubscribe', 'CHANNEL', 'x'),
    'an end': bulk('unsubscribe', 'CHANNEL', '')[:-6] + b':0\r\n',
    'an end of all': b'*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n',
    'HTTP': b'HTTP/1.1 400 Bad Request\r\n\r\n',
}


@pytest.mark.parametrize('words', UNASKED.values(), ids=UNASKED)
def test_redis_says_what_nobody_asked(talker, words):
    """A connection that talks so is given up; the worker lives, and has another soon."""
    stack, path, pids = talker

    def listening():
        return set(stack.redis.link().pubsub_channels('coze:wake:*'))

    channels = wait_for(lambda: len(listening()) == 2 and listening(), LIMIT + late(), 'both workers listening')
    for channel in channels if b'CHANNEL' in words else [b'']:
        path.say(words.replace(b'$7\r\nCHANNEL', b'$%d\r\n%s' % (len(channel), channel)))
        wait_for(lambda: is_back(stack), LIMIT + late(), 'the service after the nonsense')
    assert stack.worker_pids() == pids, 'a worker died'
    wait_for(lambda: listening() == channels, LIMIT + late(), 'both workers listening again')


# --- it refuses, or has forgotten ------------------------------------------------------------------------------------

def test_redis_readonly(stack, server):
    """As after a fail-over, or with a full disk: it answers, and takes no write."""
    mark = len(log_of_trouble(stack))
    with Load(stack) as load, streams(stack, 'long', gap_ms=100, chunks=50), streams(stack, 'short', gap_ms=100, chunks=8):
        refused = time.monotonic()
        server.link().execute_command('REPLICAOF', '127.0.0.1', '1')
        refuses = time.monotonic()
        wait_for(lambda: load.lasted(OUTAGE, refused) and 503 in load.statuses(refused), what='the outage')
        assert 200 not in load.statuses(refuses)
        back = time.monotonic()
        server.link().execute_command('REPLICAOF', 'NO', 'ONE')
        expect_back(stack, back)
        wait_for(lambda: 200 in load.statuses(back), what='the load')
    seconds = time.monotonic() - refused
    load.check()
    for word in 'long', 'short':
        expect_saved(stack, word)
    expect_counts(stack, load)
    expect_quiet_log(stack, mark, seconds)


SPOILT = {  # a key of the wrong type: who asks for it
    'coze:{index}:sessions': [('GET', '/sessions', None)],
    'coze:{s}:session': [('GET', '/session/s/info', None), ('POST', '/session/s/clear', {}), ('GET', '/sessions', None),
                         ('POST', '/session/s/bind', {'conversation_id': '7'}), ('POST', '/chat', {'session_id': 's'}),
                         ('GET', '/conversation/7/session', None)],
    'coze:limit:start': [('POST', '/chat', {'session_id': 't'}), ('POST', '/chat/stream', {'session_id': 't'})],
}


@pytest.mark.parametrize('key', SPOILT)
def test_redis_refuses_a_command(server, make_stack, key):
    """Only who needs it fails, and properly; the rest goes on."""
    stack = make_stack(WORKERS='1', REDIS_URL=server.url, COZE_MIN_INTERVAL_MS='1')
    link = server.link()
    assert requests.post(stack.url + '/session/s/bind', json={'conversation_id': '7'}, timeout=10).status_code == 200
    wait_for(lambda: stack.get('/conversation/7/session')[0] == 200, what='the index')
    link.delete(key)
    link.rpush(key, 'no session, no index, no limit')
    for method, path, body in SPOILT[key]:
        answer = requests.request(method, stack.url + path, json=body and {'message': 'hi', **body}, timeout=10)
        assert answer.status_code == 503 and answer.json()['detail'], (path, answer.text)
    assert stack.sim.chats() == []
    link.delete(key)
    assert stack.chat('hi', session_id='new').status_code == 200
    wait_for(lambda: stack.get('/sessions')[0] == 200, what='the list')


def test_redis_refuses_to_say_who_has_a_conversation(server, make_stack):
    stack = make_stack(WORKERS='1', REDIS_URL=server.url)
    server.link().execute_command('ACL', 'SETUSER', 'default', '-mget')
    assert stack.get('/conversation/7/session')[0] == 503
    server.link().execute_command('ACL', 'SETUSER', 'default', '+mget')
    assert stack.get('/conversation/7/session')[0] == 404


def test_a_session_that_another_took_is_said(server, make_stack):
    stack = make_stack(WORKERS='1', REDIS_URL=server.url, SESSION_LOCK_SECONDS='1')
    with stack.stream(directive('x', chunks=30, gap_ms=100), session_id='s') as answer:
        pieces = answer.iter_content(None)
        next(pieces)
        server.link().hset('coze:{s}:session', 'turn', 'another')
        wait_for(lambda: 'event=session_lost session=s' in stack.api_log(), what='the warning')


def test_redis_forgets_its_scripts(stack, server):
    mark = len(log_of_trouble(stack))
    with Load(stack) as load, streams(stack, 'long', gap_ms=100, chunks=15):
        for _ in range(10):
            before = sum(load.counts.values())
            server.link().script_flush()
            wait_for(lambda: sum(load.counts.values()) > before + 2 * CLIENTS, what='answers after the flush')
    assert load.statuses() == {200}
    assert len(log_of_trouble(stack)) - mark <= 2
    expect_saved(stack, 'long')
    expect_counts(stack, load)


# --- who may use it --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('login', ['default user', 'named user', 'password beside the URL'])
def test_password_and_database(make_stack, login):
    """SESSION_LOCK_SECONDS is long, so that a waiting message is served soon only if it is woken."""
    with RedisServer(requirepass='geheim1').start() as server:
        admin = server.link(password='geheim1', db=2)
        who, beside = ':geheim1', {}
        if login == 'named user':
            admin.execute_command('ACL', 'SETUSER', 'bot', 'on', '>p@ss:geheim/1', '~coze:*', '&coze:*', '+@all')
            who = 'bot:p%40ss%3Ageheim%2F1'
        elif login == 'password beside the URL':
            who, beside = ':stale', {'REDIS_PASSWORD': 'geheim1'}
        stack = make_stack(WORKERS='2', REDIS_URL='redis://%s@127.0.0.1:%d/2' % (who, server.port),
                           SESSION_LOCK_SECONDS='60', **beside)
        pids = stack.worker_pids()
        assert stack.chat('hello', session_id='db').status_code == 200
        assert admin.exists('coze:{db}:session')
        assert server.link(password='geheim1').dbsize() == 0, 'it wrote to another database'

        mark = len(log_of_trouble(stack))
        changed = time.monotonic()
        if login == 'named user':
            admin.execute_command('ACL', 'SETUSER', 'bot', 'resetpass', '>other')
            admin.execute_command('CLIENT', 'KILL', 'USER', 'bot')
        else:
            admin.config_set('requirepass', 'other')
            admin.execute_command('CLIENT', 'KILL', 'TYPE', 'pubsub')
            admin.execute_command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
        wait_for(lambda: stack.chat('refused').status_code == 503, LIMIT + late(), 'the wrong password being noticed')
        while time.monotonic() < changed + OUTAGE:
            outcome = Outcome(stack, '/chat', 'refused')
            assert outcome.status == 503 and outcome.seconds < LIMIT + late(), outcome
        assert requests.get(stack.url + '/health', timeout=10).status_code == 503
        expect_quiet_log(stack, mark, time.monotonic() - changed)
        assert 'geheim' not in stack.api_log()

        back = time.monotonic()
        if login == 'named user':
            admin.execute_command('ACL', 'SETUSER', 'bot', 'resetpass', '>p@ss:geheim/1')
        else:
            admin.config_set('requirepass', 'geheim1')
        expect_back(stack, back)
        # Also the listening connections are back.
        wait_for(lambda: admin.pubsub_channels('coze:wake:*') and len(admin.pubsub_channels('coze:wake:*')) == 2,
                 LIMIT + late(), 'both workers listening')
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: stack.chat(directive('m', gap_ms=10), session_id='db'), range(4)))
        assert {answer.status_code for answer in answers} == {200}
        assert stack.info('db').json()['message_count'] == 5
        assert stack.worker_pids() == pids


def test_a_redis_that_knows_no_passwords(server, make_stack):
    """It repeats what it does not understand; the log does not."""
    server.settings['requirepass'] = password = 'nobody-else-knows-this-one'
    server.stop()
    server.start()
    stack = make_stack(WORKERS='1', REDIS_URL='redis://:%s@127.0.0.1:%d' % (password, server.port))
    assert stack.chat('hello').status_code == 200
    server.stop()
    del server.settings['requirepass']
    with open(server.conf, encoding='utf-8') as file:
        server.conf = os.path.join(server.home, 'redis.conf')
        with open(server.conf, 'w', encoding='utf-8') as without:
            without.write(file.read() + '\nrename-command AUTH ""\n')
    server.start()
    os.kill(*stack.worker_pids(), signal.SIGKILL)  # the next one meets it first thing
    wait_for(lambda: stack.api_log().count('cause="AUTH was refused') == 2, LIMIT + late(), 'the refusal on both connections')
    assert password not in stack.api_log()


def test_a_worker_that_could_not_read_does_not_blame_redis(server, make_stack):
    stack = make_stack(WORKERS='1', REDIS_URL=server.tcp_url)
    worker, = stack.worker_pids()
    with ThreadPoolExecutor(1) as pool:
        server.freeze()
        answer = pool.submit(stack.chat, 'hi', session_id='s')
        wait_for(lambda: waiting_bytes(server.port) > 0, what='the command being sent')
        os.kill(worker, signal.SIGSTOP)
        server.thaw()
        wait_for(lambda: waiting_bytes(server.port) == 0, what='Redis having read it')
        stopped = time.monotonic()
        wait_for(lambda: time.monotonic() > stopped + 1.5, what='more than the limit of a command')
        os.kill(worker, signal.SIGCONT)
        assert answer.result(20).status_code == 200
    assert 'state=down' not in stack.api_log()


def waiting_bytes(port):
    """Bytes that the kernel holds for the server on this port and it has not read."""
    total = 0
    with open('/proc/net/tcp', encoding='ascii') as table:
        for line in table.readlines()[1:]:
            words = line.split()
            if int(words[1].split(':')[1], 16) == port and words[3] == '01':
                total += int(words[4].split(':')[1], 16)
    return total
