"""
However Coze fails, the client gets the documented status, or the one `error` event, and soon; the log names the time
limit that fired; the workers go on serving. When a client leaves, or time is up, the chat is cancelled at Coze.
"""
import contextlib
import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stack import HttpAnswer, Stack, directive, late, parse_stream, text_of, wait_for

TIMEOUT = {'/chat': '同步聊天失败: timeout', '/chat/stream': '流式聊天失败: timeout'}
ROUTES = list(TIMEOUT)
QUICK = dict(COZE_MAX_RETRIES='0')
SILENCE = dict(COZE_FIRST_BYTE_TIMEOUT_SECONDS='2', COZE_IDLE_TIMEOUT_SECONDS='2')  # more than a busy simulator needs
SOON = 8  # seconds within which every failure must be told; the limits below are far shorter


@pytest.fixture(scope='module')
def streaming():
    with Stack(WORKERS='1', **QUICK, **SILENCE).start() as stack:
        yield stack


@pytest.fixture(scope='module')
def polling():
    with Stack(WORKERS='1', COZE_CHAT_MODE='poll', **QUICK, **SILENCE).start() as stack:
        yield stack
        serves(stack)


@pytest.fixture(scope='module')
def h2():
    with Stack(tls=True, WORKERS='1', **QUICK, **SILENCE).start() as stack:
        yield stack


class Outcome:
    """What a client saw: an HTTP error, an `error` event after some text, or a whole answer."""

    def __init__(self, stack, route, message, **fields):
        began = time.monotonic()
        ask = stack.stream if route == '/chat/stream' else stack.chat
        with ask(message, timeout=SOON * 3, **fields) as answer:
            self.status = answer.status_code
            self.headers = answer.headers
            body = answer.content
        self.seconds = time.monotonic() - began
        self.event = None
        self.text = ''
        if self.headers['Content-Type'].startswith('text/event-stream'):
            events = parse_stream(body)
            self.event = events[-1]['type']
            self.text = text_of(events)
            self.detail = events[-1]['data'].get('message')
        else:
            self.detail = json.loads(body).get('detail')
            self.text = json.loads(body).get('response', '')
        assert self.seconds < SOON, 'took %.1f s' % self.seconds

    @property
    def failed(self):
        return self.status != 200 or self.event == 'error'

    def __repr__(self):
        return '%s %s %r %r' % (self.status, self.event, self.detail, self.text)


def expect(outcome, status, detail):
    """A real status, with Retry-After just where it says that trying again makes sense."""
    assert (outcome.status, outcome.detail) == (status, detail), outcome
    assert ('Retry-After' in outcome.headers) == (status == 503), outcome.headers
    if status == 503:
        assert int(outcome.headers['Retry-After']) > 0


def expect_ended(outcome, route, status, detail):
    """A failure after Coze had accepted the message: on a stream it is an event."""
    if route == '/chat/stream':
        assert (outcome.status, outcome.event, outcome.detail) == (200, 'error', detail), outcome
    else:
        expect(outcome, status, detail)


def both(stack, *messages, **fields):
    """(route, outcome) of all messages on both routes, all at once; each in a session of its own if there is one."""
    def ask(case):
        route, message = case
        own = {'session_id': fields['session_id'] + route.replace('/', '-')} if 'session_id' in fields else {}
        return route, Outcome(stack, route, message, **dict(fields, **own))

    with ThreadPoolExecutor(24) as pool:
        return list(pool.map(ask, [(route, message) for message in messages for route in ROUTES]))


def serves(stack):
    answer = stack.chat('还在吗')
    assert answer.status_code == 200 and '还在吗' in answer.json()['response']


@pytest.fixture(autouse=True)
def still_serving(request):
    """
    After each test its stack answers, with the processes that it had before. An answer from Coze also closes the circuit
    that a few failures in a row would open.
    """
    used = set(request.fixturenames)
    if hasattr(request.node, 'callspec'):
        used.add(request.node.callspec.params.get('mode'))
    names = [name for name in ('streaming', 'polling', 'h2') if name in used]
    stacks = [request.getfixturevalue(name) for name in names]
    pids = [stack.worker_pids() for stack in stacks]
    yield
    for stack, before in zip(stacks, pids):
        if stack.env.get('COZE_CHAT_MODE') == 'poll':  # an answer would take a second; there is one at the end
            assert stack.chat(directive(code=4000)).status_code == 500
        else:
            serves(stack)
        assert stack.worker_pids() == before


