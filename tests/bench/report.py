"""
The figures as one Markdown table, ratios first. What is shown are medians of the runs; a ratio is the median of the runs' ratios,
each between neighbours in time.
"""
import statistics

import crowd as crowd_part
import pace
from throughput import WORKER_CLIENTS

HEAD = ['', 'against nginx alone', 'against FastAPI', 'this service', 'nginx alone', 'FastAPI']
EMPTY = '–'
SHORT = 64  # clients at which the cost in CPU is told, or the number nearest to it
QUIET = 0.05  # of the CPU, that others may take
NOISY = ' So the machine was busy: only instructions, memory and counts say much.'
NAMES = {'chat': '`/chat`', 'stream': '`/chat/stream`'}


def number(value, digits=0):
    return '{:,.{}f}'.format(value, digits)


def times(value):
    return '%s ×' % number(value, 0 if value >= 10 else 2)


def added(value, digits=2):
    return '%+.*f' % (digits, value)


class Runs:
    """Measurements of the same thing, by run."""

    def __init__(self, found, **wanted):
        self.found = {each['run']: each for each in found
                      if 'void' not in each and all(each[key] == value for key, value in wanted.items())}

    def median(self, get):
        """None when every run is void."""
        values = [get(each) for each in self.found.values()]
        return statistics.median(values) if values else None

    def against(self, other, get, combine):
        """The median of combine(ours, theirs)."""
        values = [combine(get(each), get(other.found[run])) for run, each in self.found.items() if run in other.found]
        return statistics.median(values) if values else None


def ratio(ours, theirs):
    return ours / theirs if theirs else float('inf')


def difference(ours, theirs):
    return ours - theirs


def cell(value, show):
    return EMPTY if value is None else show(value)


def compared(name, runs, gets, show, combine=ratio, show_combined=times):
    """A row: runs are those of the service, of nginx alone and of FastAPI; each of gets(measurement) gives a figure."""
    service, straight, reference = runs

    def joined(values, show_it):
        return EMPTY if None in values else ' / '.join(map(show_it, values))
    return [name, joined([service.against(straight, get, combine) for get in gets], show_combined),
            joined([service.against(reference, get, ratio) for get in gets], times),
            *(joined([each.median(get) for get in gets], show) for each in runs)]


# --- throughput -----------------------------------------------------------------------------------------------------

def field_runs(found, route, clients):
    return [Runs(found, target='service', route=route, clients=clients), Runs(found, target='straight', clients=clients),
            Runs(found, target='reference', route=route, clients=clients)]


def speed_rows(found):
    rows = []
    for route in NAMES:
        for clients in sorted({each['clients'] for each in found}):
            rows.append(compared('%s per second, %s' % (NAMES[route], crowd(clients)), field_runs(found, route, clients),
                                 [lambda each: each['per_second']], number))
    return rows


def crowd(clients):
    return '1 client' if clients == 1 else '%s clients' % number(clients)


def latency_rows(found):
    rows = []
    for route in NAMES:
        for clients in sorted({each['clients'] for each in found}):
            rows.append(compared('%s p50 / p99 in ms, %s' % (NAMES[route], crowd(clients)), field_runs(found, route, clients),
                                 [lambda each: each['p50_us'] / 1000, lambda each: each['p99_us'] / 1000],
                                 lambda ms: number(ms, 2), difference, added))
    return rows


def cost_rows(found):
    rows = []
    clients = min({each['clients'] for each in found}, key=lambda count: abs(count - SHORT))
    for route in NAMES:
        runs = field_runs(found, route, clients)
        for part, name in ('worker', 'workers'), ('nginx', 'nginx'), ('redis', 'Redis'):
            having = [part_of(each, part) for each in runs]
            rows.append(compared('CPU seconds per 1,000 %s, %s: %s' % (NAMES[route], crowd(clients), name), having,
                                 [lambda each: each['cpu_per_1000'][part]], lambda seconds: number(seconds, 3)))
    return rows


def part_of(runs, part):
    """Without the measurements in which it has no part."""
    kept = Runs([])
    kept.found = {run: each for run, each in runs.found.items() if part in each['cpu_per_1000']}
    return kept


def throughput_rows(found):
    return speed_rows(found) + latency_rows(found) + cost_rows(found)


def worker_rows(found):
    rows = []
    for route in NAMES:
        one, two = (Runs(found, target=name, route=route) for name in ('one', 'two'))
        get = lambda each: each['per_second']  # noqa: E731
        if one.found and two.found:
            rows.append(['%s per second, %s, from one worker to two' % (NAMES[route], crowd(WORKER_CLIENTS)), EMPTY, EMPTY,
                         '%s → %s (%s)' % (number(one.median(get)), number(two.median(get)), times(two.against(one, get, ratio))),
                         EMPTY, EMPTY])
        tls = Runs(found, target='tls', route=route)
        rows.append(['%s per second, %s, Coze by HTTP/2 and TLS' % (NAMES[route], crowd(WORKER_CLIENTS)), EMPTY, EMPTY,
                     cell(tls.median(get), number), EMPTY, EMPTY])
    return rows


