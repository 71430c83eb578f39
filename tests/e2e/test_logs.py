"""
The workers' log: one line per finished request that says who, what, how it ended and what it was doing, in text and in
JSON; nothing that a client sends breaks or forges a line or gets into it that is not meant to; and no line is lost.
"""
import json
import os
import re
import shlex
import signal
import threading

import pytest
import requests

from fastcgi import Link, request, worker_socket
from load import Load
from stack import directive, wait_for

FORMATS = ['text', 'json']


@pytest.fixture(scope='module', params=FORMATS)
def shared(request, make_module_stack):
    return make_module_stack(WORKERS='1', LOG_FORMAT=request.param)


@pytest.fixture
def stack(shared):
    shared.sim.reset()
    return shared


def log_path(stack):
    return stack.env.get('LOG_FILE') or os.path.join(stack.run_dir, 'logs', 'api_server.log')


def parse(stack, line):
    if stack.env.get('LOG_FORMAT') == 'json':
        def once(pairs):
            assert len({name for name, _ in pairs}) == len(pairs), 'a name twice in %r' % line
            return dict(pairs)
        return json.loads(line, object_pairs_hook=once)
    words = shlex.split(line)
    fields = dict(word.split('=', 1) for word in words[2:])
    assert len(fields) == len(words) - 2, line
    return {'time': words[0], 'level': words[1], **fields}


def lines(stack, path=None):
    """Every line there is, each of which must be clean and whole."""
    with open(path or log_path(stack), 'rb') as file:
        data = file.read()
    assert data.endswith(b'\n')
    assert not re.search(rb'[\0-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]', data)
    found = [parse(stack, line) for line in data.decode('utf-8').split('\n')[:-1]]
    for line in found:
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}', line['time'])
        assert line['level'] in ('error', 'warn', 'info', 'debug') and int(line['pid']) > 0 and line['event']
    return found


def line_of(stack, request_id):
    """The one line of a request, once it is there."""
    def mine():
        return [line for line in lines(stack) if line['event'] == 'request' and line['req'] == request_id]
    found = wait_for(mine, what='the line of ' + request_id)
    assert len(found) == 1, found
    return found[0]


numbers = iter(range(10 ** 6))


def post(stack, path, body, **options):
    """(answer, its log line)"""
    request_id = 'test-%d' % next(numbers)
    headers = {'X-Request-ID': request_id, 'Content-Type': 'application/json', **options.pop('headers', {})}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(stack.url + path, data=data, headers=headers, timeout=30, **options)
    return answer, line_of(stack, request_id)


# ---- how requests end ----

def test_a_whole_answer(stack):
    answer, line = post(stack, '/chat', {'message': 'hi', 'session_id': 'whole', 'user_id': 'u'})
    chat = stack.sim.chats()[0]
    assert answer.status_code == 200
    expected = {'client': '127.0.0.1', 'method': 'POST', 'path': '/chat', 'route': '/chat', 'status': '200',
                'bytes': str(len(answer.content)), 'session': 'whole', 'conversation': chat['conversation_id']}
    assert expected.items() <= {name: str(value) for name, value in line.items()}.items()
    assert 0 < float(line['first_ms']) <= float(line['total_ms']) < 10000
    assert line['logid'] and line['logid'] == stack.sim.log('/v3/chat')[0].get('logid', line['logid'])
    assert not {'while', 'error', 'cause', 'retries', 'chunks'} & set(line)
    if stack.env['LOG_FORMAT'] == 'json':
        assert [type(line[name]) for name in ('status', 'bytes', 'total_ms', 'first_ms')] == [int, int, float, float]


