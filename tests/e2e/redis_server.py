"""
A Redis of a test's own, which may be stopped, frozen, emptied and given a password without touching any other; and what
turns leave behind in a Redis.
"""
import os
import shutil
import signal
import subprocess
import tempfile

import redis

from service import TOP, free_port
from stack import wait_for

CONF = os.path.join(TOP, 'redis', 'redis.conf')


def left_in_redis(link):
    """The keys that show that some turn still holds, or waits for, a session. A hold that has lapsed does no harm."""
    keys = [key.decode() for key in link.keys('coze:*')]
    seconds, _ = link.time()
    held = [key for key in keys if key.endswith(':session') and int(link.hget(key, 'turn_until') or 0) > seconds * 1000]
    return held + [key for key in keys if key.endswith((':waiting', ':tickets'))]


class RedisServer:
    """With the service's own settings, on a TCP port and a unix socket in a directory that ends with it."""

    def __init__(self, **settings):
        self.home = tempfile.mkdtemp(prefix='cz-redis-')
        self.socket = os.path.join(self.home, 'redis.sock')
        self.port = free_port()
        self.settings = settings
        self.conf = CONF
        self.bind = ['127.0.0.1']
        self.process = None
        self.frozen = False

    @property
    def url(self):
        return 'unix://' + self.socket

    @property
    def tcp_url(self):
        return 'redis://127.0.0.1:%d' % self.port

    def link(self, **options):
        """A connection; it notices by itself when the server was started anew."""
        return redis.Redis(unix_socket_path=self.socket, socket_timeout=10, **options)

    def start(self):
        words = ['redis-server', self.conf, '--port', str(self.port), '--bind', *self.bind, '--unixsocket', self.socket,
                 '--dir', self.home]
        for name, value in self.settings.items():
            words += ['--' + name, value]
        with open(os.path.join(self.home, 'redis.log'), 'a', encoding='utf-8') as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self.answers, what='the start of Redis')
        return self

    def answers(self):
        try:
            return self.link(password=self.settings.get('requirepass')).ping()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            assert self.process.poll() is None, 'Redis ended at its start'
            return False

    def stop(self):
        """As an operator does: what was acknowledged is on the disk."""
        self.process.terminate()
        self.process.wait(timeout=30)

    def kill(self, forget=False):
        self.process.kill()
        self.process.wait(timeout=30)
        if forget:
            shutil.rmtree(os.path.join(self.home, 'appendonlydir'), ignore_errors=True)

    def freeze(self):
        """It takes connections and bytes, as the kernel does that for it, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def close(self):
        if self.runs:
            self.process.kill()
            self.process.wait(timeout=30)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
