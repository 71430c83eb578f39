"""
nginx' access log: the fields of the workers' log, as text or JSON, with nothing in it that is a secret or breaks a line.
"""
import json
import os
import re
import shlex
import time

import pytest

from front import Front, make_certificate
from stack import late, wait_for

FIELDS = ['time', 'req', 'client', 'method', 'path', 'status', 'bytes', 'total_ms', 'first_ms', 'request_bytes', 'upstream',
          'upstream_status', 'connect_ms', 'completion', 'agent', 'proto', 'tls']
SECRET = 'sk-0123456789abcdef'


def promptly(text):
    assert 'flush=1s;' in text
    return text.replace('flush=1s;', 'flush=10ms;')


def answer(worker, params):
    uri = params['REQUEST_URI']
    if uri == '/dies':
        return None
    if uri.startswith('/slow/'):
        time.sleep(float(uri[6:]))
    return 'Status: 200\r\nContent-Type: application/json\r\n\r\n{"ok":1}'


@pytest.fixture(scope='module', params=['text', 'json'])
def front(request, tmp_path_factory):
    cert, key = make_certificate(tmp_path_factory.mktemp('tls'))
    with Front(answer=answer, LOG_FORMAT=request.param, TLS_CERT_FILE=cert, TLS_KEY_FILE=key, TLS_REDIRECT='false',
               CLIENT_REQUESTS_PER_SECOND=0, edit=promptly) as running:
        yield running


def parse(front, line):
    if front.env['LOG_FORMAT'] == 'json':
        return json.loads(line)
    return dict(word.split('=', 1) for word in shlex.split(line))


def logged(front, request_id):
    """The fields of a request's line, which must be exactly one."""
    def lines():
        with open(os.path.join(front.home, 'logs/nginx_access.log'), 'rb') as file:
            return [line.decode('utf-8') for line in file.read().split(b'\n') if request_id.encode() in line]
    found = wait_for(lines, what='a line of ' + request_id)
    assert len(found) == 1
    fields = parse(front, found[0])
    assert list(fields) == FIELDS
    return fields


def test_a_request_is_one_line_with_all_fields(front):
    front.ask('/session/x/info?token=' + SECRET, headers={'X-Request-ID': 'whole', 'User-Agent': 'a "test"/1.0'})
    fields = logged(front, 'whole')
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d', fields['time'])
    assert (fields['req'], fields['client'], fields['method'], fields['path']) == ('whole', '127.0.0.1', 'GET', '/session/x/info')
    assert [str(fields[name]) for name in ('status', 'bytes', 'upstream_status')] == ['200', '18', '200']  # chunked
    assert int(fields['request_bytes']) > 100
    assert fields['upstream'].startswith('unix:') and fields['completion'] == 'OK' and fields['proto'] == 'HTTP/1.1'
    assert 'test' in fields['agent'] and fields['tls'] in ('', '-')
    if front.env['LOG_FORMAT'] == 'json':
        numbers = ('status', 'bytes', 'total_ms', 'first_ms', 'request_bytes', 'connect_ms')
        assert all(isinstance(value, int) == (name in numbers) for name, value in fields.items())
        assert fields['agent'] == 'a "test"/1.0'


@pytest.mark.parametrize('seconds', ['0', '0.015', '0.1', '1.05'])
def test_times_are_milliseconds(front, seconds):
    request_id = 'slow-%s.' % seconds
    front.ask('/slow/' + seconds, headers={'X-Request-ID': request_id})
    fields = logged(front, request_id)
    least = int(float(seconds) * 1000)
    for name in ('total_ms', 'first_ms'):
        assert re.fullmatch(r'0|[1-9]\d*', str(fields[name]))
        assert least - 1 <= int(fields[name]) < least + 500 * late()
    assert int(fields['connect_ms']) < 500 * late()


def test_the_last_try_counts():
    with Front(workers=2, answer=lambda worker, params: answer(worker, params) if worker.name == '1' else None,
               edit=promptly) as front:
        for number in range(4):
            front.ask('/slow/0.1', headers={'X-Request-ID': 'tries-%d' % number})
        fields = [logged(front, 'tries-%d' % number) for number in range(4)]
        assert any(',' in line['upstream_status'] for line in fields)
        assert all(100 <= int(line['first_ms']) < 100 + 500 * late() for line in fields)


def test_tls_is_said(front):
    front.ask('/', headers={'X-Request-ID': 'over-tls'}, tls=True)
    assert logged(front, 'over-tls')['tls'].startswith('TLSv1.')


def test_what_no_worker_answered(front):
    front.ask('/chat', 'POST', b'x' * 100001, headers={'X-Request-ID': 'no-worker'})
    fields = logged(front, 'no-worker')
    assert str(fields['status']) == '413'
    assert fields['first_ms'] in (None, '-') and fields['connect_ms'] in (None, '-')


def test_a_worker_that_died(front):
    front.ask('/dies', 'POST', '{}', headers={'X-Request-ID': 'worker-died'})
    fields = logged(front, 'worker-died')
    assert (str(fields['status']), fields['upstream_status']) == ('502', '502')
    assert int(fields['connect_ms']) < 500 * late() and fields['first_ms'] in (None, '-')


