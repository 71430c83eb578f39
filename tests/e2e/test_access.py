"""
Who has a key may do what it is good for, whoever has none or a wrong one may not, and is told so before anything is done;
and no key, right or wrong, is ever written anywhere.
"""
import os
import uuid

import pytest
import redis
import requests

from stack import Stack, wait_for

# Long and odd, so that they are found wherever they were written.
USERS = ['user-Kq3xW8vZ', '用户密钥-7Yp', 'user key with blanks 5Rt']
ADMIN = 'admin-Hn5cB2mX'
WRONG = 'wrong-Tz9dF4jL'

USER_ROUTES = [('POST', '/chat'), ('POST', '/chat/stream'), ('GET', '/session/known/info'), ('POST', '/session/known/clear'),
               ('POST', '/session/known/bind')]
ADMIN_ROUTES = [('GET', '/sessions'), ('HEAD', '/sessions'), ('GET', '/conversation/known/session')]
OPEN_ROUTES = [('GET', '/'), ('GET', '/health'), ('HEAD', '/')]
MISSING = '缺少 API 密钥: Authorization 或 X-API-Key'
INVALID = 'API 密钥无效'


@pytest.fixture(scope='module')
def guarded_stack(make_module_stack):
    """As an operator may write it, with blanks and a comma too many; with all the log there is."""
    return make_module_stack(API_KEYS=' %s ,, %s,%s, ' % tuple(USERS), ADMIN_API_KEYS=ADMIN, DEBUG='true')


@pytest.fixture
def stack(guarded_stack):
    guarded_stack.sim.reset()
    ask(guarded_stack, 'POST', '/session/known/bind', bearer(ADMIN))
    return guarded_stack


def bearer(key):
    return {'Authorization': b'Bearer ' + key.encode()}


def api_key(key):
    return {'X-API-Key': key.encode()}


def ask(stack, method, path, headers=None):
    body = {'message': '你好', 'session_id': 'known'} if path.startswith('/chat') else {'conversation_id': 'known'}
    return requests.request(method, stack.url + path, headers=headers, json=body if method == 'POST' else None, timeout=20)


def expect_401(answer, detail):
    assert answer.status_code == 401
    assert answer.headers['WWW-Authenticate'] == 'Bearer'
    if answer.request.method != 'HEAD':
        assert answer.json() == {'detail': detail}


@pytest.mark.parametrize('method, path', USER_ROUTES + OPEN_ROUTES)
@pytest.mark.parametrize('headers', [bearer(USERS[0]), api_key(USERS[0]), bearer(USERS[1]), api_key(USERS[2]), bearer(ADMIN),
                                     api_key(ADMIN)])
def test_a_key_opens_what_users_may(stack, method, path, headers):
    assert ask(stack, method, path, headers).status_code == 200


@pytest.mark.parametrize('method, path', ADMIN_ROUTES)
def test_only_an_admins_key_opens_what_admins_may(stack, method, path):
    for form in bearer, api_key:
        assert ask(stack, method, path, form(ADMIN)).status_code == 200
        refused = ask(stack, method, path, form(USERS[0]))
        assert refused.status_code == 403 and 'WWW-Authenticate' not in refused.headers
        if method != 'HEAD':
            assert refused.json() == {'detail': '需要管理员 API 密钥'}
        expect_401(ask(stack, method, path, form(WRONG)), INVALID)
    expect_401(ask(stack, method, path), MISSING)  # also on this machine, once there are keys


@pytest.mark.parametrize('method, path', USER_ROUTES)
def test_without_a_right_key_nothing_is_done(stack, method, path):
    before = requests.get(stack.url + '/session/known/info', headers=bearer(ADMIN), timeout=10).json()
    expect_401(ask(stack, method, path), MISSING)
    for key in WRONG, USERS[0][:-1], USERS[0] + 'x', USERS[0].upper(), '%s,%s' % (USERS[0], USERS[0]), ',', USERS[0] * 2:
        for form in bearer, api_key:
            expect_401(ask(stack, method, path, form(key)), INVALID)
    after = requests.get(stack.url + '/session/known/info', headers=bearer(ADMIN), timeout=10).json()
    assert after == before and stack.sim.log() == []


@pytest.mark.parametrize('headers, detail', [
    ({'Authorization': USERS[0]}, MISSING), ({'Authorization': 'Basic ' + USERS[0]}, MISSING), ({'Authorization': 'Bearer'}, MISSING),
    ({'Authorization': 'Bearer '}, MISSING), ({'Authorization': 'Token ' + USERS[0]}, MISSING), ({'X-API-Key': ''}, MISSING),
    ({'X-API-Key': 'Bearer ' + USERS[0]}, INVALID), ({'X-Api-Keys': USERS[0]}, MISSING), ({'Cookie': 'key=' + USERS[0]}, MISSING),
])
def test_other_ways_to_send_a_key(stack, headers, detail):
    expect_401(ask(stack, 'POST', '/chat', headers), detail)


def test_a_key_in_the_query_is_none(stack):
    expect_401(requests.get(stack.url + '/session/known/info', params={'api_key': 'x', 'key': 'x'}, timeout=10), MISSING)


@pytest.mark.parametrize('headers, status', [
    ({'authorization': 'bearer ' + USERS[0]}, 200), ({'AUTHORIZATION': 'BEARER   ' + USERS[0]}, 200),
    ({'x-api-key': USERS[0]}, 200), ({'Authorization': 'Basic abc', 'X-API-Key': USERS[0]}, 200),
])
def test_names_and_schemes_in_any_case(stack, headers, status):
    assert ask(stack, 'GET', '/session/known/info', headers).status_code == status


