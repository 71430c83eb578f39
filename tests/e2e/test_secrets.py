"""
What nobody may see is nowhere: token, keys, Redis' password and the texts of messages and answers are in no log, no
metric, no error, no file that others may read, and in nobody's environment or arguments, also when everything is logged
that can be. (Stack.close() looks at the files of every other test.)
"""
import contextlib
import glob
import os
import re
import subprocess

import pytest
import requests

from fastcgi import Link, request, worker_socket
from redis_server import RedisServer
from service import leaks_below
from stack import directive, wait_for

MARK = 'M4RK3R-%d' % os.getpid()  # other test runs have the same words
TOKEN, USER_KEY, ADMIN_KEY, PASSWORD, WRONG_KEY = ['%s-%s' % (what, MARK) for what in ('pat', 'user', 'admin', 'redis', 'wrong')]
SAID, ANSWERED, ECHOED, ASKED = ['words-%s-%s' % (how, MARK) for how in ('said', 'answered', 'echoed', 'asked')]
SECRETS, TEXTS = [TOKEN, USER_KEY, ADMIN_KEY, PASSWORD, WRONG_KEY], [SAID, ANSWERED, ECHOED, ASKED]
KEY = {'X-API-Key': USER_KEY}


def expect_clean(text, what, allowed=()):
    if isinstance(text, bytes):
        text = text.decode('utf-8', 'replace')
    found = [secret for secret in [*SECRETS, *TEXTS] if secret in text and secret not in allowed]
    assert not found, '%s shows %s' % (what, found)


def behave(stack, server):
    """All that may happen to a message; every body of an error is looked at."""
    faults = [{}, {'http_status': 401}, {'http_status': 500}, {'code': 4100, 'msg': ECHOED}, {'code': 4013, 'msg': ECHOED},
              {'fault': 'sse_error', 'code': 5000, 'msg': ECHOED}, {'fault': 'chat_failed', 'msg': ECHOED}, {'fault': 'cut'},
              {'fault': 'chat_failed_after_text'}, {'fault': 'eof'}, {'fault': 'bad_json'}, {'fault': 'bad_utf8'},
              {'fault': 'empty'}, {'fault': 'raw_json_line'}, {'fault': 'requires_action'}, {'fault': 'json_chat'},
              {'fault': 'stall', 'stall_ms': 3000}, {'http_status': 502, 'html': True}, {'huge_line_bytes': 200000},
              {'fault': 'unknown_conversation'}, {'fault': 'canceled'}]
    for path in '/chat', '/chat/stream':
        for sim in faults:
            answer = 'answer' if sim.get('fault') not in ('empty',) else 'chunks'
            sim = {**sim, answer: ANSWERED if answer == 'answer' else 3}
            body = {'message': directive(SAID, **sim), 'session_id': 'session', 'user_id': 'user'}
            reply = requests.post(stack.url + path, json=body, headers=KEY, timeout=30)
            expect_clean(reply.content, (path, sim), allowed=(ANSWERED, ECHOED))
            expect_clean(str(reply.headers), 'the head of %s' % reply.status_code)
    for headers in {}, {'X-API-Key': WRONG_KEY}, {'Authorization': 'Bearer ' + WRONG_KEY}, {'Authorization': WRONG_KEY}:
        for path in '/chat', '/metrics', '/sessions', '/nowhere':
            method = 'POST' if path == '/chat' else 'GET'
            reply = requests.request(method, stack.url + path, json={'message': SAID}, headers=headers, timeout=10)
            assert reply.status_code >= 400
            expect_clean(reply.content, (path, reply.status_code))
    for path in '/health', '/session/session/info', '/nowhere', '/session/a%00b/info':
        expect_clean(requests.get(stack.url + path + '?key=' + ASKED, headers=KEY, timeout=10).content, path)
    for body in [('{"message": "%s"' % SAID).encode(), ('"%s"' % SAID).encode(), b'{"message": "\xff%s"}' % SAID.encode(),
                 ('{"message": ["%s"]}' % SAID).encode(), ('{"%s": 1}' % SAID).encode(),
                 ('{"message": "%s", "session_id": 5}' % SAID).encode(), (SAID * 100000).encode()]:
        reply = requests.post(stack.url + '/chat', data=body, headers={**KEY, 'Content-Type': 'application/json'}, timeout=10)
        assert reply.status_code >= 400
        expect_clean(reply.content, body[:40])
    reply = requests.post(stack.url + '/chat', data={'message': SAID}, headers=KEY, timeout=10)
    assert reply.status_code == 415
    for data in (request('POST', '/chat', SAID.encode())[:-20], b'GET /%s HTTP/1.1\r\n\r\n' % SAID.encode()):
        with Link(worker_socket(stack)) as link:  # not even FastCGI
            link.send(data)
    # Clients that leave.
    for path in '/chat', '/chat/stream':
        with stack.connect(path, directive(SAID, gap_ms=100, answer=ANSWERED), headers='X-API-Key: %s\r\n' % USER_KEY) as link:
            wait_for(lambda: stack.sim.stats()['running'] > 0, what='the chat')
        wait_for(lambda: stack.sim.stats()['running'] == 0, what='its end')
    server.freeze()
    reply = requests.post(stack.url + '/chat', json={'message': SAID}, headers=KEY, timeout=10)
    server.thaw()
    assert reply.status_code == 503
    expect_clean(reply.content, 'Redis frozen')


