"""
env/service: what `make up`, `make down` and `make status` do to the machine.
"""
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from service import Service, TOP, is_alive


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited %d s in vain' % seconds
        time.sleep(0.02)


def write_program(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, 'w') as file:
        file.write('#!/bin/bash\n' + text)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


# --- up, status, down ---


def test_up_starts_everything_and_down_stops_it():
    with Service() as service:  # its RUN_DIR has spaces
        told = service.up()
        assert 'http://127.0.0.1:%d/chat' % service.port in told
        assert 'curl -N' in told
        assert 'SIMULATED' in told
        assert service.get('/health')[0] == 200
        assert set(service.pids()) == {'redis', 'workers', 'nginx'}

        shown = service.call('status')
        assert shown.returncode == 0
        for part in ('simulator', 'redis', 'workers', 'nginx', 'health'):
            assert '\n' + part in '\n' + shown.stdout

        service.down()
        assert service.processes() == set()
        assert service.call('status').returncode != 0
        service.down()  # again: nothing to do, no error


def test_the_printed_lines_answer():
    with Service(SIM_GAP_MS='1') as service:
        lines = [line.strip() for line in service.up().splitlines() if line.startswith('  curl')]
        assert len(lines) == 2
        sync, stream = [subprocess.run(line, shell=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       timeout=60, check=True).stdout.decode() for line in lines]
        assert json.loads(sync)['response']
        assert '"type": "complete"' in stream or '"type":"complete"' in stream


def test_a_second_up_is_harmless():
    with Service() as service:
        service.up()
        before = service.pids()
        assert 'already' in service.up()
        assert service.pids() == before


