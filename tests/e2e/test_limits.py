"""
What nginx does about clients that ask too much, too slowly, or not at all.
"""
import json
import os
import resource
import select
import socket
import threading
import time

import pytest

from front import Front, OUTSIDER
from stack import wait_for

ALL = {'CLIENT_EXEMPT_NETWORKS': 'none'}


def statuses(front, count, path='/', **options):
    return [front.ask(path, **options).status for _ in range(count)]


# --- requests per second ---


def test_a_client_beyond_its_rate_and_burst_gets_429_and_nobody_else_does():
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=4, **ALL) as front:
        assert statuses(front, 5, source='127.0.0.2') == [200] * 5
        refused = front.ask('/', source='127.0.0.2')
        assert refused.status == 429
        assert refused.headers['Retry-After'] == '1'
        assert '频繁' in refused.detail
        assert front.ask('/', source='127.0.0.3').status == 200
        asked = len(front.workers[0].asked)
        assert front.ask('/', source='127.0.0.2').status == 429
        assert len(front.workers[0].asked) == asked  # no worker hears of it
        wait_for(lambda: front.ask('/', source='127.0.0.2').status == 200, what='the rate to allow one more')
        wait_for(lambda: ' status=429 ' in front.log('nginx_access.log'))
        assert front.log('nginx_error.log') == ''


def test_no_burst():
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0, **ALL) as front:
        assert statuses(front, 2, source='127.0.0.2') == [200, 429]


def test_the_burst_is_not_delayed():
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=20, **ALL) as front:
        began = time.monotonic()
        assert statuses(front, 20) == [200] * 20
        assert time.monotonic() - began < 5  # at 1/s it would be 20


def test_zero_is_no_limit():
    with Front(CLIENT_REQUESTS_PER_SECOND=0, CLIENT_CONNECTIONS=0, **ALL) as front:
        assert set(statuses(front, 200)) == {200}


def test_health_from_this_machine_is_never_limited():
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0, TRUSTED_PROXIES='127.0.0.9', **ALL) as front:
        assert set(statuses(front, 50, '/health')) == {200}
        assert statuses(front, 2, '/health1', source='127.0.0.2') == [200, 429]
        assert statuses(front, 2, '/1,,/health', source='127.0.0.3') == [200, 429]
        assert statuses(front, 3, '/health', source='127.0.0.9', forwarded=OUTSIDER) == [200, 429, 429]
        assert statuses(front, 3, '/health', source='127.0.0.9', forwarded='127.0.0.1') == [200, 429, 429]  # pretended


@pytest.mark.parametrize('exempt,free,limited', [
    ('loopback,private', ['10.1.2.3', '192.168.1.1', 'fd00::1', '127.0.0.1'], [OUTSIDER, '2001:db8::1']),
    ('private', ['10.1.2.3'], [OUTSIDER]),
    ('loopback', [], [OUTSIDER, '10.1.2.3']),
    ('203.0.113.0/24, 2001:db8::/32', [OUTSIDER, '2001:db8::1'], ['203.0.114.1', '10.1.2.3', '2001:db9::1']),
    ('none', [], [OUTSIDER, '10.1.2.3', 'fd00::1', '127.0.0.1']),
])
def test_exempt_networks(exempt, free, limited):
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0, CLIENT_EXEMPT_NETWORKS=exempt,
               TRUSTED_PROXIES='127.0.0.9') as front:
        for client in free:
            assert statuses(front, 3, source='127.0.0.9', forwarded=client) == [200] * 3, client
        for client in limited:
            assert statuses(front, 2, source='127.0.0.9', forwarded=client) == [200, 429], client


def test_an_ipv6_client_is_its_64():
    with Front(CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0, TRUSTED_PROXIES='127.0.0.9', **ALL) as front:
        def ask(client):
            return front.ask('/', source='127.0.0.9', forwarded=client).status
        assert [ask('2001:db8:0:1::1'), ask('2001:db8:0:1:ffff:ffff:ffff:ffff'), ask('2001:db8:0:1::')] == [200, 429, 429]
        assert [ask('2001:db8:0:2::1'), ask('2001:db8::1'), ask('2001:db8:1::1'), ask('2001:db8:a:a:a:a:a:a')] == [200] * 4
        assert [ask('::ffff:198.51.100.1'), ask('::ffff:198.51.100.2'), ask('::ffff:198.51.100.1')] == [200, 200, 429]