def test_when_two_keys_come_authorization_counts(stack):
    path = '/session/known/info'
    assert ask(stack, 'GET', path, {**bearer(USERS[0]), **api_key(WRONG)}).status_code == 200
    expect_401(ask(stack, 'GET', path, {**bearer(WRONG), **api_key(USERS[0])}), INVALID)
    assert ask(stack, 'GET', '/sessions', {**bearer(USERS[0]), **api_key(ADMIN)}).status_code == 403


def test_access_comes_before_everything_else_about_the_request(stack):
    """Who has no key learns nothing of what the service thinks of a path's id, a query or a body."""
    expect_401(ask(stack, 'GET', '/sessions?limit=0'), MISSING)
    expect_401(ask(stack, 'GET', '/session/%FF/info'), MISSING)
    expect_401(requests.post(stack.url + '/chat', data=b'{', timeout=10), MISSING)


def test_guesses_cost_no_redis_and_no_coze(stack):
    link = redis.Redis(unix_socket_path=os.path.join(stack.run_dir, 'redis.sock'))
    link.config_resetstat()
    with requests.Session() as guesser:
        for number in range(500):
            answer = guesser.post(stack.url + '/chat', json={'message': '你好'}, headers={'X-API-Key': '%s%d' % (WRONG, number)},
                                  timeout=10)
            assert answer.status_code == 401
    assert not {name for name in link.info('commandstats') if name in ('cmdstat_evalsha', 'cmdstat_hmget')}
    assert stack.sim.log() == []


def test_no_key_is_ever_written(stack):
    """After all the tests above, and with all the log there is: neither in a log, nor in a process' arguments, nor told."""
    mark = 'mark-' + uuid.uuid4().hex
    headers = {'X-Request-ID': mark}
    told = [ask(stack, 'GET', '/sessions', {**headers, **form(key)}) for form in (bearer, api_key)
            for key in USERS + [ADMIN, WRONG]]
    told.append(ask(stack, 'POST', '/chat/stream', {**headers, **bearer(USERS[0])}))
    logs = os.path.join(stack.run_dir, 'logs')

    def written():
        texts = {}
        for name in os.listdir(logs):
            with open(os.path.join(logs, name), 'rb') as file:
                texts[name] = file.read()
        return texts

    def complete():
        texts = written()
        return texts if all(texts[name].count(mark.encode()) >= len(told)
                            for name in ('api_server.log', 'nginx_access.log')) else None

    places = wait_for(complete, what='the log lines of the last requests')
    places.update(('answer %d' % number, repr(answer.headers).encode() + answer.content) for number, answer in enumerate(told))
    for pid in stack.processes():
        with open('/proc/%d/cmdline' % pid, 'rb') as file:
            places['arguments of %d' % pid] = file.read()
    assert any(name.startswith('arguments') for name in places)
    with open(os.path.join(stack.run_dir, 'nginx.conf'), 'rb') as file:
        places['nginx.conf'] = file.read()
    keys = USERS + [ADMIN, WRONG]
    for name, text in places.items():
        for key in keys:
            assert key.encode() not in text and key.replace(' ', '%20').encode() not in text, '%s holds %s' % (name, key)


# --- without keys, and other ways to say them ------------------------------------------------------------------------

def test_without_keys_the_service_is_open(shared_stack):
    for headers in None, bearer(WRONG), api_key(WRONG):
        for method, path in USER_ROUTES + OPEN_ROUTES + [('GET', '/sessions')]:
            assert ask(shared_stack, method, path, headers).status_code == 200


def test_keys_for_admins_only(make_stack):
    stack = make_stack(ADMIN_API_KEYS=ADMIN)
    assert ask(stack, 'POST', '/chat').status_code == 200
    expect_401(ask(stack, 'GET', '/sessions'), MISSING)
    assert ask(stack, 'GET', '/sessions', bearer(ADMIN)).status_code == 200


def test_keys_for_users_only(make_stack):
    """Then operators on this machine need none."""
    stack = make_stack(API_KEYS=USERS[0])
    expect_401(ask(stack, 'POST', '/chat'), MISSING)
    assert ask(stack, 'POST', '/chat', bearer(USERS[0])).status_code == 200
    assert ask(stack, 'GET', '/sessions').status_code == 200


def test_keys_from_files(make_stack, tmp_path):
    (tmp_path / 'users').write_text(','.join(USERS) + '\n')
    (tmp_path / 'admins').write_text(ADMIN + '\r\n')
    stack = make_stack(API_KEYS_FILE=tmp_path / 'users', ADMIN_API_KEYS_FILE=tmp_path / 'admins')
    for key in USERS:
        assert ask(stack, 'POST', '/chat', bearer(key)).status_code == 200
        assert ask(stack, 'GET', '/sessions', bearer(key)).status_code == 403
    assert ask(stack, 'GET', '/sessions', api_key(ADMIN)).status_code == 200
    expect_401(ask(stack, 'POST', '/chat'), MISSING)


@pytest.mark.parametrize('name', ['API_KEYS', 'ADMIN_API_KEYS'])
def test_a_list_without_a_key_stops_the_start(name):
    with Stack(**{name: ' , ,'}) as stack:
        done = stack.call('up')
        assert done.returncode != 0
        assert '%s: must be keys with commas between, or empty' % name in done.stdout + done.stderr
