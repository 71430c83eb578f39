"""
Which worker gets a request, and who gets it when that one is gone: no message is ever given to two workers.
"""
import collections
import contextlib
import json
import socket
import struct
import threading
import time

import pytest
import requests

from front import FakeWorker, Front, Hole
from redis_server import RedisServer
from service import free_port
from stack import late, wait_for

TWICE = ['POST', 'PATCH']
SAFE = ['GET', 'HEAD']


def dies(worker, params):
    """Reads the request and closes without an answer, as a worker that is killed in the middle."""
    return 'Status: 200\r\n\r\n' if params['REQUEST_URI'] == '/health' else None


@contextlib.contextmanager
def tcp(answers, **settings):
    """nginx with a worker per answer on TCP; False: nobody listens there."""
    workers, addresses = [], []
    for number, answer in enumerate(answers):
        port = free_port()
        addresses.append('127.0.0.1:%d' % port)
        if answer:
            workers.append(FakeWorker(('127.0.0.1', port), answer, str(number)))
    try:
        with Front(workers=0, WORKER_ADDRESSES=','.join(addresses), **settings) as front:
            front.tcp = workers
            yield front
    finally:
        for worker in workers:
            worker.close()


def good(worker, _):
    return 'Status: 200\r\nX-Worker: %s\r\n\r\n' % worker.name


# --- unix sockets ---


def test_a_request_that_no_worker_has_goes_to_the_next():
    with Front(workers=3, answer=good) as front:
        front.workers[0].close()
        front.workers[1].close()
        for method in TWICE + SAFE:
            for _ in range(5):
                assert front.ask('/chat', method, b'{}').status == 200
        assert len(front.workers[2].asked) == 20
        front.workers.pop(0), front.workers.pop(0)


@pytest.mark.parametrize('method', TWICE)
@pytest.mark.parametrize('size', [2, 50000])
def test_a_message_that_a_worker_has_is_never_given_to_another(method, size):
    with Front(workers=3, answer=dies) as front:
        for number in range(1, 10):
            answer = front.ask('/chat', method, b'x' * size)
            assert answer.status == 502
            assert answer.headers['Retry-After'] == '1'
            assert '暂时不可用' in answer.detail
            assert sum(len(worker.asked) for worker in front.workers) == number


def test_a_question_that_changes_nothing_may_be_asked_again():
    with Front(workers=2, answer=lambda worker, _: good(worker, _) if worker.name == '1' else None) as front:
        for method in SAFE:
            for _ in range(5):
                assert front.ask('/session/x/info', method).status == 200


def test_a_message_is_not_repeated_on_a_kept_connection_that_broke():
    """Nor when the worker closes while the request is on its way."""
    def once(worker, params):
        return good(worker, params) if params['REQUEST_URI'] == '/warm' else None
    with Front(workers=2, answer=once) as front:
        for _ in range(6):
            assert front.ask('/warm').status == 200
        kept = sum(worker.connections for worker in front.workers)
        before = sum(len(worker.asked) for worker in front.workers)
        assert front.ask('/chat', 'POST', b'{}').status == 502
        assert sum(len(worker.asked) for worker in front.workers) == before + 1
        assert kept <= 6


def test_a_message_whose_worker_is_silent_is_not_repeated():
    gate = threading.Event()

    def silent(worker, params):
        if params['REQUEST_METHOD'] == 'POST':
            gate.wait(20)
        return good(worker, params)

    def faster(text):
        return text.replace('fastcgi_read_timeout 60s;', 'fastcgi_read_timeout 1s;')
    with Front(workers=2, answer=silent, edit=faster) as front:
        answer = front.ask('/session/x/clear', 'POST', b'{}')
        gate.set()
        assert answer.status == 504
        assert '超时' in answer.detail
        assert sum(len(worker.asked) for worker in front.workers) == 1


# --- TCP ---


