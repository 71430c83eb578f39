"""
report.py OBJECTS... - which lines of fcgi/ ran, by file, from what gcov counted beside the objects below these directories.

Fails below LEAST percent of all lines; and when a line that did not run is not in exceptions.txt with its reason, or one that
is there did run, or is in the source no more. So it is always known what the tests leave out.
"""
import collections
import json
import os
import subprocess
import sys

LEAST = 96.0
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXCEPTIONS = os.path.join(TOP, 'tests', 'coverage', 'exceptions.txt')

Line = collections.namedtuple('Line', 'file number function text ran')


def notes_below(directories):
    for directory in directories:
        for place, _, names in os.walk(directory):
            yield from (os.path.join(place, name) for name in sorted(names) if name.endswith('.gcno'))


def gcov_reports(notes):
    """What gcov says, a report for each object; one that never ran has notes only, and counts as well."""
    done = subprocess.run(['gcov', '--json-format', '--stdout', *notes], cwd=TOP, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def lines_of(reports):
    """Every line of fcgi/ that has code. That of a header runs when it does in any object."""
    counts = collections.Counter()
    functions = {}
    for report in reports:
        for entry in report['files']:
            file = os.path.normpath(entry['file'])
            if not file.startswith('fcgi/'):
                continue
            for line in entry['lines']:
                place = file, line['line_number']
                counts[place] += line['count']
                functions[place] = line.get('function_name', '')
    texts = {}
    for file in {file for file, _ in counts}:
        with open(os.path.join(TOP, file), encoding='utf-8') as source:
            texts[file] = source.read().splitlines()
    return [Line(file, number, functions[file, number], texts[file][number - 1].strip(), count > 0)
            for (file, number), count in sorted(counts.items())]


def read_exceptions():
    """{(file, function, text): whether it may run as well}; see the head of exceptions.txt."""
    known = {}
    reason = ''
    with open(EXCEPTIONS, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if line.startswith('#') or not line.strip():
                continue
            if not line.startswith('\t'):
                reason = line
                continue
            place, text = line.strip().split(': ', 1)
            may_run = place.startswith('~')
            key = (*place.lstrip('~').split(' '), text)
            assert reason, '%s:%d: an exception without a reason' % (EXCEPTIONS, number)
            assert len(key) == 3 and key not in known, '%s:%d: %s' % (EXCEPTIONS, number, line)
            known[key] = may_run
    return known


def table(settled):
    """A row for each file, the least covered first, and the total."""
    counts = collections.defaultdict(lambda: [0, 0, 0])
    for line, key in settled:
        for name in (line.file, 'total'):
            counts[name][0] += 1
            counts[name][1] += line.ran
            counts[name][2] += line.ran or key is not None
    rows = sorted(counts.items(), key=lambda row: (row[0] == 'total', row[1][1] / row[1][0], row[0]))
    print('%-32s %6s %6s %7s %22s' % ('file', 'lines', 'ran', '%', '% with exceptions'))
    for name, (count, ran, in_order) in rows:
        print('%-32s %6d %6d %7.2f %22.2f' % (name, count, ran, 100 * ran / count, 100 * in_order / count))
    count, ran, _ = counts['total']
    return 100 * ran / count


def settle(lines, known):
    """
    The lines with the exception that each has, or None. One begins at the line that it names, and holds for those of the
    function that follow until one that ran.
    """
    before = None
    for line in lines:
        key = line.file, line.function, line.text
        if line.ran:
            holds = None
        elif key in known:
            holds = key
        else:
            holds = before if before is not None and before[:2] == key[:2] else None
        yield line, holds
        before = holds


def check(settled, known):
    """What is wrong, as lines of text."""
    there = {(line.file, line.function, line.text) for line, _ in settled}
    used = {key for _, key in settled}
    for line, key in settled:
        if not line.ran and key is None:
            yield 'not run, and no exception: %s:%d %s: %s' % (line.file, line.number, line.function, line.text)
    for key, may_run in known.items():
        if key not in there:
            yield 'an exception for what is not there: %s %s: %s' % key
        elif key not in used and not may_run:
            yield 'an exception for what did run: %s %s: %s' % key


def main(directories):
    lines = lines_of(gcov_reports(list(notes_below(directories))))
    known = read_exceptions()
    settled = list(settle(lines, known))
    percent = table(settled)
    wrong = list(check(settled, known))
    if percent < LEAST:
        wrong.append('%.2f %% of the lines ran, and %.0f %% should' % (percent, LEAST))
    print('\n'.join(wrong) or 'coverage passed: %.2f %% of the lines ran, the others are known' % percent)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
