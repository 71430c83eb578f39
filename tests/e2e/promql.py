"""Just enough of PromQL and of Prometheus' text format to compare what is asked for with what there is."""
import re

TOKEN = re.compile(r'''\s+ | \#[^\n]*
    | (?P<text>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
    | (?P<number>[0-9.]+(?:e[+-]?[0-9]+|[a-z]+[0-9a-z]*)?)
    | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){}\[\],:@])''', re.X)
LABEL_LISTS = {'by', 'without', 'on', 'ignoring', 'group_left', 'group_right'}
OPERATORS = {'and', 'or', 'unless', 'bool', 'offset', 'atan2', 'inf', 'nan'}


def tokens(expression):
    at, found = 0, []
    while at < len(expression):
        match = TOKEN.match(expression, at)
        assert match, 'not PromQL: %r' % expression[at:]
        if match.lastgroup:
            found.append((match.lastgroup, match.group()))
        at = match.end()
    return found + [('end', '')] * 2


def parse(expression):
    """([(metric, [(label, operator, value), …]), …], {labels in by (…) and its like})"""
    found, metrics, labels, at = tokens(expression), [], set(), 0
    while found[at][0] != 'end':
        kind, word = found[at]
        at += 1
        if kind != 'word':
            continue
        if word in LABEL_LISTS:
            while found[at][1] != ')':
                if found[at][0] == 'word':
                    labels.add(found[at][1])
                at += 1
        elif found[at][1] == '(' or word in OPERATORS or found[at][1] in LABEL_LISTS:
            continue  # a function or an aggregation
        else:
            matchers = []
            if found[at][1] == '{':
                at += 1
                while found[at][1] != '}':
                    if found[at][0] == 'word':
                        (_, label), (_, operator), (_, value) = found[at:at + 3]
                        matchers.append((label, operator, value[1:-1].replace('\\\\', '\\')))
                        at += 2
                    at += 1
            metrics.append((word, matchers))
    return metrics, labels


def parse_metrics(text):
    """{metric: [{label: value}, …]}, one entry per series."""
    series = {}
    for line in text.splitlines():
        if not line or line.startswith('#'):
            continue
        match = re.fullmatch(r'([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)', line)
        assert match, line
        labels = dict(re.findall(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)",?', match[2] or ''))
        float(match[3])
        series.setdefault(match[1], []).append(labels)
    return series
