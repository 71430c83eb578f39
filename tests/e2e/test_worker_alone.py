"""
One worker without a master, as in a container: it is pid 1 there, serves nginx elsewhere on TCP, and TERM drains it.
"""
import os
import signal
import subprocess

import pytest

from redis_server import RedisServer
from service import TOP, free_port, is_alive
from stack import Stack, directive, parse_stream, wait_for

CHATD = os.environ.get('CHATD') or os.path.join(TOP, 'build', 'coze-chatd')


def children(pid):
    try:
        with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


@pytest.fixture
def alone():
    """(stack whose nginx passes to the worker, the worker's pid here; it is 1 for itself)"""
    port = free_port()
    stack = Stack(WORKER_ADDRESSES='127.0.0.1:%d' % port)
    words = ['unshare', '--pid', '--fork', '--kill-child=KILL', CHATD, '--worker']
    if os.geteuid() != 0:
        words[1:1] = ['--user', '--map-root-user']
    with RedisServer().start() as redis:
        env = dict(stack.env, REDIS_URL=redis.url, WORKER_LISTEN='127.0.0.1:%d' % port, LOG_FILE='-')
        env.pop('WORKER_ADDRESSES')
        with open(os.path.join(stack.home, 'worker.log'), 'wb+') as log:
            process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                wait_for(lambda: process.poll() is not None or children(process.pid), what='the worker')
                if process.poll() is not None:
                    log.seek(0)
                    pytest.skip(log.read().decode())
                wait_for(lambda: b'event=serving' in os.pread(log.fileno(), 65536, 0), what='the worker serving')
                with stack.start():
                    yield stack, children(process.pid)[0]
            finally:
                process.kill()
                process.wait()


def test_what_others_left_behind_is_buried(alone):
    """A health check that was given up leaves processes to pid 1. As zombies they would use up the container's pids."""
    stack, worker = alone
    enter = ['nsenter', '--target', str(worker), '--pid']
    if os.geteuid() != 0:
        enter += ['--user', '--preserve-credentials']
    for _ in range(3):
        subprocess.run(enter + ['sh', '-c', '(exec sleep 0.1) & (sleep 0.01 &)'], check=True, timeout=20)
    wait_for(lambda: children(worker) == [], 10, 'no orphans and no zombies')
    assert stack.chat('hi').status_code == 200


def test_term_drains_it(alone):
    stack, worker = alone
    with stack.stream(directive('last', chunks=15, gap_ms=50), session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        os.kill(worker, signal.SIGTERM)
        assert parse_stream(body + b''.join(pieces))[-1]['type'] == 'complete'
    wait_for(lambda: not is_alive(worker), 20, 'the end')


def test_hup_and_usr1_do_no_harm(alone):
    """It has nobody who could follow it: new settings need a new container."""
    stack, worker = alone
    for number in signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGCHLD:
        os.kill(worker, number)
        assert stack.chat('hi').status_code == 200
    assert is_alive(worker)