def test_requests_spread_over_the_workers_of_all_machines():
    gate = threading.Barrier(9)

    def together(worker, params):
        gate.wait(20)
        return good(worker, params)
    with tcp([together] * 3) as front:
        callers = [threading.Thread(target=front.ask, args=('/chat', 'POST', b'{}')) for _ in range(9)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert [len(worker.asked) for worker in front.tcp] == [3, 3, 3]


def test_connections_to_workers_are_kept():
    with tcp([good], edit=lambda text: text.replace('worker_processes auto', 'worker_processes 1')) as front:
        for _ in range(20):
            assert front.ask('/').status == 200
        assert front.tcp[0].connections == 1


def test_a_machine_that_refuses_is_left_out():
    with tcp([good, False, False]) as front:
        for method in TWICE + SAFE:
            assert [front.ask('/', method).status for _ in range(5)] == [200] * 5
        assert len(front.tcp[0].asked) == 20


def test_a_machine_that_is_cut_off_costs_one_request_a_second_now_and_then():
    hole = Hole('127.0.0.1')
    worker = FakeWorker(('127.0.0.1', free_port()), good)
    try:
        with Front(workers=0, WORKER_ADDRESSES='%s:%d,127.0.0.1:%d' % (*hole.address, worker.address[1])) as front:
            took = []
            for _ in range(40):
                began = time.monotonic()
                assert front.ask('/chat', 'POST', b'{}').status == 200
                took.append(time.monotonic() - began)
            assert sum(one > 0.95 for one in took) == 1
            assert max(took) < 1 + late()
            assert len(worker.asked) == 40
    finally:
        hole.close()
        worker.close()


def test_no_worker_at_all():
    with tcp([False, False]) as front:
        answer = front.ask('/chat', 'POST', b'{}')
        assert answer.status == 502
        assert '暂时不可用' in answer.detail


def test_workers_that_come_back_are_found():
    port = free_port()
    with Front(workers=0, WORKER_ADDRESSES='127.0.0.1:%d,127.0.0.1:%d' % (port, free_port())) as front:
        assert front.ask('/').status == 502
        worker = FakeWorker(('127.0.0.1', port), good)
        try:
            wait_for(lambda: front.ask('/').status == 200)
        finally:
            worker.close()


# --- a name that is asked again and again ---


class Dns:
    """A name server that knows one name."""

    def __init__(self, name, addresses):
        self.name = b''.join(bytes([len(part)]) + part.encode() for part in name.split('.')) + b'\0'
        self.addresses = addresses
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, client = self.socket.recvfrom(2000)
            except OSError:
                return
            if not query:  # closed
                return
            end = query.index(b'\0', 12) + 1
            known = query[12:end].lower() == self.name
            wants_a = query[end:end + 2] == b'\0\1'
            self.asked += known and wants_a
            answers = self.addresses if known and wants_a else []
            self.socket.sendto(query[:2] + struct.pack('>HHHHH', 0x8180 if known else 0x8183, 1, len(answers), 0, 0)
                               + query[12:end + 4]
                               + b''.join(b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 600, 4) + socket.inet_aton(address)
                                          for address in answers), client)

    def close(self):
        with contextlib.suppress(OSError):  # it is not connected, but its reader wakes up
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@contextlib.contextmanager
def named(hosts, answer=good, **settings):
    """nginx that knows its workers by name; `hosts` are the loopback addresses of those that run."""
    port = free_port()
    workers = {host: FakeWorker((host, port), answer, host) for host in hosts}
    dns = Dns('worker', list(hosts))
    try:
        with Front(workers=0, WORKER_ADDRESSES='worker:%d' % port, WORKER_RESOLVER='127.0.0.1:%d' % dns.port,
                   **settings) as front:
            front.dns, front.tcp, front.worker_port = dns, workers, port
            yield front
    finally:
        dns.close()
        for worker in workers.values():
            worker.close()


def test_all_addresses_of_a_name_are_used():
    with named(['127.0.0.2', '127.0.0.3', '127.0.0.4']) as front:
        used = collections.Counter(front.ask('/chat', 'POST', b'{}').headers['X-Worker'] for _ in range(60))
        assert set(used) == {'127.0.0.2', '127.0.0.3', '127.0.0.4'}
        assert min(used.values()) >= 5