# --- before Coze accepts the message: a real status ------------------------------------------------------------------

# Coze's code: status of the answer
CODES = {4000: 500, 4004: 500, 4006: 500, 4008: 503, 4009: 503, 4010: 400, 4011: 503, 4013: 503, 4014: 400, 4015: 500,
         4020: 503, 4028: 503, 4100: 500, 4101: 500, 5000: 503, 700012006: 500, 710005002: 503, 123456789012: 503}


def refusal(fault, code, **more):
    """One of the shapes in which Coze refuses."""
    return directive(fault=fault, code=code, msg='原因 "x"', **more)


@pytest.mark.parametrize('mode', ['streaming', 'polling'])
@pytest.mark.parametrize('route', ROUTES)
def test_codes_in_json(request, mode, route):
    stack = request.getfixturevalue(mode)
    for code, status in CODES.items():
        expect(Outcome(stack, route, refusal('json_error', code)), status, 'Coze API请求失败: %d 原因 "x"' % code)


@pytest.mark.parametrize('shape', ['sse_error', 'raw_json_line'])
@pytest.mark.parametrize('route', ROUTES)
def test_codes_in_a_stream(streaming, route, shape):
    for code in 4000, 4008, 4014, 4100, 5000:
        expect(Outcome(streaming, route, refusal(shape, code)), CODES[code], 'Coze API请求失败: %d 原因 "x"' % code)


@pytest.mark.parametrize('shape', ['json_error', 'sse_error', 'raw_json_line'])
def test_codes_as_strings(streaming, shape):
    expect(Outcome(streaming, '/chat', refusal(shape, '4100', code_as_string=True)), 500, 'Coze API请求失败: 4100 原因 "x"')


@pytest.mark.parametrize('mode', ['streaming', 'polling', 'h2'])
@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('status, ours, words', [
    (400, 500, 'Bad Request'), (401, 500, 'Unauthorized'), (403, 500, 'Forbidden'), (404, 500, 'Not Found'),
    (429, 503, 'Too Many Requests'), (500, 503, 'Internal Server Error'), (502, 503, 'Bad Gateway'),
    (503, 503, 'Service Unavailable'), (504, 503, 'Gateway Timeout')])
def test_http_status(request, mode, route, status, ours, words):
    """With Coze's JSON and with the HTML page of an edge, of which nothing may show."""
    stack = request.getfixturevalue(mode)
    for html in False, True:
        outcome = Outcome(stack, route, directive(http_status=status, html=html))
        expect(outcome, ours, 'Coze API请求失败: %d %s' % (status, words))


def test_wrong_token(make_stack):
    stack = make_stack(WORKERS='1', COZE_API_TOKEN='pat_wrong', **QUICK)
    for route in ROUTES:
        expect(Outcome(stack, route, '你好'), 500, 'Coze API请求失败: 4100 Authentication is invalid')
    stack.sim.default(path='/v3/chat', auth_status=401)
    for route in ROUTES:
        expect(Outcome(stack, route, '你好'), 500, 'Coze API请求失败: 401 Unauthorized')
    assert 'pat_wrong' not in stack.api_log()


def test_retry_after_is_passed_on(streaming):
    outcome = Outcome(streaming, '/chat', directive(http_status=429, retry_after=7))
    assert outcome.status == 503 and outcome.headers['Retry-After'] == '7'


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('mode', ['streaming', 'polling', 'h2'])
@pytest.mark.parametrize('fault', [dict(fault='cut', cut_after=-1), dict(fault='cut', cut_after=-1, cut_how='fin'),
                                   dict(fault='eof', cut_after=-1)], ids=['reset', 'closed', 'nothing said'])
def test_cut_before_the_first_byte(request, mode, route, fault):
    outcome = Outcome(request.getfixturevalue(mode), route, directive(**fault))
    assert outcome.status == 503 and outcome.detail and outcome.headers['Retry-After'], outcome


