"""
A long load: does speed hold, and does memory? Both routes in turn, in slices, with a look at the processes between them.
"""
import sys

from generators import wrk
from servers import service, service_target
from usage import Meter, pss_kib

CLIENTS = 64
SLICE_SECONDS = 15
SESSIONS = 50000  # of each of wrk's threads: new ones without end would fill Redis, as they should


def measure(options):
    """{'slices': [...]}: after each one, the messages so far and the memory of the processes."""
    slices, total = [], 0
    with service(sim={'SIM_STRICT_CONVERSATIONS': 0}).start() as stack:
        target = service_target(stack)
        while sum(each['seconds'] for each in slices) < options.minutes * 60:
            path = target.stream if len(slices) % 2 else target.chat
            with Meter(target.groups) as meter:
                found = wrk(target.port, path, CLIENTS, min(SLICE_SECONDS, options.minutes * 60), SESSIONS)
            total += found['requests']
            found.update(path=path, messages=total, others=meter.others,
                         pss_kib={name: pss_kib(pids) for name, pids in target.groups.items()})
            slices.append(found)
            print('bench: %d messages, %.0f per second, workers %d KiB' % (
                total, found['per_second'], found['pss_kib']['worker']), file=sys.stderr)
        assert stack.worker_pids() == target.groups['worker'], 'a worker was replaced'
    return {'slices': slices}