def test_new_workers_are_found_and_old_ones_forgotten_without_a_reload():
    with named(['127.0.0.2', '127.0.0.3']) as front:
        front.dns.addresses = ['127.0.0.2']
        wait_for(lambda: {front.ask('/').headers['X-Worker'] for _ in range(10)} == {'127.0.0.2'})
        front.dns.addresses = ['127.0.0.3']
        wait_for(lambda: {front.ask('/').headers['X-Worker'] for _ in range(10)} == {'127.0.0.3'})
        assert front.dns.asked >= 2  # once for each answer that was different


@pytest.mark.parametrize('method', TWICE + SAFE)
def test_an_address_that_refuses_is_skipped(method):
    with named(['127.0.0.2']) as front:
        front.dns.addresses = ['127.0.0.2', '127.0.0.7', '127.0.0.8']  # the others just ended
        assert [front.ask('/', method, b'{}').status for _ in range(30)] == [200] * 30


def test_an_address_that_does_not_answer_is_skipped_after_a_second():
    hole = Hole('127.0.0.2')
    host, port = hole.address
    worker = FakeWorker(('127.0.0.3', port), good)
    dns = Dns('worker', ['127.0.0.2', '127.0.0.3'])
    try:
        with Front(workers=0, WORKER_ADDRESSES='worker:%d' % port, WORKER_RESOLVER='127.0.0.1:%d' % dns.port) as front:
            for _ in range(6):
                began = time.monotonic()
                assert front.ask('/chat', 'POST', b'{}').status == 200
                assert time.monotonic() - began < 3
            assert len(worker.asked) == 6
    finally:
        dns.close()
        hole.close()
        worker.close()


@pytest.mark.parametrize('method', TWICE)
def test_a_message_is_not_repeated_by_name_either(method):
    with named(['127.0.0.2', '127.0.0.3'], answer=dies) as front:
        for number in range(1, 6):
            assert front.ask('/chat', method, b'{}').status == 502
            assert sum(len(worker.asked) for worker in front.tcp.values()) == number


def test_an_unknown_name_is_502_until_it_is_known():
    with named(['127.0.0.2']) as front:
        known, front.dns.name = front.dns.name, b'\7another\0'
        wait_for(lambda: front.ask('/').status == 502)
        assert '暂时不可用' in front.ask('/').detail
        front.dns.name = known
        wait_for(lambda: front.ask('/').status == 200)


# --- the real workers ---


@pytest.fixture
def redis_url():
    """Workers on TCP are for many machines, which share a Redis."""
    server = RedisServer().start()
    yield server.tcp_url
    server.close()


def test_real_workers_on_tcp(make_stack, redis_url):
    port, following = free_port(), free_port()
    while following != port + 1:  # the second worker listens there
        port, following = following, free_port()
    stack = make_stack(REDIS_URL=redis_url, WORKER_LISTEN='127.0.0.1:%d' % port, WORKER_ADDRESSES='127.0.0.1:%d,127.0.0.1:%d' % (port, following))
    assert stack.chat('你好').status_code == 200
    assert stack.events('你好')[-1]['type'] == 'complete'


def test_real_workers_by_name(make_stack, redis_url):
    port = free_port()
    dns = Dns('worker', ['127.0.0.1'])
    try:
        stack = make_stack(REDIS_URL=redis_url, WORKERS='1', WORKER_LISTEN='127.0.0.1:%d' % port,
                           WORKER_ADDRESSES='worker:%d' % port, WORKER_RESOLVER='127.0.0.1:%d' % dns.port)
        for _ in range(5):
            assert stack.chat('你好').status_code == 200
        assert stack.events('你好')[-1]['type'] == 'complete'
    finally:
        dns.close()


def test_real_workers_believe_nginx_about_its_metrics_port(make_stack):
    port = free_port()
    stack = make_stack(ADMIN_API_KEYS='admin-0123456789', METRICS_LISTEN='127.0.0.1:%d' % port)
    answer = requests.get('http://127.0.0.1:%d/metrics' % port, timeout=10)
    assert answer.status_code == 200
    assert '# TYPE' in answer.text
    for headers in ({}, {'ADMIN_TRUSTED': '1'}, {'Admin-Trusted': '1'}, {'X-API-Key': 'wrong'}):
        assert requests.get(stack.url + '/metrics', headers=headers, timeout=10).status_code == 401
    assert requests.get(stack.url + '/metrics', headers={'X-API-Key': 'admin-0123456789'}, timeout=10).status_code == 200


