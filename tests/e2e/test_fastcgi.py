"""
Proves that a worker speaks FastCGI as nginx does, in whatever pieces it comes, and that nothing else that arrives at
its socket, broken, endless or silent, ends it, delays others, or costs descriptors or memory for good.
"""
import contextlib
import json
import random
import resource
import socket
import struct
import threading
import time
import uuid

import pytest

import fastcgi
import probe
from fastcgi import Link, begin, pair, params, record, request, stream as records
from probe import Beside
from stack import Stack, directive, filler, late, parse_stream, text_of, wait_for

HALF_A_REQUEST_SECONDS = 5  # after which the worker gives up
GET = params('GET', '/health')
END = record(fastcgi.STDIN)
HEAD = begin() + records(fastcgi.PARAMS, GET)


def with_params(values):
    return begin() + records(fastcgi.PARAMS, values) + END


@pytest.fixture(scope='module')
def one_worker():
    with Stack(WORKERS='1').start() as stack:
        stack.path = fastcgi.worker_socket(stack)
        stack.pid, = stack.worker_pids()
        stack.chat('连接')
        yield stack


@pytest.fixture
def worker(one_worker):
    """The worker's socket. Afterwards it is the same process and serves, with no more descriptors than before."""
    assert_serves(one_worker.path)
    before = probe.descriptors(one_worker.pid)
    yield one_worker.path
    assert one_worker.worker_pids() == [one_worker.pid]
    assert_serves(one_worker.path)
    wait_for(lambda: probe.descriptors(one_worker.pid) <= before, what='the closing of descriptors')


def assert_serves(path):
    status, _, body = fastcgi.ask(path, 'GET', '/health')
    assert (status, json.loads(body)['status']) == (200, 'healthy')


class OthersServed(Beside):
    """Asks for /health on connections of its own, again and again; at the end none may have waited long."""

    def __init__(self, path, at_least=20, limit=0.5):
        super().__init__()
        self.path, self.at_least, self.limit = path, at_least, limit
        self.times = []

    def watch(self):
        while not self.stopping.is_set() or len(self.times) < self.at_least:
            begun = time.perf_counter()
            assert_serves(self.path)
            self.times.append(time.perf_counter() - begun)

    def __exit__(self, kind, *_):
        super().__exit__(kind)
        if kind is None:
            assert len(self.times) >= self.at_least, 'others were not served'
            assert max(self.times) < self.limit * late()


# --- as it should be ---


def chat_body(**fields):
    return json.dumps({'message': '你好', **fields}, ensure_ascii=False).encode()


def test_one_request(worker):
    with Link(worker) as link:
        link.send(request('GET', '/'))
        status, headers, body = link.answer()
        assert status == 200
        assert headers['Content-Type'] == 'application/json'
        assert int(headers['Content-Length']) == len(body)
        assert json.loads(body)['version']
        assert link.is_closed()  # nobody asked to keep it


def test_a_kept_connection(worker):
    session = uuid.uuid4().hex
    with Link(worker) as link:
        for number in range(1, 4):
            link.send(request('POST', '/chat', chat_body(session_id=session), keep=True, request_id=number))
            status, _, body = link.answer(number)
            assert status == 200
            assert '第 %d 轮' % number in json.loads(body)['response']
        link.send(request('GET', '/nothing', keep=True))
        assert link.answer()[0] == 404
        link.send(request('GET', '/session/%s/info' % session))  # the last one does not keep it
        assert json.loads(link.answer()[2])['message_count'] == 3
        assert link.is_closed()


@pytest.mark.parametrize('body', [b'', chat_body(), chat_body(x='x' * 1000)], ids=len)
def test_a_request_in_pieces_of_one_byte(worker, body):
    whole = request('POST', '/chat', body, keep=True)
    with OthersServed(worker), Link(worker) as link:
        for _ in range(2):
            for byte in whole:
                link.send(bytes([byte]))
            assert link.answer()[0] == (200 if body else 400)


