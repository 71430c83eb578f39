"""
Attacks on a worker's own socket, by peers that are no nginx: kinds for attacker.py. `path` is the socket's, else the port is
meant; `key` is an API key. What is made by chance is made from `seed`: the same seed, the same bytes in the same order.
"""
import random
import select
import socket
import struct
import time

import fastcgi
from attacker import HOST, RST, TICK, Attack
from fastcgi import PARAMS, STDIN, begin, pair, params, record

BODY = b'{"message":"hi","session_id":"attack"}'
STREAM = b'{"message":"hi sim:{\\"chunks\\":20,\\"gap_ms\\":20}"}'
GIB = 0x40000000
HEAD_MAX = 64 * 1024  # bytes of parameters that a worker takes


# --- requests that were good once ---


class Record:
    """One record, whose parts can be wrong each by itself."""

    def __init__(self, kind, content, request_id=1):
        self.kind, self.content, self.request_id = kind, content, request_id
        self.version, self.padding, self.announced = 1, b'', None

    def bytes(self):
        length = len(self.content) if self.announced is None else self.announced
        return (struct.pack('>BBHHBx', self.version, self.kind, self.request_id, length & 0xFFFF, len(self.padding))
                + self.content + self.padding)


def bad_pairs(chance):
    """Parameters whose lengths lie, or whose names and values nobody would send."""
    return chance.choice([
        b'\xff\xff\xff\xff\xff\xff\xff\xffx', b'\x80', b'\x05', b'\x04\x80\0', b'\x7f\x7fx', b'\x80\0\0\x01\x80\0\0\x01xy',
        struct.pack('>II', GIB | 0x80000000, GIB | 0x80000000), struct.pack('>BI', 1, chance.randrange(1 << 31) | 0x80000000) + b'x',
        pair(b'', b'') * chance.randrange(1, 5000), pair(b'X', b'y') * chance.randrange(1, 5000),
        pair(b'REQUEST_METHOD', chance.choice([b'', b'\0', b'GET\0', b'G' * 5000, b'\xff'])),
        pair(b'REQUEST_URI', chance.choice([b'', b'\0', b'%', b'/' * 9000, b'/session/%00/info', b'?' * 9000, b'\xff\xfe', b'/\n\r'])),
        pair(b'CONTENT_TYPE', chance.choice([b';' * 5000, b'application/json;charset="', b'\0'])),
        pair(b'CONTENT_LENGTH', chance.choice([b'-1', b'9' * 100, b'\0', b'0x10', b''])),
        pair(b'REQUEST_ID', b'\x1b[2J\n' * chance.randrange(1, 200)), pair(b'HTTP_AUTHORIZATION', b'Bearer ' + b' ' * 5000),
        pair(b'A' * chance.randrange(60000), b'b' * chance.randrange(60000)), pair(b'A=B', b'=') * 50, pair(b'=', b'\0') * 50])


def good_request(chance, key):
    """[Record, ...] of a request that a worker answers, cut into records here and there."""
    method, uri, body = chance.choice([
        ('GET', '/health', b''), ('GET', '/', b''), ('POST', '/chat', BODY), ('POST', '/chat', b''), ('POST', '/nothing', BODY),
        ('POST', '/session/attack/bind', b'{"conversation_id":"c"}'), ('GET', '/session/attack/info', b'')])
    if chance.randrange(60) == 0:
        body = b'{"x":"' + b'x' * chance.randrange(60000, 200000) + b'"}'
    values = params(method, uri, body, HTTP_X_API_KEY=key)
    if chance.randrange(4) == 0:
        at = chance.choice([0, len(values)])
        values = values[:at] + bad_pairs(chance) + values[at:]
    keep = chance.randrange(2)
    records = [Record(fastcgi.BEGIN, struct.pack('>HB5x', fastcgi.RESPONDER, keep))]
    for kind, content in (PARAMS, values), (STDIN, body):
        size = chance.choice([65535, 65535, 500, 50, 7]) if len(content) < 5000 else 65535
        records += [Record(kind, content[at:at + size]) for at in range(0, len(content), size)] + [Record(kind, b'')]
    return records


def change_record(chance, records, _):
    one = chance.choice(records)
    part = chance.randrange(6)
    if part == 0:
        one.version = chance.randrange(256)
    elif part == 1:
        one.kind = chance.choice([chance.randrange(256), chance.randrange(12)])
    elif part == 2:
        one.request_id = chance.choice([0, 2, 256, chance.randrange(65536)])
    elif part == 3:
        one.announced = chance.choice([0, len(one.content) + chance.randrange(-8, 9), chance.randrange(65536), 65535])
    elif part == 4:
        one.padding = chance.choice([bytes(chance.randrange(256)), chance.randbytes(chance.randrange(256)),
                                     record(STDIN, BODY) + record(STDIN), record(PARAMS), begin()])
    else:
        one.content = chance.choice([b'', chance.randbytes(8), one.content[:-1], one.content + b'\0',
                                     struct.pack('>HB5x', chance.randrange(5), chance.randrange(256))])


