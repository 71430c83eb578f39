"""
What an open stream costs in memory: many of them are opened, each gets a chunk now and then, and the processes are looked at
before and while they are open.
"""
import resource

from generators import OpenStreams, Void, streams
from servers import Field, forget, service, service_target
from usage import pss_kib, settle

WORD = '扣子 Coze 😀,'
SLOW = {'deltas': [WORD] * 600, 'gap_ms': 1000}
RATE = 1000  # per second, at first
REFERENCE_STREAMS = 1000


def warm(target):
    """What is allocated once must not count for the streams."""
    streams(target.port, target.stream, 8, '-d', 0.3)


def measured(stack, target, count):
    warm(target)
    settle(target.groups)
    forget(stack)
    stack.sim.default(**SLOW)
    before = {name: pss_kib(pids) for name, pids in target.groups.items()}
    with OpenStreams(target.port, target.stream, count, '-r', RATE):
        growth = {name: pss_kib(pids) - before[name] for name, pids in target.groups.items()}
        connections = stack.sim.stats()['connections']
    return {'connections_to_coze': connections, 'kib_per_stream': {name: kib / count for name, kib in growth.items()}, 'worker_kib_before': before['worker'],
            'processes': len(target.groups['worker'])}


def attempt(found, measure_it):
    try:
        found.update(measure_it())
    except Void as void:
        found['void'] = str(void)
    return found


def of_service(kind, count):
    """With processes of its own: what an earlier crowd has left would hide a part of the growth."""
    with service(tls=kind == 'tls').start() as stack:
        return attempt({'target': 'service', 'coze': kind, 'streams': count}, lambda: measured(stack, service_target(stack), count))


def of_reference(count):
    with Field() as field:
        return attempt({'target': 'reference', 'coze': 'http', 'streams': count},
                       lambda: measured(field.stack, field.reference, count))


def measure(options):
    found = [of_service(kind, count) for kind in ('http', 'tls') for count in options.streams]
    found.append(of_reference(min(options.streams[0], REFERENCE_STREAMS)))
    return {'descriptor_limit': resource.getrlimit(resource.RLIMIT_NOFILE)[1], 'measurements': found}