# --- pace -----------------------------------------------------------------------------------------------------------

def pace_runs(found, kind):
    return [Runs(found, target=target, kind=kind) for target in ('service', 'straight', 'reference')]


def milliseconds(what, point):
    return lambda each: each[what + '_us'][point] / 1000


def pace_row(name, runs, what, *points):
    return compared('%s %s in ms, %s' % (name[0], ' / '.join(points), name[1]), runs, [milliseconds(what, point) for point in points],
                    lambda ms: number(ms, 2), difference, added)


def pace_rows(found):
    one, some, many = (pace_runs(found, kind) for kind in ('one', 'some', 'many'))
    rhythm = '%d streams at %d ms' % (pace.SOME, pace.GAP_MS)
    crowd_ = '%d streams of %d chunks at %d ms' % (pace.MANY, pace.CHUNKS, pace.GAP_MS)
    rows = [pace_row(('first chunk', '1 client'), one, 'first', 'p50', 'p99'),
            pace_row(('first chunk', rhythm), some, 'first', 'p50', 'p99'),
            pace_row(('gap between chunks', rhythm), some, 'gap', 'p50', 'p99'),
            counted('gaps of 39 ms or more, %s' % rhythm, some, lambda each: each['gap_us']['over']),
            counted('chunks lost, %s' % crowd_, many, lost),
            counted('chunks more than %d ms late, %s' % (pace.LATE_MS, crowd_), many, lambda each: each['late_us']['over']),
            pace_row(('lateness', crowd_), many, 'late', 'p50', 'p99')]
    return rows + chunk_rows(many, crowd_)


def lost(each):
    return pace.MANY * pace.CHUNKS - each['chunks']


def counted(name, runs, get):
    """The worst run counts."""
    worst = [max(map(get, each.found.values())) if each.found else None for each in runs]
    return [name, EMPTY, EMPTY, *(cell(value, number) for value in worst)]


def chunk_rows(runs, name):
    service, straight, _ = runs
    theirs = lambda each: each['cpu_us_per_chunk']['nginx']  # noqa: E731
    rows = []
    for part, who in ('worker', 'workers'), ('nginx', 'nginx'):
        ours = lambda each: each['cpu_us_per_chunk'][part]  # noqa: E731
        if service.found and straight.found:
            against = statistics.median(ratio(ours(each), theirs(straight.found[run])) for run, each in service.found.items()
                                        if run in straight.found)
            rows.append(['CPU µs per chunk, %s: %s' % (name, who), times(against), EMPTY, number(service.median(ours), 1),
                         number(straight.median(theirs), 1), EMPTY])
    return rows


# --- memory ---------------------------------------------------------------------------------------------------------

def memory_rows(found):
    of = {(each['target'], each['coze'], each['streams']): each for each in found['measurements'] if 'void' not in each}
    rows = []
    for (target, coze, streams), ours in of.items():
        if target != 'service':
            continue
        kib, theirs = ours['kib_per_stream'], of.get(('reference', coze, streams), {}).get('kib_per_stream')
        where = '%s open%s' % (number(streams), ', Coze by HTTP/2 and TLS' if coze == 'tls' else '')
        rows.append(['KiB per open stream, %s: workers' % where, EMPTY, times(kib['worker'] / theirs['worker']) if theirs else EMPTY,
                     number(kib['worker'], 1), EMPTY, number(theirs['worker'], 1) if theirs else EMPTY])
        rows.append(['KiB per open stream, %s: nginx' % where, EMPTY, EMPTY, number(kib['nginx'], 1), EMPTY,
                     number(theirs['nginx'], 1) if theirs else EMPTY])
        if coze == 'tls':
            rows.append(['connections to Coze, %s' % where, EMPTY, EMPTY, number(ours['connections_to_coze']), EMPTY, EMPTY])
    return rows


# --- instructions ---------------------------------------------------------------------------------------------------

def instruction_rows(found):
    plain, tls = found['http'], found['tls']
    per_chat, per_chunk = plain['straight /v3/chat'], plain['straight chunk']
    rows = [('worker, `/chat`', plain['worker /chat'], per_chat),
            ('worker, `/chat/stream`', plain['worker /chat/stream'], per_chat),
            ('worker, `/chat`, Coze by HTTP/2 and TLS', tls['worker /chat'], None),
            ('worker, `/chat/stream`, Coze by HTTP/2 and TLS', tls['worker /chat/stream'], None),
            ('nginx, `/chat`', plain['nginx /chat'], per_chat),
            ('nginx, `/chat/stream`', plain['nginx /chat/stream'], per_chat),
            ('worker, each chunk more of those that come at once', plain['worker chunk at once'], None),
            ('worker, each chunk more that comes by itself', plain['worker chunk'], per_chunk),
            ('nginx, each chunk more that comes by itself', plain['nginx chunk'], per_chunk)]
    return [['instructions: ' + name, times(ours / theirs) if theirs else EMPTY, EMPTY, number(ours), cell(theirs, number), EMPTY]
            for name, ours, theirs in rows]