# --- METRICS_LISTEN ---


def metrics_of(front, path, method='GET', **options):
    return front.ask(path, method, port=front.metrics_port, **options)


def whoami(worker, params):
    return 'Status: 200\r\nContent-Type: text/plain\r\n\r\n' + json.dumps({'worker': worker.name, **params})


@pytest.fixture
def metrics_port():
    return free_port()


def test_each_workers_metrics(metrics_port):
    with tcp([whoami, whoami], METRICS_LISTEN='127.0.0.1:%d' % metrics_port) as front:
        front.metrics_port = metrics_port
        for number, address in enumerate(front.env['WORKER_ADDRESSES'].split(',')):
            for _ in range(3):
                shown = metrics_of(front, '/metrics/' + address).json()
                assert shown['worker'] == str(number)
                assert (shown['REQUEST_URI'], shown['ADMIN_TRUSTED'], shown['REQUEST_METHOD']) == ('/metrics', '1', 'GET')
        assert metrics_of(front, '/metrics').json()['ADMIN_TRUSTED'] == '1'
        assert metrics_of(front, '/metrics/' + address, 'HEAD').status == 200


def test_by_name_each_workers_own_address(metrics_port):
    with named(['127.0.0.2', '127.0.0.3'], answer=whoami, METRICS_LISTEN='127.0.0.1:%d' % metrics_port) as front:
        front.metrics_port = metrics_port
        for host in front.tcp:
            assert metrics_of(front, '/metrics/%s:%d' % (host, front.worker_port)).json()['worker'] == host
        assert metrics_of(front, '/metrics').json()['ADMIN_TRUSTED'] == '1'
        asked = {host: len(worker.asked) for host, worker in front.tcp.items()}
        for target in ('127.0.0.2:%d' % (front.worker_port + 1), '127.0.0.2', '8.8.8.8:%d' % front.worker_port,
                       'worker:%d' % front.worker_port, 'localhost:%d' % front.worker_port, '127.0.0.2:%d/x' % front.worker_port,
                       'unix:/x', '127.2:%d' % front.worker_port, '%%20127.0.0.2:%d' % front.worker_port,
                       '[2001:db8::1]:%d' % front.worker_port, 'chatd', ''):
            assert metrics_of(front, '/metrics/' + target).status == 404, target
        assert asked == {host: len(worker.asked) for host, worker in front.tcp.items()}


def test_nothing_else_is_there(metrics_port):
    with tcp([whoami], METRICS_LISTEN='127.0.0.1:%d' % metrics_port) as front:
        front.metrics_port = metrics_port
        address = front.env['WORKER_ADDRESSES']
        for path in ('/', '/chat', '/sessions', '/health', '/metrics/', '/metrics/x', '/metrics/127.0.0.1:1', '/metrics/chatd',
                     '/metrics/metrics_0', '/metrics/%s/x' % address, '/metricsx'):
            answer = metrics_of(front, path)
            assert answer.status == 404
            assert answer.detail
        for path in ('/metrics', '/metrics/' + address):
            for method in ('POST', 'PUT', 'DELETE', 'OPTIONS'):
                assert metrics_of(front, path, method).status == 405
        assert not front.tcp[0].asked


def test_the_public_port_vouches_for_nobody(metrics_port):
    with tcp([whoami], METRICS_LISTEN='127.0.0.1:%d' % metrics_port) as front:
        for path in ('/metrics', '/metrics/' + front.env['WORKER_ADDRESSES'], '/sessions', '/'):
            for headers in ({}, {'ADMIN_TRUSTED': '1'}, {'Admin-Trusted': '1'}, {'Host': '127.0.0.1:%d' % metrics_port}):
                assert 'ADMIN_TRUSTED' not in front.ask(path, headers=headers).json()


def test_metrics_of_workers_on_this_machine(metrics_port):
    with Front(answer=whoami, METRICS_LISTEN='127.0.0.1:%d' % metrics_port) as front:
        front.metrics_port = metrics_port
        assert metrics_of(front, '/metrics').json()['ADMIN_TRUSTED'] == '1'
        assert metrics_of(front, '/metrics/127.0.0.1:9000').status == 404
