"""
Proves that whatever a client sends, it gets the right 4xx, as JSON, with a text that helps; that every answer has its
request id and CORS headers; and that none of it ends a worker or costs memory for good.
"""
import http.client
import json
import re
import socket
import uuid

import pytest

import probe

LIMIT = 10 * 1024 * 1024
JSON = {'Content-Type': 'application/json'}
CHATS = ['/chat', '/chat/stream']
POSTS = ['/chat', '/chat/stream', '/session/x/clear', '/session/x/bind']
GETS = ['/', '/health', '/session/x/info']


@pytest.fixture(scope='module', autouse=True)
def same_workers(shared_stack):
    before = shared_stack.worker_pids()
    yield before
    assert shared_stack.worker_pids() == before


def send(stack, method, path, body=b'', headers=None):
    """(status, headers, body) of a request that goes out as it is written here."""
    link = http.client.HTTPConnection('127.0.0.1', stack.port, timeout=20)
    try:
        link.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            link.putheader(name, value)
        if body or method == 'POST':
            link.putheader('Content-Length', str(len(body)))
        link.endheaders(body or None)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        link.close()


def assert_refused(answer, status, word=''):
    got, headers, body = answer
    assert got == status, body
    assert headers['Content-Type'] == 'application/json'
    assert headers.get_all('X-Request-ID') and len(headers.get_all('X-Request-ID')) == 1
    assert headers['Access-Control-Allow-Origin'] == '*'
    told = json.loads(body.decode('utf-8'))
    assert list(told) == ['detail']
    assert re.search('[\u4e00-\u9fff]', told['detail'])
    assert word in told['detail']
    assert b'\\u' not in body


def name_of(value):
    if isinstance(value, bytes):
        value = value.replace(b'"message":"a","conversation_id":"c"', b'..')
        value = repr(value[:36])[2:-1] + ('..%d' % len(value) if len(value) > 36 else '')
    return value if isinstance(value, str) else None


def with_field(route, field, value):
    """A request that is right but for one field."""
    fields = {'conversation_id': 'c1'} if route.endswith('/bind') else {'message': '你好'}
    return json.dumps({**fields, field: value}, ensure_ascii=False).encode()


# --- what is not a JSON object, for every route with a body ---

NOT_JSON = [
    b'', b' \r\n\t ', b'{', b'}', b'x', b'{"message":"a"', b'{"message":"a","conversation_id":"c"', b'{"message":',
    b'{"message"}', b'{"message":"a","conversation_id":"c"}x', b'{"message":"a","conversation_id":"c"}{}',
    b'{"message":"a","conversation_id":"c"}]', b'{"message":"a","conversation_id":"c"}\0',
    b'\0{"message":"a","conversation_id":"c"}', b'{"message":"a","conversation_id":"c",}',
    b'{,"message":"a","conversation_id":"c"}', b'{"message":"a" "conversation_id":"c"}',
    b'{"message"::"a","conversation_id":"c"}', b'{"message" "a"}', b'{"message":"a";"conversation_id":"c"}',
    b"{'message':'a','conversation_id':'c'}", b'{message:"a",conversation_id:"c"}', b'{1:"a"}',
    b'{"message":"a","conversation_id":"c"/**/}', b'{"message":"a","conversation_id":"c"} // x',
    b'# x\n{"message":"a","conversation_id":"c"}', b'{"message":"a\0b","conversation_id":"c\0d"}',
    b'{"message":"a\nb","conversation_id":"c\nd"}', b'{"message":"a\x1fb","conversation_id":"c\x1fd"}',
    b'{"message":"a\\qb","conversation_id":"c\\qd"}', b'{"message":"\\u12","conversation_id":"\\u12"}',
    b'{"message":"\\u12G4","conversation_id":"\\u12G4"}', b'{"message":"a\\"}', b'message=a&conversation_id=c',
    b'<message>a</message>', b'--x\r\nContent-Disposition: form-data; name="message"\r\n\r\na\r\n--x--',
    '{"message":"a","conversation_id":"c"}'.encode('utf-16'),
    '{"message":"a","conversation_id":"c"}'.encode('utf-32-be'),
    ]
# As the value of a field that nobody looks at.
NOT_VALUES = [b'NaN', b'nan', b'Infinity', b'-Infinity', b'-', b'+1', b'.5', b'1.', b'01', b'-01', b'00', b'1e', b'1E+',
              b'0x10', b'1 2', b'1-1', b'True', b'None', b'undefined', b'tru', b'nulll', b'[1,]', b'[,1]', b'[1',
              b'[1}', b'{"a"}', b'{"a":1,}', b'"a', b"'a'", b'']
