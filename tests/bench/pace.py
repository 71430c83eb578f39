"""
When chunks come, beside nginx alone: the first one, and the rhythm of those that the simulator makes at a steady pace.
"""
from generators import Void, streams
from servers import Field
from usage import Meter

WORD = '扣子 Coze 😀,'
CHUNKS = 64
GAP_MS = 20
SOME, MANY = 64, 512
LATE_MS = 100


def measured(target, kind, count, *options):
    found = {'target': target.name, 'kind': kind}
    try:
        with Meter(target.groups) as meter:
            found.update(streams(target.port, target.stream, count, *options))
    except Void as void:
        return {**found, 'void': str(void)}
    found.update(others=meter.others, cpu_us_per_chunk={name: 1e6 * used / found['chunks'] for name, used in meter.cpu.items()})
    return found


def measure(options):
    """
    A list of measurements: `one`: one client, answers as fast as they can be; `some`: 64 clients, paced answers one after
    the other; `many`: 512 paced answers, opened within a second.
    """
    found = []
    pace = {'deltas': [WORD] * CHUNKS, 'gap_ms': GAP_MS}
    paced = ('-k', CHUNKS, '-g', GAP_MS, '-l', LATE_MS)
    seconds = max(options.seconds, 2)
    with Field() as field:
        for run in range(options.runs):
            for target in field.targets:
                field.clear()
                found.append({'run': run, **measured(target, 'one', 1, '-d', seconds, '-W', seconds / 10, '-k', 10)})
            for target in field.targets:
                field.clear(**pace)
                found.append({'run': run, **measured(target, 'some', SOME, '-r', SOME, '-d', seconds, *paced)})
            for target in field.targets[:2]:
                field.clear(**pace)
                found.append({'run': run, **measured(target, 'many', MANY, '-r', MANY, *paced)})
    return found
