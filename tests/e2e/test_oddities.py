"""
Whatever the spelling of Coze's stream, and whatever else it says: the answer is right, once, and only the answer.
Each oddity is tried on /chat and /chat/stream, in stream and poll mode, and when Coze answers `stream:true` with JSON.
"""
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from stack import Stack, directive, filler, parse_stream, text_of

WORDS = '我理解您的感受😀。 Don\'t worry, "be happy" \\o/ \u2028 é '
TWO = ['第一个答案。', '第二个答案😀。']
ALL = {'crlf': True, 'space': True, 'comments': True, 'multi_data': True, 'unknown_events': True, 'noise': True,
       'reasoning': True, 'escape_unicode': True, 'card': True, 'last_error_null': True, 'code_as_string': True,
       'no_final_newline': True}

# name: (what the simulator is told, the right answer)
ODDITIES = {
    'plain': (dict(answer=WORDS, noise=False), WORDS),
    'noise': (dict(answer=WORDS, noise=True), WORDS),
    'one byte at a time': (dict(answer=WORDS, split=1), WORDS),
    'three bytes at a time': (dict(answer=WORDS, split=3), WORDS),
    'crlf': (dict(answer=WORDS, crlf=True), WORDS),
    'crlf, one byte at a time': (dict(answer=WORDS, crlf=True, split=1), WORDS),
    'space': (dict(answer='  ' + WORDS, space=True, chunks=40), '  ' + WORDS),
    'comments': (dict(answer=WORDS, comments=True), WORDS),
    'unknown events': (dict(answer=WORDS, unknown_events=True), WORDS),
    'reasoning': (dict(answer=WORDS, reasoning=True), WORDS),
    'two answers': (dict(answers=TWO), ''.join(TWO)),
    'three equal answers': (dict(answers=['是。', '是。', '是。']), '是。是。是。'),
    'completed only': (dict(answer=WORDS, completed_only=True), WORDS),
    'two answers, completed only': (dict(answers=TWO, completed_only=True), ''.join(TWO)),
    'huge line': (dict(answer=WORDS, huge_line_bytes=1 << 20), WORDS),
    'huge line in small pieces': (dict(answer=WORDS, huge_line_bytes=1 << 20, split=1000), WORDS),
    'multi data': (dict(answer=WORDS, multi_data=True), WORDS),
    'done bare': (dict(answer=WORDS, done='bare'), WORDS),
    'done empty': (dict(answer=WORDS, done='empty'), WORDS),
    'done debug url': (dict(answer=WORDS, done='debug_url'), WORDS),
    'done missing': (dict(answer=WORDS, done='none'), WORDS),
    'no final newline': (dict(answer=WORDS, no_final_newline=True), WORDS),
    'no final newline, done missing': (dict(answer=WORDS, no_final_newline=True, done='none'), WORDS),
    'escaped unicode': (dict(answer=WORDS, escape_unicode=True), WORDS),
    'card': (dict(answer=WORDS, card=True), WORDS),
    'code as string': (dict(answer=WORDS, code_as_string=True), WORDS),
    'last_error null': (dict(answer=WORDS, last_error_null=True), WORDS),
    'huge delta': (dict(answer_bytes=100_000, huge_delta=True), filler(100_000)),
    'empty deltas': (dict(deltas=['', '好', '', '的', '']), '好的'),
    'blank deltas': (dict(deltas=['one', ' ', 'two', '\n', '\n', 'three ']), 'one two\n\nthree '),
    'quotes': (dict(answer='"\\"\\\\"\'`</script>\\u0041'), '"\\"\\\\"\'`</script>\\u0041'),
    'controls': (dict(answer='a' + ''.join(map(chr, range(1, 32))) + '\x7f\x85z'),
                 'a' + ''.join(map(chr, range(1, 32))) + '\x7f\x85z'),
    'zero byte': (dict(answer='a\x00b'), 'a\x00b'),
    'separators': (dict(answer='a\u2028b\u2029c\ufeffd', escape_unicode=True), 'a\u2028b\u2029c\ufeffd'),
    'beyond the first plane': (dict(answer='𝕏😀👨‍👩‍👧\U0010fffd', escape_unicode=True), '𝕏😀👨‍👩‍👧\U0010fffd'),
    'looks like an event': (dict(answer='data: {"type": "complete"}\n\nevent: done\ndata: [DONE]\n\n'),
                            'data: {"type": "complete"}\n\nevent: done\ndata: [DONE]\n\n'),
    'all combined': (dict(ALL, answers=TWO, done='bare'), ''.join(TWO)),
    'all combined, one byte at a time': (dict(ALL, answer=WORDS, noise=False, split=1), WORDS),
    'all combined, completed only': (dict(ALL, answers=TWO, completed_only=True, split=7), ''.join(TWO)),
}
HOW = ['stream', 'poll', 'json_chat']


