"""
Who a caller is: its address behind load balancers, what it may reach, and that nobody can pretend to be somebody else.
"""
import itertools

import pytest

from front import Front, OUTSIDER
from stack import wait_for


@pytest.fixture(scope='module')
def direct():
    with Front() as front:
        yield front


@pytest.fixture(scope='module')
def behind_proxy():
    """A load balancer on this machine, which is how the tests get to be somebody from outside."""
    with Front(TRUSTED_PROXIES='loopback') as front:
        yield front


def address(answer):
    assert answer.status == 200, answer.body
    return answer.json()['REMOTE_ADDR']


# --- the client's address ---


def test_a_caller_is_who_connects(direct):
    assert address(direct.ask('/', source='127.0.0.5')) == '127.0.0.5'


def test_nobody_is_believed_without_trusted_proxies(direct):
    """And whoever passes requests on is no local caller, even when it connects from this machine."""
    for header in ('X-Forwarded-For', 'X-Real-IP', 'Forwarded', 'Via'):
        assert address(direct.ask('/', headers={header: OUTSIDER})) == 'unknown'
    log = wait_for(lambda: direct.log('nginx_access.log').count('client=127.0.0.1 ') >= 4)
    assert log and OUTSIDER not in direct.log('nginx_access.log')


def test_only_a_trusted_proxy_is_believed():
    with Front(TRUSTED_PROXIES='127.0.0.2/32') as front:
        assert address(front.ask('/', source='127.0.0.2', forwarded=OUTSIDER)) == OUTSIDER
        assert address(front.ask('/', source='127.0.0.3', forwarded=OUTSIDER)) == 'unknown'


@pytest.mark.parametrize('forwarded,client', [
    ('198.51.100.7', '198.51.100.7'),
    ('127.0.0.1, 198.51.100.7', '198.51.100.7'),  # what the client sent stands left of what the proxy saw
    ('evil, 198.51.100.7', '198.51.100.7'),
    ('198.51.100.7, 127.0.0.1', '198.51.100.7'),  # a second proxy
    ('198.51.100.7:4711', '198.51.100.7'),
    ('2001:db8::1', '2001:db8::1'),
    ('[2001:db8::1]:4711', '2001:db8::1'),
    ('127.0.0.1', 'unknown'),  # all of them trusted: the first may be anything
    ('::1', 'unknown'),
    ('127.0.0.9, 127.0.0.1', 'unknown'),
    ('nonsense', 'unknown'),
    ('127.0.0.1, nonsense', 'unknown'),
])
def test_the_client_behind_proxies(behind_proxy, forwarded, client):
    assert address(behind_proxy.ask('/', forwarded=forwarded)) == client


def test_several_headers_are_one_list(behind_proxy):
    answer = behind_proxy.raw(b'GET / HTTP/1.0\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n')
    assert b'"REMOTE_ADDR": "198.51.100.7"' in answer


def test_clients_inside_trusted_networks_cannot_become_local():
    with Front(TRUSTED_PROXIES='loopback,private') as front:
        assert address(front.ask('/', forwarded='127.0.0.1, 10.0.0.5')) == 'unknown'


def test_the_scheme_is_the_clients(direct, behind_proxy):
    def scheme(front, **headers):
        return front.ask('/', headers=headers).json()['REQUEST_SCHEME']
    assert scheme(behind_proxy, **{'X-Forwarded-Proto': 'https'}) == 'https'
    assert scheme(behind_proxy, **{'X-Forwarded-Proto': 'http'}) == 'http'
    assert scheme(behind_proxy, **{'X-Forwarded-Proto': 'httpsx'}) == 'http'
    assert scheme(direct, **{'X-Forwarded-Proto': 'https'}) == 'http'


def test_a_worker_gets_only_what_nginx_says(behind_proxy):
    headers = {'X-Admin-Trusted': '1', 'Admin-Trusted': '1', 'ADMIN_TRUSTED': '1', 'Remote-Addr': '127.0.0.1',
               'X-API-Key': 'k', 'Proxy': 'evil', 'Content-Type': 'a/b'}
    params = behind_proxy.ask('/x?y=z', headers=headers, forwarded=OUTSIDER).json()
    assert set(params) == {
        'worker', 'REQUEST_METHOD', 'REQUEST_URI', 'QUERY_STRING', 'CONTENT_TYPE', 'CONTENT_LENGTH', 'REMOTE_ADDR',
        'SERVER_PROTOCOL', 'REQUEST_SCHEME', 'REQUEST_ID', 'HTTP_X_API_KEY'}


# --- admin routes ---

ADMIN = ['/metrics', '/sessions', '/conversation/x/session']

