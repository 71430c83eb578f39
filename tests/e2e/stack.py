"""
A whole stack for tests: the real nginx, workers and Redis of env/service, and a simulator of its own whose faults, log and
state the test can reach. Everything lives in one short temporary directory, on ports of its own.
"""
import json
import os
import shlex
import socket
import subprocess
import time

import requests

from contract import contract
from service import TOP, Service, free_port

SIM = os.path.join(TOP, 'tests', 'coze_sim', 'sim')
TOKEN = 'pat_test_token_0123456789'
BOT = '7445600453913968691'


def wait_for(condition, seconds=10, what='the condition'):
    """
    Asks `condition` until it holds and returns what it gave; fails after `seconds`. A machine so busy that one cannot even ask
    twenty times a second gets more time, up to thrice as much.
    """
    begun, asked = time.monotonic(), 0
    while True:
        value = condition()
        if value:
            return value
        asked += 1
        passed = time.monotonic() - begun
        if passed > seconds and (asked > 20 * seconds or passed > 3 * seconds):
            raise AssertionError('%s did not come true in %.1f s' % (what, passed))
        time.sleep(0.005)


def late():
    """Seconds that this machine may add to what takes a time: one, and more while others keep it busy."""
    return 1 + max(0, os.getloadavg()[0] / os.cpu_count() - 1) / 2


def directive(message='你好', **sim):
    """A message that makes the simulator behave as `sim` says (tests/coze_sim/README.md)."""
    return '%s sim:%s' % (message, json.dumps(sim, ensure_ascii=False))