def expect_clean_stack(stack, before):
    """Files, processes, metrics."""
    metrics = requests.get(stack.url + '/metrics', headers={'X-API-Key': ADMIN_KEY}, timeout=10)
    assert metrics.status_code == 200
    expect_clean(metrics.content, '/metrics')
    shown = subprocess.run(['ps', 'axeww'], stdout=subprocess.PIPE, check=True).stdout.decode('utf-8', 'replace').splitlines()
    for line in shown:
        if not re.search(r'pytest|SIM_TOKEN=', line):
            expect_clean(line, 'ps: ' + line)
    for pid in [stack.pids()['workers'], *stack.worker_pids()]:
        for name in 'cmdline', 'environ', 'comm':
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that the reload replaced has just left
                with open('/proc/%d/%s' % (pid, name), 'rb') as file:
                    expect_clean(file.read(), name)
    assert leaks_below(stack.run_dir, [one.encode() for one in SECRETS], [one.encode() for one in TEXTS]) == []
    for path in glob.glob(os.path.join(stack.run_dir, '**'), recursive=True):
        mode = os.stat(path).st_mode
        assert mode & 0o007 == 0 or os.stat(stack.run_dir).st_mode & 0o077 == 0, path
    settings = [os.path.join(stack.run_dir, 'state', name) for name in ('settings', 'environment')]
    for path in settings:
        assert os.stat(path).st_mode & 0o777 == 0o600
        with open(path, encoding='utf-8') as file:
            assert TOKEN in file.read()  # so the search above could have found it
    assert not [path for path in glob.glob('/tmp/core*') + glob.glob(os.path.join(stack.run_dir, '**', 'core*'), recursive=True)
                if path not in before and os.path.isfile(path)]


@pytest.mark.parametrize('mode, log_format', [('stream', 'text'), ('poll', 'json')])
def test_secrets_and_words_are_nowhere(make_stack, log_format, mode):
    before = glob.glob('/tmp/core*')
    with RedisServer(requirepass=PASSWORD) as server:
        server.start()
        stack = make_stack(WORKERS='2', sim={'SIM_TOKEN': TOKEN}, COZE_API_TOKEN=TOKEN, LOG_FORMAT=log_format,
                           LOG_LEVEL='debug', DEBUG='true', API_KEYS=USER_KEY + ',another-key', ADMIN_API_KEYS=ADMIN_KEY,
                           COZE_CHAT_MODE=mode, REDIS_URL='redis://:%s@127.0.0.1:%d/1' % (PASSWORD, server.port),
                           COZE_MAX_RETRIES='1', COZE_IDLE_TIMEOUT_SECONDS='0.3', CHAT_TIMEOUT_SECONDS='3',
                           STREAM_TIMEOUT_SECONDS='3')
        behave(stack, server)
        stack.reload()
        # Bad settings, too, are told without showing them.
        stack.set(API_KEYS=USER_KEY + '\x01', REDIS_URL='redis://:%s@h:port' % PASSWORD, ADMIN_API_KEYS_FILE='/nowhere/' + 'x')
        refused = stack.call('reload')
        assert refused.returncode != 0
        expect_clean(refused.stdout + refused.stderr, 'the refusal')
        expect_clean_stack(stack, before)
        with open(os.path.join(stack.run_dir, 'logs', 'api_server.log'), encoding='utf-8') as file:
            assert file.read().count('request') > 60
        link = server.link(password=PASSWORD)
        link.config_set('requirepass', 'another-password')
        link.execute_command('CLIENT', 'KILL', 'TYPE', 'normal')
        for change in lambda: None, server.stop:
            change()
            reply = requests.post(stack.url + '/chat', json={'message': SAID}, headers=KEY, timeout=10)
            assert reply.status_code == 503
            expect_clean(reply.content, 'Redis away')
        expect_clean(stack.api_log(), 'the log')