NOT_JSON += [b'{"message":"a","conversation_id":"c","x":%s}' % value for value in NOT_VALUES]

NOT_UTF8 = [b'\xff', b'\xfe\xff', b'\x80', b'\xbf\xbf', b'\xc3', b'\xe4\xbd', b'\xf0\x9f\x98', b'\xc0\xaf', b'\xc1\xbf',
            b'\xe0\x80\xaf', b'\xf0\x80\x80\xaf', b'\xed\xa0\x80', b'\xed\xb0\x80', b'\xf4\x90\x80\x80',
            b'\xf8\x88\x80\x80\x80', b'\xe4(\xbd', '你好'.encode('gbk'), 'é'.encode('latin-1')]


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind'])
@pytest.mark.parametrize('body', NOT_JSON, ids=name_of)
def test_not_json(stack, route, body):
    assert_refused(send(stack, 'POST', route, body, JSON), 400, '请求体')


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind'])
@pytest.mark.parametrize('bad', NOT_UTF8, ids=name_of)
def test_invalid_utf8(stack, route, bad):
    good = b'{"message":"a","conversation_id":"c","x":"%s"}'
    for body in (good % bad, good.replace(b'"x":"%s"', b'"%s":1') % bad,
                 good.replace(b':"a"', b':"%s"').replace(b'%s"}', b'"}') % bad, good.replace(b'%s', b'') + bad):
        assert_refused(send(stack, 'POST', route, body, JSON), 400, 'UTF-8')


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind'])
@pytest.mark.parametrize('body',
                         [b'[]', b'["message"]', b'[{"message":"a","conversation_id":"c"}]', b'"message"', b'1',
                          b'-1.5e3', b'true',
                          b'false', b'null', b'"' + b'a' * 100000 + b'"'], ids=name_of)
def test_json_but_no_object(stack, route, body):
    assert_refused(send(stack, 'POST', route, body, JSON), 400, '对象')


