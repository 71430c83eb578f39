"""
The master on its worst days: signals at the wrong moment and in floods, programs and settings that pass their check and
then do not work, workers that hang, crash and are killed while they are replaced.
"""
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests

import probe
from fastcgi import Link, request, worker_socket
from load import Load
from service import TOP, free_port, is_alive
from stack import directive, parse_stream, wait_for

CHATD = os.environ.get('CHATD') or os.path.join(TOP, 'build', 'coze-chatd')
LONG = directive('long', answer='长' * 100, chunks=100, gap_ms=100)


def metric(stack, name):
    """The value of a metric, with its labels as it is printed."""
    lines = stack.get('/metrics')[2].decode().splitlines()
    return sum(float(line.rsplit(' ', 1)[1]) for line in lines if line.rsplit(' ', 1)[0] == name)


def events(stack, event):
    return [line for line in stack.api_log().splitlines() if ' event=%s ' % event in line + ' ']


def state(stack):
    """(number of the last reload, how it went)"""
    with open(os.path.join(stack.run_dir, 'coze-chatd.state'), encoding='utf-8') as file:
        number, result = file.read().split()
    return int(number), result


def change_settings(stack, **settings):
    """As an operator does who edits the workers' file by hand: the script's own check is left out."""
    path = os.path.join(stack.run_dir, 'state', 'settings')
    with open(path, 'a', encoding='utf-8') as file:
        for name, value in settings.items():
            file.write('%s="%s"\n' % (name, value))


def hup(stack):
    os.kill(stack.pids()['workers'], signal.SIGHUP)


def children(pid):
    """{pid: state letter}, of zombies too."""
    found = {}
    with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
        for child in file.read().split():
            with open('/proc/%s/stat' % child) as stat:
                found[int(child)] = stat.read().rsplit(') ', 1)[1][0]
    return found


def program_of(pid):
    with contextlib.suppress(OSError):  # it has just ended
        return os.readlink('/proc/%d/exe' % pid)


def expect_refusal(stack, why):
    wait_for(lambda: state(stack)[1] == 'refused', 20, 'the refusal')
    assert why in events(stack, 'reload_refused')[-1]


# ---- signals ----

def test_a_flood_of_reloads_is_a_few_of_them(make_stack):
    stack = make_stack(WORKERS='2', sim={'SIM_GAP_MS': '5'})
    with Load(stack.port) as load:
        load.streams(10, directive('stream', chunks=20, gap_ms=150))
        load.steady(50, clients=8)
        wait_for(lambda: load.open_streams == 10, 20, 'open streams')
        master = stack.pids()['workers']
        for _ in range(100):
            os.kill(master, signal.SIGHUP)
            time.sleep(0.01)
        number = state(stack)[0]
        wait_for(lambda: state(stack)[1] == 'ok' and not events(stack, 'reloading')[state(stack)[0]:], 30, 'the last reload')
        wait_for(lambda: len(stack.worker_pids()) == 2, 30, 'the old workers being gone')
        load.stop()
    assert load.failures == []
    assert 1 <= number <= state(stack)[0] <= 60
    assert stack.pids()['workers'] == master
    # The last settings are in use: whoever says HUP after a change may rely on it.
    assert metric(stack, 'coze_chat_reloads_total{result="ok"}') == state(stack)[0]


