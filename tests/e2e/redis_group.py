"""
A Redis with two replicas and three Sentinels, all real, which fail over within a second or two; and a Sentinel that is none
and says whatever a test wants.
"""
import os
import shutil
import socketserver
import subprocess
import threading

import redis

from redis_server import CONF, RedisServer
from service import free_port
from stack import wait_for

NAME = 'mymaster'
# Per Sentinel: silence, in ms, after which it takes the master for dead, and how many must agree. As they differ, the first
# is elected at once; all alike would vote for themselves, and try again seconds later.
WATCH = [(1000, 1), (2000, 2), (3000, 2)]
# How often Sentinels do things; as they are, a failover on an idle machine takes many seconds. Two of them bound others that
# cannot be set: a replica is fit to be promoted if it answered within five ping-periods, and INFO is sent each second during
# a failover; one that says it is a master is made a replica again after four publish-periods, unless INFO was faster.
PERIODS = {'info-period': 200, 'ping-period': 300, 'ask-period': 100, 'publish-period': 500, 'tilt-trigger': 600000,
           'min-link-reconnect-period': 300}
FAILOVER = 40   # seconds that one may take, with everything else that the machine does


class Node(RedisServer):
    """One that Sentinels reconfigure: they let it write its own configuration, a copy."""

    def __init__(self, **settings):
        super().__init__(**{'repl-diskless-sync-delay': '0', 'repl-ping-replica-period': '1', **settings})
        self.conf = shutil.copy(CONF, os.path.join(self.home, 'redis.conf'))
        self.login = settings.get('requirepass')

    def admin(self, **options):
        return self.link(password=self.login, **options)

    def role(self):
        return self.admin().execute_command('ROLE')[0].decode()

    def follows(self, port):
        """As a replica that has caught up. Who becomes one ends its connections, also that which asks."""
        try:
            replication = self.admin().info('replication')
        except redis.ConnectionError:
            return False
        return (replication['role'] == 'slave' and replication['master_port'] == port
                and replication['master_link_status'] == 'up')