def test_two_ups_at_once_start_one_service():
    with Service() as service:
        results = []
        calls = [threading.Thread(target=lambda: results.append(service.call('up'))) for _ in range(2)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        assert [result.returncode for result in results] == [0, 0]
        assert sum('already' in result.stdout for result in results) == 1


@pytest.mark.parametrize('part', ['workers', 'nginx', 'redis'])
def test_up_starts_what_was_killed(part):
    with Service() as service:
        service.up()
        before = service.pids()
        os.kill(before[part], signal.SIGKILL)
        wait_until(lambda: part not in service.pids())
        assert service.call('status').returncode != 0
        service.up()
        after = service.pids()
        assert after.pop(part) != before.pop(part)
        assert after == before
        assert service.get('/health')[0] == 200
        service.down()
        assert service.processes() == set()  # also no worker of the killed master


def test_a_run_dir_that_was_open_to_all_shows_nobody_the_sessions():
    with Service() as service:
        os.mkdir(service.run_dir, 0o755)
        os.chmod(service.run_dir, 0o755)
        service.up()
        for name in 'redis', 'logs', 'state', 'tmp':
            assert os.stat(os.path.join(service.run_dir, name)).st_mode & 0o077 == 0, name


def test_two_run_dirs_side_by_side():
    with Service() as one, Service(name='cz') as two:
        one.up()
        two.up()
        assert one.get('/health')[0] == 200
        one.down()
        assert two.get('/health')[0] == 200
        assert two.call('status').returncode == 0


def test_up_leaves_no_inherited_pipe_open():
    reader, writer = os.pipe()
    with Service() as service:
        done = service.call('up', pass_fds=[writer])
        os.close(writer)
        assert done.returncode == 0, done.stderr
        with os.fdopen(reader, 'rb') as pipe:
            assert pipe.read() == b''  # would block as long as a server held the other end


def test_a_given_redis_is_used_and_left_alone():
    with Service(name='cz') as owner, Service(name='cz') as guest:
        owner.up()
        guest.set(REDIS_URL='unix://%s/redis.sock' % owner.run_dir)
        guest.up()
        assert set(guest.pids()) == {'workers', 'nginx'}
        guest.down()
        assert 'redis' in owner.pids()
        assert owner.call('status').returncode == 0


# --- what must not be touched ---


def test_stale_pid_files_kill_no_stranger():
    stranger = subprocess.Popen(['sleep', '600'], start_new_session=True)
    try:
        with Service() as service:
            state = os.path.join(service.run_dir, 'state')
            os.makedirs(state)
            with open('/proc/sys/kernel/random/boot_id') as file:
                boot = file.read().strip()
            for part in ('redis', 'workers', 'nginx'):
                with open(os.path.join(state, part), 'w') as file:
                    file.write('%d 1 %s\n' % (stranger.pid, boot))  # the pid is in use again, by another process
            for name in ('nginx.pid', 'coze-chatd.pid'):
                with open(os.path.join(service.run_dir, name), 'w') as file:
                    file.write('%d\n' % stranger.pid)
            service.down()
            assert is_alive(stranger.pid)
            for part in ('redis', 'workers', 'nginx'):
                with open(os.path.join(state, part), 'w') as file:
                    file.write('%d 1 %s\n' % (stranger.pid, boot))
            service.up()
            service.down()
            assert is_alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


# --- failures: a clear line, a non-zero exit, nothing left ---


def assert_fails(service, *words):
    done = service.call('up')
    assert done.returncode != 0, done.stdout
    for word in words:
        assert word in done.stderr
    assert service.processes() == set()
    return done.stderr


def test_port_in_use():
    with Service() as service, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(('127.0.0.1', service.port))
        other.listen()
        told = assert_fails(service, str(service.port), 'in use')
        assert len(told.splitlines()) == 1


def test_port_bound_by_someone_who_does_not_answer():
    with Service() as service, socket.socket() as other:
        other.bind(('127.0.0.1', service.port))  # not listening: only nginx's own attempt can tell
        assert_fails(service, str(service.port), 'in use')


@pytest.mark.parametrize('name,value', [
    ('SERVER_PORT', 'abc'), ('SERVER_PORT', '70000'), ('WORKERS', '0'), ('MAX_REQUEST_SIZE', 'lots'),
    ('SERVER_HOST', '127.0.0.1; evil'), ('ALLOWED_ORIGINS', '*;}evil'), ('COZE_BASE_URL', 'nonsense'),
])
def test_a_bad_setting_is_named(name, value):
    with Service(COZE_API_TOKEN='token', COZE_BOT_ID='1', **{name: value}) as service:
        assert_fails(service, name, value)


def test_a_token_without_a_bot_is_named():
    with Service(COZE_API_TOKEN='pat_very_secret') as service:
        told = assert_fails(service, 'COZE_BOT_ID')
        assert 'pat_very_secret' not in told


def test_a_worker_that_crashes_at_start_is_shown():
    with Service() as service:
        program = write_program(service.home, 'chatd', '''
            [ "$1" = --print-config ] && exec "%s" --print-config
            echo "the disk is on fire" >&2
            exit 3
        ''' % service.env.get('CHATD', TOP + '/build/coze-chatd'))
        service.set(CHATD=program)
        assert_fails(service, 'the disk is on fire')


def test_a_missing_binary_says_what_to_do():
    with Service(CHATD='/nonexistent/chatd') as service:
        assert_fails(service, 'make')


@pytest.mark.parametrize('run_dir,word', [
    ('/tmp/' + 'long/' * 25, 'too long'), ('/tmp/a"b', 'must not contain'), ('/tmp/a$b', 'must not contain'),
    ('/proc/nowhere', 'cannot be made'),
])
def test_an_unusable_run_dir(run_dir, word):
    with Service() as service:
        good, service.env['RUN_DIR'] = service.env['RUN_DIR'], run_dir
        assert len(assert_fails(service, word).splitlines()) == 1
        service.env['RUN_DIR'] = good


# --- the .env file ---


def settings_seen(env_file, **environment):
    """What the worker would see: a stand-in for it writes its environment down."""
    with Service(env_file=env_file, COZE_API_TOKEN='t', **environment) as service:
        seen = os.path.join(service.home, 'seen')
        service.set(CHATD=write_program(service.home, 'chatd', 'env -0 >"%s"; exit 78\n' % seen))
        done = service.call('up')
        assert done.returncode != 0
        if not os.path.exists(seen):
            return done.stderr
        with open(seen) as file:
            return dict(line.split('=', 1) for line in file.read().split('\0') if line)


@pytest.mark.parametrize('line,value', [
    ('X=plain', 'plain'),
    ('X=', ''),
    ('X = spaced', 'spaced'),
    ('  X=indented', 'indented'),
    ('export X=exported', 'exported'),
    ('X=two words', 'two words'),
    ('X=trailing   ', 'trailing'),
    ('X=windows\r', 'windows'),
    ('X=value # comment', 'value'),
    ('X= # only a comment', ''),
    ('X=a#b', 'a#b'),
    ('X="quoted # not a comment"', 'quoted # not a comment'),
    ('X="quoted" # comment', 'quoted'),
    (r'X="a \"b\" \\ \$c"', 'a "b" \\ $c'),
    ("X='single $HOME \\n'", 'single $HOME \\n'),
    ("X='single' # comment", 'single'),
    ('X=a=b==', 'a=b=='),
    ('X=$(touch /tmp/never) `id` $HOME', '$(touch /tmp/never) `id` $HOME'),
    ('X=中文', '中文'),
    ('X=first\nX=last', 'last'),
    ('# comment\n\n  # another\nX=after comments', 'after comments'),
    ('\ufeffX=after a byte order mark', 'after a byte order mark'),
])
def test_env_file_values(line, value):
    assert settings_seen(line)['X'] == value  # without a newline at the end
    assert settings_seen(line + '\nY=next\n')['X'] == value


def test_the_environment_wins_over_the_env_file():
    seen = settings_seen('X=file\nY=file\nZ=file\nQ_FILE=/file\n', X='environment', Y='', Q='environment')
    assert seen['X'] == 'environment'
    assert seen['Y'] == ''
    assert seen['Z'] == 'file'
    assert 'Q_FILE' not in seen  # would contradict Q


@pytest.mark.parametrize('line', ['SECRETWORD', 'SECRET-NAME=x', '=SECRET', 'X="SECRET', "X='SECRET", 'X="SECRET" x'])
def test_a_malformed_line_is_named_but_not_shown(line):
    told = settings_seen('A=b\n' + line + '\n')
    assert 'line 2' in told
    assert 'SECRET' not in told
    assert len(told.splitlines()) == 1


def test_a_malformed_line_does_not_keep_down_from_stopping():
    with Service(env_file='A=b\n') as service:
        service.up()
        with open(service.env_file, 'w') as file:
            file.write('nonsense\n')
        service.down()
        assert service.processes() == set()


def test_the_example_file_starts_the_simulator():
    with open(os.path.join(TOP, '.env.example'), 'rb') as file:
        example = file.read()
    with Service(env_file=example) as service:
        assert 'SIMULATED' in service.up()