def change_order(chance, records, _):
    at, to = chance.randrange(len(records)), chance.randrange(len(records))
    part = chance.randrange(3)
    if part == 0:
        del records[at]
    elif part == 1:
        records.insert(to, records[at])
    else:
        records[at], records[to] = records[to], records[at]


def add_strangers(chance, records, key):
    """Records of another kind, or of another request, in between."""
    others = chance.choice([
        [Record(chance.choice([0, fastcgi.ABORT, fastcgi.END, fastcgi.STDOUT, fastcgi.STDERR, fastcgi.DATA, fastcgi.GET_VALUES, 10, 11]),
                chance.choice([b'', bytes(8), pair(b'FCGI_MAX_CONNS', b'')]), chance.choice([0, 1, 2]))],
        [Record(fastcgi.BEGIN, struct.pack('>HB5x', chance.randrange(4), 1), chance.choice([1, 2]))],
        good_request(chance, key)])
    if len(others) > 1:
        for one in others:
            one.request_id = 2
    for one in others:
        records.insert(chance.randrange(len(records) + 1), one)


def change_bytes(chance, data):
    at = chance.randrange(len(data) + 1)
    to = min(len(data), at + chance.choice([1, 1, 4, 8, 100, len(data)]))
    part = chance.randrange(5)
    if part == 0:
        return data[:at]
    if part == 1:
        return data[:at] + chance.randbytes(to - at) + data[to:]
    if part == 2:
        return data[:at] + data[to:]
    if part == 3:
        return data[:at] + data[at:to] + data[at:]
    return data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]


def mutants(seed, count, key=''):
    """(bytes, what to do when they are sent) of so many different cases."""
    chance = random.Random(seed)
    seen = set()
    while len(seen) < count:
        records = good_request(chance, key)
        for _ in range(chance.choice([0, 1, 1, 2])):
            chance.choice([change_record, change_record, change_order, add_strangers])(chance, records, key)
            if not records:
                break
        data = b''.join(one.bytes() for one in records)
        if chance.randrange(2):
            data = change_bytes(chance, data)
        then = chance.choice(['half', 'half', 'half', 'close', 'reset'] + ['wait'] * (chance.randrange(4) == 0))
        if data and hash(data) not in seen:  # who says nothing may wait as long as he likes
            seen.add(hash(data))
            yield data, then


# --- the attacks ---


class FastcgiAttack(Attack):
    def connect(self, options):
        path = self.much.get('path')
        link = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        link.connect(path or (HOST, self.port))  # where the queue is full, it waits
        link.setblocking(False)
        return link

    def request(self, method, uri, body=b'', keep=False):
        return fastcgi.request(method, uri, body, keep, HTTP_X_API_KEY=self.much['key'])

    def drop(self, link, reset=False):
        if reset:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.close(link)

    def on_input(self, link, data):
        """The first record of an answer; else the worker has closed."""
        at = data.find(b'Status: ')
        if at >= 0:
            self.note(data[at + 8:at + 11].decode())
        if not data:
            self.lost(link)


class Mutants(FastcgiAttack):
    """`count` requests with something wrong, at most `rate` a second; the end when all are over. `silent` 0: nobody only waits."""

    OPEN = 800  # connections at a time; the silent ones stay for seconds

    def start(self):
        self.cases = mutants(self.much['seed'], self.much['count'], self.much['key'])
        self.then = {}
        self.left = self.much['count']

    def tick(self, number):
        for _ in range(min(int(self.much['rate'] * TICK), self.left, self.OPEN - len(self.links))):
            data, then = next(self.cases)
            if not self.much.get('silent', 1) and then == 'wait':
                then = 'half'
            self.left -= 1
            self.note('cases')
            self.then[self.open(data)] = then
        if not self.left and not self.links:
            self.stopped = True

    def on_input(self, link, data):
        super().on_input(link, data)
        if data and self.then[link] == 'wait':
            self.drop(link)

    def on_sent(self, link):
        then = self.then[link]
        if then == 'half':
            link.shutdown(socket.SHUT_WR)
        elif then != 'wait':
            self.drop(link, then == 'reset')

    def close(self, link):
        self.then.pop(link, None)
        super().close(link)

    def lost(self, link):
        self.note('closed')
        self.close(link)


class Idle(FastcgiAttack):
    """`count` connections at once: some never say a word, some half a header, half a request, or are kept after one."""

    def start(self):
        whole = self.request('GET', '/health', keep=True)
        self.firsts = [b'', whole[:5], whole[:60], whole]
        for _ in range(self.much['count']):
            self.replace()
            if self.made % 16 == 0:
                self.turn(0)

    def replace(self):
        self.open(self.firsts[self.made % 4])