HARD = {
    'nested lists': b'{"message":"a","conversation_id":"c","x":' + b'[' * 100 + b']' * 100 + b'}',
    'nested objects': b'{"message":"a","conversation_id":"c","x":' + b'{"a":' * 100 + b'1' + b'}' * 100 + b'}',
    'lists without end': b'[' * 100000,
    'objects without end': b'{"a":' * 100000,
    'ten million lists': b'[' * LIMIT,
    'ten million strings': b'{"x":[' + b'"",' * (LIMIT // 3 - 4) + b'""]}',
    'a million numbers': b'{"message":"a","conversation_id":"c","x":[' + b'1,' * 999999 + b'1]}',
    'a million members': b'{"message":"a","conversation_id":"c",' + b'"x":1,' * 999999 + b'"x":1}',
    'a string without end': b'{"message":"' + b'a' * (LIMIT - 12),
    'escapes without end': b'{"message":"' + b'\\' * (LIMIT - 12),
    'a number without end': b'{"message":"a","conversation_id":"c","x":' + b'1' * 1000000,
    'only blanks': b' ' * LIMIT,
    'a megabyte of zeros': bytes(1000000),
}


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind'])
@pytest.mark.parametrize('body', HARD.values(), ids=HARD)
def test_bodies_that_are_hard_to_parse(stack, route, body):
    begun = sum(map(probe.processor_seconds, stack.worker_pids()))
    assert_refused(send(stack, 'POST', route, body, JSON), 400, '请求体')
    assert sum(map(probe.processor_seconds, stack.worker_pids())) - begun < 2


# --- fields ---


@pytest.mark.parametrize('route', CHATS)
@pytest.mark.parametrize('body',
                         [b'{}', b'{"message":null}', b'{"Message":"a"}', b'{"message ":"a"}',
                          b'{"msg":"a","session_id":"s"}',
                          b'{"x":{"message":"a"}}'], ids=name_of)
def test_no_message(stack, route, body):
    assert_refused(send(stack, 'POST', route, body, JSON), 400, 'message')


@pytest.mark.parametrize('body', [b'{}', b'{"conversation_id":null}', b'{"conversationId":"c"}', b'{"message":"a"}'],
                         ids=name_of)
def test_bind_without_conversation(stack, body):
    assert_refused(send(stack, 'POST', '/session/x/bind', body, JSON), 400, 'conversation_id')


@pytest.mark.parametrize('route', CHATS)
@pytest.mark.parametrize('text',
                         ['', ' ', '\t', '\n\r\n', '\u3000', '\u3000\u3000 \t', '\u00a0', '\u2003\u2028\u2029',
                          '\u0085', '\x1c\x1f\x0b\x0c',
                          ' ' * 100000], ids=ascii)
def test_blank_message(stack, route, text):
    for ensure_ascii in (True, False):
        if not ensure_ascii and any(c < ' ' for c in text):
            continue
        body = json.dumps({'message': text}, ensure_ascii=ensure_ascii).encode()
        assert_refused(send(stack, 'POST', route, body, JSON), 400, 'message')


ID_FIELDS = [(route, field) for route in CHATS for field in ('session_id', 'user_id', 'conversation_id')]
ID_FIELDS += [('/session/x/bind', 'conversation_id')]


@pytest.mark.parametrize('value', [0, 1.5, True, False, [], {}, ['a'], {'a': 'b'}, -10 ** 30], ids=repr)
@pytest.mark.parametrize('route,field', ID_FIELDS + [(route, 'message') for route in CHATS])
def test_wrong_type(stack, route, field, value):
    assert_refused(send(stack, 'POST', route, with_field(route, field, value), JSON), 400, field)


@pytest.mark.parametrize('value',
                         ['', 'x' * 129, '会' * 43, '😀' * 32 + 'x', 'x' * 1000000, 'a\0', '\0', 'a\nb', 'a\rb', 'a\tb',
                          '\x1b[2J', '\x7f',
                          '\x80', 'a\u0085', '\u009f'], ids=lambda value: ascii(value[:8]) + str(len(value)))
@pytest.mark.parametrize('route,field', ID_FIELDS)
def test_bad_id(stack, route, field, value):
    assert_refused(send(stack, 'POST', route, with_field(route, field, value), JSON), 400, field)


def test_what_is_no_mistake(stack):
    session = uuid.uuid4().hex
    for body in (b'{"message":"a"}', b' \r\n{ "message" : "a" }\t\n', b'{"x":[{}],"message":"a","y":null,"":0}',
                 b'{"message":"\\u4f60\\ud83d\\ude00"}',
                 b'{"message":"a","user_id":null,"session_id":null,"conversation_id":null}', b'{"message":" a\\u3000"}',
                 b'{"message":"\x7f"}', b'{"message":"a\\u0000b"}',
                 b'{"message":"a","x":[-0,0.5,1E+3,1e-3,-1.25,123456789012345678901234567890,true,"\\/"]}',
                 b'{"message":"a","x":' + b'[' * 20 + b']' * 20 + b'}',
                 json.dumps({'message': 'a', 'session_id': session}).encode()):
        assert send(stack, 'POST', '/chat', body, JSON)[0] == 200, body


@pytest.mark.parametrize('body',
                         [b'{"message":"\\ud800"}', b'{"message":"\\ude00\\ud83d"}', b'{"message":"\xef\xbb\xbf"}',
                          b'\xef\xbb\xbf{"message":"a"}',
                          b'{"message":"a","x":1e999}', b'{"message":"a","message":"b"}',
                          b'{"message":"\\ufffe"}'], ids=name_of)
def test_what_may_be_taken_either_way(stack, body):
    """Parsers differ in these; what comes back is whole UTF-8 in any case."""
    answer = send(stack, 'POST', '/chat', body, JSON)
    if answer[0] == 200:
        json.loads(answer[2].decode('utf-8'))['response'].encode('utf-8')
    else:
        assert_refused(answer, 400)


# --- Content-Type ---


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind'])
@pytest.mark.parametrize('kind',
                         ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x',
                          'application/xml', 'text/html',
                          'application/jsonx', 'application', 'json', '*/*', 'application/octet-stream',
                          'application/json; charset=gbk',
                          'application/json;charset="latin1"', 'application/json; charset=utf-16', ';',
                          'text/plain; a=application/json'])
def test_wrong_content_type(stack, route, kind):
    assert_refused(send(stack, 'POST', route, with_field(route, 'x', 'y'), {'Content-Type': kind}), 415, 'Content-Type')


