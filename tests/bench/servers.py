"""
What is measured: this service; nginx that passes straight to the simulator; and the reference. All in one temporary
directory, on ports of their own.
"""
import http.client
import json
import os
import shutil
import subprocess
import sys

import redis

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests', 'e2e'))

from service import free_port  # noqa: E402
from stack import BOT, TOKEN, Stack, wait_for  # noqa: E402
from usage import family, settle  # noqa: E402

SETTINGS = {'LOG_LEVEL': 'warn', 'COZE_MIN_INTERVAL_MS': '0'}
SIM = {'SIM_PLAIN': 1, 'SIM_LOG': 0, 'SIM_WORKERS': 2}


def service(workers=2, tls=False, sim=None, **settings):
    """This service with its own nginx and Redis, and the simulator that everything here talks to."""
    return Stack(tls=tls, sim={**SIM, **(sim or {})}, WORKERS=workers, **{**SETTINGS, **settings})


def http_front(home, port, upstreams):
    """nginx.conf as the service has it, but for passing on to HTTP servers instead of FastCGI workers."""
    templates = os.path.join(home, 'templates')
    shutil.copytree(os.path.join(TOP, 'nginx'), templates, ignore=shutil.ignore_patterns('node_modules'))
    shutil.copy(os.path.join(TOP, 'tests', 'bench', 'nginx', 'worker.conf.in'), templates)
    env = {'PATH': os.environ['PATH'], 'RUN_DIR': home, 'WORKERS': str(len(upstreams)), 'SERVER_HOST': '127.0.0.1',
           'SERVER_PORT': str(port), 'MAX_REQUEST_SIZE': '10485760', 'ALLOWED_ORIGINS': '*',
           'WORKER_ADDRESSES': ','.join(upstreams)}
    return subprocess.run([os.path.join(templates, 'render')], env=env, stdout=subprocess.PIPE, check=True, text=True).stdout


class Nginx:
    """An nginx of our own, in a directory of its own below `home`. With `wrapper` it is one process."""

    def __init__(self, home, name, make_conf, wrapper=()):
        self.home = os.path.join(home, name)
        self.port = free_port()
        for part in ('logs', 'tmp'):
            os.makedirs(os.path.join(self.home, part))
        with open(os.path.join(self.home, 'nginx.conf'), 'w') as file:
            file.write(make_conf(self.home, self.port))
        words = [*wrapper, 'nginx', '-p', self.home + '/', '-e', self.home + '/logs/start.log', '-c', 'nginx.conf']
        self.words = words + ['-g', 'daemon off;' + (' master_process off;' if wrapper else '')]
        self.process = None

    def start(self):
        env = {**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'}
        self.process = subprocess.Popen(self.words, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.listens, 30, 'the start of nginx')
        return self

    def listens(self):
        assert self.process.poll() is None, open(self.home + '/logs/start.log').read()
        return os.path.exists(self.home + '/nginx.pid') and is_open(self.port)

    @property
    def pids(self):
        return family(self.process.pid)

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)