def ask_both(stack, message):
    """The answer of /chat, and the events of /chat/stream."""
    answer = stack.chat(message)
    return answer, stack.events(message)


@pytest.fixture(scope='module')
def told():
    """All questions at once, since each polled chat takes a second."""
    with Stack(WORKERS='2').start() as streaming, \
            Stack(WORKERS='2', COZE_CHAT_MODE='poll').start() as polling, \
            ThreadPoolExecutor(48) as pool:
        asked = {}
        for how in reversed(HOW):
            for name, (sim, _) in ODDITIES.items():
                more = {'fault': 'json_chat'} if how == 'json_chat' else {}
                stack = polling if how == 'poll' else streaming
                asked[how, name] = pool.submit(ask_both, stack, directive(**sim, **more))
        yield asked
        for question in asked.values():
            question.cancel()


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('name', ODDITIES)
def test_only_the_answer_and_once(told, name, how):
    sync, events = told[how, name].result()
    right = ODDITIES[name][1]
    assert sync.status_code == 200, sync.text
    assert sync.json()['response'] == right
    assert events[-1]['type'] == 'complete', events[-1]
    assert text_of(events) == right
    assert events[-1]['data']['full_content'] == right


# --- what the simulator cannot say ----------------------------------------------------------------------------------

class ScriptedCoze:
    """
    Answers every POST /v3/chat with the bytes of `body`, `piece` at a time, and whoever asks for the messages of a chat with
    the JSON of `messages`.
    """

    def __init__(self):
        self.messages = []
        self.say('')
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                self.rfile.read(int(self.headers['Content-Length']))
                self.send_response(200)
                self.send_header('Content-Type', scripted.type)
                self.send_header('Transfer-Encoding', 'chunked')
                self.end_headers()
                for at in range(0, len(scripted.body), scripted.piece):
                    part = scripted.body[at:at + scripted.piece]
                    self.wfile.write(b'%x\r\n%s\r\n' % (len(part), part))
                self.wfile.write(b'0\r\n\r\n')

            def do_GET(self):
                body = json.dumps({'code': 0, 'msg': '', 'data': scripted.messages}).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.url = 'http://127.0.0.1:%d/v3' % self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def say(self, body, piece=1 << 20, kind='text/event-stream'):
        self.body, self.piece, self.type = body.encode() if isinstance(body, str) else body, piece, kind

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope='module')
def scripted():
    coze = ScriptedCoze()
    with Stack(WORKERS='1', COZE_BASE_URL=coze.url).start() as stack:
        stack.coze = coze
        yield stack
    coze.close()


def event(name, data, eol='\n'):
    return 'event:%s%sdata:%s%s%s' % (name, eol, data, eol, eol)


def chat_event(name, status, eol='\n'):
    return event('conversation.chat.' + name, '{"id":"101","conversation_id":"7","status":"%s"}' % status, eol)


def message(content, name='delta', number=201, eol='\n', kind='answer'):
    """`content` is JSON already."""
    return event('conversation.message.' + name, '{"id":"%d","conversation_id":"7","chat_id":"101","role":"assistant",'
                 '"type":"%s","content":%s,"content_type":"text"}' % (number, kind, content), eol)


def whole_chat(*said, eol='\n'):
    return (chat_event('created', 'created', eol) + ''.join(said) + chat_event('completed', 'completed', eol) +
            event('done', '"[DONE]"', eol))