def test_a_whole_stream(stack):
    answer, line = post(stack, '/chat/stream', {'message': directive('hi', gap_ms=5), 'session_id': 'stream'})
    chunks = answer.text.count('"type": "chunk"')
    assert (str(line['status']), line['route'], int(line['chunks'])) == ('200', '/chat/stream', chunks)
    assert int(line['bytes']) == len(answer.content) and line['session'] == 'stream' and line['logid']
    assert 0 < float(line['first_ms']) <= float(line['first_chunk_ms']) <= float(line['total_ms'])
    assert not {'while', 'error', 'cause', 'retries'} & set(line)


def test_an_error_of_coze_after_retries(stack):
    stack.sim.queue(http_status=503, times=1)
    answer, line = post(stack, '/chat', {'message': 'hi'})
    assert answer.status_code == 200 and int(line['retries']) == 1
    stack.sim.default(http_status=400)
    answer, line = post(stack, '/chat', {'message': 'hi', 'session_id': 'refused'})
    assert answer.status_code == 500 and str(line['status']) == '500'
    assert line['error'] == 'coze_config' and line['cause'] == 'Coze answered HTTP 400, code 400'
    assert line['while'] and line['session'] == 'refused' and float(line['first_ms']) > 0


def test_retries_that_did_not_help(make_stack):
    stack = make_stack(WORKERS='1', COZE_MAX_RETRIES='1')
    stack.sim.default(http_status=503)
    answer, line = post(stack, '/chat/stream', {'message': 'hi'})
    assert answer.status_code == 503 and line['status'] == '503'
    assert (line['error'], line['retries'], line['chunks']) == ('coze_busy', '1', '0')
    assert line['cause'] == 'Coze answered HTTP 503, code 503'
    assert 'first_chunk_ms' not in line


def test_a_time_limit_is_named(make_stack):
    stack = make_stack(WORKERS='1', CHAT_TIMEOUT_SECONDS='3', COZE_FIRST_BYTE_TIMEOUT_SECONDS='2',
                       COZE_IDLE_TIMEOUT_SECONDS='2')
    stalls = [({'gap_ms': 300, 'chunks': 20}, '/chat', 'CHAT_TIMEOUT_SECONDS'),
              ({'fault': 'stall_header', 'stall_ms': 6000}, '/chat', 'COZE_FIRST_BYTE_TIMEOUT_SECONDS'),
              ({'fault': 'stall', 'stall_ms': 6000}, '/chat/stream', 'COZE_IDLE_TIMEOUT_SECONDS')]
    for sim, path, name in stalls:
        answer, line = post(stack, path, {'message': directive('slow', **sim)})
        assert line['error'] == 'timeout' and name in line['cause'], line
        assert line['while'] and float(line['total_ms']) >= 1999  # the loop's clock has whole milliseconds
        if path == '/chat/stream':  # it had begun: the error is an event
            assert answer.status_code == 200 and '"type": "error"' in answer.text
            assert line['status'] == '200' and int(line['chunks']) == answer.text.count('"type": "chunk"') > 0
        else:
            assert answer.status_code == 503 and line['status'] == '503'


@pytest.mark.parametrize('sim, error', [({'fault': 'cut'}, 'coze_unreachable'), ({'fault': 'eof'}, 'coze_unreachable'),
                                        ({'fault': 'chat_failed_after_text'}, 'coze_busy'), ({'fault': 'canceled'}, 'coze_busy')])
def test_a_stream_that_ends_with_an_error(stack, sim, error):
    answer, line = post(stack, '/chat/stream', {'message': directive('hi', gap_ms=1, **sim)})
    assert answer.status_code == 200 and str(line['status']) == '200'
    assert answer.text.count('"type": "error"') == 1
    assert line['error'] == error
    assert line['cause'] and line['while'] and int(line['chunks']) > 0