class Reference:
    """reference.py, as two processes behind an nginx. It has the stack's Redis, too, in a database of its own."""

    def __init__(self, stack):
        self.stack = stack
        self.processes = []
        self.ports = [free_port(), free_port()]
        addresses = ['127.0.0.1:%d' % port for port in self.ports]
        self.nginx = Nginx(stack.home, 'reference', lambda home, port: http_front(home, port, addresses))
        self.log = os.path.join(self.nginx.home, 'logs', 'python.log')

    def start(self):
        env = {'PATH': os.environ['PATH'], 'REDIS_SOCKET': os.path.join(self.stack.run_dir, 'redis.sock'),
               'COZE_BASE_URL': 'http://127.0.0.1:%d/v3' % self.stack.sim.port, 'COZE_API_TOKEN': TOKEN, 'COZE_BOT_ID': BOT}
        words = [sys.executable, '-m', 'uvicorn', 'reference:app', '--app-dir', os.path.dirname(os.path.abspath(__file__)),
                 '--loop', 'uvloop', '--http', 'httptools', '--no-access-log', '--log-level', 'warning', '--port']
        with open(self.log, 'w') as log:
            self.processes = [subprocess.Popen([*words, str(port)], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                              for port in self.ports]
        self.nginx.start()
        wait_for(self.listens, 30, 'the start of the reference')
        return self

    def listens(self):
        assert all(process.poll() is None for process in self.processes), open(self.log).read()
        return all(map(is_open, self.ports))

    @property
    def port(self):
        return self.nginx.port

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    def close(self):
        self.nginx.close()
        for process in self.processes:
            process.kill()
            process.wait(30)


def is_open(port):
    link = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    try:
        link.connect()
    except OSError:
        return False
    finally:
        link.close()
    return True


def straight(stack, wrapper=()):
    """nginx that passes to the stack's simulator."""
    return Nginx(stack.home, 'straight', lambda home, port: http_front(home, port, ['127.0.0.1:%d' % stack.sim.port]), wrapper)


def same_front(stack, wrapper):
    """One more nginx before the stack's workers."""
    def conf(_, port):
        with open(os.path.join(stack.run_dir, 'nginx.conf')) as file:
            return file.read().replace('listen 127.0.0.1:%d ' % stack.port, 'listen 127.0.0.1:%d ' % port)
    return Nginx(stack.home, 'front', conf, wrapper)


class Target:
    """Something to be measured: where it is asked, with which paths, and the processes that do its work."""

    def __init__(self, name, port, chat, stream, **groups):
        self.name, self.port, self.chat, self.stream, self.groups = name, port, chat, stream, groups


def service_target(stack, name='service'):
    return Target(name, stack.port, '/chat', '/chat/stream', worker=stack.worker_pids(), nginx=family(stack.pids()['nginx']),
                  redis=family(stack.pids()['redis']), simulator=sim_pids(stack))


def sim_pids(stack):
    with open(os.path.join(stack.sim.home, 'nginx.pid')) as file:
        return family(int(file.read()))


class Field:
    """All three beside each other, with one simulator and one Redis."""

    def __init__(self):
        self.stack = service()
        self.others = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self):
        stack = self.stack.start()
        for server in straight(stack), Reference(stack):
            self.others.append(server)
            server.start()
        direct, reference = self.others
        sim, redis = sim_pids(stack), family(stack.pids()['redis'])
        self.service = service_target(stack)
        self.straight = Target('straight', direct.port, '/v3/chat', '/v3/chat', nginx=direct.pids, simulator=sim)
        self.reference = Target('reference', reference.port, '/chat', '/chat/stream', worker=reference.pids,
                                nginx=reference.nginx.pids, redis=redis, simulator=sim)
        self.targets = [self.straight, self.service, self.reference]

    def clear(self, **sim):
        """Before each measurement: nobody works, nobody remembers anything. `sim`: how the simulator answers."""
        for target in self.targets:
            settle(target.groups)
        forget(self.stack)
        if sim:
            self.stack.sim.default(**sim)

    def close(self):
        for server in reversed([self.stack, *self.others]):
            server.close()

    def __exit__(self, *_):
        self.close()


def forget(stack):
    redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock')).flushall()
    stack.sim.reset()


class Asker:
    """One client that sends one message after the other, each in a session of its own, and looks at every answer."""

    def __init__(self, port):
        self.link = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        self.count = 0

    def ask(self, path, message='hi'):
        self.count += 1
        name = 'bench-%08d' % self.count
        if path == '/v3/chat':
            body = {'bot_id': BOT, 'user_id': name, 'stream': True, 'auto_save_history': True,
                    'additional_messages': [{'role': 'user', 'type': 'question', 'content': message, 'content_type': 'text'}]}
        else:
            body = {'message': message, 'session_id': name}
        self.link.request('POST', path, json.dumps(body),
                          {'Content-Type': 'application/json', 'Authorization': 'Bearer ' + TOKEN})
        answer = self.link.getresponse()
        return self.check(path, answer.status, answer.read())

    @staticmethod
    def check(path, status, body):
        """The body, if it is that of an answer that is complete."""
        ends = {'/chat': b'"response":', '/chat/stream': b'data: {"type": "complete"',
                '/v3/chat': b'event:conversation.chat.completed'}
        if status != 200 or ends[path] not in body:
            raise RuntimeError('%s answered %d: %s' % (path, status, body[:200]))
        return body

    def close(self):
        self.link.close()
