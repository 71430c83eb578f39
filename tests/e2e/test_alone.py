"""
`coze-chatd --worker`: one worker without a master, as process 1 of a container. It says why it cannot start, TERM drains
it, INT ends it, and after WORKER_MAX_REQUESTS it leaves by itself.
"""
import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import time

import pytest

from fastcgi import Link, request
from redis_server import RedisServer
from service import TOP, free_port
from stack import Sim, directive, late, wait_for

CHATD = os.environ.get('CHATD') or os.path.join(TOP, 'build', 'coze-chatd')
LINGER = 3  # seconds that others have to notice that it is gone


class TcpLink(Link):
    def __init__(self, port, timeout=20):
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.setblocking(True)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack('@ll', timeout, 0))


class Worker:
    def __init__(self, home, sim, redis, **settings):
        self.port = free_port()
        self.log = os.path.join(home, 'worker.log')
        self.env = {'PATH': os.environ['PATH'], 'WORKER_LISTEN': '127.0.0.1:%d' % self.port, 'LOG_FILE': self.log,
                    'RUN_DIR': os.path.join(home, 'run'), 'REDIS_URL': redis.url, **sim.settings, **settings}
        self.env.update({name: os.environ[name] for name in ('ASAN_OPTIONS', 'UBSAN_OPTIONS') if name in os.environ})
        self.process = None

    def start(self):
        self.process = subprocess.Popen([CHATD, '--worker'], env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(self.serves, what='the start')
        return self

    def serves(self):
        assert self.process.poll() is None, self.process.stderr.read()
        return self.listens() and 'event=serving' in self.said()

    def listens(self):
        try:
            socket.create_connection(('127.0.0.1', self.port)).close()
            return True
        except ConnectionRefusedError:
            return False
        except ConnectionResetError:  # it came just when the socket was shut
            return True

    def said(self):
        """Its log; nothing before it has made one."""
        if not os.path.exists(self.log):
            return ''
        with open(self.log, encoding='utf-8') as file:
            return file.read()

    def ask(self, method, path, body=None):
        with TcpLink(self.port) as link:
            link.send(request(method, path, json.dumps(body).encode() if body else b''))
            return link.answer()

    def end(self, number):
        self.process.send_signal(number)


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    home = str(tmp_path_factory.mktemp('alone'))
    sim = Sim(home)
    sim.start()
    with RedisServer() as redis:
        redis.start()
        yield sim, redis
    sim.stop()


@pytest.fixture
def make_worker(parts, tmp_path):
    made = []

    def make(**settings):
        made.append(Worker(str(tmp_path), *parts, **settings))
        return made[-1].start()
    parts[0].reset()
    yield make
    for worker in made:
        if worker.process is not None:
            worker.end(signal.SIGINT)
            try:
                worker.process.wait(10)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.process.stderr.close()


def test_it_serves_and_counts(make_worker):
    worker = make_worker()
    assert worker.ask('GET', '/health')[0] == 200
    assert worker.ask('POST', '/chat', {'message': 'hi'})[0] == 200
    text = worker.ask('GET', '/metrics')[2].decode()
    assert 'coze_chat_requests_total{route="/chat",status="200"} 1\n' in text
    assert 'coze_chat_workers{state="serving"} 1\n' in text
    assert not os.path.exists(worker.env['RUN_DIR'])
    assert worker.said().count('event=request') == 3


def begin_stream(worker, message):
    link = TcpLink(worker.port)
    link.send(request('POST', '/chat/stream', json.dumps({'message': message}).encode()))
    link.exactly(8)
    return link


def test_term_drains(make_worker):
    """It stops listening at once, ends what runs, and stays for some seconds, so that who comes late is refused."""
    worker = make_worker()
    with begin_stream(worker, directive('x', gap_ms=100, chunks=10)) as link, TcpLink(worker.port) as idle:
        idle.send(request('GET', '/health', keep=True))
        assert idle.answer()[0] == 200
        begun = time.monotonic()
        worker.end(signal.SIGTERM)
        wait_for(lambda: not worker.listens(), late(), 'not listening')
        # A kept connection is served until nginx closes it.
        idle.send(request('GET', '/health', keep=True))
        assert idle.answer()[0] == 200
        assert b'"type": "complete"' in link.until_closed()
        assert worker.process.poll() is None
    assert worker.process.wait(15) == 0
    assert time.monotonic() - begun >= LINGER
    assert 'event=draining' in worker.said() and 'event=stopped' in worker.said()


def test_term_without_anything_to_do_lingers(make_worker):
    worker = make_worker()
    begun = time.monotonic()
    worker.end(signal.SIGTERM)
    wait_for(lambda: not worker.listens(), late(), 'not listening')
    assert worker.process.wait(15) == 0
    assert LINGER <= time.monotonic() - begun < LINGER + 1 + late()


@pytest.mark.parametrize('first', [None, signal.SIGTERM])
def test_int_is_quick(make_worker, first):
    """Also when it drains already: then its client is told, and Coze."""
    worker = make_worker()
    with begin_stream(worker, directive('x', gap_ms=300, chunks=20)) as link:
        if first:
            worker.end(first)
            wait_for(lambda: not worker.listens(), late(), 'not listening')
        begun = time.monotonic()
        worker.end(signal.SIGINT)
        assert b'"type": "error"' in link.until_closed()
        assert worker.process.wait(15) == 0
        assert time.monotonic() - begun < 2.5


def test_a_drain_has_its_limit(make_worker):
    worker = make_worker(DRAIN_TIMEOUT_SECONDS='0.5')
    with begin_stream(worker, directive('x', gap_ms=300, chunks=30)) as link:
        begun = time.monotonic()
        worker.end(signal.SIGTERM)
        assert b'"type": "error"' in link.until_closed()
        assert worker.process.wait(15) == 0
        assert time.monotonic() - begun < LINGER + late()  # of nine seconds that the answer would take
    assert 'event=drain_timeout' in worker.said()


def test_hup_is_nothing_and_usr1_reopens_the_log(make_worker):
    worker = make_worker()
    worker.end(signal.SIGHUP)
    worker.end(signal.SIGUSR2)
    os.rename(worker.log, worker.log + '.old')
    worker.end(signal.SIGUSR1)
    wait_for(lambda: os.path.exists(worker.log), what='the new log')
    assert worker.ask('GET', '/health')[0] == 200
    assert worker.said().count('event=request') == 1


def test_after_enough_requests_it_leaves(make_worker):
    worker = make_worker(WORKER_MAX_REQUESTS='5')
    for _ in range(4):
        assert worker.ask('GET', '/health')[0] == 200
    assert worker.process.poll() is None and worker.listens()
    assert worker.ask('GET', '/health')[0] == 200
    wait_for(lambda: not worker.listens(), late(), 'not listening')
    assert worker.process.wait(15) == 0
    assert 'event=worn requests=5' in worker.said()


def test_without_descriptors_new_connections_wait(make_worker):
    """The pause keeps a worker from asking for them again and again; whoever is being served is."""
    worker = make_worker()
    pid = worker.process.pid
    with TcpLink(worker.port) as served, TcpLink(worker.port) as waiting:
        served.send(request('GET', '/', keep=True))
        assert served.answer()[0] == 200
        waiting.send(request('GET', '/', keep=True))
        assert waiting.answer()[0] == 200  # both have their descriptors
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/%d/fd' % pid))) + 1, limits[1]))
        with contextlib.ExitStack() as stack:
            refused = [stack.enter_context(TcpLink(worker.port)) for _ in range(20)]
            for link in refused:
                link.send(request('GET', '/'))
            wait_for(lambda: 'event=accept ' in worker.said(), what='a connection that cannot be accepted')
            served.send(request('GET', '/', keep=True))
            assert served.answer()[0] == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            for link in refused:
                assert link.answer()[0] == 200
    assert 'Too many open files' in worker.said()
    assert worker.said().count('event=accept ') < 200


def test_descriptors_are_raised_to_what_is_allowed(make_worker):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        worker = make_worker()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_redis_whose_name_is_not_known_is_said(parts, tmp_path):
    worker = Worker(str(tmp_path), *parts, REDIS_URL='redis://no-such-host.invalid')
    worker.process = subprocess.Popen([CHATD, '--worker'], env=worker.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: 'event=redis state=down' in worker.said(), what='the complaint')
        wait_for(lambda: worker.said().count('event=serving'), 20, 'serving without Redis')
        assert worker.ask('GET', '/health')[0] == 503
        worker.end(signal.SIGTERM)
        assert worker.process.wait(15) == 0
    finally:
        worker.process.kill()
        worker.process.communicate()


def run(parts, home, **settings):
    worker = Worker(home, *parts, **settings)
    return subprocess.run([CHATD, '--worker'], env=worker.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=20)


def test_what_prevents_a_start_is_said(parts, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as other:
        address = '127.0.0.1:%d' % other.getsockname()[1]
        done = run(parts, str(tmp_path), WORKER_LISTEN=address)
        assert done.returncode != 0
        assert done.stderr == 'cannot listen on %s: Address already in use\n' % address
    for settings, said in [({'WORKER_LISTEN': ''}, 'WORKER_LISTEN: is required'), ({'LOG_FILE': '/nowhere/x'}, '/nowhere/x'),
                           ({'LOG_FILE': '', 'RUN_DIR': '/dev/null/run'}, 'cannot make the directory /dev/null/run: '),
                           ({'WORKER_LISTEN': 'localhost'}, 'WORKER_LISTEN=localhost: must be'),
                           ({'WORKER_LISTEN': 'no-such-host.invalid:1'}, 'cannot listen on no-such-host.invalid:1: '),
                           ({'COZE_BOT_ID': ''}, 'COZE_BOT_ID'), ({'REDIS_URL': 'redis://:secret-of-redis@h:port'}, 'REDIS_URL')]:
        done = run(parts, str(tmp_path), **settings)
        assert done.returncode != 0 and said in done.stderr and done.stderr.count('\n') == 1, done.stderr
        assert 'secret' not in done.stderr and done.stdout == ''


def test_the_log_may_be_standard_error(parts, tmp_path):
    worker = Worker(str(tmp_path), *parts, LOG_FILE='-', LOG_FORMAT='json')
    process = subprocess.Popen([CHATD, '--worker'], env=worker.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if json.loads(line)['event'] == 'serving':
                break
        assert worker.ask('GET', '/health')[0] == 200
        assert json.loads(process.stderr.readline())['path'] == '/health'
        process.send_signal(signal.SIGUSR1)  # nothing to reopen
        assert worker.ask('GET', '/health')[0] == 200
        assert json.loads(process.stderr.readline())['path'] == '/health'
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