@pytest.mark.parametrize('kind',
                         [None, 'application/json', 'APPLICATION/JSON', 'application/json; charset=utf-8',
                          'application/json;charset="UTF-8"',
                          'application/json ; x=y; charset=utf8', 'application/vnd.api+json'])
def test_right_content_type(stack, kind):
    headers = {} if kind is None else {'Content-Type': kind}
    assert send(stack, 'POST', '/chat', with_field('/chat', 'x', 'y'), headers)[0] == 200
    assert send(stack, 'POST', '/session/x/bind', with_field('/bind', 'x', 'y'), headers)[0] == 200


# --- size ---


def exactly(size):
    return b'{"message":"' + b'a' * (size - 14) + b'"}'


def test_the_largest_request(stack):
    status, _, body = send(stack, 'POST', '/chat', exactly(LIMIT), JSON)
    assert status == 200, body
    assert stack.sim.chats()[0]['text_bytes'] == LIMIT - 14


@pytest.mark.parametrize('route', CHATS + ['/session/x/bind', '/session/x/clear'])
def test_a_request_that_is_too_large(stack, route):
    assert_refused(send(stack, 'POST', route, exactly(LIMIT + 1), JSON), 413, str(LIMIT))


def post_head(route, header):
    return ('POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n' % (route, header)).encode()


def raw(stack, data):
    """(status, headers, body) of an answer to bytes that need not be a whole request."""
    with socket.create_connection(('127.0.0.1', stack.port), timeout=20) as link:
        try:
            link.sendall(data)
        except (BrokenPipeError, ConnectionResetError):  # nginx has heard enough, and answered
            pass
        answer = http.client.HTTPResponse(link, method=data.split(b' ', 1)[0].decode('latin-1'))
        answer.begin()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize('route', CHATS)
def test_too_large_is_said_before_the_body_comes(stack, route):
    for size in (LIMIT + 1, 2 ** 31, 2 ** 32 + 5, 2 ** 62):
        assert_refused(raw(stack, post_head(route, 'Content-Length: %d' % size)), 413, str(LIMIT))


def in_chunks(route, body, size):
    chunks = [body[at:at + size] for at in range(0, len(body), size)] + [b'']
    body = b''.join(b'%x\r\n%s\r\n' % (len(chunk), chunk) for chunk in chunks)
    return post_head(route, 'Transfer-Encoding: chunked') + body


@pytest.mark.parametrize('route', CHATS)
def test_too_large_in_chunks(stack, route):
    assert_refused(raw(stack, in_chunks(route, exactly(LIMIT + 1), 1 << 20)), 413, str(LIMIT))


def test_the_largest_request_in_chunks(stack):
    assert raw(stack, in_chunks('/chat', exactly(LIMIT), 100003))[0] == 200


def test_another_limit(make_stack):
    stack = make_stack(MAX_REQUEST_SIZE='5000', WORKERS='1')
    assert send(stack, 'POST', '/chat', exactly(5000), JSON)[0] == 200
    assert_refused(send(stack, 'POST', '/chat', exactly(5001), JSON), 413, '5000')


# --- paths ---


@pytest.mark.parametrize('what', ['info', 'clear', 'bind'])
@pytest.mark.parametrize('session',
                         ['%zz', '%', '%f', '%%41', 'a%2', 'a%g1', '%ff', 'a%ff', '%c0%af', '%e4%bd', '%ed%a0%80',
                          '%f4%90%80%80', '%80', '%00',
                          'a%00b', '%0a', '%0D%0A', '%09', '%7f', '%1b', '%c2%85', 'x' * 129, '%61' * 129,
                          '%e4%bc%9a' * 43, 'x' * 4000])
def test_a_path_with_a_bad_id(stack, what, session):
    method, body = ('GET', b'') if what == 'info' else ('POST', b'{"conversation_id":"c"}')
    path = '/session/%s/%s' % (session, what)
    assert_refused(send(stack, method, path, body, JSON if body else {}), 400, '路径')


@pytest.mark.parametrize('method', ['GET', 'POST'])
@pytest.mark.parametrize('path',
                         ['/nothing', '/chat/', '/chat/stream/', '/chat/streams', '/chatx', '/Chat', '/CHAT',
                          '/health/', '/session', '/session/',
                          '/session/x', '/session/x/', '/session//info', '/session/x/info/',
                          '/session/x/y/info', '/session/x/infos',
                          '/session/x/Info', '/sessions/x/info', '/session/x/clear/all', '/v3/chat',
                          '/index.html', '/.env', '/.git/config',
                          '/_error', '/会话'.encode().decode('latin-1'), '/%E4%BC%9A', '/chat;x', '/chat%20',
                          '/chat%3Fx', '/' + 'x' * 3000,
                          '/%3Cscript%3E', '/"x"', '/{session_id}/info'], ids=lambda value: ascii(value)[:32])
