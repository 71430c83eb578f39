"""
/metrics: each number moves when it should and by as much as it should, all gauges are zero when nothing runs, whatever
happened before, nothing is counted backwards, every worker answers for all, and not everybody is told.
"""
import json
import os
import random
import re
import signal
import socket
import threading
import time

import pytest
import requests

from fastcgi import Link, ask, request, worker_socket
from load import Load
from probe import Beside
from redis_server import RedisServer
from stack import directive, wait_for

STATES = ['lock', 'slot', 'pause', 'asking', 'answering', 'leaving', 'saving']
SAMPLE = re.compile(r'coze_chat_([a-z_]+)(?:\{([a-z]+="[^"\\]*",?)+\})? ([0-9.e+]+)')


def parse(text):
    """{sample as it is printed, without the prefix: value}; the text must be what Prometheus' parser takes."""
    samples, kinds, family = {}, {}, None
    assert text.endswith('\n')
    for line in text.split('\n')[:-1]:
        if line.startswith('# HELP '):
            family = line.split(' ')[2]
            assert family not in kinds
        elif line.startswith('# TYPE '):
            assert line.split(' ')[2] == family
            kinds[family] = line.split(' ')[3]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name = 'coze_chat_' + match.group(1)
            parts = [family + end for end in ('_bucket', '_sum', '_count')]
            assert name in (parts if kinds[family] == 'histogram' else [family])
            sample, value = line.rsplit(' ', 1)
            assert sample not in samples and 0 <= float(value) < 2 ** 63, line
            samples[sample[len('coze_chat_'):]] = float(value)
    return samples


def scrape(stack):
    status, headers, body = stack.get('/metrics')
    assert status == 200 and headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8'
    return parse(body.decode())


class Change:
    """What has been added since: change('retries_total')."""

    def __init__(self, stack):
        self.stack = stack
        self.before = scrape(stack)

    def __call__(self, sample):
        return scrape(self.stack).get(sample, 0) - self.before.get(sample, 0)


def gauge(stack, sample, value, seconds=10):
    wait_for(lambda: scrape(stack)[sample] == value, seconds, '%s %s' % (sample, value))


def is_counter(sample):
    return '_total' in sample or re.search(r'_(bucket|sum|count)(\{|$)', sample)


def busy_gauges(samples, workers):
    """The gauges that are not what they are when nothing runs but the request for them."""
    idle = {'requests_active': 1, 'workers{state="serving"}': workers, 'breakers{state="closed"}': workers,
            'redis_connections{state="up"}': 2 * workers, 'info{version="1.1.0"}': 1}
    free = ('worker_resident_bytes', 'start_time_seconds', 'connections')
    return {sample: value for sample, value in samples.items()
            if not is_counter(sample) and sample.split('{')[0] not in free and value != idle.get(sample, 0)}


def expect_idle(stack, workers, seconds=20):
    try:
        wait_for(lambda: not busy_gauges(scrape(stack), workers), seconds, 'idleness')
    except AssertionError:
        raise AssertionError(busy_gauges(scrape(stack), workers))


@pytest.fixture(scope='module')
def shared(make_module_stack):
    return make_module_stack(WORKERS='2')


@pytest.fixture
def stack(shared):
    shared.sim.reset()
    yield shared
    expect_idle(shared, 2)


# ---- requests ----

def test_requests_are_counted_by_route_and_status(stack):
    change = Change(stack)
    for _ in range(3):
        assert stack.chat('hi', session_id='s').status_code == 200
    assert stack.events('hi')
    assert stack.chat('').status_code == 400
    assert stack.info('s').status_code == 200
    assert stack.info('nobody').status_code == 404
    assert requests.post(stack.url + '/session/s/clear', timeout=10).status_code == 200
    for path in '/nowhere', '/chat/', '/session/', '/session/a/b/info':
        assert requests.get(stack.url + path, timeout=10).status_code == 404
    assert requests.get(stack.url + '/chat', timeout=10).status_code == 405
    for sample, count in {'route="/chat",status="200"': 3, 'route="/chat",status="400"': 1, 'route="/chat/stream",status="200"': 1,
                          'route="/session/{session_id}/info",status="200"': 1, 'route="/session/{session_id}/info",status="404"': 1,
                          'route="/session/{session_id}/clear",status="200"': 1, 'route="none",status="404"': 4,
                          'route="none",status="405"': 1}.items():
        assert change('requests_total{%s}' % sample) == count, sample
    assert change('request_seconds_count{route="/chat"}') == 4
    assert change('request_seconds_bucket{route="/chat",le="+Inf"}') == 4
    assert change('first_chunk_seconds_count') == 1
    assert 0 < change('request_seconds_sum{route="/chat"}') < 4
    assert change('turns_total{result="ok"}') == 4 and change('turns_total{result="bad_request"}') == 0
    assert change('coze_calls_total{call="chat",result="ok"}') == 4
    assert change('coze_first_byte_seconds_count') == 4
    assert change('redis_seconds_count') >= 8 and change('redis_failures_total') == 0