class Drip(FastcgiAttack):
    """`count` requests that come a byte at a time, each ten bytes a second, small ones and large ones."""

    def start(self):
        self.small = self.request('POST', '/chat', BODY, keep=True)
        large = self.request('POST', '/chat', b'{"x":"' + b'x' * 300000 + b'"}')
        self.rest = {}
        for number in range(self.much['count']):
            self.begin(large if number % 10 == 0 else self.small, 150000 if number % 10 == 0 else 0)

    def begin(self, data, at):
        self.rest[self.open(data[:at])] = (data, at)

    def replace(self):
        self.begin(self.small, 0)

    def close(self, link):
        self.rest.pop(link, None)
        super().close(link)

    def ready(self):
        return True  # one large body is read at a time, so the others wait with their first part

    def tick(self, number):
        for link in [link for fd, link in list(self.links.items()) if fd % 5 == number % 5]:
            data, at = self.rest[link]
            if self.unsent[link] or at == len(data):
                continue
            try:
                self.rest[link] = (data, at + link.send(data[at:at + 1]))
                self.note('bytes')
            except BlockingIOError:
                pass
            except OSError as error:
                self.note(type(error).__name__)
                self.close(link)
                self.replace()


class Leavers(FastcgiAttack):
    """`rate` connections a second that leave at another point each time, politely or with a reset."""

    def start(self):
        chat, stream = self.request('POST', '/chat', BODY), self.request('POST', '/chat/stream', STREAM)
        head = len(chat) - len(BODY) - 16
        # What is sent, and how many seconds later it leaves; None: as soon as an answer begins.
        self.phases = [(b'', 0), (chat[:5], 0), (chat[:16], 0), (chat[:100], 0), (chat[:head], 0), (chat[:head + 12], 0), (chat[:-1], 0),
                       (chat, 0), (chat, 0.02), (chat, None), (stream, 0), (stream, 0.05), (stream, None), (stream, 0.2)]
        self.when = {}
        self.due = 0

    def tick(self, number):
        now = time.monotonic()
        for link in [link for link, when in self.when.items() if when is not None and when <= now]:
            self.leave(link)
        want = int((number + 1) * TICK * self.much['rate'])
        while self.due < want:
            data, seconds = self.phases[self.due % len(self.phases)]
            self.when[self.open(data)] = None if seconds is None else now + seconds
            self.due += 1

    def on_input(self, link, data):
        super().on_input(link, data)
        if data and self.when[link] is None:
            self.leave(link)

    def leave(self, link):
        self.note('left')
        self.drop(link, reset=link.fileno() % 2 == 0)

    def close(self, link):
        self.when.pop(link, None)
        super().close(link)


class Bombs(FastcgiAttack):
    """`rate` heads and bodies a second that are as much work, or as much memory, as can be had for their bytes."""

    def start(self):
        get = params('GET', '/health')
        room = HEAD_MAX - len(get) - 100
        head = begin() + fastcgi.stream(PARAMS, params('POST', '/chat', b'x', HTTP_X_API_KEY=self.much['key']))

        def with_params(values):
            return begin() + fastcgi.stream(PARAMS, values) + record(STDIN)

        self.due = 0
        self.bombs = [
            with_params(get + pair(b'', b'') * (room // 2)),
            with_params(get + pair(b'X', b'y') * (room // 4)),
            with_params(pair(b'REQUEST_URI', b'/' * (room // 2)) + get + pair(b'A' * (room // 3), b'')),
            with_params(get + pair(b'X', b'y') * 200000),
            with_params(get + b'\xff\xff\xff\xff' * 2),
            with_params(get + struct.pack('>BI', 1, GIB | 0x80000000) + b'x'),
            begin() + b''.join(record(PARAMS, bytes([byte])) for byte in get) + record(PARAMS) + record(STDIN),
            begin() + b''.join(record(PARAMS, b'\0', padding=255) for _ in range(2000)),
            head + record(STDIN, b'[') * 20000 + record(STDIN),
            head + record(STDIN, b'x', padding=255) * 3000,
            head + fastcgi.stream(STDIN, b'[' * 500000),
            head + fastcgi.stream(STDIN, b'{"x":[' + b'{},' * 20000 + b'1]}')]

    def tick(self, number):
        want = int((number + 1) * TICK * self.much['rate'])
        while self.due < want:
            self.open(self.bombs[self.due % len(self.bombs)], events=select.EPOLLIN)
            self.due += 1

    def on_sent(self, link):
        link.shutdown(socket.SHUT_WR)

    def lost(self, link):
        self.note('closed')
        self.close(link)