@pytest.mark.parametrize('route', ROUTES)
def test_half_a_body(polling, route):
    outcome = Outcome(polling, route, directive(fault='bad_json'))
    assert outcome.status == 503 and outcome.detail and outcome.headers['Retry-After'], outcome


def test_one_failed_look_at_a_chat_is_not_its_end(polling):
    faults = [dict(http_status=502, times=1), dict(fault='cut', times=1)]
    for route, outcome in both(polling, *(directive('你好', retrieve_fault=fault) for fault in faults)):
        assert not outcome.failed and '你好' in outcome.text, outcome


def test_occupied(make_stack):
    """4016 that does not end: an error within the turn's time."""
    stack = make_stack(WORKERS='1', CHAT_TIMEOUT_SECONDS='2', STREAM_TIMEOUT_SECONDS='2', **QUICK)
    for _, outcome in both(stack, directive(fault='occupied')):
        assert outcome.status in (409, 503) and outcome.headers['Retry-After'], outcome


# --- conversations that Coze does not know ---------------------------------------------------------------------------

@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('mode', ['streaming', 'polling'])
def test_unknown_conversation_of_the_client(request, mode, route):
    outcome = Outcome(request.getfixturevalue(mode), route, '你好', conversation_id='7999999999999999999')
    assert outcome.status == 400 and '7999999999999999999' in outcome.detail, outcome


@pytest.mark.parametrize('mode, route', [('streaming', '/chat'), ('streaming', '/chat/stream'),
                                         ('polling', '/chat/stream')])
def test_unknown_conversation_of_the_session(request, mode, route):
    """Coze has forgotten it: the session goes on in a new one, unseen by the client."""
    stack = request.getfixturevalue(mode)
    session = 'forgotten%s%s' % (mode, route.replace('/', '-'))
    bound = stack.chat('第一句', session_id=session).json()['conversation_id']
    stack.sim.queue(fault='unknown_conversation')
    outcome = Outcome(stack, route, '第二句', session_id=session)
    assert not outcome.failed and '这是本次会话的第 1 轮' in outcome.text, outcome
    now = stack.info(session).json()['conversation_id']
    assert now not in (None, bound)
    if mode == 'streaming':
        assert '上一轮您说：“第二句”' in Outcome(stack, route, '第三句', session_id=session).text
        assert stack.info(session).json()['conversation_id'] == now


def test_conversations_are_forgotten_once_only(streaming):
    streaming.chat('第一句', session_id='forgotten twice')
    streaming.sim.queue(times=2, fault='unknown_conversation')
    outcome = Outcome(streaming, '/chat', '第二句', session_id='forgotten twice')
    streaming.sim.reset()
    assert outcome.status in (400, 503) and outcome.detail, outcome


# --- after Coze has accepted it: an error event on streams ------------------------------------------------------------

@pytest.mark.parametrize('mode', ['streaming', 'polling'])
def test_failed_chat(request, mode):
    """Its true cause is in last_error."""
    stack = request.getfixturevalue(mode)
    cases = [(fault, code) for fault in ('chat_failed', 'chat_failed_after_text') for code in (4014, 4028, 4100, 5000)]
    asked = [case for case in cases for _ in ROUTES]
    for (fault, code), (route, outcome) in zip(asked, both(stack, *(refusal(*case) for case in cases))):
        expect_ended(outcome, route, CODES[code], 'Coze API请求失败: %d 原因 "x"' % code)
        if route == '/chat/stream' and mode == 'streaming':
            assert bool(outcome.text) == (fault == 'chat_failed_after_text')


@pytest.mark.parametrize('mode', ['streaming', 'polling'])
def test_empty_answer(request, mode):
    stack = request.getfixturevalue(mode)
    messages = directive(fault='empty'), directive(fault='empty_answer'), directive(answers=['', ''])
    for route, outcome in both(stack, *messages):
        expect_ended(outcome, route, 503, 'Coze API返回空回复')


def test_a_space_is_an_answer(streaming):
    for _, outcome in both(streaming, directive(answer=' ')):
        assert not outcome.failed and outcome.text == ' '


