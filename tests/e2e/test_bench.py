"""What measures must measure: that every server is asked, that figures are complete, and that a wrong answer is never counted."""
import json
import os
import subprocess
import sys

import pytest

from install import CHATD, make
from service import TOP
from stack import directive

CLIENT = os.path.join(os.path.dirname(CHATD), 'bench', 'streams')
BENCH = os.path.join(TOP, 'tests', 'bench')

pytestmark = pytest.mark.alone


@pytest.fixture(scope='module', autouse=True)
def client():
    make(CLIENT)


def streams(port, message, count=20, options=()):
    """What the client found of `count` streams whose message is this."""
    body = json.dumps({'message': message, 'session_id': 'bench-%'})
    words = [CLIENT, '-p', str(port), '-c', str(count), '-b', body, *map(str, options)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found['streams'] == count and found['finished'] + sum(found['failed'].values()) >= count
    found['failed'] = {why: many for why, many in found['failed'].items() if many}
    return found


def test_the_client_of_streams_sees_every_chunk_and_its_time(stack):
    found = streams(stack.port, directive(chunks=8, gap_ms=30), options=('-k', 8, '-g', 30, '-l', 5000))
    assert found['finished'] == 20 and found['failed'] == {} and found['chunks'] == 160
    assert found['first_us']['count'] == 20 and found['gap_us']['count'] == 140 and found['total_us']['count'] == 20
    assert found['late_us']['count'] == 160 and found['late_us']['over'] == 0
    assert 29000 <= found['first_us']['p50'] and 25000 <= found['gap_us']['p50'] and 8 * 29000 <= found['total_us']['p50']


def test_the_client_of_streams_reuses_a_connection_for_the_next_one(stack):
    found = streams(stack.port, 'hi', count=3, options=('-d', 0.5, '-k', 10))
    assert found['finished'] > 10 and found['failed'] == {} and found['connections'] == 3
    assert found['chunks'] == 10 * found['finished']


@pytest.mark.parametrize('sim, reason', [
    ({'chunks': 9}, 'chunks'), ({'fault': 'chat_failed_after_text', 'gap_ms': 5}, 'error'),
    ({'fault': 'unknown_conversation'}, 'status')])
def test_the_client_of_streams_counts_no_wrong_answer_as_one(stack, sim, reason):
    found = streams(stack.port, directive(**sim), count=3, options=('-k', 10))
    assert found['finished'] == 0 and found['failed'] == {reason: 3}


def python(*words, **settings):
    env = {**os.environ, 'PYTHONPATH': BENCH, 'CHATD': CHATD, 'STREAMS_CLIENT': CLIENT, **settings}
    return subprocess.run([sys.executable, *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=120)


def test_a_short_bench_measures_every_server_and_tells_where(tmp_path):
    done = python(os.path.join(BENCH, 'bench.py'), 'throughput', RUN_DIR=str(tmp_path), BENCH_RUNS='1', BENCH_SECONDS='1',
                  BENCH_CLIENTS='2')
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / 'bench-throughput.json').read_text())
    assert results['facts']['cpu'] and results['facts']['commit'] and results['facts']['versions']['nginx']
    found = results['throughput']
    assert [(each['target'], each['route']) for each in found] == [
        ('straight', 'both'), ('service', 'chat'), ('service', 'stream'), ('reference', 'chat'), ('reference', 'stream')]
    for each in found:
        assert each['requests'] > 0 and each['wrong'] == 0 and 0 < each['p50_us'] <= each['p99_us'], each
        assert each['cpu_per_1000']['nginx'] > 0 and each['cpu_per_1000']['load'] > 0
    rows = [line.split(' | ') for line in done.stdout.splitlines() if line.startswith('| ')]
    assert all(len(row) == 6 for row in rows) and len(rows) == 11
    assert rows[1][0] == '| `/chat` per second, 2 clients' and '–' not in ' '.join(rows[1])


def test_memory_is_that_of_streams_which_are_open():
    done = python('-c', 'import json, memory; print(json.dumps(memory.of_service("http", 50)))')
    found = json.loads(done.stdout)
    assert 'void' not in found and found['kib_per_stream']['worker'] > 1 and found['kib_per_stream']['nginx'] > 1, found


def test_a_wrong_answer_makes_a_measurement_void(stack):
    stack.sim.default(fault='empty')
    done = python('-c', 'import generators; generators.wrk(%d, "/chat", 2, 1)' % stack.port)
    assert done.returncode == 1 and 'generators.Void: 2 clients at /chat: ' in done.stderr and 'answers, 0 wrong' not in done.stderr
    assert '503' in done.stderr
