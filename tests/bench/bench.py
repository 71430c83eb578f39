"""
make bench: measures this service beside an nginx that passes straight to the simulator and beside a service in Python that does
the same, all on this machine at once; prints one Markdown table, and leaves every measurement as JSON in RUN_DIR: bench.json,
or bench-PART….json when only parts were asked for.

  bench.py [quick] [PART...]     throughput streams memory workers instructions; only when asked for: crowd long

quick              a look, within two minutes
show               only prints the tables of what was measured before: of each bench*.json in RUN_DIR
BENCH_RUNS         how often each thing is measured (3)
BENCH_SECONDS      how long each measurement of throughput lasts, in whole seconds (4)
BENCH_CLIENTS      at which numbers of clients (1 16 64 256 1024)
BENCH_STREAMS      how many open streams memory is measured at (1000 5000)
BENCH_MINUTES      how long the long load lasts (10)
"""
import glob
import json
import os
import resource
import signal
import sys

import crowd
import endurance
import instructions
import memory
import pace
import report
import throughput
from generators import Void
from machine_facts import facts, sentence
from servers import TOP

PARTS = {
    'throughput': throughput.measure,
    'workers': throughput.measure_workers,
    'streams': pace.measure,
    'memory': memory.measure,
    'instructions': instructions.measure,
    'crowd': crowd.measure,
    'long': endurance.measure,
}
ONLY_WHEN_ASKED_FOR = {'crowd', 'long'}


class Options:
    def __init__(self, words, env):
        quick = 'quick' in words

        def numbers(name, usual, in_short):
            return [int(word) for word in (env.get(name) or (in_short if quick else usual)).split()]

        self.quick = quick
        self.runs, = numbers('BENCH_RUNS', '3', '1')
        self.seconds, = numbers('BENCH_SECONDS', '4', '1')
        self.clients = numbers('BENCH_CLIENTS', '1 16 64 256 1024', '1 64')
        self.streams = numbers('BENCH_STREAMS', '1000 5000', '1000')
        self.minutes = float(env.get('BENCH_MINUTES') or 10)
        self.run_dir = os.path.join(TOP, env.get('RUN_DIR') or 'run')
        self.parts = [word for word in words if word != 'quick'] or [part for part in PARTS if part not in ONLY_WHEN_ASKED_FOR]


def show(results):
    text = [sentence(results['facts']), report.table(results), report.remarks(results)]
    print('\n\n'.join(part for part in text if part))


def show_all(run_dir):
    for path in sorted(glob.glob(os.path.join(run_dir, 'bench*.json'))):
        with open(path) as file:
            show(json.load(file))
        print()


def main(words):
    options = Options(words, os.environ)
    if words == ['show']:
        show_all(options.run_dir)
        return
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        sys.exit('bench: no such part: %s; there are: quick %s' % (' '.join(sorted(unknown)), ' '.join(PARTS)))
    os.makedirs(options.run_dir, exist_ok=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # whoever we start needs a descriptor per stream, or two
    results = {'facts': facts()}
    for part in options.parts:
        print('bench: %s' % part, file=sys.stderr)
        results[part] = PARTS[part](options)
    show(results)
    path = os.path.join(options.run_dir, 'bench%s.json' % ''.join('-' + word for word in words))
    with open(path, 'w') as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
    print('bench: every measurement is in %s' % path, file=sys.stderr)
    if any('void' in each or 'missed' in each for each in report.measurements(results)):
        sys.exit(1)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    try:
        main(sys.argv[1:])
    except Void as void:
        sys.exit('bench: %s' % void)