def test_an_unknown_path(stack, method, path):
    link = socket.create_connection(('127.0.0.1', stack.port), timeout=20)
    with link:
        body = b'{"message":"a"}' if method == 'POST' else b''
        link.sendall(('%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' %
                     (method, path, len(body))).encode('latin-1') + body)
        answer = http.client.HTTPResponse(link, method=method)
        answer.begin()
        got = answer.status, answer.headers, answer.read()
    assert_refused(got, 404)


def test_a_query_does_not_disturb(stack):
    assert send(stack, 'POST', '/chat?', b'{"message":"a"}', JSON)[0] == 200
    assert send(stack, 'POST', '/chat?message=b&x=%zz&/chat', b'{"message":"a"}', JSON)[0] == 200
    assert send(stack, 'GET', '/health?a/b')[0] == 200


# --- methods ---


OTHERS = ['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'PROPFIND', 'FOO']


@pytest.mark.parametrize('path,method,allowed',
                         [(path, method, 'POST') for path in POSTS for method in OTHERS + ['GET', 'HEAD']]
                         + [(path, method, 'GET, HEAD') for path in GETS for method in OTHERS + ['POST']])
def test_wrong_method(stack, path, method, allowed):
    status, headers, body = send(stack, method, path)
    assert status == 405
    assert len(headers.get_all('Allow')) == 1
    assert headers['Allow'] == allowed
    if method == 'HEAD':
        assert body == b''
    else:
        assert_refused((status, headers, body), 405)


@pytest.mark.parametrize('path', GETS + POSTS)
def test_trace_is_refused(stack, path):
    status, headers, body = send(stack, 'TRACE', path, headers={'X-Secret': 'do not echo'})
    assert_refused((status, headers, body), 405)
    assert headers['Allow']
    assert b'echo' not in body


@pytest.mark.parametrize('path', ['/', '/health', '/session/x/info'])
def test_head_is_get_without_body(stack, path):
    send(stack, 'POST', '/session/x/bind', b'{"conversation_id":"c"}', JSON)
    get, head = send(stack, 'GET', path), send(stack, 'HEAD', path)
    assert (get[0], head[0], head[2]) == (200, 200, b'')
    assert head[1]['Content-Length'] == get[1]['Content-Length'] == str(len(get[2]))
    assert head[1]['Content-Type'] == get[1]['Content-Type']


def test_head_of_what_is_not_there(stack):
    for path in ('/nothing', '/session/%s/info' % uuid.uuid4().hex):
        status, headers, body = send(stack, 'HEAD', path)
        assert (status, body) == (404, b'')
        assert headers['Content-Type'] == 'application/json'


# --- CORS ---


@pytest.mark.parametrize('path', GETS + POSTS + ['/nothing'])
def test_preflight(stack, path):
    status, headers, body = send(stack, 'OPTIONS', path, headers={
        'Origin': 'https://chat.example.com', 'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'content-type,x-request-id'})
    assert (status, body) == (204, b'')
    assert headers['Access-Control-Allow-Origin'] == '*'
    assert 'POST' in headers['Access-Control-Allow-Methods']
    assert 'Content-Type' in headers['Access-Control-Allow-Headers']
    assert int(headers['Access-Control-Max-Age']) > 0
    assert headers['X-Request-ID']


@pytest.mark.parametrize('status,method,path,body', [
    (200, 'GET', '/health', b''), (200, 'POST', '/chat',
     b'{"message":"a"}'), (200, 'POST', '/chat/stream', b'{"message":"a"}'),
    (400, 'POST', '/chat', b'{'), (404, 'GET', '/nothing', b''),
    (404, 'GET', '/session/nobody/info', b''), (405, 'GET', '/chat', b''),
    (413, 'POST', '/chat', exactly(LIMIT + 1)), (400, 'GET', '/%zz', b'')], ids=name_of)
def test_cors_headers_on_every_answer(stack, status, method, path, body):
    got, headers, _ = send(stack, method, path, body, {'Origin': 'https://chat.example.com', **(JSON if body else {})})
    assert got == status
    assert headers.get_all('Access-Control-Allow-Origin') == ['*']
    assert headers.get_all('Access-Control-Expose-Headers') == ['X-Request-ID, X-Session-ID']
    assert 'Access-Control-Allow-Credentials' not in headers


# --- request ids ---

# Not a path that nginx cannot read: then it reads no headers either, and makes an id of its own.
ROUTES = [('GET', '/health', b''), ('POST', '/chat', b'{"message":"a"}'), ('POST', '/chat/stream', b'{"message":"a"}'),
          ('POST', '/chat', b'{'), ('GET', '/nothing', b''), ('GET', '/session/%ff/info', b''),
          ('DELETE', '/chat', b'')]


@pytest.mark.parametrize('method,path,body', ROUTES)
def test_a_sane_request_id_is_the_answers(stack, method, path, body):
    for sent in ('a', uuid.uuid4().hex, 'x' * 128, 'A-b_c.d:9'):
        headers = send(stack, method, path, body, {'X-Request-ID': sent, **(JSON if body else {})})[1]
        assert headers.get_all('X-Request-ID') == [sent]
    assert 'req=' + sent in stack.api_log()


@pytest.mark.parametrize('sent',
                         ['a b', 'xy' * 64 + 'x', '"><script>', 'a;b', 'a,b', "' OR 1=1", '${jndi:ldap://x}', '../../x',
                          'a\tb', 'a%0d%0aSet-Cookie: x=y', '{}',
                          'status=200 event=fake', '\xe4\xbd\xa0', 'a\x01b', '\\n',
                          '中'.encode().decode('latin-1')], ids=ascii)
def test_an_insane_request_id_is_replaced(stack, sent):
    for method, path, body in ROUTES:
        answer = send(stack, method, path, body, {'X-Request-ID': sent, **(JSON if body else {})})
        if answer[0] == 400 and b'\x01' in sent.encode():  # nginx refuses such a header altogether
            continue
        assert re.fullmatch('[0-9a-f]{32}', *answer[1].get_all('X-Request-ID'))
        assert 'Set-Cookie' not in answer[1]
    log = stack.api_log()
    assert 'req=' + sent not in log and 'req="' + sent not in log


def test_each_request_gets_an_id_of_its_own(stack):
    seen = [send(stack, 'GET', '/health')[1]['X-Request-ID'] for _ in range(50)]
    assert len(set(seen)) == 50


def test_two_request_ids_are_no_sane_one(stack):
    _, headers, _ = raw(stack, b'GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n')
    assert len(headers.get_all('X-Request-ID')) == 1
    assert re.fullmatch('a|[0-9a-f]{32}', headers['X-Request-ID'])


# --- what remains of it ---


def test_bad_requests_cost_no_memory(make_stack):
    stack = make_stack(WORKERS='1')
    pid, = stack.worker_pids()
    bodies = NOT_JSON + [b'{"message":"a","x":"%s"}' % bad for bad in NOT_UTF8]
    bodies += [body for body in HARD.values() if len(body) < 200000]
    bodies += [with_field('/chat', 'session_id', value) for value in ([], 'x' * 129, 'a\0')]
    paths = ['/session/%ff/info', '/session/' + 'x' * 129 + '/info', '/nothing', '/chat']

    def all_of_them():
        link = http.client.HTTPConnection('127.0.0.1', stack.port, timeout=20)
        for method, path, body in ([('POST', '/chat', body) for body in bodies]
                                   + [('POST', '/session/x/bind', body) for body in bodies]
                                   + [('GET', path, b'') for path in paths]):
            link.request(method, path, body, JSON)
            link.getresponse().read()
        link.close()

    for body in (b'{"message":"a"}', exactly(LIMIT), b'[' * LIMIT):
        send(stack, 'POST', '/chat', body, JSON)
    for _ in range(3):
        all_of_them()
    before, descriptors = probe.rss_kib(pid), probe.descriptors(pid)
    for _ in range(12):
        all_of_them()
    if not probe.is_instrumented(pid):
        assert probe.rss_kib(pid) - before < 512  # some 3,000 requests: 170 bytes each would show
    assert probe.descriptors(pid) <= descriptors + 2
    for body in HARD.values():
        send(stack, 'POST', '/chat', body, JSON)
    if not probe.is_instrumented(pid):
        assert probe.rss_kib(pid) - before < 32 * 1024  # what a large body took was given back, but for one
    assert stack.worker_pids() == [pid]
