"""logrotate, as env/logrotate.conf.in sets it up, against a service under load: no line is lost, none goes to an old file."""
import getpass
import grp
import gzip
import os
import re
import subprocess
import threading

import pytest
import requests

from install import read
from service import TOP
from stack import wait_for

LOGS = ('api_server.log', 'nginx_access.log')


@pytest.fixture
def stack(make_stack):
    return make_stack()


@pytest.fixture
def rotate(stack):
    """Rotates everything now, as root's cron would once a day."""
    text = read(TOP, 'env/logrotate.conf.in').decode()
    for name, value in (('RUN_DIR', stack.run_dir), ('LOG_DIR', stack.run_dir + '/logs'), ('USER', getpass.getuser()),
                        ('GROUP', grp.getgrgid(os.getegid()).gr_name)):
        text = text.replace('@%s@' % name, value)
    config = os.path.join(stack.home, 'logrotate.conf')
    with open(config, 'w') as file:
        file.write(text)
    os.chmod(config, 0o644)

    def run():
        done = subprocess.run(['logrotate', '--force', '--state', os.path.join(stack.home, 'logrotate.state'), config],
                              env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin'}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout == '', done.stdout
    return run


def log_files(stack, name):
    logs = os.path.join(stack.run_dir, 'logs')
    return [os.path.join(logs, file) for file in os.listdir(logs) if file == name or file.startswith(name + '.')]


def logged_ids(stack, name):
    """The ids of all requests in a log, its rotated and compressed parts too."""
    text = b''
    for path in log_files(stack, name):
        text += gzip.open(path).read() if path.endswith('.gz') else read(path)
    return re.findall(r'\breq="?(rotate-\d+-\d+)\b', text.decode())


def writers_of(path):
    """Processes that have the file open, which may have another name by now."""
    inode = os.stat(path).st_ino
    found = set()
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            for fd in os.listdir('/proc/%s/fd' % pid):
                if os.stat('/proc/%s/fd/%s' % (pid, fd)).st_ino == inode and os.path.samefile(
                        '/proc/%s/fd/%s' % (pid, fd), path):
                    found.add(int(pid))
        except OSError:
            continue
    return found


class Load:
    """Requests on several connections, each with an id of its own, until the block ends."""

    def __init__(self, stack, clients=4):
        self.stack, self.sent, self.stopping = stack, [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(clients)]

    def run(self, client):
        session = requests.Session()
        number = 0
        while not self.stopping.is_set():
            request_id = 'rotate-%d-%d' % (client, number)
            number += 1
            answer = session.get(self.stack.url + '/session/nobody/info', headers={'X-Request-ID': request_id}, timeout=20)
            assert answer.status_code == 404
            self.sent.append(request_id)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)


def wait_for_lines(stack):
    """nginx writes its access log once a second; an empty log is not rotated."""
    for name in LOGS:
        path = os.path.join(stack.run_dir, 'logs', name)
        wait_for(lambda: os.path.exists(path) and os.path.getsize(path) > 0, what=name)


def test_no_line_is_lost_while_logs_are_rotated_under_load(stack, rotate):
    with Load(stack) as load:
        for _ in range(3):
            wait_for_lines(stack)
            rotate()
            sent = len(load.sent)
            wait_for(lambda: len(load.sent) > sent + 50, 30, 'requests')
    for name in LOGS:
        wait_for(lambda: len(logged_ids(stack, name)) >= len(load.sent), what='the last lines of ' + name)
        assert sorted(logged_ids(stack, name)) == sorted(load.sent)
        assert len(log_files(stack, name)) == 4 and any(path.endswith('.gz') for path in log_files(stack, name))


def test_nothing_is_written_to_a_rotated_file(stack, rotate):
    stack.chat('你好')
    wait_for_lines(stack)
    rotate()
    for name in LOGS:
        wait_for(lambda: not writers_of(os.path.join(stack.run_dir, 'logs', name + '.1')), what='the reopening')
        assert len(writers_of(os.path.join(stack.run_dir, 'logs', name))) >= 3  # master and workers


def test_a_service_that_is_down_can_be_rotated_too(stack, rotate):
    stack.chat('你好')
    stack.down()
    rotate()
    assert read(stack.run_dir, 'logs', 'api_server.log.1') != b''