def test_records_of_every_size(worker):
    body = chat_body(x='填充' * 200)
    for size, padding in [(1, 0), (1, 99), (7, 1), (100, 255), (8, 8), (1000, 7), (65535, 0)]:
        with Link(worker) as link:
            link.send(request('POST', '/chat', body, size=size, padding=padding))
            assert link.answer()[0] == 200


def test_padding_where_nginx_has_none(worker):
    """Allowed, but before and behind the parameters libfcgi trips over it."""
    with Link(worker) as link:
        link.send(record(fastcgi.BEGIN, struct.pack('>HB5x', fastcgi.RESPONDER, 0), padding=8) + HEAD[16:] + END)
        assert link.until_closed() == b''
    for kinds in ((fastcgi.PARAMS,), (fastcgi.STDIN,), (fastcgi.PARAMS, fastcgi.STDIN)):
        ends = [record(kind, padding=8 if kind in kinds else 0) for kind in (fastcgi.PARAMS, fastcgi.STDIN)]
        with Link(worker) as link:
            link.send(begin() + record(fastcgi.PARAMS, params('GET', '/')) + ends[0] + ends[1])
            assert link.until_closed()[8:19] == (b'' if fastcgi.PARAMS in kinds else b'Status: 200')


def test_records_in_the_padding(worker):
    """libfcgi would take them for the request: here for a body that begins in them and goes on with somebody else's, in memory."""
    theirs = request('POST', '/chat', chat_body(message='x' * 500 + 'somebody else\'s words'))
    with Link(worker) as link:
        link.send(theirs)
        assert link.answer()[0] == 200
    ours = b'{"message":"'
    inner = record(fastcgi.STDIN, ours, announced=len(ours))
    inner = inner[:6] + b'\x08' + inner[7:]  # as if the header of the next record were its padding
    data = begin() + record(fastcgi.PARAMS, params('POST', '/chat', b'x')) + record(fastcgi.PARAMS, padding=inner)
    rest = len(theirs) - len(END) - len(data) - 2 * len(END)
    data += record(fastcgi.STDIN, padding=record(fastcgi.STDIN, announced=rest))
    with Link(worker) as link:
        link.send_what_goes(data)
        assert link.until_closed() == b''


@pytest.mark.parametrize('request_id', [1, 2, 255, 256, 65535])
def test_request_ids(worker, request_id):
    with Link(worker) as link:
        link.send(request('POST', '/chat', chat_body(), keep=True, request_id=request_id))
        assert link.answer(request_id)[0] == 200


def test_a_stream(worker):
    with Link(worker) as link:
        link.send(request('POST', '/chat/stream', chat_body(message=directive(answer_bytes=300000, chunks=20)),
                          keep=True))
        status, headers, body = link.answer()
        assert (status, headers['Content-Type'].split(';')[0]) == (200, 'text/event-stream')
        assert text_of(parse_stream(body)) == filler(300000)
        link.send(request('GET', '/'))
        assert link.answer()[0] == 200


@pytest.mark.parametrize('size', [60000, 65000, 65536, 66000, 131072, 1000000])
def test_large_bodies_in_slow_pieces(worker, size):
    """Around the size from where on the body is read by another thread."""
    body = json.dumps({'message': 'x' * (size - 14)}).encode()
    whole = request('POST', '/chat', body, keep=True, size=32768)
    with OthersServed(worker), Link(worker) as link:
        for _ in range(2):
            for at in range(0, len(whole), 50001):
                link.send(whole[at:at + 50001])
            assert link.answer()[0] == 200


def test_large_bodies_that_wait_for_each_other(worker):
    """More of them than there are threads to read them, and the last one goes on first."""
    whole = request('POST', '/chat', json.dumps({'x': 'x' * 500000}).encode())
    links = [Link(worker) for _ in range(12)]
    try:
        with OthersServed(worker):
            for link in links:
                link.send(whole[:200000])
            senders = [threading.Thread(target=link.send, args=[whole[200000:]], daemon=True)
                       for link in reversed(links)]
            for sender in senders:
                sender.start()
            for link in links:
                assert link.answer()[0] == 400  # for want of a message
            for sender in senders:
                sender.join()
    finally:
        for link in links:
            link.close()