@pytest.mark.skipif(not os.path.exists('/proc/net/if_inet6'), reason='no IPv6 here')
def test_ipv4_clients_of_a_socket_for_both_are_told_apart():
    with Front(SERVER_HOST='::', CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0, **ALL) as front:
        assert [front.ask('/', source='127.0.0.%d' % n).status for n in (2, 3, 2)] == [200, 200, 429]
        assert front.ask('/', source='127.0.0.4').json()['REMOTE_ADDR'] == '::ffff:127.0.0.4'
        assert set(statuses(front, 20, '/health')) == {200}


# --- requests at a time ---


def test_a_client_has_so_many_requests_at_a_time():
    gate = threading.Event()

    def answer(_, params):
        if params['REQUEST_URI'] == '/slow':
            gate.wait(20)
        return 'Status: 200\r\n\r\nok'
    with Front(CLIENT_CONNECTIONS=3, CLIENT_BURST=1000, answer=answer, **ALL) as front:
        try:
            callers = [threading.Thread(target=front.ask, args=('/slow',), kwargs={'source': '127.0.0.2'}) for _ in range(3)]
            for caller in callers:
                caller.start()
            wait_for(lambda: len(front.workers[0].asked) == 3)
            refused = front.ask('/', source='127.0.0.2')
            assert refused.status == 429
            assert refused.headers['Retry-After'] == '1'
            assert '同时' in refused.detail
            assert front.ask('/', source='127.0.0.3').status == 200
        finally:
            gate.set()
        for caller in callers:
            caller.join()
        wait_for(lambda: front.ask('/', source='127.0.0.2').status == 200)


# --- slow ones ---


def faster(text):
    """Waits of 15 s and more take 2."""
    for old in ('client_header_timeout 15s;', 'client_body_timeout 30s;'):
        assert old in text
        text = text.replace(old, old.split()[0] + ' 2s;')
    return text


def closed(link, seconds=10):
    """Whether nginx closes within the time; what it says before is read."""
    end = time.monotonic() + seconds
    while select.select([link], [], [], max(end - time.monotonic(), 0))[0]:
        try:
            if not link.recv(65536):
                return True
        except ConnectionResetError:
            return True
    return False


def test_a_header_that_dribbles_is_cut():
    with Front(edit=faster) as front:
        with socket.create_connection(('127.0.0.1', front.port)) as link:
            link.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n')
            for number in range(100):  # never silent for long
                try:
                    link.sendall(b'X-%d: y\r\n' % number)
                except OSError:
                    break
                if closed(link, 0.1):
                    break
            else:
                pytest.fail('a header may take 10 s')
        wait_for(lambda: ' status=408 ' in front.log('nginx_access.log'))
        assert not front.workers[0].asked


def test_a_silent_connection_is_cut():
    with Front(edit=faster) as front, socket.create_connection(('127.0.0.1', front.port)) as link:
        assert closed(link)


def test_a_body_that_stops_is_cut_and_a_slow_one_is_not():
    with Front(edit=faster) as front:
        head = b'POST /chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8\r\n\r\n'
        with socket.create_connection(('127.0.0.1', front.port)) as stopped, \
                socket.create_connection(('127.0.0.1', front.port)) as slow:
            stopped.sendall(head + b'abc')
            slow.sendall(head)
            for _ in range(8):  # 4 s in all
                assert not closed(slow, 0.5)
                slow.sendall(b'x')
            assert closed(stopped, 0.1) or closed(stopped)
            assert closed(slow)
        assert [params['CONTENT_LENGTH'] for params in front.workers[0].asked] == ['8']
        wait_for(lambda: ' status=408 ' in front.log('nginx_access.log'))


def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def test_ten_thousand_idle_connections_are_in_nobodys_way():
    count = min(10000, descriptors() // 2 - 200)
    with Front(workers=2, CLIENT_CONNECTIONS=0, **ALL) as front:
        idle = []
        try:
            for number in range(count):
                link = socket.socket()
                link.bind(('127.0.0.%d' % (2 + number % 100), 0))
                link.connect(('127.0.0.1', front.port))
                idle.append(link)
                if number % 2:
                    link.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n')  # the half of them in the middle of a header
            began = time.monotonic()
            for number in range(200):
                answer = front.ask('/chat', 'POST', json.dumps({'message': 'x' * 1000}), source='127.0.1.%d' % (1 + number))
                assert answer.status == 200
            assert time.monotonic() - began < 5
            for link in idle[1::500]:  # they are still there, with what they had sent
                link.sendall(b'Connection: close\r\n\r\n')
                assert link.recv(100).startswith(b'HTTP/1.1 200')
            quiet = select.poll()
            for link in idle[0::2]:
                quiet.register(link, select.POLLIN)
            assert quiet.poll(0) == []
        finally:
            for link in idle:
                link.close()
        assert front.log('nginx_error.log') == ''