def test_durations_fall_into_their_buckets(stack):
    change = Change(stack)
    assert stack.chat(directive('slow', first_ms=300)).status_code == 200
    assert change('request_seconds_bucket{route="/chat",le="0.25"}') == 0
    assert change('request_seconds_bucket{route="/chat",le="10"}') == 1
    assert change('coze_first_byte_seconds_bucket{le="0.25"}') == 0
    assert change('coze_first_byte_seconds_count') == 1
    assert change('request_seconds_sum{route="/chat"}') >= 0.3


# ---- turns ----

def test_turns_by_what_they_wait_for(make_stack):
    stack = make_stack(WORKERS='2', COZE_MIN_INTERVAL_MS='4000', COZE_MAX_RETRIES='3')
    slow = directive('slow', answer='慢' * 100, gap_ms=100, chunks=100)
    with stack.connect('/chat/stream', slow, session_id='s'):
        gauge(stack, 'turns{state="answering"}', 1)
        gauge(stack, 'open_streams', 1)
        with stack.connect('/chat', 'x', session_id='s'):
            gauge(stack, 'turns{state="lock"}', 1)
            with stack.connect('/chat', directive('x', fault='stall_header', stall_ms=9000), session_id='t'):
                gauge(stack, 'turns{state="slot"}', 1)
                assert scrape(stack)['requests_active'] == 4
                gauge(stack, 'turns{state="asking"}', 1)
    change = Change(stack)
    expect_idle(stack, 2)
    stack.sim.queue(http_status=503, retry_after=2)
    with stack.connect('/chat', 'x'):
        gauge(stack, 'turns{state="pause"}', 1)
        assert change('retries_total') == 1
    expect_idle(stack, 2)
    assert change('coze_calls_total{call="chat",result="http_5xx"}') == 1


def test_turns_by_how_they_end(make_stack):
    stack = make_stack(WORKERS='1', CHAT_TIMEOUT_SECONDS='2', SESSION_WAIT_SECONDS='0.2', COZE_MAX_RETRIES='0',
                       MAX_TURNS_PER_WORKER='2')
    change = Change(stack)
    slow = directive('slow', gap_ms=400, chunks=20)

    def ended(result, count=1):
        wait_for(lambda: change('turns_total{result="%s"}' % result) == count, what=result)
    assert stack.chat(slow).status_code == 503
    ended('timeout')
    with stack.connect('/chat/stream', slow, session_id='s'):
        gauge(stack, 'turns{state="answering"}', 1)
        assert stack.chat('x', session_id='s').status_code == 409
        ended('session_busy')
        with stack.connect('/chat/stream', slow, session_id='t'):
            gauge(stack, 'turns{state="answering"}', 2)
            assert stack.chat('x').status_code == 503
            ended('too_many')
    ended('left', 2)
    assert change('requests_total{route="/chat/stream",status="499"}') == 2
    expect_idle(stack, 1)
    for sim, result in [({'http_status': 400}, 'coze_config'), ({'http_status': 503}, 'coze_busy'),
                        ({'fault': 'empty'}, 'coze_empty'), ({'fault': 'cut', 'cut_after': -1}, 'coze_unreachable'),
                        ({'code': 4014}, 'coze_refused')]:
        stack.sim.queue(**sim)
        assert stack.chat('x').status_code >= 400
        ended(result)
    assert stack.chat('x').status_code == 200
    ended('ok')


