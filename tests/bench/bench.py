"""
make bench: measures this service beside nginx alone and a service in Python, prints Markdown tables and leaves the figures as
JSON in RUN_DIR: bench.json, or bench-PARTS.json when only parts were asked for.

  bench.py [PART...]   instructions
BENCH_RUNS, BENCH_SECONDS: how often each thing is measured, and for how long. The medians of the runs count.
"""
import json
import os
import sys

import instructions
from machine_facts import facts, sentence
from servers import TOP


class Options:
    def __init__(self, words, env):
        quick = 'quick' in words
        self.runs = int(env.get('BENCH_RUNS') or (1 if quick else 3))
        self.seconds = float(env.get('BENCH_SECONDS') or (0.5 if quick else 4))
        self.quick = quick
        self.run_dir = os.path.join(TOP, env.get('RUN_DIR') or 'run')
        self.words = words


def number(value):
    return '' if value is None else '{:,.0f}'.format(value)


def table(head, rows):
    lines = ['| %s |' % ' | '.join(head), '|---|%s' % ('--:|' * (len(head) - 1))]
    return '\n'.join(lines + ['| %s |' % ' | '.join(row) for row in rows])


class Instructions:
    name = 'instructions'

    @staticmethod
    def measure(options):
        return instructions.measure(options.runs, 20 if options.quick else 100,
                                    os.path.join(options.run_dir, 'bench-profiles'))

    @staticmethod
    def report(found):
        plain, tls = found['http'], found['tls']
        rows = [('`/chat`, 10 chunks', plain['worker /chat'], plain['nginx /chat'], plain['straight /v3/chat']),
                ('`/chat/stream`, 10 chunks', plain['worker /chat/stream'], plain['nginx /chat/stream'], plain['straight /v3/chat']),
                ('one chunk more, of many that come at once', plain['worker chunk at once'], None, None),
                ('one chunk more, that comes by itself', plain['worker chunk'], plain['nginx chunk'], plain['straight chunk']),
                ('`/chat`, Coze by HTTP/2 and TLS', tls['worker /chat'], tls['nginx /chat'], None),
                ('`/chat/stream`, Coze by HTTP/2 and TLS', tls['worker /chat/stream'], tls['nginx /chat/stream'], None),
                ('one chunk more, at once, by HTTP/2 and TLS', tls['worker chunk at once'], None, None)]
        head = ['Instructions in user space', 'worker', 'nginx before it', 'nginx straight']
        return [table(head, [(name, *map(number, values)) for name, *values in rows]),
                'Medians of %d runs of %d chats by callgrind; between runs they differed by at most %.1f %%.' % (
                    found['runs'], found['chats'], 100 * max(max(names.values()) for names in found['spread'].values()))]


PARTS = [Instructions]


def main(words):
    options = Options(words, os.environ)
    asked = [word for word in words if word != 'quick']
    parts = [part for part in PARTS if part.name in asked or not asked]
    unknown = set(asked) - {part.name for part in PARTS}
    if unknown:
        sys.exit('bench: no such part: %s; there are: quick %s' % (' '.join(unknown), ' '.join(part.name for part in PARTS)))
    os.makedirs(options.run_dir, exist_ok=True)
    results = {'facts': facts()}
    text = [sentence(results['facts'])]
    for part in parts:
        print('bench: %s' % part.name, file=sys.stderr)
        results[part.name] = part.measure(options)
        text += part.report(results[part.name])
    print('\n\n'.join(text))
    path = os.path.join(options.run_dir, 'bench%s.json' % ''.join('-' + word for word in words))
    with open(path, 'w') as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
    print('bench: figures in %s' % path, file=sys.stderr)


if __name__ == '__main__':
    main(sys.argv[1:])
