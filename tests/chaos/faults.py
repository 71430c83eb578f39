"""
What is done to the service during a chaos run. Each victim - workers, master, Redis, nginx, Coze - has a thread of its own
that hurts it again and again, so that any two of them may be in trouble at once. What is chosen comes from the seed alone;
when it happens also depends on how long the things before took.
"""
import contextlib
import os
import random
import re
import signal
import threading
import time

import redis
import requests

from probe import Beside
from stack import Sim, wait_for

AWAY = '127.0.0.2'  # where the simulator is while it is away: the service does not know


class Fault:
    """begin, end: Unix time; `end` is None while it lasts. `victims`: the numbers of the workers that were hurt."""

    def __init__(self, kind, victims=()):
        self.kind, self.victims = kind, set(victims)
        self.begin, self.end = time.time(), None

    def overlaps(self, begin, end):
        return self.begin <= end and (self.end is None or self.end >= begin)


class Faults:
    """All that happened, in the order of its beginning. `killed`: (pid, signal) of each worker's end that was our doing."""

    def __init__(self):
        self.all, self.killed, self.troubles = [], set(), []

    @contextlib.contextmanager
    def fault(self, kind, victims=()):
        fault = Fault(kind, victims)
        self.all.append(fault)
        try:
            yield fault
        finally:
            fault.end = time.time()

    def of(self, pattern):
        return [fault for fault in self.all if re.match(pattern, fault.kind)]


class Coze(Sim):
    """The simulator, which can go away, and come back with all that it knows."""

    def __init__(self, sim):
        self.__dict__ = sim.__dict__

    def move(self, host):
        self.env['SIM_HOST'] = host
        self.call('reload')
        self.control = 'http://%s:%d/_sim' % (host, self.port)

    def crash(self):
        """Its one process dies with all its connections; the next one knows what it knew."""
        with open(os.path.join(self.home, 'nginx.pid'), encoding='ascii') as file:
            master = int(file.read())
        for pid in children(master):
            os.kill(pid, signal.SIGKILL)

    def conversations(self, count):
        """Ids of new conversations."""
        with requests.Session() as session:
            session.headers['Authorization'] = 'Bearer ' + self.env['SIM_TOKEN']
            url = 'http://127.0.0.1:%d/v1/conversation/create' % self.port
            return [session.post(url, json={}, timeout=10).json()['data']['id'] for _ in range(count)]


class Pulse(Beside):
    """with Pulse(coze) as pulse: ... `silences`: when the simulator answered nobody for longer, though nothing was done to it."""

    LONGEST = 0.5  # seconds

    def __init__(self, coze):
        super().__init__()
        self.coze, self.silences = coze, []

    def watch(self):
        last = time.time()
        while not self.stopping.wait(0.1):
            with contextlib.suppress(requests.exceptions.RequestException):
                self.coze.stats()
                now = time.time()
                if now - last > self.LONGEST:
                    self.silences.append((last, now))
                last = now


def children(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid), encoding='ascii') as file:
        return [int(child) for child in file.read().split()]


def name_of(pid):
    try:
        with open('/proc/%d/comm' % pid, encoding='ascii') as file:
            return file.read().strip()
    except OSError:
        return ''


def workers_of(stack):
    """{pid: number} of the workers that the master has; an old one and its successor have the same number."""
    master = stack.pids().get('workers')
    try:
        names = {pid: name_of(pid) for pid in children(master)} if master else {}
    except OSError:
        return {}
    return {pid: int(name.split()[-1]) for pid, name in names.items() if name.startswith('chatd worker ')}


def nginx_workers(stack):
    master = stack.pids().get('nginx')
    try:
        return children(master) if master else []
    except OSError:
        return []


class Deck:
    """Deals what it was made of at random: first each once, then each as often as its weight says, again and again."""

    def __init__(self, rng, weights):
        self.rng, self.weights, self.cards = rng, weights, list(weights)
        rng.shuffle(self.cards)

    def deal(self):
        if not self.cards:
            self.cards = [card for card, weight in self.weights.items() for _ in range(weight)]
            self.rng.shuffle(self.cards)
        return self.cards.pop()


class Lane(threading.Thread):
    """Hurts one victim, with pauses in between, until told to stop. The methods named in KINDS do it."""

    KINDS = {}  # method: weight
    PAUSE = (3, 9)  # seconds

    def __init__(self, chaos, number):
        super().__init__(name=type(self).__name__)
        self.chaos, self.stack, self.faults = chaos, chaos.stack, chaos.faults
        self.rng = random.Random('%s:%s:%d' % (chaos.seed, self.name, number))
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        deck = Deck(self.rng, self.KINDS)
        try:
            while not self.stopping.wait(self.rng.uniform(*self.PAUSE)):
                getattr(self, deck.deal())()
        except Exception as error:  # told in the end
            self.error = '%s: %r' % (self.name, error)
            raise

    def last(self, low, high):
        """How long a fault lasts; the end of the run ends it, too."""
        self.stopping.wait(self.rng.uniform(low, high))

    def up(self):
        """As an operator would: again and again until all of it runs, whatever else is in trouble."""
        wait_for(lambda: self.stack.call('up').returncode == 0, 90, 'everything being up again')


