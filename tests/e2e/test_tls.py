"""
HTTPS: what nginx offers, where plain HTTP is sent, and that a wrong certificate is found before anything starts.
"""
import json
import os
import socket
import ssl
import subprocess
import time

import pytest

from front import Front, make_certificate, trust_all
from service import Service, free_port
from stack import directive, parse_stream


pytestmark = pytest.mark.filterwarnings('ignore:ssl.TLSVersion')


@pytest.fixture(scope='module')
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp('tls'))


def settings(certificate, **more):
    return dict(TLS_CERT_FILE=certificate[0], TLS_KEY_FILE=certificate[1], **more)


@pytest.fixture(scope='module')
def front(certificate):
    with Front(**settings(certificate)) as running:
        yield running


@pytest.fixture(scope='module')
def both(certificate):
    with Front(**settings(certificate, TLS_REDIRECT='false')) as running:
        yield running


def curl(*arguments):
    done = subprocess.run(['curl', '-sS', '--max-time', '20', *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


# --- the protocol ---


def test_https_answers_and_verifies(front, certificate):
    shown = json.loads(curl('--cacert', certificate[0], 'https://localhost:%d/x' % front.tls_port))
    assert (shown['REQUEST_URI'], shown['REQUEST_SCHEME']) == ('/x', 'https')


def test_http2_is_offered_and_http_1_1_still_served(front, certificate):
    for option, version in (('--http2', '2'), ('--http1.1', '1.1')):
        out = curl(option, '--cacert', certificate[0], '-o', '/dev/null', '-w', '%{http_version} %{http_code}',
                   'https://localhost:%d/' % front.tls_port)
        assert out == version + ' 200'


def handshake(front, **limits):
    context = trust_all()
    context.set_ciphers(limits.pop('ciphers', 'ALL:@SECLEVEL=0'))
    context.minimum_version = limits.pop('least', ssl.TLSVersion.TLSv1)
    context.maximum_version = limits.pop('most', ssl.TLSVersion.MAXIMUM_SUPPORTED)
    with socket.create_connection(('127.0.0.1', front.tls_port), timeout=20) as link:
        with context.wrap_socket(link, **limits) as tls:
            return tls.version(), tls.cipher()[0]


def test_tls_1_2_and_1_3(front):
    assert handshake(front)[0] == 'TLSv1.3'
    version, cipher = handshake(front, most=ssl.TLSVersion.TLSv1_2)
    assert version == 'TLSv1.2'
    assert cipher.startswith('ECDHE-') and ('GCM' in cipher or 'CHACHA20' in cipher)


@pytest.mark.parametrize('limits', [
    {'most': ssl.TLSVersion.TLSv1_1},
    {'most': ssl.TLSVersion.TLSv1_2, 'ciphers': 'ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA'},
    {'most': ssl.TLSVersion.TLSv1_2, 'ciphers': 'AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256'},
], ids=['TLS 1.1', 'CBC', 'no ECDHE'])
def test_nothing_older(front, limits):
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(front, **limits)


def test_a_returning_client_needs_no_whole_handshake(front):
    context = trust_all()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session = None
    for reused in (False, True):
        with socket.create_connection(('127.0.0.1', front.tls_port), timeout=20) as link:
            with context.wrap_socket(link, session=session) as tls:
                assert tls.session_reused == reused
                assert not tls.session.has_ticket
                session = tls.session


def test_plain_http_to_the_https_port_is_told_so(front):
    answer = front.raw(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', port=front.tls_port)
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert '请使用 HTTPS'.encode() in answer.partition(b'\r\n\r\n')[2]


def test_a_silent_handshake_is_cut(certificate):
    with Front(edit=lambda text: text.replace('client_header_timeout 15s;', 'client_header_timeout 1s;'),
               **settings(certificate)) as front:
        with socket.create_connection(('127.0.0.1', front.tls_port), timeout=10) as link:
            link.sendall(b'\x16\x03\x01')
            assert link.recv(1) == b''


# --- plain HTTP is sent to HTTPS ---


@pytest.mark.parametrize('path', ['/', '/chat', '/a%20b?c=d&e=%2F', '/metrics', '/x?https://y', '//evil.example/'])
@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_plain_http_is_sent_to_https(front, path, method):
    asked = len(front.workers[0].asked)
    answer = front.ask(path, method, headers={'Host': 'chat.example.com:%d' % front.port})
    assert answer.status == 308  # unlike 301, a POST stays one
    assert answer.headers.get_all('Location') == ['https://chat.example.com:%d%s' % (front.tls_port, path)]
    assert answer.headers.get_all('Strict-Transport-Security') is None
    assert 'HTTPS' in answer.detail
    assert len(front.workers[0].asked) == asked


def test_a_post_that_follows_arrives_whole(front, certificate):
    shown = json.loads(curl('-L', '--cacert', certificate[0], '-d', '{"message":"x"}', '-H', 'Content-Type: application/json',
                            'http://localhost:%d/chat' % front.port))
    assert (shown['REQUEST_METHOD'], shown['CONTENT_LENGTH'], shown['REQUEST_SCHEME']) == ('POST', '15', 'https')


def test_health_is_answered_over_plain_http(front):
    assert front.ask('/health').json()['REQUEST_SCHEME'] == 'http'
    assert front.ask('/health?x').status == 200
    assert front.ask('/healthy').status == 308


@pytest.mark.parametrize('host,shown', [('CHAT.Example.com', 'chat.example.com'), ('10.0.0.1:80', '10.0.0.1'),
                                        ('[2001:db8::1]:80', '[2001:db8::1]'), ('a_b-c.d', 'a_b-c.d')])
def test_sane_hosts(front, host, shown):
    assert front.ask('/', headers={'Host': host}).headers['Location'] == 'https://%s:%d/' % (shown, front.tls_port)


@pytest.mark.parametrize('host', [b'evil.example/', b'a@evil.example', b'a"b', b'<x>', b'a\\b', b'a?b', b'a#b', b'a;b', b'%0d%0a',
                                  b'-', b'_', b'\xe4\xb8\xad', b'[x]', b'a' * 300])
def test_other_hosts_are_sent_nowhere(front, host):
    answer = front.raw(b'GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % host)
    assert answer.startswith(b'HTTP/1.1 400 ')
    head, _, body = answer.partition(b'\r\n\r\n')
    assert b'Location' not in head
    assert json.loads(body)['detail']


def test_errors_are_errors_also_on_plain_http(front):
    assert front.ask('/%zz').status == 400
    assert '格式错误' in front.ask('/%zz').detail


def test_port_443_is_not_named(certificate):
    front = Front(**settings(certificate, TLS_PORT='443'))  # only root may listen there: it is not started
    try:
        assert 'return 308 https://$redirect_host$request_uri;' in front.render()
    finally:
        front.close()


def test_https_that_ended_at_a_proxy_is_https(certificate):
    with Front(TRUSTED_PROXIES='127.0.0.9', **settings(certificate)) as front:
        https = {'X-Forwarded-Proto': 'https'}
        assert front.ask('/', source='127.0.0.9', headers=https).json()['REQUEST_SCHEME'] == 'https'
        assert front.ask('/', source='127.0.0.8', headers=https).status == 308


def test_without_redirect_both_are_served_alike(both):
    plain, tls = [both.ask('/x', headers={'X-Request-ID': 'r'}, tls=tls) for tls in (False, True)]
    assert (plain.json().pop('REQUEST_SCHEME'), tls.json().pop('REQUEST_SCHEME')) == ('http', 'https')
    assert {**plain.json(), 'REQUEST_SCHEME': ''} == {**tls.json(), 'REQUEST_SCHEME': ''}
    assert set(tls.headers) - set(plain.headers) == {'Strict-Transport-Security'}


# --- the whole service ---


def test_a_stream_keeps_its_pace_over_https(certificate, make_stack):
    """The first chunk is there long before the last, over HTTP/1.1 and HTTP/2."""
    port = free_port()
    make_stack(TLS_PORT=port, sim={'SIM_GAP_MS': 300}, **settings(certificate))
    for version in ('--http1.1', '--http2'):
        body = json.dumps({'message': directive(answer='一二三四五六七八', chunks=8)})
        with subprocess.Popen(['curl', '-sSN', version, '--max-time', '20', '--cacert', certificate[0],
                               '-H', 'Content-Type: application/json', '-d', body,
                               'https://localhost:%d/chat/stream' % port], stdout=subprocess.PIPE) as client:
            out, times = b'', []
            while piece := os.read(client.stdout.fileno(), 65536):
                out += piece
                times.append(time.monotonic())
        events = parse_stream(out)
        assert events[-1]['type'] == 'complete'
        assert len(times) >= 4, 'the stream came in %d pieces' % len(times)
        assert times[-1] - times[0] > 0.75


@pytest.mark.parametrize('damage,told', [
    (lambda cert, key: (cert, None), 'TLS_KEY_FILE'),
    (lambda cert, key: (None, key), 'TLS_CERT_FILE'),
    (lambda cert, key: (cert, '/nonexistent/key'), 'TLS_KEY_FILE'),
    (lambda cert, key: (key, key), 'TLS_CERT_FILE'),
    (lambda cert, key: (cert, cert), 'TLS_KEY_FILE'),
    (lambda cert, key: (cert, 'other'), 'is not the key of the certificate'),
    (lambda cert, key: (cert, 'locked'), 'passphrase'),
], ids=['no key', 'no certificate', 'missing key', 'key as certificate', 'certificate as key', 'another key', 'passphrase'])
def test_up_refuses_a_certificate_that_is_none(certificate, tmp_path, damage, told):
    cert, key = damage(*certificate)
    if key == 'other':
        key = make_certificate(tmp_path, 'other')[1]
    elif key == 'locked':
        key = str(tmp_path / 'locked.key')
        subprocess.run(['openssl', 'pkey', '-in', certificate[1], '-aes256', '-passout', 'pass:secret', '-out', key], check=True)
    with Service(name='cz', TLS_CERT_FILE=cert, TLS_KEY_FILE=key) as service:
        done = service.call('up')
        assert done.returncode != 0
        assert told in done.stderr
        assert len(done.stderr.splitlines()) <= 2  # and that nothing was started
        assert service.processes() == set()
