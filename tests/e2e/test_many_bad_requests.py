"""
Proves that no bad request does harm: twelve thousand different ones, made by the rules of bad_http.py, get the 4xx that each
deserves, in the form that is documented, from the same workers to the end; and no log has a word of them.
"""
import asyncio
import collections
import json
import re
import time

import pytest

from bad_http import MARK, Case, cases
from service import leaks_below
from stack import wait_for

SEED = 20261
COUNT = 12000
CLIENTS = 24
# HTTP's own words (RFC 9110) for what a server does not know, and for nothing else.
NOT_4XX = {501: 'another Transfer-Encoding', 505: 'another version'}


async def read_answer(reader, method=''):
    """(status, headers, body), or None where the connection ends instead."""
    try:
        head = await reader.readuntil(b'\r\n\r\n')
    except asyncio.IncompleteReadError as error:
        assert error.partial == b'', 'half an answer: %r' % error.partial
        return None
    lines = head.decode().split('\r\n')[:-2]
    assert lines[0].startswith('HTTP/1.1 '), lines[0]
    headers = [tuple(line.split(': ', 1)) for line in lines[1:]]
    length = int(dict(headers)['Content-Length'])
    return int(lines[0].split(' ')[1]), headers, await reader.readexactly(0 if method == 'HEAD' else length)


def check_form(case, status, headers, body):
    """The documented form of an error."""
    names = collections.Counter(name.lower() for name, _ in headers)
    values = {name.lower(): value for name, value in headers}
    assert status in case.expected, 'not %s' % sorted(case.expected)
    assert status < 500 or NOT_4XX[status] == case.family or case.family == 'an odd header', 'no 4xx'
    assert values['content-type'] == 'application/json' and names['content-type'] == 1
    assert names['x-request-id'] == 1 and re.fullmatch('[A-Za-z0-9._:-]{1,128}', values['x-request-id'])
    told = json.loads(body.decode('utf-8'))
    assert list(told) == ['detail'] and re.search('[\u4e00-\u9fff]', told['detail'])
    assert ('allow' in names) == (status == 405)
    assert MARK not in told['detail'] or case.family == 'an unknown path'


class Client:
    """Sends cases, on a kept connection as long as that lasts, and notes what came of each."""

    def __init__(self, port):
        self.port = port
        self.outcomes = collections.Counter()  # (family, status)
        self.wrong = []
        self.resets = 0
        self.link = None

    async def connect(self):
        return await asyncio.open_connection('127.0.0.1', self.port, limit=1 << 20)

    async def send(self, case):
        answers = []
        try:
            answers = await asyncio.wait_for(self.answers(case), 30)
            for answer in answers:
                check_form(case, *answer)
            assert answers or 0 in case.expected, 'closed without a word'
            for status in [answer[0] for answer in answers] or [0]:
                self.outcomes[case.family, status] += 1
        except (AssertionError, OSError, ValueError, KeyError, EOFError, asyncio.TimeoutError) as error:
            self.wrong.append('%s: %r\n  %r\n  %r' % (case.family, error, case.data[:300], answers))
            self.link = None

    async def answers(self, case):
        """A reset takes away what was not read yet: then it is said once more, and counted."""
        say = self.alone if case.alone else self.kept
        try:
            return await say(case)
        except OSError:
            self.resets += 1
            self.link = None
            return await say(case)

    async def kept(self, case):
        """The one answer."""
        if self.link is None:
            self.link = await self.connect()
        reader, writer = self.link
        writer.write(case.data)
        answer = await read_answer(reader, case.data.split(b' ', 1)[0].decode())
        assert answer, 'closed without a word'
        if ('Connection', 'close') in answer[1]:
            writer.close()
            self.link = None
        return [answer]

    async def alone(self, case):
        """All answers, as bytes of it may be read as another request: that must be refused, too."""
        reader, writer = await self.connect()
        answers = []
        try:
            writer.write(case.data)
            if case.cut:
                writer.write_eof()
            answer = await read_answer(reader)
            while answer:
                answers.append(answer)
                if len(answers) == 1 and not case.cut:
                    writer.write_eof()  # nginx need not wait for more, whatever it was told to expect
                answer = await read_answer(reader)
        finally:
            writer.close()
        return answers

    def close(self):
        if self.link is not None:
            self.link[1].close()