# ---- Coze ----

def test_calls_by_how_they_end(make_stack):
    stack = make_stack(WORKERS='1', COZE_MAX_RETRIES='0', COZE_FIRST_BYTE_TIMEOUT_SECONDS='1.5', COZE_IDLE_TIMEOUT_SECONDS='1.5')
    change = Change(stack)

    def ended(result, call='chat'):
        wait_for(lambda: change('coze_calls_total{call="%s",result="%s"}' % (call, result)) >= 1, what=result)
    for sim, result in [({'http_status': 404}, 'http_4xx'), ({'http_status': 502}, 'http_5xx'),
                        ({'fault': 'stall_header', 'stall_ms': 4000}, 'first_byte_timeout'),
                        ({'fault': 'stall', 'stall_ms': 4000}, 'idle_timeout'), ({'fault': 'cut', 'cut_after': -1}, 'unanswered'),
                        ({'fault': 'cut', 'gap_ms': 100}, 'cut')]:
        stack.sim.queue(**sim)
        stack.chat('x')
        ended(result)
        assert stack.chat('x').status_code == 200  # or its circuit would open
    with stack.connect('/chat', directive('x', gap_ms=100, chunks=20)):
        gauge(stack, 'turns{state="answering"}', 1)
    ended('cancelled')
    ended('ok', 'cancel')
    stack.sim.stop()
    assert stack.chat('x').status_code == 503
    ended('not_sent')
    stack.sim.start()
    expect_idle(stack, 1)