HOSTILE = [
    b'a\x1b[2J"b', b'x" status=200 evil="', b'","status":200,"x":"', b'a\\b\\"', b'a\tb', b'\xff\xfe', b'a\xc2\x85b', b'\xed\xa0\x80',
    b'\xe4\xb8', b'\x7f', '你好'.encode(), b'x' * 5000,
]


@pytest.mark.parametrize('value', HOSTILE, ids=repr)
@pytest.mark.parametrize('where', ['agent', 'path'])
def test_nobody_writes_lines_of_his_own(front, value, where):
    request_id = 'hostile-%d-%s.' % (HOSTILE.index(value), where)
    path, agent = (b'/' + value.replace(b'\t', b'%09'), b'x') if where == 'path' else (b'/x', value)
    path = path.replace(b' ', b'%20')
    front.raw(b'GET %s HTTP/1.0\r\nX-Request-ID: %s\r\nUser-Agent: %s\r\n\r\n' % (path, request_id.encode(), agent))
    with open(os.path.join(front.home, 'logs/nginx_access.log'), 'rb') as file:
        before = file.read().count(request_id.encode())
    assert before <= 1
    if b'\x1b' in path or b'\x7f' in path:  # refused before its headers were read
        return
    fields = logged(front, request_id)
    with open(os.path.join(front.home, 'logs/nginx_access.log'), 'rb') as file:
        line = next(line for line in file if request_id.encode() in line)
    assert not re.search(rb'[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]', line)
    assert str(fields['status']) == '200'
    assert len(line) < 1600


def test_utf8_is_kept_in_json(front):
    front.raw('GET /你好 HTTP/1.0\r\nX-Request-ID: utf8-path\r\nUser-Agent: 浏览器\r\n\r\n'.encode())
    fields = logged(front, 'utf8-path')
    if front.env['LOG_FORMAT'] == 'json':
        assert (fields['path'], fields['agent']) == ('/你好', '浏览器')


def test_a_bad_request_line_is_one_line(front):
    for request in (b'\x16\x03\x01\x00 \x1b[2J\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'"\'\\ / x\r\n\r\n', b'GET /\xff\x00 HTTP/1.0\r\n\r\n'):
        front.raw(request)
    wait_for(lambda: front.log('nginx_access.log').count('400') >= 3)
    for line in front.log('nginx_access.log').splitlines():
        assert list(parse(front, line)) == FIELDS


# --- secrets ---


@pytest.mark.parametrize('debug', ['false', 'true'])
def test_no_log_has_a_key_or_a_message(debug):
    with Front(answer=answer, DEBUG=debug, MAX_REQUEST_SIZE=2000, CLIENT_EXEMPT_NETWORKS='none',
               CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=5, edit=promptly) as front:
        secret = SECRET.encode()
        bodies = b'Content-Length: %d\r\n\r\n%s'
        requests = [
            b'POST /chat HTTP/1.0\r\nAuthorization: Bearer %s\r\nX-API-Key: %s\r\n' % (secret, secret) + bodies % (19, secret),
            b'POST /dies HTTP/1.0\r\nX-API-Key: %s\r\nCookie: %s\r\n' % (secret, secret) + bodies % (19, secret),
            b'POST /chat HTTP/1.0\r\nX-API-Key : %s\r\n' % secret + bodies % (19, secret),  # no valid header line
            b'POST /chat HTTP/1.0\r\nAuthorization: %s\r\nAuthorization: %s\r\n\r\n' % (secret, secret),
            b'POST /chat HTTP/1.0\r\nX-API-Key: %s\r\nX_Under: %s\r\n' % (secret, secret) + bodies % (2489, secret * 131),
            b'POST /chat HTTP/1.0\r\nX-API-Key: %s%s\r\n\r\n' % (secret, b'x' * 50000),
            b'POST /chat HTTP/1.0\r\nTransfer-Encoding: %s\r\n\r\n' % secret,
            b'POST /chat HTTP/1.1\r\nHost: %s/\r\n\r\n' % secret,
            b'%s / HTTP/1.0\r\n\r\n' % secret,
        ]
        for request in requests * 4:
            front.raw(request)
        queries = [b'GET /x?key=%s HTTP/1.0\r\n\r\n', b'POST /dies?key=%s HTTP/1.0\r\nReferer: http://x/?%s\r\n\r\n',
                   b'POST /chat?key=%s HTTP/1.0\r\nContent-Length: 2001\r\n\r\n' + b'x' * 2001, b'GET /%%zz?key=%s HTTP/1.0\r\n\r\n']
        if debug == 'false':  # nginx' own words have the request line with its query
            for query in queries:
                front.raw(query % ((secret,) * query.count(b'%s')))
        wait_for(lambda: ' status=429 ' in front.log('nginx_access.log') and ' status=502 ' in front.log('nginx_access.log'))
        assert SECRET not in front.log('nginx_access.log')
        assert SECRET not in front.log('nginx_error.log')
        if debug == 'false':
            assert front.log('nginx_error.log') == ''
        else:
            assert 'prematurely closed' in front.log('nginx_error.log')