BAD = [('/chat', b'{', 400, 'bad_request'), ('/chat', {'message': ''}, 400, 'bad_request'),
       ('/chat', {'message': 'x', 'session_id': 'a\nb'}, 400, 'bad_request'),
       ('/chat', {'message': 'x', 'session_id': 'x' * 129}, 400, 'bad_request'), ('/chat/', {'message': 'x'}, 404, 'not_found'),
       ('/health', {}, 405, 'method'), ('/session/%FF/clear', {}, 400, 'bad_request'),
       ('/session/a%0Ab/clear', {}, 400, 'bad_request'), ('/session/x/bind', {}, 400, 'bad_request')]


@pytest.mark.parametrize('path, body, status, error', BAD)
def test_a_request_that_is_refused(stack, path, body, status, error):
    answer, line = post(stack, path, body)
    assert answer.status_code == status and str(line['status']) == str(status)
    assert line['error'] == error and line['cause'] and line['while'] == 'reading the request' and line['path'] == path
    assert int(line['bytes']) == len(answer.content)


def test_another_user_s_session_and_a_missing_one(stack):
    assert post(stack, '/chat', {'message': 'x', 'session_id': 'owned', 'user_id': 'one'})[0].status_code == 200
    answer, line = post(stack, '/chat', {'message': 'x', 'session_id': 'owned', 'user_id': 'two'})
    assert answer.status_code == 403 and (line['error'], line['session']) == ('forbidden', 'owned')
    requests.get(stack.url + '/session/missing/info', headers={'X-Request-ID': 'get-missing'}, timeout=10)
    assert line_of(stack, 'get-missing')['error'] == 'not_found'


# ---- clients that leave ----

def leave(stack, path, message, state, **fields):
    """Sends a message, waits until its turn is in `state`, leaves, and returns the log line."""
    request_id = 'leaver-%d' % next(numbers)
    with stack.connect(path, message, headers='X-Request-ID: %s\r\n' % request_id, **fields):
        gauge = 'coze_chat_turns{state="%s"} 1' % state
        wait_for(lambda: gauge in stack.get('/metrics')[2].decode(), what=state)
    return line_of(stack, request_id)


def test_a_client_that_leaves_is_499_and_what_it_waited_for(make_stack):
    stack = make_stack(WORKERS='1', COZE_MIN_INTERVAL_MS='3000')
    asking = leave(stack, '/chat', directive('x', fault='stall_header', stall_ms=9000), 'asking', session_id='asking')
    # The first has taken the slot: the next one waits for its own.
    slot = leave(stack, '/chat/stream', 'x', 'slot', session_id='slot')
    assert (asking['while'], slot['while']) == ('waiting for coze', 'waiting for a slot')
    for session, line in ('asking', asking), ('slot', slot):
        assert (line['status'], line['session'], line['first_ms']) == ('499', session, '0.000')
        assert 'error' not in line and float(line['total_ms']) > 0


@pytest.mark.parametrize('path', ['/chat', '/chat/stream'])
def test_a_client_that_leaves_an_answer_or_a_queue(stack, path):
    slow = directive('slow', gap_ms=100, chunks=30)
    line = leave(stack, path, slow, 'answering', session_id='left')
    assert (str(line['status']), line['while']) == ('499', 'streaming from coze')
    assert line['conversation'] and line['logid']
    with stack.connect(path, slow, session_id='taken'):
        wait_for(lambda: 'coze_chat_turns{state="answering"} 1' in stack.get('/metrics')[2].decode(), what='answering')
        line = leave(stack, path, 'x', 'lock', session_id='taken')
    assert (str(line['status']), line['while']) == ('499', 'waiting for the session')


# ---- hostile bytes ----

HOSTILE = ['\n2024-01-15T10:30:15.123456 info pid=1 event=request req=forged status=200', '\r\n', '"', '\\', '\\"', "'",
           ' status=200 ', '\x1b[31m', '\x07', '\x7f', '\x85', '\x9b31m', '\u2028', '\u202e', '😀',
           '=', '","status":200,"x":"', '}{', '%s%n', '$(id)',
           '\t', '<script>', 'x' * 5000]