async def send_all(port, made):
    queue = iter(made)
    clients = [Client(port) for _ in range(CLIENTS)]

    async def run(client):
        for case in queue:
            await client.send(case)
        client.close()

    await asyncio.gather(*[run(client) for client in clients])
    return clients


def test_the_rules_make_what_is_wrong():
    """By another reader of JSON; and twice the same, and other ones from another seed."""
    made = list(cases(SEED, COUNT))
    assert made[:500] == list(cases(SEED, 500)) != list(cases(SEED + 1, 500))
    assert len({case.data for case in made}) == COUNT

    def refuse(word):
        raise ValueError(word)

    for case in made:
        if case.family == 'not JSON':
            with pytest.raises(ValueError):
                json.loads(case.data.split(b'\r\n\r\n', 1)[1].decode('utf-8'), parse_constant=refuse)
        if case.family == 'no UTF-8':
            with pytest.raises(UnicodeDecodeError):
                case.data.decode()
        if case.family in ('a bad id', 'a blank message', 'a field that is missing', 'a field that is no string'):
            assert isinstance(json.loads(case.data.split(b'\r\n\r\n', 1)[1]), dict)


def test_twelve_thousand_bad_requests(make_stack):
    stack = make_stack(WORKERS='2', LOG_LEVEL='debug', sim={'SIM_LOG': 0})
    pids = stack.worker_pids()
    assert stack.chat('hi').status_code == 200
    began = time.monotonic()
    clients = asyncio.run(send_all(stack.port, cases(SEED, COUNT)))
    seconds = time.monotonic() - began

    resets = sum(client.resets for client in clients)
    wrong = [line for client in clients for line in client.wrong]
    assert not wrong, '%d, such as\n%s' % (len(wrong), '\n'.join(wrong[:20]))
    outcomes = sum((client.outcomes for client in clients), collections.Counter())
    families = collections.defaultdict(dict)
    for (family, status), count in sorted(outcomes.items()):
        families[family][status or 'closed'] = count
    print('\nseed %d, %.1f s, %d resets' % (SEED, seconds, resets))
    for family, statuses in families.items():
        print('%-30s' % family, ', '.join('%s: %d' % one for one in statuses.items()))
    assert resets < COUNT / 200
    assert set(families) == {case.family for case in cases(SEED, COUNT)}
    # nginx closes without a word only where the client has ended its side first.
    assert [family for family, statuses in families.items() if 'closed' in statuses] == ['half a request']

    assert stack.worker_pids() == pids, 'a worker died'
    assert stack.chat('hi').status_code == 200
    answered = sum(count for (_, status), count in outcomes.items() if status)
    wait_for(lambda: read(stack, 'nginx_access.log').count('\n') > answered, 5, 'the end of the access log')
    assert leaks_below(stack.run_dir, [], [MARK.encode()]) == [], 'a user\'s words in a log'
    assert read(stack, 'nginx_error.log') == ''


def read(stack, name):
    with open('%s/logs/%s' % (stack.run_dir, name), encoding='utf-8') as file:
        return file.read()


def test_a_right_one_would_be_noticed():
    """The check itself: what is answered as if it were right is wrong here."""
    case = Case('x', b'', {400})
    good = [('Content-Type', 'application/json'), ('X-Request-ID', 'a')], '{"detail":"错误"}'.encode()
    check_form(case, 400, *good)
    for status, headers, body in ((200, *good), (500, *good), (400, good[0] * 2, good[1]), (400, good[0][:1], good[1]),
                                  (400, [('Content-Type', 'text/html')] + good[0][1:], good[1]), (400, good[0], b'{"detail":"wrong"}'),
                                  (400, good[0], b'<html>'), (400, good[0], '{"detail":"错误","x":1}'.encode())):
        with pytest.raises((AssertionError, KeyError, ValueError)):
            check_form(case, status, headers, body)
