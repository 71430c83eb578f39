"""
How many messages per second, how long each takes, and what that costs in CPU, at several numbers of clients; and, for the
service alone, with one worker, with two, and with Coze by HTTP/2 and TLS.
"""
from generators import Void, wrk
from servers import Asker, Field, forget, service, service_target
from usage import Meter, settle

MOST_OF_REFERENCE = 256  # clients; with more, only what its queue is like would be measured
WORKER_CLIENTS = 64
WARM = 30


def measured(target, route, clients, seconds):
    """One measurement, or why it is void."""
    path = target.stream if route == 'stream' else target.chat
    found = {'target': target.name, 'route': route, 'clients': clients}
    try:
        with Meter(target.groups) as meter:
            found.update(wrk(target.port, path, clients, seconds))
    except Void as void:
        return {**found, 'void': str(void)}
    found.update(others=meter.others, cpu_per_1000={name: 1000 * used / found['requests'] for name, used in meter.cpu.items()})
    return found


def warm(field):
    """What is made once must not count."""
    for target in field.targets:
        asker = Asker(target.port)
        for _ in range(WARM):
            asker.ask(target.chat)
            asker.ask(target.stream)
        asker.close()


def measure(options):
    """A list of measurements. The servers take turns, so that a change of the machine meets all of them."""
    found = []
    with Field() as field:
        turns = [(field.straight, 'both'), (field.service, 'chat'), (field.service, 'stream'), (field.reference, 'chat'),
                 (field.reference, 'stream')]
        warm(field)
        for clients in options.clients:
            for run in range(options.runs):
                for target, route in turns:
                    if target is field.reference and clients > MOST_OF_REFERENCE:
                        continue
                    field.clear()
                    found.append({'run': run, **measured(target, route, clients, options.seconds)})
    return found


def measure_workers(options):
    found = []
    with service(workers=1).start() as one, service().start() as two, service(tls=True).start() as tls:
        targets = [(one, service_target(one, 'one')), (two, service_target(two, 'two')), (tls, service_target(tls, 'tls'))]
        for run in range(options.runs):
            for route in 'chat', 'stream':
                for stack, target in targets:
                    settle(target.groups)
                    forget(stack)
                    found.append({'run': run, **measured(target, route, WORKER_CLIENTS, options.seconds)})
    return found
