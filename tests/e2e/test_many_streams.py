"""
Thousands of streams at a time: they take little memory and give it back, chunks come in time, and a crowd that comes at once gets
its answers over few connections to Coze. `make bench-streams` has more of them, and figures.
"""
import json
import os
import resource
import subprocess

import pytest

import probe
from install import CHATD, make
from stack import directive, wait_for

CLIENT = os.path.join(os.path.dirname(CHATD), 'bench', 'streams')
PER_CONNECTION = 32  # calls to Coze, over HTTP/2
HELD = 400
BURST = 2000

pytestmark = pytest.mark.alone


@pytest.fixture(scope='module', autouse=True)
def client():
    make(CLIENT)


def words(stack, count, message, *options):
    body = json.dumps({'message': message, 'session_id': 'crowd-%'})
    return list(map(str, [CLIENT, '-p', stack.port, '-c', count, '-b', body, *options]))


def checked(found):
    assert not any(found['failed'].values()), found
    return found


def crowd(stack, count, message, *options):
    """What came of `count` streams, none of which has failed."""
    done = subprocess.run(words(stack, count, message, *options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
                          timeout=120)
    return checked(json.loads(done.stdout))


class Open:
    """`with` holds streams open, each of which has had a chunk; at its end their clients leave."""

    def __init__(self, stack, count, message, *options):
        self.process = subprocess.Popen(words(stack, count, message, '-i', *options), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        assert self.process.stdout.readline() == 'open\n'
        return self

    def __exit__(self, *_):
        output, _ = self.process.communicate(timeout=60)
        checked(json.loads(output))


def pss_kib(pid):
    with open('/proc/%d/smaps_rollup' % pid) as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Pss:'))


def one_worker(make_stack, **settings):
    stack = make_stack(WORKERS='1', **settings)
    stack.pid, = stack.worker_pids()
    stack.chat('连接')
    return stack


@pytest.mark.parametrize('tls, ceiling_kib', [(False, 30), (True, 42)], ids=['HTTP', 'HTTP/2 and TLS'])
def test_open_streams_take_little_memory_and_give_it_back(make_stack, tls, ceiling_kib):
    """Of 24 and 32 KiB, and then some: 400 streams bear what a worker holds anyway."""
    stack = one_worker(make_stack, tls=tls)
    if probe.is_instrumented(stack.pid):
        pytest.skip('instrumented memory says nothing')
    with Open(stack, 8, directive(chunks=2, gap_ms=50)):
        pass  # what is allocated once
    before = pss_kib(stack.pid)
    with Open(stack, HELD, directive(answer='啊' * 99, chunks=99, gap_ms=500), '-r', HELD):
        held = pss_kib(stack.pid) - before
        assert stack.sim.stats()['open_streams'] == HELD
    print('%.1f KiB per stream' % (held / HELD))
    assert held < HELD * ceiling_kib
    wait_for(lambda: stack.sim.stats()['running'] == 0, what='the end of the streams')
    # Connections and handles are kept for the next, which is most of what so few streams take.
    wait_for(lambda: pss_kib(stack.pid) - before < 0.9 * held, seconds=20, what='memory being given back')


def test_chunks_of_many_streams_come_in_time(make_stack):
    stack = one_worker(make_stack, tls=True)
    slow = 10 if probe.is_instrumented(stack.pid) else 1
    found = crowd(stack, 300, directive(answer='啊' * 6, chunks=6, gap_ms=500), '-r', 300 / slow, '-k', 6, '-g', 500, '-l', 1500 * slow)
    assert found['late_us']['count'] == 300 * 6 and found['late_us']['over'] == 0, found


def test_a_burst_opens_no_connection_more_than_it_needs(make_stack):
    stack = one_worker(make_stack, tls=True)
    burst = 500 if probe.is_instrumented(stack.pid) else BURST
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2.2 * burst:
        pytest.skip('one of the nginx processes may need two descriptors per stream (ulimit -Hn)')
    crowd(stack, burst, directive(answer='啊' * 3, chunks=3, gap_ms=4000), '-k', 3)
    stats = stack.sim.stats()
    assert stats['requests'] == stats['http2_requests'] == burst + 1
    # Two more: a connection may be closing just when it is needed.
    assert stats['connections'] <= -(-burst // PER_CONNECTION) + 2
    assert stack.worker_pids() == [stack.pid] and 'state=down' not in stack.api_log()


def test_a_burst_over_http_1_1_gets_a_connection_each(make_stack):
    """Nobody waits for another's."""
    stack = one_worker(make_stack, tls=True, sim={'SIM_HTTP2': 0})
    with Open(stack, 100, directive(answer='啊' * 99, chunks=99, gap_ms=500)):
        stats = stack.sim.stats()
    assert stats['http2_requests'] == 0 and 100 <= stats['connections'] <= 101