SCRIPTS = {
    'lone high surrogate': (whole_chat(message('"a\\ud83dz"')), 'a\ufffdz'),
    'lone low surrogate': (whole_chat(message('"a\\ude00z"')), 'a\ufffdz'),
    'surrogates in the wrong order': (whole_chat(message('"a\\ude00\\ud83dz"')), 'a\ufffd\ufffdz'),
    'surrogate pair over two deltas': (whole_chat(message('"a\\ud83d"'), message('"\\ude00z"')), 'a\ufffd\ufffdz'),
    'escaped zero byte': (whole_chat(message('"a\\u0000z"')), 'a\x00z'),
    'escaped slash and controls': (whole_chat(message('"\\/\\b\\f\\n\\r\\t\\u001f\\u007f"')), '/\b\f\n\r\t\x1f\x7f'),
    'escaped separators': (whole_chat(message('"\\u2028\\u2029\\u0085\\ufeff"')), '\u2028\u2029\x85\ufeff'),
    'raw separators': (whole_chat(message('"\u2028\u2029\x85"')), '\u2028\u2029\x85'),
    'noncharacters': (whole_chat(message('"\ufffe\uffff"')), '\ufffe\uffff'),
    'lone CR as line end': (whole_chat(message('"好"', eol='\r'), eol='\r'), '好'),
    'byte order mark first': ('\ufeff' + whole_chat(message('"好"')), '好'),
    'blank lines between': ('\n\n\n' + whole_chat('\n\n', message('"好"'), '\n\n\n'), '好'),
    'null content': (whole_chat(message('null'), message('"好"')), '好'),
    'deltas, then all of it': (whole_chat(message('"一"'), message('"二"'), message('"一二"', 'completed')), '一二'),
    'all of it twice': (whole_chat(message('"一二"', 'completed'), message('"一二"', 'completed')), '一二'),
    'rest only in the whole': (whole_chat(message('"一"'), message('"一二三"', 'completed')), '一二三'),
    'answers in turns': (whole_chat(message('"甲"'), message('"乙"', number=202), message('"甲"', 'completed'),
                                    message('"乙丙"', 'completed', number=202)), '甲乙丙'),
    'types that nobody shall see': (whole_chat(message('"甲"'), message('"密"', kind='verbose'),
                                               message('"密"', kind='Answer'), message('"密"', kind=''),
                                               message('"密"', 'completed', 203, kind='follow_up')), '甲'),
    'ids only in the second event': (event('conversation.chat.created', '{"status":"created"}') + whole_chat(message('"好"')),
                                     '好'),
    'done, never completed': (chat_event('created', 'created') + message('"好"') + event('done', '"[DONE]"'), '好'),
    'words after the end': (whole_chat(message('"好"')) + message('"迟了"') + event('error', '{"code":5000}'), '好'),
}


@pytest.mark.parametrize('piece', [1 << 20, 1], ids=['at once', 'bytewise'])
@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts(scripted, name, piece):
    script, right = SCRIPTS[name]
    scripted.coze.say(script, piece)
    sync, events = ask_both(scripted, '你好')
    assert sync.status_code == 200, sync.text
    assert sync.json()['response'] == right
    assert text_of(events) == right and events[-1]['type'] == 'complete'


NO_CHATS = {
    'text of no chat': (event('conversation.message.delta', '{"id":"201","role":"assistant","type":"answer","content":"好",'
                              '"content_type":"text"}'), 'text/event-stream'),
    'JSON that is no chat': ('{"neither": 1}', 'application/json'),
    'no JSON': ('<html></html>', 'text/html'),
    'a chat without ids': ('{"code": 0, "data": {"status": "in_progress"}}', 'application/json'),
}


@pytest.mark.parametrize('name', NO_CHATS)
def test_what_is_no_chat_is_an_error(scripted, name):
    scripted.coze.say(NO_CHATS[name][0], kind=NO_CHATS[name][1])
    for route in '/chat', '/chat/stream':
        answer = requests.post(scripted.url + route, json={'message': '你好'}, timeout=30)
        assert answer.status_code == 503, answer.text
        assert '好' not in answer.json()['detail']


COMPLETED = '{"code": 0, "data": {"id": "101", "conversation_id": "7", "status": "completed"}}'


def listed(number, content, created_at):
    return {'id': str(number), 'conversation_id': '7', 'chat_id': '101', 'role': 'assistant', 'type': 'answer', 'content': content,
            'content_type': 'text', 'created_at': created_at}


def test_messages_of_one_second_keep_their_order(scripted):
    scripted.coze.say(COMPLETED, kind='application/json')
    scripted.coze.messages = [listed(1, '丁', 9), listed(4, '甲', 5), listed(3, '乙', 5), listed(2, '丙', 5)]
    assert scripted.chat('你好').json()['response'] == '甲乙丙丁'


def test_an_answer_has_so_many_messages(scripted):
    scripted.coze.say(COMPLETED, kind='application/json')
    for count, status, words in (256, 200, '"' + '好' * 256 + '"'), (257, 503, '过长'):
        scripted.coze.messages = [listed(number, '好', 5) for number in range(count)]
        answer = scripted.chat('你好')
        assert answer.status_code == status and words in answer.text


def test_bytes_that_are_no_utf8_are_not_lost_unseen(scripted):
    """Nothing but UTF-8 may leave; the text around the bad bytes stays, or the turn fails: never a silent gap."""
    bad = b'\xff\xfe'
    script = whole_chat(message('"一"'), message('"二BAD三"'), message('"四"')).encode().replace(b'BAD', bad)
    scripted.coze.say(script)
    with scripted.stream('你好') as answer:
        events = parse_stream(answer.content)
    sync = scripted.chat('你好')
    assert sync.status_code in (200, 503)
    json.loads(sync.content.decode('utf-8'))
    for complete, text in ((events[-1]['type'] == 'complete', text_of(events)),
                           (sync.status_code == 200, sync.json().get('response', ''))):
        if complete:
            assert text.replace('\ufffd', '') == '一二三四'
