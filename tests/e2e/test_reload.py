"""
Reloading: workers are replaced without losing a request or cutting a stream, a bad configuration is refused, and a worker
that dies takes only its own requests along. RELOAD_SECONDS=60 makes the long test a minute long.
"""
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest
import requests

from load import Load
from service import free_port
from stack import directive, wait_for

SECONDS = float(os.environ.get('RELOAD_SECONDS', 10))
SLOW = directive('stream', chunks=40, gap_ms=100)


def metric(stack, name):
    """The value of a metric, with its labels as it is printed."""
    lines = stack.get('/metrics')[2].decode().splitlines()
    return sum(float(line.rsplit(' ', 1)[1]) for line in lines if line.rsplit(' ', 1)[0] == name)


def log_events(stack, event):
    return [line for line in stack.api_log().splitlines() if ' event=%s ' % event in line + ' ']


@pytest.mark.alone  # so much load
def test_nothing_is_lost_while_reloads_come_each_second(make_stack):
    stack = make_stack(WORKERS='2', sim={'SIM_GAP_MS': '5'})
    with Load(stack.port) as load:
        load.streams(200, SLOW)
        load.steady(500, clients=64)
        wait_for(lambda: load.open_streams == 200, 20, '200 open streams')
        began, reloads = time.monotonic(), 0
        while time.monotonic() - began < SECONDS:
            stack.reload()
            reloads += 1
            time.sleep(max(0, began + reloads - time.monotonic()))
        load.stop()
    assert load.failures == []
    assert len(load.times) > SECONDS * 500 * 0.5 and load.finished_streams >= 200
    assert metric(stack, 'coze_chat_reloads_total{result="ok"}') == reloads
    # A restart loses no count, and a worker that has gone leaves no stream behind.
    assert metric(stack, 'coze_chat_requests_total{route="/chat",status="200"}') == load.statuses[200]
    assert metric(stack, 'coze_chat_requests_total{route="/chat/stream",status="200"}') == load.finished_streams
    wait_for(lambda: metric(stack, 'coze_chat_workers{state="draining"}') == 0, 20, 'the old workers being gone')
    assert metric(stack, 'coze_chat_open_streams') == 0
    print('%d reloads, %d requests, %d streams, p99 %.0f ms' %
          (reloads, len(load.times), load.finished_streams, load.percentile(0.99) * 1000))


def test_a_reload_takes_new_settings_into_use(make_stack):
    stack = make_stack(WORKERS='2', MAX_REQUEST_SIZE='2000')
    assert stack.chat('x' * 3000).status_code == 413
    stack.env['MAX_REQUEST_SIZE'] = '5000'
    stack.reload()
    assert stack.chat('x' * 3000).status_code == 200
    stack.set(MAX_REQUEST_SIZE=None)  # what was given once stays
    stack.reload()
    assert stack.chat('x' * 3000).status_code == 200


def test_the_env_file_is_read_anew(make_stack):
    stack = make_stack(WORKERS='1')
    assert stack.chat('hi').status_code == 200
    stack.write_env('API_KEYS=secret-of-reload\n')
    stack.reload()
    assert stack.chat('hi').status_code == 401
    stack.write_env('')
    stack.reload()
    assert stack.chat('hi').status_code == 200


@pytest.mark.parametrize('counts', [(1, 4), (4, 1), (3, 2)])
def test_the_number_of_workers_changes_under_load(make_stack, counts):
    stack = make_stack(WORKERS=str(counts[0]), sim={'SIM_GAP_MS': '5'})
    # nginx' own configuration changes: its old processes close the connections that clients keep, before 1.27.4 without
    # looking whether a request is just on its way.
    with Load(stack.port, again=True) as load:
        load.streams(20, directive('stream', chunks=20, gap_ms=150))
        load.steady(200)
        wait_for(lambda: load.open_streams == 20, 20, 'open streams')
        for count in counts[1], counts[0], counts[1]:
            stack.env['WORKERS'] = str(count)
            stack.reload()
            wait_for(lambda: metric(stack, 'coze_chat_workers{state="serving"}') == count, 10, 'so many workers')
            before = len(load.times)
            wait_for(lambda: len(load.times) > before + 50, 10, 'requests served')
        load.stop()
    assert load.failures == []
    sockets = [name for name in os.listdir(stack.run_dir) if name.startswith('worker-')]
    assert len(sockets) == counts[1]