@pytest.mark.parametrize('mode', ['streaming', 'polling'])
def test_ends_without_an_answer(request, mode):
    stack = request.getfixturevalue(mode)
    for route, outcome in both(stack, directive(fault='requires_action'), directive(fault='canceled')):
        assert outcome.failed and outcome.detail, outcome
        assert outcome.event == 'error' if route == '/chat/stream' else outcome.status in (500, 503)


@pytest.mark.parametrize('mode', ['streaming', 'h2'])
@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('after', [0, 3, 1000])
@pytest.mark.parametrize('how', ['rst', 'fin', 'eof'])
def test_cut_within_the_answer(request, mode, route, after, how):
    """Also behind the last delta, with only the end missing: what Coze did not end is no answer."""
    fault = dict(fault='eof') if how == 'eof' else dict(fault='cut', cut_how=how)
    message = directive(answer='一二三四五', chunks=5, cut_after=after, gap_ms=5, **fault)
    outcome = Outcome(request.getfixturevalue(mode), route, message)
    assert outcome.detail, outcome
    if route == '/chat/stream':
        assert outcome.event == 'error' or (outcome.status == 503 and how == 'rst'), outcome
        assert '一二三四五'.startswith(outcome.text)
        if how != 'rst' or mode == 'streaming':  # over HTTP/2 a reset may overtake what was sent before it
            assert outcome.text == '一二三四五'[:after]
    else:
        assert outcome.status == 503 and outcome.headers['Retry-After']


def test_what_came_before_a_reset_is_read(make_stack):
    """However late the worker looks: of the words that it has, the client gets all, and Coze's ids are known."""
    stack = make_stack(WORKERS='1', **QUICK)
    message = directive(first_ms=1500, answer='一二三四五', chunks=5, fault='cut', cut_after=3, gap_ms=5)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(Outcome, stack, '/chat/stream', message, session_id='reset')
        wait_for(lambda: stack.sim.log('/v3/chat'), what='the message at Coze')
        worker, = stack.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: 'ended' in stack.sim.log('/v3/chat')[0], what='the reset')
        finally:
            os.kill(worker, signal.SIGCONT)
        outcome = asking.result()
    assert (outcome.status, outcome.event, outcome.text) == (200, 'error', '一二三'), outcome
    assert stack.info('reset').json()['conversation_id'] == stack.sim.chats()[0]['conversation_id']


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('fault', ['bad_json', 'bad_utf8'])
def test_broken_events(streaming, route, fault):
    """They may cost the answer, but neither the client nor the worker."""
    outcome = Outcome(streaming, route, directive(answer='一二三四五', chunks=5, fault=fault))
    assert outcome.failed or outcome.text.replace('\ufffd', '').replace('坏', '') == '一二三四五', outcome


def test_faults_while_polling(polling):
    faults = [(dict(code=4100, msg='原因'), 'Coze API请求失败: 4100 原因'),
              (dict(http_status=401), 'Coze API请求失败: 401 Unauthorized')]
    cases = [(directive(**{call: fault}), detail)
             for call in ('retrieve_fault', 'list_fault') for fault, detail in faults]
    details = [detail for _, detail in cases for _ in ROUTES]
    for detail, (route, outcome) in zip(details, both(polling, *(message for message, _ in cases))):
        expect_ended(outcome, route, 500, detail)


# --- time limits -----------------------------------------------------------------------------------------------------

def check_limit(stack, session, answers, *, limits):
    for route, outcome in answers:
        name = limits if isinstance(limits, str) else limits[route]
        line = stack.request_log(session + route.replace('/', '-'))[-1]
        assert re.search(r'\b%s\b' % name, line['cause']), 'the log does not name the limit: %r' % line


@pytest.mark.parametrize('mode', ['streaming', 'polling', 'h2'])
def test_no_first_byte(request, mode):
    stack = request.getfixturevalue(mode)
    answers = both(stack, directive(fault='stall_header', stall_ms=20_000), session_id='first-byte-' + mode)
    for route, outcome in answers:
        expect(outcome, 503, TIMEOUT[route])
    check_limit(stack, 'first-byte-' + mode, answers, limits='COZE_FIRST_BYTE_TIMEOUT_SECONDS')


