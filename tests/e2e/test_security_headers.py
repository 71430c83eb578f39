"""
The headers that protect a browser's user are on every answer, whoever made it, once, and over HTTPS too.
"""
import pytest

from front import Front, OUTSIDER, make_certificate

ALWAYS = {
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer',
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
}


def answer(_, params):
    uri = params['REQUEST_URI']
    if uri == '/dies':
        return None
    if uri == '/chat/stream':
        return 'Status: 200\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\ndata: {}\n\n'
    return 'Status: %s\r\nContent-Type: application/json\r\n\r\n{}' % uri.lstrip('/')


@pytest.fixture(scope='module')
def front(tmp_path_factory):
    cert, key = make_certificate(tmp_path_factory.mktemp('tls'))
    with Front(answer=answer, TLS_CERT_FILE=cert, TLS_KEY_FILE=key, TLS_REDIRECT='false', TRUSTED_PROXIES='127.0.0.9',
               CLIENT_REQUESTS_PER_SECOND=1, CLIENT_BURST=0) as running:
        yield running


REQUESTS = {
    200: ('/200', {}),
    401: ('/401', {}),
    404: ('/404', {}),
    503: ('/503', {}),
    204: ('/chat', {'method': 'OPTIONS', 'headers': {'Origin': 'https://a.example', 'Access-Control-Request-Method': 'POST'}}),
    400: ('/%zz', {}),
    403: ('/metrics', {'source': '127.0.0.9', 'forwarded': OUTSIDER}),
    405: ('/200', {'method': 'TRACE'}),
    413: ('/chat', {'method': 'POST', 'body': b'x' * 100001}),
    414: ('/' + 'x' * 10000, {}),
    431: ('/200', {'headers': {'X': 'x' * 30000}}),
    502: ('/dies', {}),
}


@pytest.mark.parametrize('tls', [False, True], ids=['http', 'https'])
@pytest.mark.parametrize('status', REQUESTS)
def test_every_answer_has_them(front, status, tls):
    path, options = REQUESTS[status]
    if tls and 'source' in options:
        options = dict(options, headers={'Via': 'x'}, source=None, forwarded=None)
    got = front.ask(path, tls=tls, **options)
    assert got.status == status
    for name, value in ALWAYS.items():
        assert got.headers.get_all(name) == [value], name
    assert got.headers.get_all('Strict-Transport-Security') == (['max-age=31536000'] if tls else None)
    assert got.headers['Server'] == 'nginx'  # and not which version
    if status != 204:
        assert got.headers.get_all('Cache-Control') == ['no-store']


def test_refused_clients_get_them_too(front):
    for _ in range(2):
        got = front.ask('/200', source='127.0.0.9', forwarded=OUTSIDER)
    assert got.status == 429
    for name, value in ALWAYS.items():
        assert got.headers.get_all(name) == [value], name


def test_a_stream_says_itself_how_it_may_be_kept(front):
    assert front.ask('/chat/stream', 'POST', '{}').headers.get_all('Cache-Control') == ['no-cache']