def test_a_bad_configuration_is_refused(make_stack):
    stack = make_stack(WORKERS='1')
    before = stack.worker_pids()
    for bad in {'SESSION_TTL_SECONDS': 'soon'}, {'ALLOWED_ORIGINS': 'not an origin;'}, {'LOG_FILE': '/nowhere/api.log'}, \
            {'LOG_FILE': stack.run_dir}:
        stack.env.update(bad)
        result = stack.call('reload')
        assert result.returncode != 0 and list(bad)[0] in result.stderr, result.stdout
        stack.set(**{name: None for name in bad})
    assert stack.worker_pids() == before and stack.chat('hi').status_code == 200
    # The same without the script's own check: somebody has spoiled the file, and sends the signal.
    with open(os.path.join(stack.run_dir, 'state', 'settings'), 'a', encoding='utf-8') as file:
        file.write('STREAM_TIMEOUT_SECONDS=never\n')
    os.kill(stack.pids()['workers'], signal.SIGHUP)
    wait_for(lambda: log_events(stack, 'reload_refused'), what='the refusal')
    assert 'STREAM_TIMEOUT_SECONDS=never' in log_events(stack, 'reload_refused')[0]
    assert stack.worker_pids() == before and stack.chat('hi').status_code == 200
    assert metric(stack, 'coze_chat_reloads_total{result="refused"}') == 1


def test_a_port_of_somebody_else_is_refused(make_stack):
    stack = make_stack(WORKERS='1')
    before = stack.worker_pids()
    stack.env['SERVER_PORT'] = str(free_port())
    with socket.create_server(('127.0.0.1', int(stack.env['SERVER_PORT']))):
        result = stack.call('reload')
    assert result.returncode != 0 and 'port %s is in use' % stack.env['SERVER_PORT'] in result.stderr
    assert stack.worker_pids() == before and stack.chat('hi').status_code == 200
    # Once it is free, saying it again is enough.
    stack.reload()
    assert requests.get('http://127.0.0.1:%s/health' % stack.env['SERVER_PORT'], timeout=10).status_code == 200


def test_what_nginx_did_not_take_is_told_again(make_stack):
    """A reload that fails on the way has changed the file, but not what nginx does."""
    stack = make_stack(WORKERS='1', ALLOWED_ORIGINS='http://a.example')
    state = os.path.join(stack.run_dir, 'coze-chatd.state')
    os.rename(state, state + '.away')
    stack.env['ALLOWED_ORIGINS'] = 'http://b.example'
    result = stack.call('reload')
    assert result.returncode != 0 and 'the workers do not say how they are' in result.stderr
    os.rename(state + '.away', state)
    stack.reload()
    answer = requests.get(stack.url + '/health', headers={'Origin': 'http://b.example'}, timeout=10)
    assert answer.headers['Access-Control-Allow-Origin'] == 'http://b.example'


def test_a_new_program_is_taken_into_use(make_stack, tmp_path):
    program = tmp_path / 'coze-chatd'
    original = os.environ.get('CHATD') or os.path.join(os.path.dirname(__file__), '..', '..', 'build', 'coze-chatd')
    shutil.copy(original, program)
    stack = make_stack(WORKERS='2', CHATD=str(program))
    master, before = stack.pids()['workers'], set(stack.worker_pids())
    # A program that does not even start is refused.
    broken = tmp_path / 'broken'
    broken.write_text('#!/bin/sh\nexit 3\n')
    broken.chmod(0o755)
    os.replace(broken, program)
    os.kill(master, signal.SIGHUP)
    wait_for(lambda: log_events(stack, 'reload_refused'), what='the refusal')
    assert set(stack.worker_pids()) == before and stack.chat('hi').status_code == 200
    shutil.copy(original, tmp_path / 'new')
    os.replace(tmp_path / 'new', program)
    inode = os.stat(program).st_ino
    stack.reload()
    assert stack.pids()['workers'] == master
    assert os.stat('/proc/%d/exe' % master).st_ino == inode
    wait_for(lambda: not before & set(stack.worker_pids()), what='the old workers being gone')
    assert stack.chat('hi').status_code == 200


