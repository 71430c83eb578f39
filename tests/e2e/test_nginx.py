"""
What nginx itself answers: its errors as JSON, request ids, CORS, and what it lets through to the workers.
"""
import json
import os
import re
import subprocess

import pytest

from front import make_certificate
from service import Service, TOP

END = b'Host: x\r\nConnection: close\r\n\r\n'
ORIGIN = 'https://chat.example.com'


@pytest.fixture(scope='module')
def service():
    with Service(ALLOWED_ORIGINS=ORIGIN + ', http://localhost:3000', MAX_REQUEST_SIZE='100000') as running:
        running.up()
        yield running


def values(headers, name):
    return [value for key, value in headers if key.lower() == name]


def assert_json_error(answer, status):
    got, headers, body = answer
    assert got == status
    assert values(headers, 'content-type') == ['application/json']
    detail = json.loads(body)['detail']
    assert re.search('[\u4e00-\u9fff]', detail)
    assert len(values(headers, 'x-request-id')) == 1


@pytest.mark.parametrize('status,request_bytes', [
    (400, b'GET /%zz HTTP/1.1\r\n' + END),
    (400, b'GET /%00 HTTP/1.1\r\n' + END),
    (400, b'GET /../../etc/passwd HTTP/1.1\r\n' + END),
    (400, b'\x16\x03\x01\x02\r\n\r\n'),
    (400, b'get / HTTP/1.1\r\n' + END),
    (400, b'CONNECT a:80 HTTP/1.1\r\n' + END),
    (400, b'GET / HTTP/1.1\r\nConnection: close\r\n\r\n'),
    (400, b'GET / HTTP/1.1\r\nHost: a\r\n' + END),
    (400, b'GET / HTTP/1.1\r\nHost: a/b\\\r\n\r\n'),
    (400, b'POST /chat HTTP/1.1\r\nContent-Length: abc\r\n' + END),
    (400, b'POST /chat HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n' + END + b'0\r\n\r\n'),
    (400, b'POST /chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n' + END + b'zz\r\n'),
    (405, b'TRACE / HTTP/1.1\r\n' + END),
    (413, b'POST /chat HTTP/1.1\r\nContent-Length: 100001\r\n' + END),
    (413, b'POST /chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n' + END + b'fffffff\r\nabc'),
    (414, b'GET /' + b'a' * 20000 + b' HTTP/1.1\r\n' + END),
    (431, b'GET / HTTP/1.1\r\nX: ' + b'a' * 100000 + b'\r\n' + END),
    (431, b'GET / HTTP/1.1\r\n' + b'X: %s\r\n' % (b'a' * 8000) * 20 + END),
    (501, b'POST /chat HTTP/1.1\r\nTransfer-Encoding: gzip\r\n' + END),
    (505, b'GET / HTTP/2.0\r\n' + END),
    (404, b'GET /_error HTTP/1.1\r\n' + END),
], ids=lambda value: value if isinstance(value, int) else repr(value[:40]))
def test_nginx_errors_are_json(service, status, request_bytes):
    assert_json_error(service.raw(request_bytes), status)


def test_405_names_what_is_allowed(service):
    assert values(service.raw(b'TRACE / HTTP/1.1\r\n' + END)[1], 'allow')


def test_head_has_the_status_and_no_body(service):
    assert service.raw(b'HEAD /%zz HTTP/1.1\r\n' + END)[::2] == (400, b'')
    assert service.raw(b'HEAD /health HTTP/1.1\r\n' + END)[::2] == (200, b'')


def test_http_1_0_is_served(service):
    status, _, body = service.raw(b'GET /health HTTP/1.0\r\n\r\n')
    assert status == 200
    assert json.loads(body)['status'] == 'healthy'


@pytest.mark.parametrize('sent', [b'a', b'A-b_c.d:9', b'x' * 128])
def test_a_sane_request_id_comes_back(service, sent):
    headers = service.raw(b'GET /health HTTP/1.1\r\nX-Request-ID: ' + sent + b'\r\n' + END)[1]
    assert values(headers, 'x-request-id') == [sent.decode()]


