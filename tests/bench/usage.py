"""
What processes use: seconds of CPU and memory, as the kernel counts them; and what the rest of the machine did meanwhile.
"""
import glob
import os
import resource
import time

TICK = os.sysconf('SC_CLK_TCK')


def family(pid):
    """A process and its children."""
    with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
        return [pid, *map(int, file.read().split())]


def cpu_seconds(pids):
    """Of all threads of these processes so far."""
    total = 0
    for pid in pids:
        for path in glob.glob('/proc/%d/task/*/schedstat' % pid):
            with open(path) as file:
                total += int(file.read().split()[0])
    return total / 1e9


def pss_kib(pids):
    """Memory of these processes: what each has for itself, and its part of what they share."""
    total = 0
    for pid in pids:
        with open('/proc/%d/smaps_rollup' % pid) as file:
            total += next(int(line.split()[1]) for line in file if line.startswith('Pss:'))
    return total


def machine_seconds():
    """(busy, stolen by the hypervisor), of all cores."""
    with open('/proc/stat') as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


def our_seconds():
    """Of this process and of those that it has waited for: the load."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


class Meter:
    """
    with Meter({'worker': pids, ...}) as meter: ... - afterwards meter.cpu has the seconds of each group and of `load`, and
    meter.others the share of the machine's CPU that went to anything else.
    """

    def __init__(self, groups):
        self.groups = groups

    def read(self):
        return time.monotonic(), machine_seconds(), our_seconds(), {name: cpu_seconds(pids) for name, pids in self.groups.items()}

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *_):
        (began, (busy, stolen), (own, load), groups), (ended, (busy2, stolen2), (own2, load2), groups2) = self.before, self.read()
        self.seconds = ended - began
        self.cpu = {name: groups2[name] - groups[name] for name in groups}
        self.cpu['load'] = load2 - load
        ours = sum(self.cpu.values()) + own2 - own
        self.others = max(0.0, busy2 - busy - ours + stolen2 - stolen) / (self.seconds * os.cpu_count())


def settle(groups, seconds=10):
    """Waits until these processes have nothing left to do."""
    pids = [pid for group in groups.values() for pid in group]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = cpu_seconds(pids)
        time.sleep(0.05)
        if cpu_seconds(pids) - before < 0.005:
            return