def test_other_signals_do_no_harm(make_stack):
    stack = make_stack(WORKERS='2')
    master, workers = stack.pids()['workers'], stack.worker_pids()
    for number in signal.SIGUSR2, signal.SIGUSR1, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR2:
        os.kill(master, number)
        assert stack.chat('hi').status_code == 200
    assert (stack.pids()['workers'], stack.worker_pids()) == (master, workers)
    assert metric(stack, 'coze_chat_workers{state="serving"}') == 2


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGQUIT])
def test_a_drain_ends_what_runs_and_takes_nothing_new(make_stack, number):
    stack = make_stack(WORKERS='2')
    with stack.stream(directive('last', answer='话' * 80, chunks=80, gap_ms=100), session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        master = stack.pids()['workers']
        os.kill(master, number)
        wait_for(lambda: requests.get(stack.url + '/health', timeout=10).status_code == 502, what='nobody being there')
        assert is_alive(master)
        hup(stack)  # too late
        assert parse_stream(body + b''.join(pieces))[-1]['type'] == 'complete'
    wait_for(lambda: not is_alive(master), 15, 'the end')
    assert not [name for name in os.listdir(stack.run_dir) if name.endswith(('.sock', '.pid', '.state')) and 'redis' not in name
                and 'nginx' not in name]
    assert not events(stack, 'reloading')


def test_int_ends_what_runs_at_once(make_stack):
    stack = make_stack(WORKERS='2')
    with stack.stream(LONG, session_id='s') as answer:
        pieces = answer.iter_content(None)
        body = next(pieces)
        master = stack.pids()['workers']
        os.kill(master, signal.SIGINT)
        assert parse_stream(body + b''.join(pieces))[-1]['type'] == 'error'
    wait_for(lambda: not is_alive(master), 5, 'the end')
    wait_for(lambda: [chat['status'] for chat in stack.sim.chats()] == ['canceled'], 3, 'Coze being told')


def test_up_and_reload_do_not_take_ending_workers_for_running_ones(make_stack):
    stack = make_stack(WORKERS='1')
    with stack.stream(LONG, session_id='s') as answer:
        pieces = answer.iter_content(None)
        next(pieces)
        master = stack.pids()['workers']
        os.kill(master, signal.SIGTERM)
        wait_for(lambda: events(stack, 'draining'), what='the drain')
        for command in 'up', 'reload':
            done = stack.call(command)
            assert done.returncode != 0 and 'the workers are ending' in done.stderr, done.stdout
        assert is_alive(master)
    wait_for(lambda: not is_alive(master), 15, 'the end')
    stack.up()
    assert stack.chat('hi').status_code == 200


def test_an_end_during_the_check_of_a_reload_is_not_forgotten(make_stack):
    """TERM comes, and before the master acts the check ends well. It waits for its settings, so that this can be done."""
    stack = make_stack(WORKERS='1')
    master, settings = stack.pids()['workers'], os.path.join(stack.run_dir, 'state', 'settings')
    os.mkfifo(settings + '.pipe')
    os.rename(settings, settings + '.kept')
    os.rename(settings + '.pipe', settings)
    os.kill(master, signal.SIGHUP)
    pipe = os.open(settings, os.O_WRONLY)  # once the check reads
    os.kill(master, signal.SIGSTOP)
    try:
        os.kill(master, signal.SIGTERM)
        with open(settings + '.kept', 'rb') as file:
            os.write(pipe, file.read())
        os.rename(settings + '.kept', settings)
        os.close(pipe)
        wait_for(lambda: 'Z' in children(master).values(), 5, 'the end of the check')
    finally:
        os.kill(master, signal.SIGCONT)
    wait_for(lambda: not is_alive(master), 10, 'the end')


@pytest.mark.parametrize('delay', [0, 0.005, 0.02, 0.05, 0.1])
def test_an_end_during_a_reload_is_an_end(make_stack, delay):
    stack = make_stack(WORKERS='3')
    master = stack.pids()['workers']
    os.kill(master, signal.SIGHUP)
    time.sleep(delay)
    os.kill(master, signal.SIGTERM)
    wait_for(lambda: not is_alive(master), 20, 'the end')
    assert not [pid for pid in stack.processes() if program_of(pid) == os.path.realpath(CHATD)]


# ---- settings and programs that do not work ----

def test_settings_that_no_worker_could_use_are_refused(make_stack):
    stack = make_stack(WORKERS='2')
    before = stack.worker_pids()
    busy = free_port()
    listener = subprocess.Popen(['/usr/bin/python3', '-c', 'import socket, sys; s = socket.create_server(("127.0.0.1", %d)); '
                                 'print("on", flush=True); sys.stdin.read()' % busy], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
    try:
        listener.stdout.readline()
        for number, (name, value, why) in enumerate([
                ('REDIS_URL', 'redis://localhost:notaport', 'REDIS_URL'),
                ('WORKER_LISTEN', '127.0.0.1:65535', 'no port above it'),
                ('WORKER_LISTEN', '127.0.0.1:%d' % busy, 'Address already in use'),
                ('WORKER_LISTEN', '192.0.2.1:9000', 'cannot listen on 192.0.2.1:9000'),
                ('RUN_DIR', stack.run_dir + '/' + 'x' * 120, 'RUN_DIR')]):
            with open(os.path.join(stack.run_dir, 'state', 'settings'), encoding='utf-8') as file:
                settings = file.read()
            change_settings(stack, **{name: value})
            hup(stack)
            wait_for(lambda number=number: state(stack) == (number + 1, 'refused'), 20, 'the refusal of %s' % value)
            assert why in events(stack, 'reload_refused')[-1]
            with open(os.path.join(stack.run_dir, 'state', 'settings'), 'w', encoding='utf-8') as file:
                file.write(settings)
        assert stack.worker_pids() == before and stack.chat('hi').status_code == 200
        hup(stack)
        wait_for(lambda: state(stack) == (6, 'ok'), 20, 'the reload')
        assert stack.chat('hi').status_code == 200
    finally:
        listener.communicate()


def write_program(path, lines):
    """Replaces a program as an installer does: in one step."""
    with open(path + '.new', 'w', encoding='utf-8') as file:
        file.write('#!/bin/sh\n' + lines)
    os.chmod(path + '.new', 0o755)
    os.replace(path + '.new', path)


@pytest.fixture
def crashing_program(tmp_path):
    """A copy of the program that loads another libuv: with that one, workers crash as they start, and nothing else does."""
    source = tmp_path / 'crash.c'
    source.write_text('#include <stdlib.h>\nint uv_loop_init(void *loop) { (void)loop; abort(); }\n')
    with open(CHATD, 'rb') as file:
        program = file.read()
    old = b'libuv.so.1\0'
    library = '/tmp/%05d' % (os.getpid() % 100000)
    assert program.count(old) == 1 and len(library) < len(old)
    subprocess.run(['gcc', '-shared', '-fPIC', '-Wl,--no-as-needed', '-o', library, str(source), '-luv'], check=True)
    copy = tmp_path / 'crashing'
    copy.write_bytes(program.replace(old, library.encode().ljust(len(old), b'\0')))
    copy.chmod(0o755)
    yield str(copy)
    os.unlink(library)


def test_a_program_whose_workers_crash_can_be_replaced_by_one_whose_do_not(make_stack, crashing_program, tmp_path):
    """Until then the workers from before serve on."""
    program, good = str(tmp_path / 'coze-chatd'), str(tmp_path / 'good')
    shutil.copy(CHATD, program)
    shutil.copy(CHATD, good)
    stack = make_stack(WORKERS='2', CHATD=program)
    before = stack.worker_pids()
    os.replace(crashing_program, program)
    hup(stack)
    wait_for(lambda: len(events(stack, 'worker_ended')) >= 3, 20, 'crashes')
    assert stack.chat('hi').status_code == 200
    assert set(before) <= set(stack.worker_pids())
    assert state(stack) == (1, 'starting')
    assert len(events(stack, 'worker_ended')) < 20  # with pauses between
    os.replace(good, program)
    hup(stack)
    wait_for(lambda: state(stack) == (2, 'ok'), 20, 'the good program')
    assert stack.chat('hi').status_code == 200
    wait_for(lambda: len(stack.worker_pids()) == 2 and not set(before) & set(stack.worker_pids()), 10, 'new workers')


def test_a_program_that_counts_otherwise_takes_over(make_stack, tmp_path):
    """Its numbers begin anew. The end of a worker from before must not touch those of the new ones."""
    program = str(tmp_path / 'coze-chatd')
    shutil.copy(CHATD, program)
    stack = make_stack(WORKERS='2', CHATD=program)
    for _ in range(4):
        assert stack.chat('hi').status_code == 200
    with stack.stream(directive('over the reload', chunks=20, gap_ms=50)) as old:
        pieces = old.iter_content(None)
        body = next(pieces)
        with open(CHATD, 'rb') as file:
            other = file.read()
        assert b'Requests in hand.' in other
        (tmp_path / 'other').write_bytes(other.replace(b'Requests in hand.', b'Requests at hand.'))
        (tmp_path / 'other').chmod(0o755)
        os.replace(tmp_path / 'other', program)
        stack.reload()
        assert metric(stack, 'coze_chat_requests_total{route="/chat",status="200"}') == 0
        with stack.stream(LONG) as new:
            kept = new.iter_content(None)
            next(kept)
            assert metric(stack, 'coze_chat_open_streams') == 1
            assert parse_stream(body + b''.join(pieces))[-1]['type'] == 'complete'
            wait_for(lambda: len(events(stack, 'worker_ended')) == 2, 20, 'the end of the old workers')
            assert metric(stack, 'coze_chat_open_streams') == 1
            assert metric(stack, 'coze_chat_workers{state="serving"}') == 2
    wait_for(lambda: metric(stack, 'coze_chat_open_streams') == 0, what='no stream')


def test_a_program_that_is_gone_is_refused(make_stack, tmp_path):
    program = str(tmp_path / 'coze-chatd')
    shutil.copy(CHATD, program)
    stack = make_stack(WORKERS='1', CHATD=program)
    before = stack.worker_pids()
    os.unlink(program)
    hup(stack)
    expect_refusal(stack, 'No such file or directory')
    assert stack.worker_pids() == before and stack.chat('hi').status_code == 200
    shutil.copy(CHATD, program)
    stack.reload()
    assert stack.chat('hi').status_code == 200


def test_a_check_that_hangs_is_given_up(make_stack, tmp_path):
    program = str(tmp_path / 'coze-chatd')
    shutil.copy(CHATD, program)
    stack = make_stack(WORKERS='1', CHATD=program)
    write_program(program, 'echo half a word >&2\nexec sleep 60\n')
    hup(stack)
    wait_for(lambda: state(stack)[1] == 'refused', 20, 'the refusal')
    assert stack.chat('hi').status_code == 200


def test_a_check_that_talks_without_end_is_refused(make_stack, tmp_path):
    program = str(tmp_path / 'coze-chatd')
    shutil.copy(CHATD, program)
    stack = make_stack(WORKERS='1', CHATD=program)
    write_program(program, 'i=0\nwhile [ $i -lt 3000 ]; do i=$((i + 1)); '
                           'echo "a line of complaint that is quite long and never ends" >&2; done\nexit 1\n')
    hup(stack)
    expect_refusal(stack, 'a line of complaint')
    assert len(events(stack, 'reload_refused')[-1]) < 1000
    assert stack.chat('hi').status_code == 200


def test_a_master_without_descriptors_refuses_a_reload(make_stack):
    stack = make_stack(WORKERS='1')
    master = stack.pids()['workers']
    limits = resource.prlimit(master, resource.RLIMIT_NOFILE)
    resource.prlimit(master, resource.RLIMIT_NOFILE, (len(os.listdir('/proc/%d/fd' % master)), limits[1]))
    hup(stack)
    wait_for(lambda: any('Too many open files' in line for line in events(stack, 'reload_refused')), 20, 'the refusal')
    assert stack.chat('hi').status_code == 200
    resource.prlimit(master, resource.RLIMIT_NOFILE, limits)
    stack.reload()
    assert stack.chat('hi').status_code == 200


def test_a_full_disk_does_not_end_a_reload(make_stack):
    """Nothing can be written into RUN_DIR: as on a full disk, also for root."""
    stack = make_stack(WORKERS='2')
    master, before = stack.pids()['workers'], set(stack.worker_pids())
    for name in 'coze-chatd.pid.new', 'coze-chatd.state.new':
        os.mkdir(os.path.join(stack.run_dir, name))
    hup(stack)
    wait_for(lambda: events(stack, 'reloaded') or not is_alive(master), 20, 'the reload')
    assert is_alive(master)
    wait_for(lambda: not before & set(stack.worker_pids()), what='the old workers being gone')
    assert stack.chat('hi').status_code == 200
    with open(os.path.join(stack.run_dir, 'coze-chatd.pid'), encoding='utf-8') as file:
        assert int(file.read()) == master


def test_a_log_that_cannot_be_opened_refuses_a_reload(make_stack, tmp_path):
    """The directory has vanished since: what runs goes on, and a reload works again once it is back."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    stack = make_stack(WORKERS='2', LOG_FILE=str(logs / 'api.log'))
    shutil.rmtree(logs)
    before = set(stack.worker_pids())
    hup(stack)
    wait_for(lambda: state(stack) == (1, 'refused'), 20, 'the refusal')
    assert stack.chat('hi').status_code == 200 and before == set(stack.worker_pids())
    logs.mkdir()
    hup(stack)
    wait_for(lambda: state(stack) == (2, 'ok'), 20, 'the reload')
    assert stack.chat('hi').status_code == 200
    wait_for(lambda: not before & set(stack.worker_pids()), what='the old workers having left')
    assert 'event=request' in (logs / 'api.log').read_text()


# ---- workers that misbehave ----

def answers_within(stack, seconds, count):
    try:
        return all(stack.chat('hi', timeout=seconds).status_code == 200 for _ in range(count))
    except requests.exceptions.ReadTimeout:
        return False


@pytest.mark.parametrize('count', [1, 8])
def test_a_frozen_worker_is_replaced_with_the_rest(make_stack, count):
    stack = make_stack(WORKERS=str(count))
    victim = stack.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        hup(stack)
        wait_for(lambda: state(stack) == (1, 'ok'), 30, 'the reload')
        # nginx may have kept connections to it for some seconds, and nobody can know that they lead nowhere.
        wait_for(lambda: answers_within(stack, 1, 2 * count), 30, 'answers')
        wait_for(lambda: len(stack.worker_pids()) == count + 1, 20, 'the others being gone')
    finally:
        os.kill(victim, signal.SIGCONT)
    wait_for(lambda: len(stack.worker_pids()) == count, 20, 'its end')
    assert metric(stack, 'coze_chat_workers{state="serving"}') == count


def test_workers_killed_while_they_are_replaced(make_stack):
    """Old ones, new ones and draining ones: in the end there is one of each place."""
    stack = make_stack(WORKERS='3')
    with stack.stream(LONG) as answer:
        pieces = answer.iter_content(None)
        next(pieces)
        stopping = threading.Event()

        def kill():
            while not stopping.is_set():
                for pid in stack.worker_pids():
                    if os.readlink('/proc/%d/exe' % pid) == os.path.realpath(CHATD) and not stopping.wait(0.01):
                        os.kill(pid, signal.SIGKILL)
                stopping.wait(0.1)

        def kill_safely():
            while not stopping.is_set():
                try:
                    kill()
                except OSError:  # it has just ended
                    pass
        thread = threading.Thread(target=kill_safely)
        thread.start()
        for _ in range(10):
            hup(stack)
            time.sleep(0.2)
        stopping.set()
        thread.join()
    wait_for(lambda: state(stack)[1] != 'starting', 60, 'the end of the last reload')
    if state(stack)[1] == 'refused':  # its check was killed, too
        hup(stack)
    wait_for(lambda: state(stack)[1] == 'ok', 60, 'the last reload')
    wait_for(lambda: stack.get('/health')[0] == 200, 20, 'health')
    wait_for(lambda: len(stack.worker_pids()) == 3, 30, 'three workers')
    wait_for(lambda: metric(stack, 'coze_chat_workers{state="serving"}') == 3, 20, 'three that serve')
    for gauge in 'coze_chat_open_streams', 'coze_chat_workers{state="starting"}', 'coze_chat_workers{state="draining"}':
        assert metric(stack, gauge) == 0
    assert stack.chat('hi').status_code == 200


def test_a_frozen_successor_costs_its_predecessor_no_time(make_stack):
    """There are more idle connections than it has room for: the rest is kept, and served, until it takes them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    stack = make_stack(WORKERS='1')
    old = stack.worker_pids()[0]
    links = [Link(worker_socket(stack)) for _ in range(5000)]
    try:
        for link in links:
            link.send(request('GET', '/', keep=True))
            assert link.answer()[0] == 200
        os.kill(old, signal.SIGSTOP)
        hup(stack)
        wait_for(lambda: len(events(stack, 'serving')) == 2, what='the successor')
        new = [pid for pid in stack.worker_pids() if pid != old][0]
        os.kill(new, signal.SIGSTOP)
        os.kill(old, signal.SIGCONT)
        try:
            wait_for(lambda: events(stack, 'draining'), what='the predecessor draining')
            before, began = probe.processor_seconds(old), time.monotonic()
            wait_for(lambda: time.monotonic() - began > 1, what='a second')
            assert probe.processor_seconds(old) - before < 0.1
        finally:
            os.kill(new, signal.SIGCONT)
        wait_for(lambda: not is_alive(old), 10, 'its end')
        for link in links:
            link.send(request('GET', '/', keep=True))
            assert link.answer()[0] == 200
    finally:
        for link in links:
            link.close()


# ---- places ----

def test_a_second_master_of_a_run_dir_is_refused(make_stack):
    stack = make_stack(WORKERS='1')
    settings = os.path.join(stack.run_dir, 'state', 'settings')
    master = stack.pids()['workers']
    for more in {}, {'WORKERS': '3'}, {'WORKER_LISTEN': '127.0.0.1:%d' % free_port()}:
        env = {'PATH': os.environ['PATH'], 'SETTINGS_FILE': settings, **more}
        second = subprocess.run([CHATD], env=env, stderr=subprocess.PIPE, text=True, timeout=20)
        assert second.returncode != 0, more
        assert 'another' in second.stderr
        with open(os.path.join(stack.run_dir, 'coze-chatd.pid'), encoding='utf-8') as file:
            assert int(file.read()) == master
        assert state(stack) == (0, 'ok')
        assert os.listdir(stack.run_dir).count('worker-1.sock') == 0
        assert stack.chat('hi').status_code == 200
    stack.reload()
    assert stack.chat('hi').status_code == 200


def test_who_waits_at_a_place_that_is_given_up_is_served(make_stack):
    """Also where no worker serves there, as the one before was killed and the next one still waits for Redis."""
    stack = make_stack(WORKERS='2')
    killed, place = stack.worker_pids()[1], worker_socket(stack, 1)
    redis = stack.pids()['redis']
    os.kill(redis, signal.SIGSTOP)
    try:
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in stack.worker_pids() and len(stack.worker_pids()) == 2, what='the next worker')
        with Link(place) as link:
            link.send(request('GET', '/'))
            change_settings(stack, WORKERS='1')
            hup(stack)
            assert link.answer()[0] == 200
    finally:
        os.kill(redis, signal.SIGCONT)
    wait_for(lambda: state(stack) == (1, 'ok') and len(stack.worker_pids()) == 1, 20, 'the end of the reload')


def test_what_prevents_the_start_of_a_master_is_said(tmp_path):
    env = {'PATH': os.environ['PATH'], 'RUN_DIR': str(tmp_path), 'REDIS_URL': 'redis://localhost', 'COZE_API_TOKEN': 'pat_1',
           'COZE_BOT_ID': '1', 'WORKERS': '1'}
    with socket.create_server(('127.0.0.1', 0)) as other:
        address = '127.0.0.1:%d' % other.getsockname()[1]
        for settings, said in [({'RUN_DIR': '/dev/null/run'}, 'cannot make the directory /dev/null/run: Not a directory'),
                               ({'LOG_FILE': '/nowhere/x'}, 'cannot open the log /nowhere/x: No such file or directory'),
                               ({'WORKER_LISTEN': address}, 'cannot listen on %s: Address already in use' % address)]:
            done = subprocess.run([CHATD], env={**env, **settings}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  timeout=20)
            assert done.returncode == os.EX_OSERR and said in done.stderr, done
    assert 'coze-chatd.pid' not in os.listdir(tmp_path)


def test_a_check_needs_no_log_where_there_is_none(tmp_path):
    env = {'PATH': os.environ['PATH'], 'RUN_DIR': str(tmp_path), 'REDIS_URL': 'redis://localhost', 'COZE_API_TOKEN': 'pat_1',
           'COZE_BOT_ID': '1'}
    for log, status in ('-', 0), ('/nowhere/x', os.EX_CONFIG):
        done = subprocess.run([CHATD, '--check'], env={**env, 'LOG_FILE': log}, stderr=subprocess.PIPE, text=True, timeout=20)
        assert done.returncode == status, done


@pytest.mark.parametrize('how', ['good again', 'told to end'])
def test_settings_that_turn_bad_behind_their_check(tmp_path, how):
    """The successor has workers to look after: it waits for settings that are good, or for its end."""
    token, log, said = str(tmp_path / 'token'), str(tmp_path / 'log'), str(tmp_path / 'said')
    os.mkfifo(token)  # whoever reads the settings waits until it is given one
    env = {'PATH': os.environ['PATH'], 'RUN_DIR': str(tmp_path), 'REDIS_URL': 'unix:///nowhere', 'COZE_API_TOKEN_FILE': token,
           'COZE_BOT_ID': '1', 'WORKERS': '1', 'LOG_FILE': log}

    def give(text):
        with open(token, 'w', encoding='utf-8') as file:
            file.write(text)

    def lines(path, words):
        with open(path, encoding='utf-8') as file:
            return [line for line in file if words in line]

    def checks():
        found = []
        with open('/proc/%d/task/%d/children' % (master.pid, master.pid), encoding='utf-8') as file:
            for pid in file.read().split():
                with contextlib.suppress(OSError), open('/proc/%s/cmdline' % pid, 'rb') as words:
                    found += [pid] if b'--check' in words.read() else []
        return found

    with open(said, 'w', encoding='utf-8') as errors:
        master = subprocess.Popen([CHATD], env=env, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        give('pat_1')
        wait_for(lambda: os.path.exists(log) and lines(log, 'event=serving'), what='the worker')
        worker, = children(master.pid)
        master.send_signal(signal.SIGHUP)
        wait_for(checks, what='the check')
        give('pat_1')
        wait_for(lambda: not checks(), what='its end')
        give('')
        wait_for(lambda: lines(said, 'COZE_API_TOKEN'), what='the complaint')
        assert is_alive(worker)
        if how == 'good again':
            give('pat_1')
            wait_for(lambda: lines(log, 'event=reloaded'), 20, 'the reload')
        master.send_signal(signal.SIGTERM)
        assert master.wait(20) == (0 if how == 'good again' else 78)
        wait_for(lambda: not is_alive(worker), what='its worker leaving')
    finally:
        master.kill()
        master.wait()