@pytest.mark.parametrize('sent', [b'', b'a b', b'x' * 129, b'a\tb', b'"', b'\xe4\xb8\xad'])
def test_another_request_id_is_replaced(service, sent):
    headers = service.raw(b'GET /health HTTP/1.1\r\nX-Request-ID: ' + sent + b'\r\n' + END)[1]
    assert re.fullmatch('[0-9a-f]{32}', *values(headers, 'x-request-id'))


# --- CORS ---


def ask(service, method, origin, extra=''):
    return service.raw(('%s /chat HTTP/1.1\r\nOrigin: %s\r\n%s' % (method, origin, extra)).encode() + END)


def test_a_preflight_of_a_listed_origin(service):
    status, headers, body = ask(service, 'OPTIONS', ORIGIN, 'Access-Control-Request-Method: POST\r\n')
    assert (status, body) == (204, b'')
    assert values(headers, 'access-control-allow-origin') == [ORIGIN]
    assert 'POST' in values(headers, 'access-control-allow-methods')[0]
    for name in ('Content-Type', 'Authorization', 'X-API-Key', 'X-Request-ID'):
        assert name in values(headers, 'access-control-allow-headers')[0]


def test_another_origin_is_allowed_nothing(service):
    for origin in ('https://evil.example', ORIGIN + '.evil.example', 'null'):
        status, headers, _ = ask(service, 'OPTIONS', origin, 'Access-Control-Request-Method: POST\r\n')
        assert status == 204
        assert not [key for key, _ in headers if key.lower().startswith('access-control')]
        assert values(headers, 'vary') == ['Origin']


def test_cors_headers_are_on_errors_too(service):
    status, headers, _ = ask(service, 'GET', 'http://localhost:3000')
    assert status == 405
    assert values(headers, 'access-control-allow-origin') == ['http://localhost:3000']
    assert values(headers, 'access-control-expose-headers') == ['X-Request-ID, X-Session-ID']
    assert len(values(headers, 'allow')) == 1


def test_another_options_goes_to_the_worker(service):
    status, headers, _ = service.raw(b'OPTIONS /chat HTTP/1.1\r\n' + END)
    assert status == 405
    assert values(headers, 'allow')


# --- rendering ---


def render(**settings):
    env = dict(PATH=os.environ['PATH'], RUN_DIR='/tmp/x', WORKERS='2', SERVER_HOST='127.0.0.1', SERVER_PORT='6001',
               MAX_REQUEST_SIZE='1000', ALLOWED_ORIGINS='*')
    env.update(settings)
    return subprocess.run([os.path.join(TOP, 'nginx', 'render')], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=20)


