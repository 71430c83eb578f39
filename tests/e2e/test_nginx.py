"""
What nginx itself answers: its errors as JSON, request ids, CORS, and what it lets through to the workers.
"""
import json
import os
import re
import subprocess

import pytest

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
])
def test_a_hostile_value_is_refused(name, value):
    done = render(**{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('host,listen', [
    ('0.0.0.0', '0.0.0.0:6001'), ('localhost', 'localhost:6001'), ('::', '[::]:6001 ipv6only=off'),
    ('::1', '[::1]:6001'), ('[::1]', '[::1]:6001'),
])
def test_listen_addresses(host, listen):
    assert '\tlisten %s backlog' % listen in render(SERVER_HOST=host).stdout


def test_nginx_waits_longer_than_any_turn():
    config = render(STREAM_TIMEOUT_SECONDS='300.5', CHAT_TIMEOUT_SECONDS='60').stdout
    assert 'fastcgi_read_timeout 331s;' in config