@pytest.mark.parametrize('mode', ['streaming', 'h2'])
def test_silence_within_the_answer(request, mode):
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    answers = both(stack, directive(answer='一二三', chunks=3, fault='stall', stall_ms=20_000), session_id='idle-' + mode)
    for route, outcome in answers:
        expect_ended(outcome, route, 503, TIMEOUT[route])
        assert outcome.text == ('一二' if route == '/chat/stream' else '')
    check_limit(stack, 'idle-' + mode, answers, limits='COZE_IDLE_TIMEOUT_SECONDS')
    cancelled(stack, chats=2)


@pytest.mark.parametrize('route', ROUTES)
def test_silence_after_the_answer_is_nobodys_business(streaming, route):
    outcome = Outcome(streaming, route, directive(answer='一二三', fault='stall_done', stall_ms=20_000))
    assert not outcome.failed and outcome.text == '一二三'


def test_silence_between_events_is_not_counted_together(streaming):
    """The limit is for one silence, not for the answer."""
    assert Outcome(streaming, '/chat', directive(answer='啊' * 12, chunks=12, gap_ms=200)).text == '啊' * 12


@pytest.fixture(scope='module')
def short():
    with Stack(WORKERS='1', CHAT_TIMEOUT_SECONDS='2', STREAM_TIMEOUT_SECONDS='2', **QUICK).start() as stack:
        yield stack


@pytest.fixture(scope='module')
def short_polling():
    with Stack(WORKERS='1', COZE_CHAT_MODE='poll', CHAT_TIMEOUT_SECONDS='2.7', STREAM_TIMEOUT_SECONDS='2.7',
               **QUICK).start() as stack:
        yield stack


DEADLINE = {'/chat': 'CHAT_TIMEOUT_SECONDS', '/chat/stream': 'STREAM_TIMEOUT_SECONDS'}


@pytest.mark.parametrize('mode', ['short', 'short_polling'])
def test_deadline(request, mode):
    """An answer that goes on and on ends at the turn's deadline, here and at Coze."""
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    answers = both(stack, directive(answer='啊' * 300, chunks=300, gap_ms=60), session_id='deadline')
    for route, outcome in answers:
        expect_ended(outcome, route, 503, TIMEOUT[route])
    check_limit(stack, 'deadline', answers, limits=DEADLINE)
    cancelled(stack, chats=2)


def test_deadline_before_the_first_byte(short):
    short.sim.reset()
    answers = both(short, directive(first_ms=2600, answer='啊' * 99, chunks=99, gap_ms=60), session_id='early')
    for route, outcome in answers:
        expect(outcome, 503, TIMEOUT[route])
    check_limit(short, 'early', answers, limits=DEADLINE)
    cancelled(short, chats=2)
    serves(short)


def test_nobody_listens(make_stack):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        stack = make_stack(WORKERS='1', COZE_BASE_URL='http://127.0.0.1:%d/v3' % closed.getsockname()[1], **QUICK)
        for _, outcome in both(stack, '你好'):
            assert outcome.status == 503 and outcome.detail and outcome.headers['Retry-After'], outcome
        assert stack.get('/health')[0] == 200