def test_nothing_that_a_client_sends_breaks_or_forges_a_line(stack):
    """By FastCGI, so that also what nginx would refuse comes through; and by HTTP, as it is."""
    before = len(lines(stack))
    sent = 0
    with Link(worker_socket(stack)) as link:
        for text in HOSTILE:
            for field, value in [('REQUEST_URI', '/session/%s/info' % text), ('REQUEST_URI', '/%s?%s' % (text, text)),
                                 ('REQUEST_ID', text), ('REMOTE_ADDR', text), ('REQUEST_METHOD', text), ('CONTENT_TYPE', text),
                                 ('HTTP_AUTHORIZATION', 'Bearer ' + text), ('HTTP_X_API_KEY', text)]:
                more = {field: value}
                link.send(request(more.pop('REQUEST_METHOD', 'POST'), more.pop('REQUEST_URI', '/chat'), b'{}', keep=True, **more))
                assert link.answer()[0] >= 400
                sent += 1
    for text in HOSTILE:
        for body in [{'message': text, 'session_id': text[:100], 'conversation_id': text[:100], 'user_id': text[:100]},
                     {'message': '', 'session_id': text}, {text: 1}, text]:
            requests.post(stack.url + '/session/x/bind', json=body, timeout=10)
            requests.post(stack.url + '/chat', json=body, timeout=10)
            sent += 2
    for raw in (b'\xff\xfe', b'\xc0\x8a', b'\xed\xa0\x80', b'a\x00b'):
        requests.post(stack.url + '/chat', data=raw, headers={'Content-Type': 'application/json'}, timeout=10)
        sent += 1
    found = [line for line in lines(stack)[before:] if line['event'] == 'request']
    assert len(found) == sent
    assert not [line for line in found if line['req'] == 'forged']
    assert all(len(json.dumps(line)) < 16000 for line in found)
    # What can be shown is shown as it was.
    paths = {line['path'] for line in found}
    assert '/session/😀/info' in paths and '/session/","status":200,"x":"/info' in paths
    if stack.env['LOG_FORMAT'] == 'json':
        assert '/session/\x1b[31m/info' in paths and "/session/\\\"/info" in paths


def test_hostile_headers_of_http(stack):
    """nginx checks the id that it passes on."""
    for value in HOSTILE:
        if not set(value) & set('\r\n\0'):
            stack.raw(('GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: %s\r\nUser-Agent: %s\r\n'
                       'Connection: close\r\n\r\n' % (value, value)).encode())
    for line in lines(stack):
        if line['event'] == 'request' and line['path'] == '/health':
            assert re.fullmatch(r'[A-Za-z0-9._:-]{1,128}', line['req'])


def test_query_strings_are_nobody_s_business(stack):
    for path in '/health', '/metrics', '/session/x/info', '/nowhere', '/sessions':
        requests.get(stack.url + path + '?api_key=query-nobody-may-see&x=%0a', headers={'X-Request-ID': 'query'}, timeout=10)
    requests.post(stack.url + '/chat?message=query-nobody-may-see', json={}, timeout=10)
    stack.reload()  # writes out what nginx still holds
    for name in 'api_server.log', 'nginx_access.log':
        with open(os.path.join(stack.run_dir, 'logs', name), 'rb') as file:
            text = file.read()
        assert text and b'nobody-may-see' not in text, name


# ---- levels ----

def test_levels(make_stack):
    stack = make_stack(WORKERS='1', LOG_LEVEL='warn')
    assert stack.chat('hi').status_code == 200
    stack.sim.queue(http_status=503, times=1)
    assert stack.chat('hi').status_code == 200
    found = wait_for(lambda: lines(stack), what='the retry')
    assert {line['event'] for line in found} == {'retry'}


# ---- files ----

def request_ids(stack, path):
    return [line['req'] for line in lines(stack, path) if line['event'] == 'request']


