"""
The clients of the API document, letter for letter (clients/coze_client.py, clients/stream_chat.js), get right answers:
short, long, Chinese, with emoji; each read of theirs holds whole events; a session goes on whichever worker serves it.
"""
import base64
import importlib.util
import json
import os
import shutil
import subprocess
import time

import pytest
import requests

from stack import Stack, directive, filler, parse_stream

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'clients')
NODE = shutil.which('node')

ANSWERS = {
    'one character': '好',
    'short': 'Hello, I am fine.',
    'Chinese': '我理解您的工作压力。以下是一些缓解压力的建议：深呼吸、散步、与朋友聊聊。' * 8,
    'emoji': '😀👨‍👩‍👧‍👦🇨🇳 扣子 é̂ ' * 40,
    'lines': 'first line\n\ndata: {"type": "complete"}\r\n\tthird "line" \\ end\n',
    'spaces': '  leading and trailing  ',
    'just below 30 KB': filler(29000),
    'above 30 KB': filler(40_000),
    'long': filler(300_000),
}


@pytest.fixture(scope='module')
def served():
    with Stack(WORKERS='2').start() as stack:
        yield stack


@pytest.fixture(scope='module')
def documented():
    """The documented Python module; it needs a display_chunk, which the tests put in."""
    spec = importlib.util.spec_from_file_location('coze_client', os.path.join(CLIENTS, 'coze_client.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(documented, served):
    return documented.CozeChatClient(base_url=served.url)


def answering(text, **sim):
    """A message that is answered with `text`."""
    for size in (29000, 40_000, 300_000):
        if text == filler(size):
            return directive(answer_bytes=size, **sim)
    return directive(answer=text, **sim)


def run_javascript(stack, message):
    done = subprocess.run([NODE, os.path.join(CLIENTS, 'run_stream_chat.js'), stack.url, message],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    told['reads'] = [base64.b64decode(read) for read in told['reads']]
    assert told['status'] == 200
    return told


@pytest.mark.parametrize('text', ANSWERS.values(), ids=ANSWERS)
def test_python_chat_sync(client, text):
    answer = client.chat_sync(answering(text))
    assert answer['response'] == text
    assert answer['session_id'].startswith('session_') and answer['conversation_id'] and answer['message_id']
    assert len(answer['timestamp']) == len('2024-01-15T10:30:15.123456')


@pytest.mark.parametrize('text', ANSWERS.values(), ids=ANSWERS)
def test_python_chat_stream(client, capsys, text):
    assert client.chat_stream(answering(text)) == text
    assert capsys.readouterr().out == text + '\n\n', 'the text, and that it is complete'


@pytest.mark.parametrize('text', ANSWERS.values(), ids=ANSWERS)
def test_python_process_stream(documented, served, text):
    shown = []
    documented.display_chunk = shown.append
    with served.stream(answering(text)) as response:
        documented.process_stream(response)
    assert ''.join(shown) == text


def test_python_process_stream_survives_heartbeats(documented, make_stack):
    stack = make_stack(WORKERS='1', STREAM_HEARTBEAT_SECONDS='0.1')
    shown = []
    documented.display_chunk = shown.append
    with stack.stream(directive(answer='一二三', chunks=3, gap_ms=350)) as response:
        documented.process_stream(response)
    assert shown == ['一', '二', '三']


def test_python_shows_chunks_while_they_come(documented, served):
    """requests reads 512 bytes at a time; a chunk is shown at once all the same."""
    times = []
    documented.display_chunk = lambda _: times.append(time.monotonic())
    began = time.monotonic()
    with served.stream(directive(answer='你' * 20, chunks=20, gap_ms=150)) as response:
        documented.process_stream(response)
    whole = time.monotonic() - began
    assert len(times) == 20 and whole > 2.7
    assert times[0] - began < whole / 3
    assert times[10] - began < whole * 0.8


def test_python_clients_say_what_went_wrong(client):
    for call in client.chat_sync, client.chat_stream:
        with pytest.raises(requests.HTTPError) as failure:
            call(directive(code=4100, msg='token expired'))
        assert failure.value.response.status_code == 500
        assert failure.value.response.json() == {'detail': 'Coze API请求失败: 4100 token expired'}


needs_node = pytest.mark.skipif(NODE is None, reason='node is not installed')


@needs_node
@pytest.mark.parametrize('name', [name for name in ANSWERS if len(ANSWERS[name].encode()) <= 40_000])
def test_javascript(served, name):
    text = ANSWERS[name]
    pace = 100 if len(text) > 20_000 else 15  # what the client is too busy to read must not add up to more than one read takes
    told = run_javascript(served, answering(text, chunks=20, gap_ms=pace))
    assert ''.join(told['displayed']) == text
    assert told['complaints'] == [], 'an event came in two reads'
    assert told['finished'] == 1
    assert told['logged'] == [['完整回复:', text]]


@needs_node
def test_javascript_shows_all_of_a_long_answer(served):
    """
    The last event repeats the answer; beyond what one read takes (64 KB) this client cannot decode it, whatever the
    server does. What it shows is right all the same.
    """
    text = filler(70_000)
    told = run_javascript(served, directive(answer_bytes=70_000, chunks=100, gap_ms=30))
    assert ''.join(told['displayed']) == text
    assert len(told['displayed']) == 100
    assert len(parse_stream(b''.join(told['reads']))) == 101


@needs_node
def test_javascript_gets_one_event_per_read(served):
    text = '我理解您的感受😀。' * 8
    for pace in 30, 100, 300:  # at one of which a busy machine joins none, or a few
        told = run_javascript(served, directive(answer=text, chunks=24, gap_ms=pace, split=7))
        assert told['logged'] == [['完整回复:', text]]
        for read in told['reads']:
            assert read.endswith(b'\n\n'), read
            read.decode('utf-8')
        events = parse_stream(b''.join(told['reads']))
        assert len(events) == 25
        if len(told['reads']) >= 20:
            break
    assert len(told['reads']) >= 20, 'events are joined, however slowly they come'


@needs_node
def test_javascript_second_turn_remembers_the_first(served):
    served.chat('从头开始', session_id='web_session_1')
    run_javascript(served, '我叫小明')
    told = run_javascript(served, '我叫什么')
    assert '上一轮您说：“我叫小明”' in told['logged'][0][1]


def test_a_session_goes_on_in_another_worker(client, served, capsys):
    """Sync and streamed turns of one session, until each worker has served some: all remember the turn before."""
    session, pids = 'demo_session_1', set()
    for turn in range(1, 41):
        words = '这是第%d句话' % turn
        if turn % 2:
            said = client.chat_sync(words, session_id=session)['response']
        else:
            said = client.chat_stream(words, session_id=session)
        assert said.startswith('收到：“%s”。这是本次会话的第 %d 轮' % (words, turn))
        if turn > 1:
            assert '上一轮您说：“这是第%d句话”' % (turn - 1) in said
        pids = {int(line['pid']) for line in served.request_log(session, count=turn)}
        if turn >= 4 and len(pids) == 2:
            break
    assert pids == set(served.worker_pids())
    capsys.readouterr()
    assert served.info(session).json()['message_count'] == turn