class Workers(Lane):
    KINDS = {'kill': 6, 'kill_all': 1, 'term': 4, 'stop': 5, 'stop_long': 1}

    def signal(self, pid, number):
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.faults.killed.add((pid, int(number)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def choose(self):
        pids = workers_of(self.stack)
        if not pids:
            return None, None
        pid = self.rng.choice(sorted(pids))
        return pid, pids[pid]

    def hurt(self, kind, number):
        pid, worker = self.choose()
        if pid is not None:
            with self.faults.fault(kind, [worker]):
                self.signal(pid, number)

    def kill(self):
        self.hurt('worker killed', signal.SIGKILL)

    def term(self):
        self.hurt('worker terminated', signal.SIGTERM)

    def kill_all(self):
        pids = workers_of(self.stack)
        with self.faults.fault('all workers killed', pids.values()):
            for pid in pids:
                self.signal(pid, signal.SIGKILL)

    def stop(self, seconds=(0.2, 2), kind='worker stopped'):
        pid, worker = self.choose()
        if pid is None:
            return
        with self.faults.fault(kind, [worker]):
            self.signal(pid, signal.SIGSTOP)
            try:
                self.last(*seconds)
            finally:
                self.signal(pid, signal.SIGCONT)

    def stop_long(self):
        self.stop((self.chaos.LOCK_SECONDS + 1, self.chaos.LOCK_SECONDS + 3), 'worker stopped for long')


class Master(Lane):
    KINDS = {'reload': 4, 'change': 5, 'stop': 2, 'kill': 1}
    PAUSE = (4, 12)
    CHANGES = {'CHAT_TIMEOUT_SECONDS': ['15', '16'], 'WORKERS': ['2', '3'], 'COZE_CHAT_MODE': ['stream', 'poll'],
               'COZE_MIN_INTERVAL_MS': ['4', '0'], 'LOG_FORMAT': ['text', 'json'], 'COZE_BASE_URL': []}

    def reload(self):
        """HUP, with the same settings."""
        with self.chaos.service_lock:
            master = self.stack.pids()['workers']
            before = self.told()
            with self.faults.fault('reload'):
                os.kill(master, signal.SIGHUP)
                wait_for(lambda: self.told()[0] > before[0] and self.told()[1] != 'starting', 90, 'the end of a reload')
            assert self.told()[1] == 'ok', 'the reload was %s' % self.told()[1]

    def told(self):
        with open(os.path.join(self.stack.run_dir, 'coze-chatd.state'), encoding='ascii') as file:
            number, result = file.read().split()
        return int(number), result

    def change(self):
        """Another value of one setting. `env/service reload` fails when health does, as while Redis is away."""
        name = self.rng.choice(sorted(self.CHANGES))
        values = self.CHANGES[name] or self.chaos.base_urls
        old = self.stack.env[name]
        new = self.rng.choice([value for value in values if value != old])
        with self.chaos.service_lock, self.faults.fault('reload, changed settings'):
            self.stack.set(**{name: new})
            done = self.stack.call('reload')
        assert done.returncode == 0 or 'not healthy' in done.stderr, done.stderr

    def stop(self):
        with self.faults.fault('master stopped'):
            master = self.stack.pids()['workers']
            os.kill(master, signal.SIGSTOP)
            try:
                self.last(0.2, 2)
            finally:
                os.kill(master, signal.SIGCONT)

    def kill(self):
        """Its workers end what they have; a new one is started."""
        with self.chaos.service_lock, self.faults.fault('master killed'):
            os.kill(self.stack.pids()['workers'], signal.SIGKILL)
            self.last(0, 0.5)
            self.up()


class Redis(Lane):
    KINDS = {'restart': 2, 'kill': 2, 'freeze': 3, 'pause': 2, 'cut_clients': 3, 'flush_scripts': 2}
    PAUSE = (4, 12)
    LONGEST = 2.5

    def __init__(self, chaos, number):
        super().__init__(chaos, number)
        self.server = chaos.redis

    def restart(self):
        with self.faults.fault('Redis restarted'):
            self.server.stop()
            self.last(0, self.LONGEST)
            self.server.start()

    def kill(self):
        with self.faults.fault('Redis killed'):
            self.server.kill()
            self.last(0, self.LONGEST)
            self.server.start()

    def freeze(self):
        with self.faults.fault('Redis frozen'):
            self.server.freeze()
            try:
                self.last(0.2, self.LONGEST)
            finally:
                self.server.thaw()

    def pause(self):
        """It answers late, but in time."""
        with self.faults.fault('Redis slow'):
            end = time.monotonic() + self.rng.uniform(0.5, 2)
            while time.monotonic() < end and not self.stopping.is_set():
                self.tell('CLIENT', 'PAUSE', str(self.rng.randint(50, 300)), 'ALL')
                self.last(0.05, 0.4)

    def cut_clients(self):
        with self.faults.fault('Redis connections cut'):
            for kind in ('normal', 'pubsub'):
                self.tell('CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes')

    def flush_scripts(self):
        with self.faults.fault('Redis scripts flushed'):
            self.tell('SCRIPT', 'FLUSH')

    def tell(self, *words):
        with contextlib.suppress(redis.exceptions.RedisError):
            link = self.server.link()
            link.execute_command(*words)
            link.close()


class Nginx(Lane):
    KINDS = {'reload': 3, 'kill_worker': 4, 'restart': 2}
    PAUSE = (4, 12)

    def reload(self):
        with self.chaos.service_lock, self.faults.fault('nginx reloaded'):
            os.kill(self.stack.pids()['nginx'], signal.SIGHUP)

    def kill_worker(self):
        with self.faults.fault('nginx worker killed'):
            pids = nginx_workers(self.stack)
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.rng.choice(pids), signal.SIGKILL)

    def restart(self):
        with self.chaos.service_lock, self.faults.fault('nginx restarted'):
            pid = self.stack.pids()['nginx']
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: self.stack.pids().get('nginx') != pid, 20, 'the end of nginx')
            self.up()