@contextlib.contextmanager
def full_queue():
    """A port whose connections never come about: its queue is full."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        for _ in range(4):
            link = opened.enter_context(socket.socket())
            link.setblocking(False)
            link.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_no_connection(make_stack):
    with full_queue() as port:
        stack = make_stack(WORKERS='1', COZE_BASE_URL='http://127.0.0.1:%d/v3' % port,
                           COZE_CONNECT_TIMEOUT_SECONDS='0.5', **QUICK)
        answers = both(stack, '你好', session_id='connect')
        for route, outcome in answers:
            expect(outcome, 503, TIMEOUT[route])
        check_limit(stack, 'connect', answers, limits='COZE_CONNECT_TIMEOUT_SECONDS')


# --- clients that leave ----------------------------------------------------------------------------------------------

def cancelled(stack, since=None, chats=1):
    """Every chat of this test was cancelled at Coze, once, and soon after `since` (Unix time): within a second."""
    def all_ended():
        return [chat['status'] for chat in stack.sim.chats()] == ['canceled'] * chats

    wait_for(all_ended, what='the end of the chats')
    calls = {call['body']['chat_id']: call for call in stack.sim.log('/v3/chat/cancel')}
    assert len(stack.sim.log('/v3/chat/cancel')) == chats
    for chat in stack.sim.chats():
        call = calls[chat['id']]
        assert call['method'] == 'POST' and call['query'] == {}
        assert call['body'] == {'conversation_id': chat['conversation_id'], 'chat_id': chat['id']}
        if since is not None:
            assert call['t_ms'] - since * 1000 < late() * 1000


LONG = dict(answer='啊' * 400, chunks=400, gap_ms=50)


@pytest.mark.parametrize('mode', ['streaming', 'h2'])
def test_leaving_within_the_answer(request, mode):
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    with stack.connect('/chat/stream', directive(**LONG), session_id='left-' + mode) as link:
        next(HttpAnswer(link).chunks())
    left = time.time()
    cancelled(stack, left)
    assert stack.request_log('left-' + mode)[-1]['status'] == '499'
    asked = wait_for(lambda: [one for one in stack.sim.log('/v3/chat') if one.get('ended')],
                     what='the end of the transfer')
    assert asked[0]['ended'] == 'client_gone'


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('mode', ['streaming', 'polling', 'h2'])
def test_leaving_while_coze_works(request, mode, route):
    """Accepted, but without a word yet; or in the middle of what becomes a whole answer."""
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    session = 'waited-%s%s' % (mode, route.replace('/', '-'))
    with stack.connect(route, directive(**dict(LONG, gap_ms=650)), session_id=session):
        wait_for(stack.sim.chats, what='a chat at Coze')
    left = time.time()
    cancelled(stack, left)
    assert stack.request_log(session)[-1]['status'] == '499'


@pytest.mark.parametrize('mode', ['streaming', 'polling', 'h2'])
def test_leaving_before_coze_says_a_word(request, mode):
    """The chat's id is not known yet: it is cancelled as soon as it is."""
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    links = [stack.connect(route, directive(**LONG, fault='stall_header', stall_ms=500)) for route in ROUTES]
    wait_for(lambda: len(stack.sim.log('/v3/chat')) == 2, what='two calls at Coze')
    for link in links:
        link.close()
    cancelled(stack, time.time() + 0.5, chats=2)


@pytest.mark.parametrize('mode', ['streaming', 'polling'])
def test_the_session_goes_on_after_leaving(request, mode):
    """The conversation is free again at once, and Coze has forgotten the broken turn."""
    stack = request.getfixturevalue(mode)
    stack.sim.reset()
    session = 'returns-' + mode
    assert stack.chat('第一句', session_id=session).status_code == 200
    with stack.connect('/chat/stream', directive('第二句', **LONG), session_id=session):
        wait_for(lambda: len(stack.sim.chats()) == 2, what='the second chat')
    wait_for(lambda: stack.sim.chats()[-1]['status'] == 'canceled', what='the cancel')
    answer = stack.chat('第三句', session_id=session)
    assert '上一轮您说：“第一句”' in answer.json()['response']
    assert stack.sim.stats()['overlaps'] == 0


def test_finished_chats_are_not_cancelled(streaming):
    streaming.sim.reset()
    for route in ROUTES:
        Outcome(streaming, route, '你好')
        Outcome(streaming, route, directive(fault='chat_failed'))
        Outcome(streaming, route, directive(fault='sse_error'))
    assert streaming.sim.log('/v3/chat/cancel') == []


def test_many_leave_at_once(streaming):
    streaming.sim.reset()
    links = [streaming.connect(ROUTES[i % 2], directive(**LONG)) for i in range(30)]
    wait_for(lambda: len(streaming.sim.chats()) == 30, what='30 chats')
    for link in links:
        link.close()
    wait_for(lambda: [chat['status'] for chat in streaming.sim.chats()] == ['canceled'] * 30, what='30 cancels')
    assert len(streaming.sim.log('/v3/chat/cancel')) == 30
    wait_for(lambda: streaming.sim.stats()['open_streams'] == 0, what='the end of the transfers')