# What nginx reads another way than a worker: whichever of the two finds an admin route, it is one.
TRICKS = [
    '/sessions?limit=1', '/metrics?', '/metrics/', '//metrics', '/./metrics', '/x/../metrics', '/%6detrics', '/metric%73',
    '/metrics%2f', '/metrics#x', '/METRICS', '/Sessions', '/conversation', '/conversation/', '/conversation/x',
    '/conversation/%2e%2e/session', '/conversation/../session', '/conversation/..%2fx/session', '/conversation/./session',
    '/conversation/%2e/session', '/conversation//session', '/conversation/a%2Fb/session', '/conversation/%2e%2e%2fx/session',
    '/conversation/x%00/session', '/conversation/..%5cx/session', '/conversation/x/../../conversation/x/session',
    '/chat/../sessions', '/%2e%2e/sessions', '/conversation/%2e%2e?/session',
]
OTHERS = ['/metricsx', '/session/x/info', '/sessionsx', '/%256detrics', '/chat?x=/metrics', '/chat?/sessions',
          '/session/metrics/info', '/conversations', '/session/sessions']


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'OPTIONS', 'PUT'])
@pytest.mark.parametrize('path', ADMIN)
def test_admin_routes_are_closed_to_the_outside(behind_proxy, path, method):
    asked = len(behind_proxy.workers[0].asked)
    answer = behind_proxy.ask(path, method, forwarded=OUTSIDER, headers={'X-API-Key': 'any', 'X-Request-ID': 'mine'})
    assert answer.status == 403
    if method != 'HEAD':
        assert '管理接口' in answer.detail
    assert answer.headers.get_all('X-Request-ID') == ['mine']
    assert len(behind_proxy.workers[0].asked) == asked


@pytest.mark.parametrize('path', TRICKS)
@pytest.mark.parametrize('absolute', [False, True])
def test_no_other_spelling_reaches_them(behind_proxy, path, absolute):
    asked = len(behind_proxy.workers[0].asked)
    target = 'http://127.0.0.1' * absolute + path
    answer = behind_proxy.raw(b'GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nConnection: close\r\n\r\n'
                              % (target.encode(), OUTSIDER.encode()))
    status = int(answer.split()[1])
    assert status in (400, 403)
    assert len(behind_proxy.workers[0].asked) == asked


@pytest.mark.parametrize('path', OTHERS)
def test_other_paths_are_not_closed(behind_proxy, path):
    assert behind_proxy.ask(path, forwarded=OUTSIDER).json()['REQUEST_URI'] == path


@pytest.mark.parametrize('path', ADMIN)
def test_admin_routes_are_open_to_this_machine(direct, path):
    assert direct.ask(path).json()['REQUEST_URI'] == path


@pytest.mark.parametrize('path', ADMIN)
def test_not_to_what_a_proxy_on_this_machine_passes_on(direct, path):
    assert direct.ask(path, forwarded=OUTSIDER).status == 403
    assert direct.ask(path, forwarded='127.0.0.1').status == 403
    assert direct.ask(path, headers={'Via': '1.1 x'}).status == 403


@pytest.mark.parametrize('settings,allowed,refused', [
    ({}, [], ['10.1.2.3', '192.168.0.1', 'fd00::1', OUTSIDER, '127.0.0.1']),
    ({'ADMIN_KEYS_SET': 'yes'}, ['10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.9.9', '100.64.0.1', 'fd00::1', 'fe80::1'],
     [OUTSIDER, '172.32.0.1', '100.128.0.1', '2001:db8::1', '11.0.0.1', 'nonsense']),
    ({'ADMIN_KEYS_SET': 'yes', 'ADMIN_NETWORKS': 'loopback'}, [], ['10.1.2.3', OUTSIDER]),
    ({'ADMIN_NETWORKS': '203.0.113.0/24, 2001:db8::/32'}, [OUTSIDER, '2001:db8::1'], ['203.0.114.1', '10.1.2.3', '2001:db9::']),
    ({'ADMIN_NETWORKS': 'private,203.0.113.9'}, ['10.1.2.3', OUTSIDER], ['203.0.113.8']),
    ({'ADMIN_NETWORKS': 'all'}, [OUTSIDER, '10.1.2.3', '2001:db8::1'], []),
])
def test_admin_networks(settings, allowed, refused):
    with Front(TRUSTED_PROXIES='loopback', **settings) as front:
        for client, path in itertools.product(allowed, ADMIN):
            assert front.ask(path, forwarded=client).status == 200, client
        for client, path in itertools.product(refused, ADMIN):
            assert front.ask(path, forwarded=client).status == 403, client


def test_everybodys_page_may_not_read_what_this_machine_may(direct):
    """ALLOWED_ORIGINS=*: a page in a browser on this machine comes from loopback too."""
    assert direct.ask('/', headers={'Origin': 'https://evil.example'}).headers['Access-Control-Allow-Origin'] == '*'
    for path in ADMIN:
        assert direct.ask(path, headers={'Origin': 'https://evil.example'}).headers['Access-Control-Allow-Origin'] is None


def test_a_listed_page_may_read_admin_routes():
    with Front(ALLOWED_ORIGINS='https://admin.example') as front:
        answer = front.ask('/sessions', headers={'Origin': 'https://admin.example'})
        assert answer.headers['Access-Control-Allow-Origin'] == 'https://admin.example'