@pytest.mark.parametrize('elsewhere', [False, True])
def test_reopening_loses_no_line(make_stack, tmp_path, elsewhere):
    """Moved away again and again under load, with a worker that drains: it and the master write on in the new file, too."""
    options = {'LOG_FILE': str(tmp_path / 'elsewhere.log')} if elsewhere else {}
    stack = make_stack(WORKERS='2', sim={'SIM_GAP_MS': '1'}, **options)
    path, moved = log_path(stack), []
    master = stack.pids()['workers']
    with Load(stack.port) as load:
        load.steady(150, clients=16)
        with stack.stream(directive('long', answer='长' * 200, chunks=200, gap_ms=400), session_id='long') as answer:
            pieces = answer.iter_content(None)
            next(pieces)
            stack.reload()
            wait_for(lambda: len(stack.worker_pids()) == 3, what='one that drains')
            for number in range(6):
                before = len(load.times)
                wait_for(lambda before=before: len(load.times) > before + 30, what='requests')
                moved.append('%s.%d' % (path, number))
                os.rename(path, moved[-1])
                if number % 2:
                    stack.call('reopen')
                else:
                    os.kill(master, signal.SIGUSR1)
                wait_for(lambda: open_logs(stack) == {path}, what='the new file being in use')
            sizes = [os.path.getsize(name) for name in moved]
            load.stop()
            answer.close()
            wait_for(lambda: 'session=long' in open(path, encoding='utf-8').read(), what='the line of the long stream')
    assert load.failures == []
    assert sizes == [os.path.getsize(name) for name in moved]
    assert all(os.stat(name).st_mode & 0o137 == 0 for name in [path, *moved])
    ids = [one for name in [*moved, path] for one in request_ids(stack, name)]
    assert len(ids) == len(set(ids))
    chats = sum(line.get('route') == '/chat' for name in [*moved, path] for line in lines(stack, name))
    assert chats == len(load.times)
    if elsewhere:
        assert not os.path.exists(os.path.join(stack.run_dir, 'logs', 'api_server.log'))


def open_logs(stack):
    """The api logs that the master and its workers have open, by the names they have now."""
    found = set()
    for pid in [stack.pids()['workers'], *stack.worker_pids()]:
        for number in os.listdir('/proc/%d/fd' % pid):
            try:
                name = os.readlink('/proc/%d/fd/%s' % (pid, number))
            except OSError:  # closed meanwhile
                continue
            if os.path.basename(name).startswith(('api_server.log', 'elsewhere.log')):
                found.add(name)
    return found


def test_a_full_disk_stops_nothing(make_stack):
    stack = make_stack(WORKERS='2', LOG_FILE='/dev/full')
    for number in range(4):
        assert stack.chat('hi').status_code == 200
        assert stack.events('hi')[-1]['type'] == 'complete'
    failures = [line for line in stack.get('/metrics')[2].decode().splitlines() if line.startswith('coze_chat_log_failures_total ')]
    assert int(failures[0].split()[1]) >= 8
    stack.call('reopen')
    stack.reload()
    assert stack.chat('hi').status_code == 200


def test_a_log_that_cannot_be_opened_stops_the_start_and_says_so(make_stack):
    stack = make_stack(WORKERS='1')
    stack.down()
    stack.set(LOG_FILE='/nowhere/api.log')
    result = stack.call('up')
    assert result.returncode != 0 and '/nowhere/api.log' in result.stderr
    stack.set(LOG_FILE=None)
    stack.up()


def test_lines_of_many_writers_never_mix(make_stack):
    """Two workers and long lines at once."""
    stack = make_stack(WORKERS='2', LOG_FORMAT='json')
    path = '/' + '%E4' * 200
    errors = []

    def client():
        try:
            with requests.Session() as session:
                for _ in range(100):
                    assert session.get(stack.url + path, timeout=10).status_code == 404
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len([line for line in lines(stack) if line['event'] == 'request' and line.get('error') == 'not_found']) == 400