@pytest.mark.alone  # how many are inside depends on how long each takes
def test_only_requests_inside_a_killed_worker_fail(make_stack):
    stack = make_stack(WORKERS='3', sim={'SIM_GAP_MS': '2'})
    with Load(stack.port) as load:
        load.steady(300, clients=48)
        load.streams(30, directive('stream', chunks=30, gap_ms=50))
        wait_for(lambda: load.open_streams == 30, 20, 'open streams')
        began, kills = time.monotonic(), 0
        while time.monotonic() - began < SECONDS:
            victim = random.choice(stack.worker_pids())
            os.kill(victim, signal.SIGKILL)
            kills += 1
            wait_for(lambda: victim not in stack.worker_pids() and len(stack.worker_pids()) == 3, 15, 'its successor')
        load.stop()
    # Every worker has about a third of the streams, and of the requests of some 25 ms each.
    assert len(load.failures) <= kills * (30 + 48), load.failures[:5]
    assert len(load.times) > 300 * SECONDS * 0.5
    assert all('stream' in failure or '502' in failure for failure in load.failures), load.failures
    assert sum('502' in failure for failure in load.failures) < kills * 16
    assert metric(stack, 'coze_chat_open_streams') == 0
    wait_for(lambda: stack.get('/health')[0] == 200, what='health')
    deaths = sum(metric(stack, 'coze_chat_worker_deaths_total{worker="%d"}' % i) for i in range(3))
    assert deaths == kills


def test_a_killed_master_is_followed_by_make_up(make_stack):
    stack = make_stack(WORKERS='2')
    with Load(stack.port) as load:
        load.streams(10, directive('stream', chunks=20, gap_ms=250), again=False)
        wait_for(lambda: load.open_streams == 10, 20, 'open streams')
        os.kill(stack.pids()['workers'], signal.SIGKILL)
        stack.up()
        assert stack.chat('hi').status_code == 200
        load.stop()
    assert load.failures == [] and load.finished_streams == 10
    stack.reload()


def test_worn_workers_are_replaced(make_stack):
    stack = make_stack(WORKERS='2', WORKER_MAX_REQUESTS='50', sim={'SIM_GAP_MS': '0'})
    first = set(stack.worker_pids())
    with Load(stack.port) as load:
        load.steady(200, clients=16)
        wait_for(lambda: len(load.times) > 600, 30, 'requests')
        load.stop()
    assert load.failures == []
    wait_for(lambda: not first & set(stack.worker_pids()), what='the first workers being gone')
    starts = sum(metric(stack, 'coze_chat_worker_starts_total{worker="%d"}' % i) for i in range(2))
    assert starts >= 2 + 600 / 50 - 4


def test_settings_are_not_in_anybodys_environment(make_stack):
    stack = make_stack(WORKERS='1', API_KEYS='key-nobody-may-see', ADMIN_API_KEYS='admin-nobody-may-see')
    pids = stack.processes()
    assert len(pids) >= 5  # Redis, the master, its worker, nginx and its workers
    shown = subprocess.run(['ps', 'eww', '-p', ','.join(map(str, pids))], stdout=subprocess.PIPE, text=True, check=True).stdout
    ours = [line for line in shown.splitlines() if 'coze_sim' not in line]
    for secret in 'key-nobody-may-see', 'admin-nobody-may-see', stack.env['COZE_API_TOKEN']:
        assert not [line for line in ours if secret in line]