class CozeLane(Lane):
    """Beside the messages that Coze fails by themselves: what all of them meet for a while."""

    KINDS = {'fail': 10, 'slow': 3, 'away': 2, 'crash': 2, 'cancel_fails': 2}
    FAILS = {
        'answers 500': {'fault': 'http', 'http_status': 500}, 'answers 502': {'fault': 'http', 'http_status': 502, 'html': True},
        'answers 429': {'fault': 'http', 'http_status': 429, 'retry_after': 1}, 'says 4013': {'fault': 'sse_error', 'code': 4013},
        'says 4016': {'fault': 'occupied'}, 'says 4020': {'fault': 'json_error', 'code': 4020},
        'says 4002': {'fault': 'unknown_conversation'}, 'fails chats': {'fault': 'chat_failed'},
        'resets': {'fault': 'cut', 'cut_after': -1}, 'resets within answers': {'fault': 'cut', 'cut_after': 2},
        'closes within answers': {'fault': 'cut', 'cut_how': 'fin', 'cut_after': 1}, 'ends early': {'fault': 'eof', 'cut_after': 1},
        'stalls': {'fault': 'stall_header', 'stall_ms': 9000}, 'stalls within answers': {'fault': 'stall', 'stall_ms': 9000},
    }

    def __init__(self, chaos, number):
        super().__init__(chaos, number)
        self.fails = Deck(self.rng, dict.fromkeys(self.FAILS, 1))

    def window(self, kind, path='/v3/chat', low=0.3, high=2.5, **sim):
        with self.faults.fault('Coze ' + kind):
            self.chaos.coze.default(path=path, **sim)
            self.last(low, high)
            self.chaos.coze.default(path=path)

    def fail(self):
        kind = self.fails.deal()
        self.window(kind, **self.FAILS[kind])

    def slow(self):
        self.window('is slow', high=4, **self.rng.choice([{'first_ms': 1500}, {'gap_ms': 200}, {'split': 97}]))

    def cancel_fails(self):
        self.window('does not cancel', path='/v3/chat/cancel', high=3,
                    **self.rng.choice([{'stall_ms': 1500}, {'fault': 'http', 'http_status': 500}, {'fault': 'cut'}]))

    def away(self):
        with self.faults.fault('Coze away'):
            self.chaos.coze.move(AWAY)
            try:
                self.last(0.2, 4)
            finally:
                self.chaos.coze.move('127.0.0.1')

    def crash(self):
        with self.faults.fault('Coze crashes'):
            self.chaos.coze.crash()
            wait_for(self.answers, 10, 'the simulator')

    def answers(self):
        with contextlib.suppress(requests.exceptions.RequestException):
            return self.chaos.coze.stats()
        return None


LANES = [Workers, Master, Redis, Nginx, CozeLane]