def test_parameters_that_nginx_would_not_send(worker):
    def of(method, uri):
        return pair(b'REQUEST_METHOD', method) + pair(b'REQUEST_URI', uri)

    for values in (b'', pair(b'', b''), pair(b'', b'x'), pair(b'A=B', b'C') * 100, pair(b'\0', b'\0') * 100,
                   pair(b'REQUEST_METHOD', b''), pair(b'REQUEST_METHOD', b'GET'), pair(b'REQUEST_URI', b'/'),
                   of(b'GE\0T', b'/\0health'), of(b'\xff', b'\xff\n'), of(b'GET', b'?'), of(b'GET', b'*'),
                   of(b'OPTIONS', b'*'), of(b'GET', b'http://x/health'), of(b'GET', b'/session/%00/info')):
        with Link(worker) as link:
            link.send(with_params(values))
            status, headers, body = link.answer()
            assert status in (400, 404, 405), values
            assert json.loads(body)['detail']
            assert headers['Content-Type'] == 'application/json'


def test_the_last_of_a_doubled_parameter_is_not_mixed_with_the_first(worker):
    with Link(worker) as link:
        link.send(with_params(params('GET', '/') + params('GET', '/nothing')))
        assert link.answer()[0] in (200, 404)


@pytest.mark.parametrize('announced', ['0', '5', '100000', '99999999999999999999', '-1', 'abc', ''])
def test_a_content_length_that_is_not_the_bodys(worker, announced):
    """The stream of records says where the body ends; a wrong number beside it is at most a 400."""
    with Link(worker) as link:
        link.send(request('POST', '/chat', chat_body(), CONTENT_LENGTH=announced))
        assert link.answer()[0] in (200, 400)


# --- more than one request at a time ---


@pytest.mark.parametrize('keep', [False, True])
def test_pipelined_requests(worker, keep):
    """Not promised by FastCGI; the first gets its answer, and the others a prompt one or a closed connection."""
    with Link(worker) as link:
        link.send(request('GET', '/', keep=keep) * 3)
        assert link.answer()[0] == 200
        for _ in range(2):
            try:
                assert link.answer()[0] == 200
            except (EOFError, ConnectionResetError):
                break
        else:
            return
        assert link.is_closed()