class Sentinel(RedisServer):
    def __init__(self, port, name, watch, password=None, login=None):
        super().__init__()
        self.watch = watch
        self.login = login
        self.password = password
        self.conf = os.path.join(self.home, 'sentinel.conf')
        lines = ['port %d' % self.port, 'bind 127.0.0.1', 'unixsocket "%s"' % self.socket, 'dir "%s"' % self.home]
        if password:
            lines += ['requirepass "%s"' % password, 'sentinel sentinel-pass "%s"' % password]
        lines += ['sentinel %s %s %s' % setting for setting in self.settings_of(name, port)]
        with open(self.conf, 'w', encoding='utf-8') as file:
            file.write('\n'.join(lines) + '\n')

    def settings_of(self, name, port):
        down_ms, quorum = self.watch
        yield 'monitor', name, '127.0.0.1 %d %d' % (port, quorum)
        yield 'down-after-milliseconds', name, down_ms
        yield 'failover-timeout', name, 2000
        yield 'parallel-syncs', name, 2
        if self.login:
            yield 'auth-pass', name, self.login

    def monitor(self, name, port):
        """Watches this master from now on, too."""
        for setting, _, value in self.settings_of(name, port):
            words = str(value).split()
            self.tell(*(['MONITOR', name] + words if setting == 'monitor' else ['SET', name, setting] + words))

    def start(self):
        with open(os.path.join(self.home, 'redis.log'), 'a', encoding='utf-8') as log:
            self.process = subprocess.Popen(['redis-server', self.conf, '--sentinel'], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        wait_for(self.answers, what='the start of a Sentinel')
        self.tell('DEBUG', *(word for period in PERIODS.items() for word in period))
        return self

    def answers(self):
        try:
            return self.link(password=self.password).ping()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            assert self.process.poll() is None, 'the Sentinel ended at its start'
            return False

    def tell(self, *words):
        link = self.link(password=self.password, decode_responses=True)
        link.response_callbacks.clear()  # other versions of the client make other things of the same answer
        return link.execute_command('SENTINEL', *words)

    def says(self, name):
        """What it knows of the master, such as {'num-slaves': '2'}, and of each of its replicas."""
        words = [self.tell('MASTER', name)] + self.tell('REPLICAS', name)
        return [dict(zip(one[::2], one[1::2])) for one in words]

    def master_port(self, name):
        return int(self.tell('GET-MASTER-ADDR-BY-NAME', name)[1])


class RedisGroup:
    def __init__(self, name=NAME, password=None, sentinel_password=None, **settings):
        if password:
            settings.update(requirepass=password, masterauth=password)
        self.name = name
        self.nodes = [Node(**settings) for _ in range(3)]
        self.sentinels = [Sentinel(self.nodes[0].port, name, watch, sentinel_password, password) for watch in WATCH]

    @property
    def addresses(self):
        return ','.join('127.0.0.1:%d' % sentinel.port for sentinel in self.sentinels)

    @property
    def master(self):
        """As the Sentinels that answer say, once they agree."""
        ports = {sentinel.master_port(self.name) for sentinel in self.sentinels if sentinel.runs and not sentinel.frozen}
        return next((node for node in self.nodes if ports == {node.port}), None)

    def replicas(self):
        return [node for node in self.nodes if node is not self.master]

    def start(self):
        try:
            self.start_all()
        except BaseException:
            self.close()
            raise
        return self

    def start_all(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes[1:]:
            node.admin().execute_command('REPLICAOF', '127.0.0.1', self.nodes[0].port)
        for sentinel in self.sentinels:
            sentinel.start()
        wait_for(lambda: all(node.follows(self.nodes[0].port) for node in self.nodes[1:]), FAILOVER, 'the replicas')
        wait_for(self.is_complete, FAILOVER, 'the Sentinels knowing each other')

    def is_complete(self):
        """The Sentinels know each other and two replicas in good order: a failover may come."""
        for sentinel in self.sentinels:
            master, *replicas = sentinel.says(self.name)
            if (master['num-slaves'], master['num-other-sentinels'], master['flags']) != ('2', '2', 'master'):
                return False
            if {(one['flags'], one['master-link-status']) for one in replicas} != {('slave', 'ok')}:
                return False
        return True

    def keep(self):
        """Whatever was written up to now has reached both replicas."""
        link = self.master.admin()
        link.set('mark', 1)  # WAIT waits for its own connection's last write
        assert link.execute_command('WAIT', 2, 10000) == 2

    def await_other_master(self, than):
        """Until the Sentinels agree on another one, and it takes writes."""
        def other():
            master = self.master
            return master if master not in (None, than) and master.role() == 'master' else None
        return wait_for(other, FAILOVER, 'the failover')

    def close(self):
        for server in self.sentinels + self.nodes:
            server.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


class FakeSentinel:
    """Answers each command with what `answer` (words of the command) gives: bytes."""

    def __init__(self, answer):
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    while True:
                        head = self.rfile.readline()
                        if not head:
                            return
                        words = []
                        for _ in range(int(head[1:])):
                            words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2].decode())
                        fake.asked += 1
                        self.wfile.write(fake.answer(words))
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.answer = answer
        self.asked = 0
        self.server = Server(('127.0.0.1', free_port()), Handler)
        self.address = '127.0.0.1:%d' % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def bulk(*words):
    """A list of strings, as Redis writes it."""
    return b'*%d\r\n' % len(words) + b''.join(b'$%d\r\n%s\r\n' % (len(word), word) for word in map(str.encode, words))


def words_of_a_sentinel(port, epoch, host='127.0.0.1'):
    """The answers of a proper one, for FakeSentinel."""
    def answer(words):
        if words[0] == 'PING':
            return b'+PONG\r\n'
        if words[1] == 'MASTER':
            return bulk('name', words[2], 'ip', host, 'port', str(port), 'config-epoch', str(epoch))
        return bulk(host, str(port))
    return answer