@pytest.mark.parametrize('name,value', [
    ('ALLOWED_ORIGINS', 'https://a" ; } evil'), ('ALLOWED_ORIGINS', 'https://a\nevil;'),
    ('ALLOWED_ORIGINS', '$host'), ('ALLOWED_ORIGINS', 'https://a, *'), ('ALLOWED_ORIGINS', '~.*'),
    ('ALLOWED_ORIGINS', 'https://a/path'), ('SERVER_HOST', 'a;b'), ('SERVER_HOST', 'a b'), ('SERVER_HOST', ''),
    ('SERVER_PORT', '1;'), ('WORKERS', '2 2'), ('WORKERS', '0'), ('MAX_REQUEST_SIZE', '0'), ('RUN_DIR', 'relative'),
    ('RUN_DIR', '/a";evil'), ('RUN_DIR', '/a$b'), ('RUN_DIR', '/a\nb'), ('STREAM_TIMEOUT_SECONDS', '1;'),
    ('SERVER_PORT', '65536'), ('LOG_FORMAT', 'combined'), ('CLIENT_REQUESTS_PER_SECOND', '1;'), ('CLIENT_REQUESTS_PER_SECOND', '-1'),
    ('CLIENT_BURST', '1 delay=1'), ('CLIENT_CONNECTIONS', '$x'), ('ADMIN_KEYS_SET', 'secret'),
    ('WORKER_ADDRESSES', 'a'), ('WORKER_ADDRESSES', 'a:1;'), ('WORKER_ADDRESSES', 'a:0'), ('WORKER_ADDRESSES', 'a:70000'),
    ('WORKER_ADDRESSES', 'a:1,'), ('WORKER_ADDRESSES', 'unix:/x'), ('WORKER_ADDRESSES', 'a:1 b:2'), ('WORKER_ADDRESSES', '$a:1'),
    ('WORKER_RESOLVER', 'x;'), ('WORKER_RESOLVER', '127.0.0.1'), ('METRICS_LISTEN', '80'), ('METRICS_LISTEN', 'a:1;'),
    ('METRICS_LISTEN', '0.0.0.0:6001'),
])
def test_a_hostile_value_is_refused(name, value):
    done = render(**{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('name', ['ADMIN_NETWORKS', 'TRUSTED_PROXIES', 'CLIENT_EXEMPT_NETWORKS'])
@pytest.mark.parametrize('value', [
    '10.0.0.0/33', '256.0.0.1', '10.0.0', '10.0.0.1/', '/8', '::/129', '1:2:3:4:5:6:7', '1::2::3', '12345::', ':1', '::g', 'localhost',
    'loopback;', '10.0.0.1 1; evil', '10.0.0.1\n', '$x', 'unix:', '0x7f.1', 'LOOPBACK', '10.0.0.1/08', '1.2.3.4-1.2.3.9', 'none,loopback',
    'private,all', '::1.2.3.4', '1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:8::',
])
def test_what_is_no_network_is_refused(name, value):
    done = render(**{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


def configuration_of(home, **settings):
    """What is rendered, which nginx must take without a word."""
    for name in ('logs', 'tmp'):
        os.makedirs(os.path.join(home, name), exist_ok=True)
    done = render(RUN_DIR=str(home), **settings)
    assert done.returncode == 0, done.stderr
    path = os.path.join(home, 'nginx.conf')
    with open(path, 'w') as file:
        file.write(done.stdout)
    checked = subprocess.run(['nginx', '-t', '-q', '-p', str(home) + '/', '-e', 'stderr', '-c', path], stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, env={'PATH': os.environ['PATH'] + ':/usr/sbin'}, timeout=20)
    assert (checked.returncode, checked.stderr) == (0, '')
    return done.stdout


@pytest.mark.parametrize('settings', [
    {},
    {'ADMIN_NETWORKS': 'all', 'TRUSTED_PROXIES': 'loopback, private,2001:db8::/32,203.0.113.7', 'CLIENT_EXEMPT_NETWORKS': 'none'},
    {'ADMIN_NETWORKS': '::,::1/128,1:2:3:4:5:6:7:8,1::8,::2:3:4:5:6:7:8,1:2:3:4:5:6::', 'CLIENT_EXEMPT_NETWORKS': '::/1,10.0.0.0/8'},
    {'CLIENT_REQUESTS_PER_SECOND': '0', 'CLIENT_CONNECTIONS': '0', 'CLIENT_BURST': '0', 'LOG_FORMAT': 'json'},
    {'CLIENT_REQUESTS_PER_SECOND': '1000000', 'CLIENT_CONNECTIONS': '1000000', 'CLIENT_BURST': '1000000', 'DEBUG': 'true'},
    {'WORKER_ADDRESSES': '127.0.0.1:9000,[::1]:9001,localhost:9002', 'METRICS_LISTEN': '127.0.0.1:7000'},
    {'WORKER_ADDRESSES': 'workers.example:9000', 'WORKER_RESOLVER': '127.0.0.11', 'METRICS_LISTEN': '127.0.0.1:7000'},
    {'WORKER_ADDRESSES': 'workers.example:9000', 'WORKER_RESOLVER': '[::1]:53'},
    {'METRICS_LISTEN': '127.0.0.1:7000', 'SERVER_HOST': '::'},
], ids=repr)
def test_nginx_takes_what_is_rendered(settings, tmp_path):
    text = configuration_of(tmp_path, **settings)
    assert text.count('ADMIN_TRUSTED') == ('METRICS_LISTEN' in settings)


@pytest.mark.parametrize('version,listen', [
    ('1.22.1', 'listen 127.0.0.1:6443 ssl http2 backlog=4096;'), ('1.25.0', 'listen 127.0.0.1:6443 ssl http2 backlog=4096;'),
    ('1.25.1', 'listen 127.0.0.1:6443 ssl backlog=4096;\nhttp2 on;'), ('1.30.0', 'listen 127.0.0.1:6443 ssl backlog=4096;\nhttp2 on;'),
    ('unknown', 'listen 127.0.0.1:6443 ssl http2 backlog=4096;'),
])
def test_http2_is_asked_for_as_this_nginx_likes_it(version, listen, tmp_path):
    cert, key = make_certificate(tmp_path)
    nginx = tmp_path / 'nginx'
    nginx.write_text('#!/bin/sh\necho "nginx version: nginx/%s (Distribution)" >&2\n' % version)
    nginx.chmod(0o755)
    done = render(PATH='%s:%s' % (tmp_path, os.environ['PATH']), TLS_CERT_FILE=cert, TLS_KEY_FILE=key)
    assert listen in done.stdout


def test_an_expired_certificate_is_said_and_used(tmp_path):
    key, cert = str(tmp_path / 'key'), str(tmp_path / 'cert')
    for command in (['req', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert + '.csr', '-subj', '/CN=x'],
                    ['x509', '-req', '-in', cert + '.csr', '-signkey', key, '-days', '-1', '-out', cert]):
        subprocess.run(['openssl', *command], check=True, stderr=subprocess.DEVNULL)
    done = render(TLS_CERT_FILE=cert, TLS_KEY_FILE=key)
    assert done.returncode == 0
    assert 'has expired' in done.stderr


@pytest.mark.parametrize('keys,allowed', [
    ({}, False), ({'ADMIN_API_KEYS': 'adm-0123456789'}, True), ({'ADMIN_API_KEYS_FILE': 'adm-0123456789\n'}, True),
], ids=['none', 'keys', 'file'])
def test_the_renderer_knows_whether_there_are_admin_keys_and_not_which(keys, allowed, tmp_path):
    if 'ADMIN_API_KEYS_FILE' in keys:
        (tmp_path / 'keys').write_text(keys['ADMIN_API_KEYS_FILE'])
        keys = {'ADMIN_API_KEYS_FILE': str(tmp_path / 'keys')}
    with Service(name='cz', API_KEYS='user-0123456789', **keys) as service:
        service.up()
        with open(os.path.join(service.run_dir, 'nginx.conf')) as file:
            text = file.read()
        network = text.partition('$admin_network {')[2].partition('}')[0]
        assert ('10.0.0.0/8 1;' in network) == allowed
        assert '0123456789' not in text


@pytest.mark.parametrize('host,listen', [
    ('0.0.0.0', '0.0.0.0:6001'), ('localhost', 'localhost:6001'), ('::', '[::]:6001 ipv6only=off'),
    ('::1', '[::1]:6001'), ('[::1]', '[::1]:6001'),
])
def test_listen_addresses(host, listen):
    assert '\tlisten %s backlog' % listen in render(SERVER_HOST=host).stdout


def test_nginx_waits_longer_than_any_turn():
    config = render(STREAM_TIMEOUT_SECONDS='300.5', CHAT_TIMEOUT_SECONDS='60').stdout
    assert 'fastcgi_read_timeout 331s;' in config


def test_a_page_under_another_name_is_told_where_it_is(stack):
    for path, target in ('/docs/', '/docs'), ('/app', '/app/'):
        status, headers, body = stack.raw(b'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' % path.encode())
        assert status == 308 and dict(headers)['Location'] == target
        assert '另一个地址' in body.decode() and 'HTTPS' not in body.decode()