# --- endurance ------------------------------------------------------------------------------------------------------

def endurance_rows(found):
    slices = found['slices']
    rows = []
    for route, ours in ('chat', slices[0::2]), ('stream', slices[1::2]):
        if ours:
            first, last = ours[0]['per_second'], ours[-1]['per_second']
            rows.append(['%s per second, 64 clients, at first → after %d minutes' % (
                NAMES[route], round(sum(each['seconds'] for each in slices) / 60)), EMPTY, EMPTY,
                '%s → %s (%s)' % (number(first), number(last), times(last / first)), EMPTY, EMPTY])
    looks = [next((each for each in slices if each['messages'] >= least), slices[-1]) for least in (100000, 1000000)]
    for messages, pss_kib in {each['messages']: each['pss_kib'] for each in [*looks, slices[-1]]}.items():
        rows.append(['memory of the workers after %s messages' % number(messages), EMPTY, EMPTY,
                     '%s KiB' % number(pss_kib['worker']), EMPTY, EMPTY])
    return rows


# --- crowd ----------------------------------------------------------------------------------------------------------

def crowd_rows(found):
    rows = []
    for each in found['measurements']:
        count, burst = each['streams'], each['kind'] == 'burst'
        what = '%s streams %s, Coze by HTTP/2 and TLS' % (number(count), 'begun at once' if burst else 'open at once for %d s' % found['seconds'])
        ms = [each[name][point] / 1000 for name, point in (('late_us', 'p50'), ('late_us', 'p99'), ('late_us', 'max'))]
        values = [('failed', number(sum(each['failed'].values()))),
                  ('chunks more than %d ms late' % crowd_part.LATE_MS[each['kind']], '%s of %s' % (number(each['late_us']['over']), number(each['chunks']))),
                  ('lateness p50 / p99 / max in ms', ' / '.join(number(value, 1) for value in ms)),
                  ('connections to Coze', number(each['open']['connections_to_coze']))]
        if not burst:
            def grown(what, name):
                return each['open'][what][name] - each['before'][what][name]
            values += [('%s per stream: %s' % (unit, who), number(grown(of, part) / count, 1))
                       for unit, of in (('KiB', 'pss_kib'), ('descriptors', 'descriptors')) for part, who in (('worker', 'workers'), ('nginx', 'nginx'))]
            values += [('CPU µs per chunk: workers', number(each['cpu_us_per_chunk']['worker'], 1)),
                       ('MiB of the workers before, meanwhile, afterwards', ' / '.join(
                           number(each[when]['pss_kib']['worker'] / 1024) for when in ('before', 'open', 'after')))]
        rows += [['%s: %s' % (what, name), EMPTY, EMPTY, value, EMPTY, EMPTY] for name, value in values]
    return rows


# --- all ------------------------------------------------------------------------------------------------------------

ROWS = {'throughput': throughput_rows, 'workers': worker_rows, 'streams': pace_rows, 'memory': memory_rows,
        'instructions': instruction_rows, 'crowd': crowd_rows, 'long': endurance_rows}


def table(results):
    lines = ['| %s |' % ' | '.join(HEAD), '|---|%s' % ('--:|' * (len(HEAD) - 1))]
    for part, rows in ROWS.items():
        if part in results:
            lines += ['| %s |' % ' | '.join(row) for row in rows(results[part])]
    return '\n'.join(lines)


def measurements(value):
    """Every single measurement, in whatever part."""
    if isinstance(value, dict):
        if 'others' in value or 'void' in value:
            yield value
        for each in value.values():
            yield from measurements(each)
    elif isinstance(value, list):
        for each in value:
            yield from measurements(each)


def remarks(results):
    """What a reader must know to believe the table."""
    found = list(measurements(results))
    others = [each['others'] for each in found if 'others' in each]
    lines = []
    if others:
        lines.append('Other programs took %.0f %% of the CPU in the median measurement, %.0f %% in the worst.%s' % (
            100 * statistics.median(others), 100 * max(others), NOISY if statistics.median(others) > QUIET else ''))
    if 'instructions' in results:
        spread = max(max(names.values()) for names in results['instructions']['spread'].values())
        lines.append('Instructions are those in user space, for 10 chunks%s.' % (
            '; between runs they differed by at most %.1f %%' % (100 * spread) if results['instructions']['runs'] > 1 else ''))
    lines += ['VOID: %s' % each['void'] for each in found if 'void' in each]
    lines += ['MISSED: %s' % each['missed'] for each in found if 'missed' in each]
    return '\n'.join(lines)