@pytest.mark.parametrize('together', [1, 50])
def test_a_peer_that_asks_on_and_reads_nothing(worker, together):
    """Its answers fill its socket; others do not wait for it."""
    asked = request('GET', '/', keep=True)
    with OthersServed(worker), Link(worker) as link:
        link.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # the worker takes no more of it
            for _ in range(5000 // together):
                link.send(asked * together)
                fastcgi.ask(worker, 'GET', '/')
        link.socket.setblocking(True)
        assert link.answer()[0] == 200  # what it has asked for is there, once it reads


def test_a_request_behind_one_that_runs(worker):
    """It does not disturb the first, and is answered after it."""
    with Link(worker) as link:
        link.send(request('POST', '/chat/stream', chat_body(message=directive('你好', gap_ms=50, chunks=5)), keep=True))
        link.send(request('GET', '/', keep=True))
        status, _, body = link.answer()
        assert status == 200 and '"content": "收到'.encode() in body and body.count(b'"complete"') == 1
        status, _, body = link.answer()
        assert status == 200 and json.loads(body)['docs'] == '/docs'


def test_interleaved_ids(worker):
    one, two = [[begin(True, request_id=number), records(fastcgi.PARAMS, params('GET', '/'), number),
                 record(fastcgi.STDIN, b'', number)]
                for number in (1, 2)]
    for parts in ([one[0], two[0], one[1], two[1], one[2], two[2]], [one[0], one[1], two[1], one[2]],
                  [one[0], one[1], two[2]], [one[0], two[1], two[2]]):
        with Link(worker) as link:
            link.send_what_goes(b''.join(parts))
            assert link.is_closed()


# --- what is no request ---

def with_broken_byte(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1:]


BAD = {
    'version 0': record(fastcgi.BEGIN, struct.pack('>HB5x', 1, 0), version=0),
    'version 2': record(fastcgi.BEGIN, struct.pack('>HB5x', 1, 0), version=2),
    'version 2 later': begin() + record(fastcgi.PARAMS, GET, version=2),
    'HTTP': b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n',
    'TLS': b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(100),
    'HTTP/2': b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'zeros': bytes(1000),
    'ones': b'\x01' * 1000,
    'role 0': begin(role=0),
    'authorizer': begin(role=fastcgi.AUTHORIZER) + records(fastcgi.PARAMS, GET),
    'filter': begin(role=fastcgi.FILTER) + records(fastcgi.PARAMS, GET) + END + record(fastcgi.DATA),
    'role 257': begin(role=257),
    'id 0': request('GET', '/health', request_id=0),
    'begin is short': record(fastcgi.BEGIN, b'\0\1\0'),
    'begin is long': record(fastcgi.BEGIN, struct.pack('>HB5x', 1, 0) + bytes(8)),
    'begin is empty': record(fastcgi.BEGIN),
    'begin is twice': begin() + HEAD,
    'no begin': records(fastcgi.PARAMS, GET) + END,
    'the body first': record(fastcgi.STDIN, b'{}') + END,
    'abort first': record(fastcgi.ABORT),
    'abort later': begin() + record(fastcgi.ABORT),
    'get values': record(fastcgi.GET_VALUES, pair(b'FCGI_MAX_CONNS', b''), request_id=0),
    'type 0': begin() + record(0),
    'type 12': begin() + record(12),
    'type 255': begin() + record(255),
    'an answer': record(fastcgi.STDOUT, b'Status: 200\r\n\r\n') + record(fastcgi.END, bytes(8)),
    'a body before the parameters end': begin() + record(fastcgi.PARAMS, GET) + record(fastcgi.STDIN, b'{}') + END,
    'parameters after the body began': HEAD + record(fastcgi.STDIN, b'{') + record(fastcgi.PARAMS, GET) + END,
    'a name that is longer than all': with_params(fastcgi.length(200) + b'\1abc'),
    'a name of 2 GiB': with_params(b'\xff' * 8 + b'abc'),
    'a value of 2 GiB': with_params(GET + b'\1\xff\xff\xff\xffabc'),
    'a length of two bytes of four': with_params(GET + b'\x80\0'),
    'a name without value length': with_params(GET + b'\5'),
    'parameters of 100 KB': with_params(GET + pair(b'X', b'a' * 100000)),
    'parameters of 5 MB': with_params(GET + pair(b'X', b'a' * 1000) * 5000),
    'a million parameters': with_params(GET + pair(b'', b'') * 1000000),
    'parameters without end': begin() + record(fastcgi.PARAMS, pair(b'X', b'y')) * 100000,
    'records of 255 bytes of padding': begin() + record(fastcgi.PARAMS, b'\0', padding=255) * 1000,
}
chance = random.Random(7)
for number in range(20):
    BAD['noise %d' % number] = begin() + chance.randbytes(chance.randrange(8, 3000))
    BAD['broken byte %d' % number] = with_broken_byte(HEAD, chance.randrange(24))


@pytest.mark.parametrize('data', BAD.values(), ids=BAD)
def test_what_is_no_request(worker, data):
    """The connection is closed; the silent ones, where the sender still holds his end open, are further down."""
    with OthersServed(worker, at_least=3), Link(worker) as link:
        link.send_what_goes(data)
        try:
            link.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        assert link.is_closed()


def test_a_crowd_that_is_refused_is_a_line_a_second(worker, one_worker):
    """Which says how many there were before: a flood of them fills no disk."""
    def lines():
        return [line for line in one_worker.api_log().splitlines() if ' event=fastcgi ' in line][known:]

    def one_more():
        with Link(worker) as link:
            link.send_what_goes(BAD['version 0'])
            assert link.is_closed()

    known = 0
    known = len(lines())
    began = time.monotonic()
    for _ in range(300):
        one_more()
    assert len(lines()) <= time.monotonic() - began + 1
    wait_for(lambda: one_more() or sum(1 + int(line.rsplit('before=', 1)[1]) for line in lines()) >= 300, what='all of them')
    assert all('why="a version that is not 1"' in line for line in lines())


def test_small_parameters_up_to_the_limit(worker):
    """As many as fit are served, without taking long."""
    for many in (pair(b'', b'') * 25000, pair(b'X', b'y') * 12000, pair(b'X' * 20000, b'y' * 20000)):
        begun = time.monotonic()
        with Link(worker) as link:
            link.send(with_params(GET + many))
            assert link.answer()[0] == 200
        assert time.monotonic() - begun < 3


def test_a_connection_closed_at_each_byte(worker):
    whole = request('POST', '/chat/stream', chat_body(session_id=uuid.uuid4().hex))
    with OthersServed(worker):
        for at in range(len(whole)):
            with Link(worker) as link:
                link.send(whole[:at])


def test_a_large_body_that_is_broken_off(worker):
    whole = request('POST', '/chat', json.dumps({'message': 'x' * 300000}).encode())
    with OthersServed(worker):
        for at in list(range(60000, len(whole), 20011)) + [len(whole) - 1]:
            for half_close in (False, True):
                with Link(worker) as link:
                    link.send(whole[:at])
                    if half_close:
                        link.socket.shutdown(socket.SHUT_WR)
                        assert link.is_closed()


def test_broken_records_in_a_large_body(worker):
    good = HEAD.replace(b'GET', b'PUT') + record(fastcgi.STDIN, b'x' * 60000) * 2
    for bad in (record(fastcgi.STDIN, b'x' * 1000, version=9), record(fastcgi.STDIN, b'x', request_id=7),
                record(fastcgi.PARAMS, b'x' * 10), record(fastcgi.BEGIN, bytes(8)), record(fastcgi.ABORT),
                record(99, b'x'), b'\xff' * 100):
        with OthersServed(worker, at_least=3), Link(worker) as link:
            link.send_what_goes(good + bad + record(fastcgi.STDIN, b'x' * 60000) + record(fastcgi.STDIN))
            link.until_closed()


def test_a_body_without_end(worker, one_worker):
    """More than MAX_REQUEST_SIZE, by a peer that nginx's limit does not hold: 413, and the rest is not kept."""
    before = probe.rss_kib(one_worker.pid)
    piece = record(fastcgi.STDIN, b'x' * 65535)
    with OthersServed(worker), Link(worker) as link:
        link.send(begin() + records(fastcgi.PARAMS, params('POST', '/chat', b'x')))
        went = all(link.send_what_goes(piece) for _ in range(500))  # 32 MB
        if not probe.is_instrumented(one_worker.pid):
            assert probe.rss_kib(one_worker.pid) - before < 40 * 1024
        if went and link.send_what_goes(record(fastcgi.STDIN)):
            status, _, body = link.answer()
            assert status == 413
            assert json.loads(body)['detail']
    if not probe.is_instrumented(one_worker.pid):
        wait_for(lambda: probe.rss_kib(one_worker.pid) - before < 12 * 1024, what='the return of the memory')


# --- silence ---


def test_half_a_request_then_silence(worker):
    """The worker gives each of them up in the end; until then nobody waits for them."""
    whole = request('POST', '/chat', chat_body())
    large = request('POST', '/chat', json.dumps({'message': 'x' * 300000}).encode())
    halves = [whole[:at] for at in range(1, len(whole), 7)] + [whole[:-1], large[:70000], large[:-1]]
    links = [Link(worker, timeout=HALF_A_REQUEST_SECONDS + 15) for _ in halves]
    try:
        with OthersServed(worker, at_least=100):
            for link, half in zip(links, halves):
                link.send(half)
            for link in links:
                assert link.is_closed()
    finally:
        for link in links:
            link.close()


def test_half_large_bodies_then_silence(worker):
    """They may not keep a whole one from being read."""
    whole = request('POST', '/chat', json.dumps({'x': 'x' * 300000}).encode())
    links = [Link(worker) for _ in range(8)]
    try:
        for link in links:
            link.send(whole[:150000])
        begun = time.monotonic()
        with Link(worker) as link:
            link.send(whole)
            assert link.answer()[0] == 400  # for want of a message
        assert time.monotonic() - begun < 3  # 0.1 s for each of them; it was their time limit otherwise
    finally:
        for link in links:
            link.close()


def test_large_bodies_that_trickle(worker):
    """Nor may those that bring a little now and then: nginx has the whole of a body when it begins."""
    whole = request('POST', '/chat', json.dumps({'x': 'x' * 300000}).encode())
    links = [Link(worker) for _ in range(3)]
    stop = threading.Event()

    def trickle(link):
        for at in range(150000, len(whole), 20):
            if stop.wait(0.01) or not link.send_what_goes(whole[at:at + 20]):
                return

    tricklers = [threading.Thread(target=trickle, args=[link], daemon=True) for link in links]
    try:
        for link, trickler in zip(links, tricklers):
            link.send(whole[:150000])
            trickler.start()
        for _ in range(3):
            begun = time.monotonic()
            with Link(worker) as link:
                link.send(whole)
                assert link.answer()[0] == 400  # for want of a message
            assert time.monotonic() - begun < 3
    finally:
        stop.set()
        for link, trickler in zip(links, tricklers):
            trickler.join()
            link.close()


def test_large_bodies_that_stop_cost_no_more_than_a_few(worker, one_worker):
    """What they have brought is kept for a while, but not of any number of them."""
    part = request('POST', '/chat', json.dumps({'x': 'x' * 9000000}).encode())[:-100]
    before = probe.rss_kib(one_worker.pid)
    links = [Link(worker) for _ in range(24)]
    senders = [threading.Thread(target=link.send_what_goes, args=[part], daemon=True) for link in links]
    peak = before
    try:
        with OthersServed(worker):
            for sender in senders:
                sender.start()
            while any(sender.is_alive() for sender in senders):
                peak = max(peak, probe.rss_kib(one_worker.pid))
                senders[0].join(0.005)
    finally:
        for link in links:
            link.close()
    if not probe.is_instrumented(one_worker.pid):
        assert peak - before < 110 * 1024, 'of 206 MiB'
        wait_for(lambda: probe.rss_kib(one_worker.pid) - before < 12 * 1024, what='the return of the memory')


def test_a_thousand_idle_connections(worker, one_worker):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    before = probe.rss_kib(one_worker.pid), probe.descriptors(one_worker.pid)
    links = []
    try:
        for _ in range(1000):
            links.append(Link(worker))
        wait_for(lambda: probe.descriptors(one_worker.pid) >= before[1] + 1000, what='all accepted')
        with OthersServed(worker, at_least=200):
            pass
        if not probe.is_instrumented(one_worker.pid):
            assert probe.rss_kib(one_worker.pid) - before[0] < 1000 * 4
        for link in links[::100]:  # they are good for a request whenever it comes
            link.send(request('GET', '/', keep=True))
            assert link.answer()[0] == 200
    finally:
        for link in links:
            link.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_none_of_it_costs_memory(worker, one_worker):
    bad = [data for data in BAD.values() if len(data) < 200000]
    whole = request('POST', '/chat', chat_body())
    halves = [whole[:at] for at in range(0, len(whole), 11)]

    def all_of_them():
        for data in bad + halves:
            with Link(worker) as link:
                link.send_what_goes(data)
        assert_serves(worker)

    for _ in range(3):
        all_of_them()
    wait_for(lambda: probe.descriptors(one_worker.pid) < 100, what='the closing of descriptors')
    before = probe.rss_kib(one_worker.pid)
    for _ in range(12):
        all_of_them()
    if not probe.is_instrumented(one_worker.pid):
        assert probe.rss_kib(one_worker.pid) - before < 512
