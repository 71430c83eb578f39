"""
How many instructions the worker and nginx execute for a chat and for a chunk, counted by callgrind: user space only, and
steady from run to run, whatever else the machine does.
"""
import glob
import os
import re
import shutil
import statistics
import subprocess

from servers import Asker, same_front, service, straight

WORD = '扣子 Coze 😀,'  # of one chunk
WARM = 100
PACE_MS = 2  # chunks that come one by one: each is read, passed on and sent by itself


class Counter:
    """Callgrind's count of one process. `directory` has what it writes."""

    def __init__(self, directory):
        self.directory = directory
        self.pid = None
        self.dumps = 0

    @property
    def prefix(self):
        return os.path.join(self.directory, 'vgdb')

    def wrapper(self):
        return ['valgrind', '-q', '--tool=callgrind', '--trace-children=yes', '--vgdb-prefix=' + self.prefix,
                '--callgrind-out-file=' + os.path.join(self.directory, 'count.%p')]

    def dump(self):
        """Has callgrind write down what it counted, and begin anew. Takes a while: wait for the process that is returned."""
        self.dumps += 1
        return subprocess.Popen(['vgdb', '--vgdb-prefix=' + self.prefix, '--pid=%d' % self.pid, 'dump'],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def read(self, keep):
        """Instructions between the last two dumps; `keep`: where to put the profile."""
        path = os.path.join(self.directory, 'count.%d.%d' % (self.pid, self.dumps))
        with open(path) as file:
            total = int(re.search(r'^(?:summary|totals): (\d+)', file.read(), re.M)[1])
        shutil.copy(path, keep)
        return total


class Lab:
    """The service with one worker, and an nginx before it; a third nginx goes straight to the simulator. All are counted."""

    def __init__(self, profiles, tls=False):
        self.profiles = profiles
        self.tls = tls
        self.counters = {}
        self.started = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self):
        stack = self.stack = service(workers=1, tls=self.tls, sim={'SIM_WORKERS': 1})
        self.started.append(stack)
        worker = self.counter('worker')
        stack.set(CHATD_WRAPPER=' '.join(worker.wrapper()))
        stack.start()
        worker.pid = stack.worker_pids()[0]
        self.service = self.nginx('nginx', same_front)
        self.straight = self.nginx('straight', straight)

    def nginx(self, name, make):
        counter = self.counter(name)
        server = make(self.stack, counter.wrapper())
        self.started.append(server)
        counter.pid = server.start().process.pid
        return Asker(server.port)

    def counter(self, name):
        directory = os.path.join(self.stack.home, 'count-' + name)
        os.mkdir(directory)
        self.counters[name] = Counter(directory)
        return self.counters[name]

    def count(self, name, asker, path, times, chunks, gap_ms=0):
        """Instructions of each process for one chat, on average."""
        self.stack.sim.default(deltas=[WORD] * chunks, **({'gap_ms': gap_ms} if gap_ms else {}))
        asker.ask(path)
        self.dump()
        for _ in range(times):
            asker.ask(path)
        self.dump()
        return {who: counter.read(os.path.join(self.profiles, '%s-%s.callgrind' % (who, name))) / times
                for who, counter in self.counters.items()}

    def dump(self):
        for process in [counter.dump() for counter in self.counters.values()]:
            assert process.wait(60) == 0, 'vgdb failed'

    def warm(self):
        for asker, path in (self.service, '/chat'), (self.service, '/chat/stream'), (self.straight, '/v3/chat'):
            for _ in range(WARM):
                asker.ask(path)

    def close(self):
        for server in reversed(self.started):
            server.close()

    def __exit__(self, *_):
        self.close()


def one_round(lab, times):
    """All counts once, by the names of the results."""
    few = max(times // 10, 5)
    chat = lab.count('chat', lab.service, '/chat', times, 10)
    stream = lab.count('stream', lab.service, '/chat/stream', times, 10)
    more = lab.count('stream-110', lab.service, '/chat/stream', times // 2, 110)
    found = {'worker /chat': chat['worker'], 'worker /chat/stream': stream['worker'],
             'worker chunk at once': (more['worker'] - stream['worker']) / 100,
             'nginx /chat': chat['nginx'], 'nginx /chat/stream': stream['nginx']}
    if lab.tls:
        return found
    slow = lab.count('paced', lab.service, '/chat/stream', few, 10, PACE_MS)
    slow_more = lab.count('paced-110', lab.service, '/chat/stream', few, 110, PACE_MS)
    direct = lab.count('direct', lab.straight, '/v3/chat', times, 10)
    direct_slow = lab.count('direct-paced', lab.straight, '/v3/chat', few, 10, PACE_MS)
    direct_more = lab.count('direct-paced-110', lab.straight, '/v3/chat', few, 110, PACE_MS)
    found.update({'worker chunk': (slow_more['worker'] - slow['worker']) / 100,
                  'nginx chunk': (slow_more['nginx'] - slow['nginx']) / 100,
                  'straight /v3/chat': direct['straight'],
                  'straight chunk': (direct_more['straight'] - direct_slow['straight']) / 100})
    return found


def measure(options):
    """{'http': {name: median}, 'tls': …, 'spread': {'http': {name: …}, 'tls': …}}"""
    runs, times = options.runs, 20 if options.quick else 100
    profiles = os.path.join(options.run_dir, 'bench-profiles')
    os.makedirs(profiles, exist_ok=True)
    for old in glob.glob(os.path.join(profiles, '*', '*.callgrind')):
        os.unlink(old)
    results = {'chats': times, 'runs': runs, 'spread': {}}
    for kind in 'http', 'tls':
        where = os.path.join(profiles, kind)
        os.makedirs(where, exist_ok=True)
        with Lab(where, tls=kind == 'tls') as lab:
            lab.warm()
            rounds = [one_round(lab, times) for _ in range(runs)]
        results[kind] = {name: round(statistics.median(each[name] for each in rounds)) for name in rounds[0]}
        results['spread'][kind] = {name: spread([each[name] for each in rounds]) for name in rounds[0]}
    return results


def spread(values):
    """How far runs are apart, as a share."""
    return round((max(values) - min(values)) / statistics.median(values), 4)