def test_connections_to_coze_that_take_too_long(make_stack):
    """Its queue is full: the kernel answers nothing."""
    with socket.create_server(('127.0.0.1', 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):
            link = socket.socket()
            link.setblocking(False)
            link.connect_ex(('127.0.0.1', port))
            waiting.append(link)
        stack = make_stack(WORKERS='1', COZE_BASE_URL='http://127.0.0.1:%d/v3' % port, COZE_CONNECT_TIMEOUT_SECONDS='0.3',
                           COZE_MAX_RETRIES='0')
        change = Change(stack)
        assert stack.chat('x').status_code == 503
        assert change('coze_calls_total{call="chat",result="connect_timeout"}') == 1
        for link in waiting:
            link.close()


def test_polling_is_counted_too(make_stack):
    stack = make_stack(WORKERS='1', COZE_CHAT_MODE='poll')
    change = Change(stack)
    assert stack.chat(directive('x', gen_ms=10)).status_code == 200
    assert change('coze_calls_total{call="retrieve",result="ok"}') >= 1
    assert change('coze_calls_total{call="messages",result="ok"}') == 1
    expect_idle(stack, 1)


def test_the_circuit(make_stack):
    stack = make_stack(WORKERS='1', COZE_MAX_RETRIES='0')
    stack.sim.default(http_status=503)
    change = Change(stack)
    for _ in range(10):
        assert stack.chat('x').status_code == 503
    gauge(stack, 'breakers{state="open"}', 1)
    assert scrape(stack)['breakers{state="closed"}'] == 0
    assert change('turns_total{result="circuit_open"}') > 0
    gauge(stack, 'breakers{state="half_open"}', 1, 30)
    stack.sim.default()
    wait_for(lambda: stack.chat('x').status_code == 200, 30, 'the probe')
    gauge(stack, 'breakers{state="closed"}', 1)
    expect_idle(stack, 1)


# ---- Redis ----

def test_redis_away(make_stack):
    with RedisServer() as server:
        server.start()
        stack = make_stack(WORKERS='2', REDIS_URL=server.url)
        change = Change(stack)
        gauge(stack, 'redis_connections{state="up"}', 4)
        server.stop()
        gauge(stack, 'redis_connections{state="down"}', 4)
        assert scrape(stack)['redis_connections{state="up"}'] == 0
        assert stack.chat('x').status_code == 503
        assert change('turns_total{result="store"}') == 1
        server.start()
        gauge(stack, 'redis_connections{state="up"}', 4)
        wait_for(lambda: stack.chat('x').status_code == 200, what='service')
        change = Change(stack)
        server.freeze()
        assert stack.chat('x').status_code == 503
        assert change('redis_failures_total') >= 1
        server.thaw()
        wait_for(lambda: stack.chat('x').status_code == 200, what='service')
        expect_idle(stack, 2)


# ---- what a worker holds ----

def test_buffers_fill_with_what_nobody_reads(stack):
    size = 3000000
    links = [stack.connect('/chat/stream', directive('x', answer_bytes=size, chunks=300)) for _ in range(4)]
    try:
        wait_for(lambda: scrape(stack)['buffer_bytes{buffer="output"}'] > 4 * 32 * 1024, 20, 'output')
        assert scrape(stack)['buffer_bytes{buffer="answer"}'] > 0
        gauge(stack, 'open_streams', 4)
        for link in links[:2]:
            link.close()
        wait_for(lambda: scrape(stack)['open_streams'] == 2, what='two being gone')
        for link in links[2:]:
            data = b''
            while not data.endswith(b'0\r\n\r\n'):
                piece = link.recv(1 << 20)
                assert piece
                data = data[-100:] + piece
    finally:
        for link in links:
            link.close()


def test_buffers_hold_requests_that_are_not_complete(stack):
    body = json.dumps({'message': 'x' * 900000}).encode()
    whole = request('POST', '/chat', body)
    with Link(worker_socket(stack)) as link:
        link.send(whole[:500000])
        wait_for(lambda: scrape(stack)['buffer_bytes{buffer="request"}'] >= 490000, what='half a request')
        link.send(whole[500000:])
        assert link.answer()[0] == 200
    with Link(worker_socket(stack)) as link:
        link.send(whole[:100000])
        wait_for(lambda: scrape(stack)['buffer_bytes{buffer="request"}'] >= 90000, what='a part of a request')


def test_the_event_loop_s_lag(stack):
    """A worker that stands still makes everybody wait: that is seen."""
    change = Change(stack)
    wait_for(lambda: change('loop_lag_seconds_count') > 10, what='measurements')
    victim = stack.worker_pids()[0]
    begun = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    wait_for(lambda: time.monotonic() - begun > 0.8, what='a while')
    os.kill(victim, signal.SIGCONT)

    def late():
        return change('loop_lag_seconds_bucket{le="+Inf"}') - change('loop_lag_seconds_bucket{le="0.5"}')
    wait_for(lambda: late() >= 1, what='the lag being seen')
    assert change('loop_lag_seconds_sum') >= 0.5


def test_memory_of_workers(stack):
    samples = scrape(stack)
    for worker in range(2):
        assert 1 << 20 < samples['worker_resident_bytes{worker="%d"}' % worker] < 1 << 31
    assert abs(samples['start_time_seconds'] - time.time()) < 3600


# ---- all of them ----

def test_any_worker_answers_for_all(make_stack):
    stack = make_stack(WORKERS='3')
    for number in range(3):
        for _ in range(number + 1):
            assert ask(worker_socket(stack, number), 'GET', '/health')[0] == 200
    seen = []
    for number in range(3):
        status, _, body = ask(worker_socket(stack, number), 'GET', '/metrics')
        assert status == 200
        seen.append(parse(body.decode())['requests_total{route="/health",status="200"}'])
    assert len(set(seen)) == 1 and seen[0] >= 6


class Watcher(Beside):
    """Asks again and again, and compares: no counter may go back, whatever happens to the workers."""

    def __init__(self, stack):
        super().__init__()
        self.stack, self.problems, self.scrapes = stack, [], 0

    def watch(self):
        last = {}
        while not self.stopping.wait(0.02):
            try:
                now = scrape(self.stack)
            except (OSError, AssertionError) as error:
                if not str(error).startswith('assert 502'):  # a killed worker's
                    self.problems.append(error)
                continue
            self.scrapes += 1
            self.problems += ['%s fell from %s to %s' % (sample, last[sample], now.get(sample)) for sample in last
                              if is_counter(sample) and now.get(sample, 0) < last[sample]]
            last = now


def test_nothing_is_counted_back_and_all_gauges_come_back_after_a_storm(make_stack):
    """Leavings in every state, timeouts, faults, stuck readers, reloads and kills, all at once."""
    stack = make_stack(WORKERS='3', CHAT_TIMEOUT_SECONDS='1', STREAM_TIMEOUT_SECONDS='2', COZE_MAX_RETRIES='1',
                       SESSION_LOCK_SECONDS='1', SESSION_WAIT_SECONDS='1', sim={'SIM_GAP_MS': '5'})
    faults = [{}, {'gap_ms': 200}, {'fault': 'cut'}, {'fault': 'stall_header', 'stall_ms': 3000}, {'fault': 'empty'},
              {'http_status': 500}, {'http_status': 400}, {'answer_bytes': 1000000, 'chunks': 50}, {'fault': 'bad_json'}]
    stopping = threading.Event()
    errors = []

    def client(seed):
        rng = random.Random(seed)
        while not stopping.is_set():
            try:
                path = rng.choice(['/chat', '/chat/stream'])
                with stack.connect(path, directive('storm', **rng.choice(faults)), session_id='s%d' % rng.randrange(6)) as link:
                    link.settimeout(rng.choice([0.001, 0.05, 0.3, 5]))
                    if rng.random() < 0.7:
                        link.recv(rng.choice([1, 100, 1 << 20]))
            except OSError:
                pass
            except Exception as error:
                errors.append(error)
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(10)]
    with Watcher(stack) as watcher, Load(stack.port) as load:
        load.steady(30, clients=8, body=lambda number: {'message': 'load', 'session_id': 'load%d' % (number % 10)})
        for thread in threads:
            thread.start()
        began, number = time.monotonic(), 0
        while time.monotonic() - began < 12 or number < 9:  # a reload may take its time
            number += 1
            if number % 3:
                stack.reload()
            else:
                try:
                    os.kill(random.choice(stack.worker_pids()), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            stopping.wait(0.3)
        stopping.set()
        for thread in threads:
            thread.join()
        load.stop()
    assert not errors and not watcher.problems, (errors[:3], watcher.problems[:5])
    assert watcher.scrapes > 20
    wait_for(lambda: scrape(stack)['workers{state="draining"}'] == 0, 30, 'the end of those that drain')
    expect_idle(stack, 3, 30)
    assert scrape(stack)['reloads_total{result="ok"}'] >= 4
    assert sum(value for sample, value in scrape(stack).items() if sample.startswith('worker_deaths_total')) >= 2
    assert stack.chat('after').status_code == 200


# ---- who is told ----

@pytest.mark.parametrize('keys, headers, local, remote', [
    ({}, {}, 200, 403),
    ({'API_KEYS': 'user-key'}, {'HTTP_X_API_KEY': 'user-key'}, 200, 403),
    ({'ADMIN_API_KEYS': 'admin-key', 'API_KEYS': 'user-key'}, {}, 401, 401),
    ({'ADMIN_API_KEYS': 'admin-key', 'API_KEYS': 'user-key'}, {'HTTP_X_API_KEY': 'wrong'}, 401, 401),
    ({'ADMIN_API_KEYS': 'admin-key', 'API_KEYS': 'user-key'}, {'HTTP_X_API_KEY': 'user-key'}, 403, 403),
    ({'ADMIN_API_KEYS': 'admin-key', 'API_KEYS': 'user-key'}, {'HTTP_X_API_KEY': 'admin-key'}, 200, 200),
    ({'ADMIN_API_KEYS': 'one,admin-key'}, {'HTTP_AUTHORIZATION': 'Bearer admin-key'}, 200, 200)])
def test_who_may_ask(make_stack, keys, headers, local, remote):
    stack = make_stack(WORKERS='1', **keys)
    for address, expected in ('127.0.0.1', local), ('::1', local), ('10.1.2.3', remote), ('', remote):
        with Link(worker_socket(stack)) as link:
            link.send(request('GET', '/metrics', REMOTE_ADDR=address, **headers))
            status, _, body = link.answer()
        assert status == expected, (address, body)
        assert (b'coze_chat_' in body) == (expected == 200)
    names = {'HTTP_X_API_KEY': 'X-API-Key', 'HTTP_AUTHORIZATION': 'Authorization'}
    answer = requests.get(stack.url + '/metrics', headers={names[name]: value for name, value in headers.items()}, timeout=10)
    assert answer.status_code == local