def filler(count):
    """The text of the simulator's answer_bytes."""
    text = ''.join('%07d ' % k + '扣子 Coze 😀，' * 6 + 'test!\n' for k in range(count // 128 + 1))
    text = text.encode()[:count].decode('utf-8', 'ignore')
    return text + '.' * (count - len(text.encode()))


class Sim:
    """The simulator: start, stop, and its control endpoints."""

    def __init__(self, home, tls=False, **env):
        self.home = os.path.join(home, 'sim')
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.env = {'PATH': os.environ['PATH'], 'SIM_DIR': self.home, 'SIM_PORT': str(self.port), 'SIM_TOKEN': TOKEN}
        if tls:
            self.env['SIM_TLS_PORT'] = str(self.tls_port)
        self.env.update({name: str(value) for name, value in env.items()})
        self.control = 'http://127.0.0.1:%d/_sim' % self.port

    def call(self, command):
        subprocess.run([SIM, command], env=self.env, stdin=subprocess.DEVNULL, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        self.call('start')

    def stop(self):
        self.call('stop')

    @property
    def settings(self):
        """What a worker needs to talk to it."""
        settings = {'COZE_API_TOKEN': TOKEN, 'COZE_BOT_ID': BOT, 'COZE_MIN_INTERVAL_MS': '0',
                    'COZE_BASE_URL': 'http://127.0.0.1:%d/v3' % self.port}
        if self.tls_port:
            settings['COZE_BASE_URL'] = 'https://localhost:%d/v3' % self.tls_port
            settings['COZE_CA_FILE'] = os.path.join(self.home, 'ca.pem')
        return settings

    def get(self, what):
        return requests.get('%s/%s' % (self.control, what), timeout=30).json()

    def post(self, what, **body):
        answer = requests.post('%s/%s' % (self.control, what), json=body, timeout=30)
        assert answer.status_code == 200, answer.text

    def queue(self, times=1, path='/v3/chat', **sim):
        """The next `times` requests to `path` are treated so, whatever they say."""
        self.post('queue', path=path, times=times, sim=sim)

    def default(self, path='/v3/chat', **sim):
        self.post('default', path=path, sim=sim)

    def reset(self):
        self.post('reset')

    def log(self, path=None):
        """Requests to Coze so far, oldest first."""
        return [entry for entry in self.get('log') if path is None or entry['path'] == path]

    def chats(self):
        return self.get('chats')

    def stats(self):
        return self.get('stats')


class Stack(Service):
    """env/service with a simulator. `sim` are the simulator's variables, the rest are the service's settings."""

    def __init__(self, tls=False, sim=None, **settings):
        super().__init__(name='cz-', **settings)
        self.sim = Sim(self.home, tls=tls, **(sim or {}))
        self.url = 'http://127.0.0.1:%d' % self.port
        for name, value in self.sim.settings.items():
            self.env.setdefault(name, value)

    def start(self):
        self.sim.start()
        try:
            self.up()
        except BaseException:
            self.sim.stop()
            raise
        return self

    def stop_all(self):
        self.down()
        self.sim.stop()

    def chat(self, message, timeout=30, **fields):
        return requests.post(self.url + '/chat', json={'message': message, **fields}, timeout=timeout)

    def stream(self, message, timeout=30, **fields):
        """The open answer of /chat/stream; see events()."""
        return requests.post(self.url + '/chat/stream', json={'message': message, **fields}, stream=True,
                             timeout=timeout)

    def events(self, message, **fields):
        """All events of one /chat/stream, which must be well-formed: only data lines and blank ones, one end."""
        with self.stream(message, **fields) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers['Content-Type'].startswith('text/event-stream')
            body = answer.content
        return parse_stream(body)

    def connect(self, path, message, headers='', **fields):
        """A socket on which the request has been sent; nothing of the answer is read. See HttpAnswer."""
        body = json.dumps({'message': message, **fields}).encode()
        link = socket.create_connection(('127.0.0.1', self.port), timeout=30)
        link.sendall(('POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s'
                      'Content-Length: %d\r\n\r\n' % (path, headers, len(body))).encode() + body)
        return link

    def info(self, session_id):
        return requests.get('%s/session/%s/info' % (self.url, session_id), timeout=10)

    def worker_pids(self):
        """The worker processes, not their master."""
        master = self.pids()['workers']
        with open('/proc/%d/task/%d/children' % (master, master)) as file:
            return [int(pid) for pid in file.read().split()]

    def request_log(self, session_id, count=1):
        """The log lines of a session's requests as dicts, oldest first, once there are `count` of them."""
        def lines():
            found = [dict(word.split('=', 1) for word in shlex.split(line) if '=' in word)
                     for line in self.api_log().splitlines() if ' event=request ' in line]
            found = [line for line in found if line.get('session') == session_id]
            return found if len(found) >= count else None
        return wait_for(lines, what='a request line of %s' % session_id)

    def api_log(self):
        with open(os.path.join(self.run_dir, 'logs', 'api_server.log'), encoding='utf-8') as file:
            return file.read()


class HttpAnswer:
    """An answer as it comes over the socket: `chunks` yields each chunk of the body as nginx framed it."""

    def __init__(self, link):
        self.file = link.makefile('rb')
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        for line in iter(self.file.readline, b'\r\n'):
            assert line, 'the connection ended within the header'
            name, _, value = line.decode().partition(':')
            self.headers[name.lower()] = value.strip()

    def chunks(self):
        while True:
            size = int(self.file.readline(), 16)
            body = self.file.read(size)
            assert len(body) == size and self.file.readline() == b'\r\n'
            if size == 0:
                return
            yield body


def parse_stream(body):
    events = []
    for line in body.decode('utf-8').split('\n'):
        if line == '':
            continue
        assert line.startswith('data: '), 'a client that cuts six bytes off would choke on %r' % line[:80]
        events.append(json.loads(line[6:]))
    ends = [event for event in events if event['type'] in ('complete', 'error')]
    assert len(ends) == 1 and events[-1] is ends[0], 'not exactly one end, at the end: %r' % events[-3:]
    chunks = [event for event in events if event['type'] == 'chunk']
    contract().check_stream(body)
    assert [chunk['data']['chunk_index'] for chunk in chunks] == list(range(len(chunks)))
    if ends[0]['type'] == 'complete':
        assert ends[0]['data']['total_chunks'] == len(chunks)
        assert ends[0]['data']['full_content'] == text_of(events)
    return events


def text_of(events):
    return ''.join(event['data']['content'] for event in events if event['type'] == 'chunk')
