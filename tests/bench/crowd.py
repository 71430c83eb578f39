"""
A crowd: 10,000 streams that are open at once for a minute, through two workers, with Coze by HTTP/2 and TLS. Each gets a chunk
every few seconds; none may fail, and none may be late. And a burst: 5,000 that come in the same moment.
"""
import os
import resource
import threading

from generators import Void, streams
from servers import forget, service, service_target
from usage import Meter, pss_kib, settle

STREAMS = 10000
SECONDS = 60    # for which all are open
RATE = 500      # begun per second
GAP_MS = 3000
LATE_MS = {'crowd': 1000, 'burst': 3000}  # behind its time; of a burst, all chunks come in the same moment
BURST = 5000
WORKERS = 2
WORD = '扣子 Coze 😀,'
ENOUGH = 65536      # descriptors
KIB_PER_STREAM = 120  # of all processes together, roughly


def raise_limit():
    """Root may have more descriptors than it was given; whoever is started inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, ENOUGH),) * 2)
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def in_the_way(count):
    """Which limits of this machine are too low for so many streams, as texts."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fronts = os.cpu_count()
    shares = [('the client', count), ('each of %d nginx processes' % fronts, 2 * count / fronts), ('each of %d workers' % WORKERS, count / WORKERS)]
    # nginx' processes never share the connections quite evenly, and nor do the workers.
    found = ['%s needs some %d descriptors, and gets %d (ulimit -Hn)' % (who, share * 1.2 + 300, descriptors)
             for who, share in shares if share * 1.2 + 300 > descriptors]
    with open('/proc/sys/net/ipv4/ip_local_port_range') as file:
        first, last = map(int, file.read().split())
    if last - first < count:
        found.append('the client needs %d ports, and there are %d (net.ipv4.ip_local_port_range)' % (count, last - first))
    with open('/proc/meminfo') as file:
        available = next(int(line.split()[1]) for line in file if line.startswith('MemAvailable:'))
    if available < count * KIB_PER_STREAM:
        found.append('%d MiB of memory are needed, and %d are available' % (count * KIB_PER_STREAM >> 10, available >> 10))
    return found


def look(stack, groups):
    """What the processes hold just now."""
    return {'pss_kib': {name: pss_kib(pids) for name, pids in groups.items()},
            'descriptors': {name: sum(len(os.listdir('/proc/%d/fd' % pid)) for pid in groups[name]) for name in ('worker', 'nginx')},
            'open_at_coze': stack.sim.stats()['open_streams'], 'connections_to_coze': stack.sim.stats()['connections']}


class Later:
    """`with` looks at the processes after so many seconds; `found` is what was seen."""

    def __init__(self, seconds, stack, groups):
        self.found = None
        self.timer = threading.Timer(seconds, self.look, (stack, groups))

    def look(self, stack, groups):
        self.found = look(stack, groups)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        self.timer.join()


def held(kind, count, chunks, look_after, *options):
    """Streams of so many chunks; the processes are looked at before, while all are open, and afterwards."""
    with service(workers=WORKERS, tls=True, STREAM_TIMEOUT_SECONDS='600').start() as stack:
        target = service_target(stack)
        streams(target.port, target.stream, 8, '-d', 0.3)  # what is allocated once must not count
        settle(target.groups)
        forget(stack)
        stack.sim.default(deltas=[WORD] * chunks, gap_ms=GAP_MS)
        before = look(stack, target.groups)
        with Meter(target.groups) as meter, Later(look_after, stack, target.groups) as during:
            found = streams(target.port, target.stream, count, '-k', chunks, '-g', GAP_MS, '-l', LATE_MS[kind],
                            '-t', chunks * GAP_MS / 1000 + 60, *options)
        settle(target.groups)
        found.update(kind=kind, before=before, open=during.found, after=look(stack, target.groups), others=meter.others,
                     cpu_us_per_chunk={name: 1e6 * used / found['chunks'] for name, used in meter.cpu.items()}, chunks_each=chunks)
    if found['late_us']['over']:
        found['missed'] = '%d of %d chunks came more than %d ms late' % (found['late_us']['over'], found['chunks'], LATE_MS[kind])
    return found


def measure(options):
    raise_limit()
    count, burst, seconds = (1000, 500, 6) if options.quick else (STREAMS, BURST, SECONDS)
    obstacles = in_the_way(count)
    if obstacles:
        raise Void('no %d streams here: %s' % (count, '; '.join(obstacles)))
    opening = count / RATE
    chunks = int((opening + seconds) * 1000 / GAP_MS) + 1
    return {'seconds': seconds, 'measurements': [held('burst', burst, 3, GAP_MS / 1000 * 1.5),
                                                 held('crowd', count, chunks, opening + seconds / 2, '-r', RATE)]}
