"""
The stream as it comes over the socket through the shipped nginx.conf: chunks arrive when Coze sends them, every event
in one piece, byte for byte as documented; silence has a heartbeat; nothing is too long.
"""
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stack import HttpAnswer, Stack, directive, filler, parse_stream, text_of

WHOLE = 30_000  # bytes of a last event that surely leave in one piece


@pytest.fixture(scope='module')
def plain():
    with Stack(WORKERS='1').start() as stack:
        yield stack


@pytest.fixture(scope='module')
def h2():
    with Stack(tls=True, WORKERS='1').start() as stack:
        yield stack


@pytest.fixture(params=['plain', 'h2'])
def either(request):
    return request.getfixturevalue(request.param)


def receive(stack, message, headers='', **fields):
    """(answer, [(seconds since the request, chunk of the chunked body)])"""
    began = time.monotonic()
    with stack.connect('/chat/stream', message, headers, **fields) as link:
        answer = HttpAnswer(link)
        assert answer.status == 200
        return answer, [(time.monotonic() - began, chunk) for chunk in answer.chunks()]


def whole_events(chunk):
    """The events of one HTTP chunk, which must hold nothing but whole ones (or heartbeats)."""
    events = []
    assert chunk == b'\n' or (chunk.startswith(b'data: ') and chunk.endswith(b'\n\n')), \
        'not whole: %r … %r' % (chunk[:60], chunk[-60:])
    for line in chunk.split(b'\n'):
        if line:
            assert line.startswith(b'data: ')
            events.append(json.loads(line[6:]))
    return events


def test_chunks_arrive_as_coze_sends_them(either):
    """Relative to the whole, which a busy machine stretches: a gateway that collects would give them all at its end."""
    count, gap = 24, 0.1
    _, arrived = receive(either, directive(answer='啊' * count, chunks=count, gap_ms=gap * 1000))
    times = [at for at, chunk in arrived if b'"chunk"' in chunk]
    whole = times[-1]
    assert len(times) >= count * 3 / 4, 'chunks were joined'
    assert whole > gap * count * 0.9
    assert times[0] < whole / 4, 'the first came late'
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    assert gap * 0.5 < gaps[len(gaps) // 2] < whole / count * 2
    assert times[len(times) // 2] < whole * 0.7


def test_each_chunk_of_http_is_one_event(either):
    text = '我理解您的感受😀。' * 30
    for pace in 15, 60, 250:  # at one of which a busy machine joins none, or a few
        _, arrived = receive(either, directive(answer=text, chunks=30, gap_ms=pace, split=5))
        events = [event for _, chunk in arrived for event in whole_events(chunk)]
        assert text_of(events) == text
        assert len(events) == 31
        if len(arrived) >= 25:
            break
    assert len(arrived) >= 25, 'events are joined, however slowly they come'


@pytest.mark.parametrize('text', [filler(5000), '扣' * 2700, '😀' * 1900, '"' * 1400, '\x01' * 1300],
                         ids=['mixed', 'three bytes', 'four bytes', 'quotes', 'controls'])
def test_large_deltas_stay_whole(plain, text):
    """One delta may become several chunks; none of them and not the last event comes in two HTTP chunks."""
    _, arrived = receive(plain, directive(answer=text, chunks=1))
    events = [event for _, chunk in arrived for event in whole_events(chunk)]
    assert text_of(events) == text == events[-1]['data']['full_content']


@pytest.mark.parametrize('size', [8_000, 16_000, 20_000, WHOLE])
def test_the_last_event_stays_whole(plain, size):
    """It repeats the answer; the browser client needs it in one piece, as long as a read can hold it."""
    text = filler(size)
    _, arrived = receive(plain, directive(answer=text, chunks=8, gap_ms=20))
    events = [event for _, chunk in arrived for event in whole_events(chunk)]
    assert text_of(events) == text == events[-1]['data']['full_content']


def test_events_in_a_hurry_stay_whole(either):
    """Many events that Coze sends in one piece, as after a stall."""
    text = filler(25_000)
    _, arrived = receive(either, directive(answer=text, chunks=2000))
    events = [event for _, chunk in arrived for event in whole_events(chunk)]
    assert text_of(events) == text
    assert len(events) == 2001


def test_bytes_of_the_events(plain):
    """Spaces and the order of the keys are part of the contract; non-ASCII text is not escaped."""
    text = ['你好', '，"quoted" \\ /', '\n\t\r\x00\x1f\x7f', '\u2028\u2029\x85', '😀']
    _, arrived = receive(plain, directive(deltas=text), session_id='s-1')
    body = b''.join(chunk for _, chunk in arrived).decode('utf-8').lstrip('\n')
    written = ['你好', '，\\"quoted\\" \\\\ /', '\\n\\t\\r\\u0000\\u001f\x7f', '\\u2028\\u2029\\u0085', '😀']
    expected = ''.join('data: {"type": "chunk", "data": {"content": "%s", "chunk_index": %d}}\n\n' % (piece, index)
                       for index, piece in enumerate(written))
    assert body.startswith(expected)
    assert re.fullmatch(r'data: \{"type": "complete", "data": \{"total_chunks": 5, "full_content": "%s", '
                        r'"session_id": "s-1", "message_id": "\d{19}", "conversation_id": "\d{19}", '
                        r'"timestamp": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}"\}\}\n\n' % re.escape(''.join(written)),
                        body[len(expected):])
    parse_stream(body.encode())


def test_bytes_of_the_error_event(plain):
    _, arrived = receive(plain, directive(fault='chat_failed_after_text', code=5000, msg='坏了'), session_id='s-2')
    last = arrived[-1][1].decode('utf-8')
    assert re.search(r'(^|\n\n)data: \{"type": "error", "data": \{"message": "Coze API请求失败: 5000 坏了", '
                     r'"session_id": "s-2", "conversation_id": "\d{19}", "timestamp": "[-0-9T:.]{26}"\}\}\n\n$', last)


def test_headers(plain):
    """X-Accel-Buffering is for proxies in front, so nginx must pass it on."""
    answer, arrived = receive(plain, '你好', headers='Accept-Encoding: gzip, br, deflate\r\n', session_id='s 3/会')
    headers = answer.headers
    assert headers['content-type'] == 'text/event-stream; charset=utf-8'
    assert headers['cache-control'] == 'no-cache'
    assert headers['x-accel-buffering'] == 'no'
    assert headers['x-session-id'] == 's%203%2F%E4%BC%9A'
    assert headers['transfer-encoding'] == 'chunked'
    assert 'content-encoding' not in headers and 'content-length' not in headers
    assert re.fullmatch('[0-9a-f]{32}', headers['x-request-id'])
    parse_stream(b''.join(chunk for _, chunk in arrived))


def test_the_header_does_not_wait_for_the_first_word(plain):
    """FastCGI pads records to 8 bytes; nginx must not hold the header back for any length of it."""
    def early(length):
        message = directive(answer='一', chunks=1, gap_ms=2000)
        with plain.connect('/chat/stream', message, session_id='s' * length) as link:
            began = time.monotonic()
            answer = HttpAnswer(link)
            header = time.monotonic() - began
            assert text_of(parse_stream(b''.join(answer.chunks()))) == '一'
            return header < (time.monotonic() - began) / 2

    with ThreadPoolExecutor(8) as pool:
        came = list(pool.map(early, range(1, 9)))
    assert came == [True] * 8, 'for some lengths the header came with the first word: %r' % came


def test_ids_of_the_header_and_the_end_agree(plain):
    answer, arrived = receive(plain, '你好', headers='X-Request-ID: my-id-7\r\n')
    end = parse_stream(b''.join(chunk for _, chunk in arrived))[-1]['data']
    assert answer.headers['x-request-id'] == 'my-id-7'
    assert answer.headers['x-session-id'] == end['session_id']
    assert re.fullmatch('session_[0-9a-f]{32}', end['session_id'])
    assert plain.info(end['session_id']).json()['conversation_id'] == end['conversation_id']


def test_silence_has_a_heartbeat(make_stack):
    stack = make_stack(WORKERS='1', STREAM_HEARTBEAT_SECONDS='0.4')
    _, arrived = receive(stack, directive(answer='一二', chunks=2, gap_ms=1400))
    first, second = [index for index, (_, chunk) in enumerate(arrived) if b'"chunk"' in chunk]
    for begun, silence in (0, arrived[:first]), (arrived[first][0], arrived[first + 1:second]):
        assert all(chunk.strip(b'\n') == b'' for _, chunk in silence), silence
        beats = sum(len(chunk) for _, chunk in silence)  # a busy machine may join two, and stretch the silence
        assert 2 <= beats <= (silence[-1][0] - begun) / 0.4 + 2, silence
    body = b''.join(chunk for _, chunk in arrived)
    assert text_of(parse_stream(body)) == '一二'


def test_talking_has_no_heartbeat(make_stack):
    stack = make_stack(WORKERS='1', STREAM_HEARTBEAT_SECONDS='2')
    _, arrived = receive(stack, directive(answer='啊' * 30, chunks=30, gap_ms=100))
    assert [chunk for _, chunk in arrived if chunk == b'\n'] == []


@pytest.mark.parametrize('size', [500_000, 2_000_000, 8_000_000])
@pytest.mark.parametrize('chunks', [200, 1])
def test_long_answers(plain, size, chunks):
    """As one huge delta, too, which becomes many chunks."""
    if chunks == 1 and size > 4_000_000:
        size = 4_000_000  # its last event holds it all again, as JSON: within COZE_MAX_EVENT_BYTES
    text = filler(size)
    _, arrived = receive(plain, directive(answer_bytes=size, chunks=chunks))
    events = parse_stream(b''.join(chunk for _, chunk in arrived))
    assert text_of(events) == text
    assert events[-1]['data']['total_chunks'] >= max(chunks, size / 8000)
    assert max(len(event['data']['content'].encode()) for event in events[:-1]) <= 16_000


def test_chunks_of_long_answers_are_whole(either):
    """While the reader keeps up, every chunk event has an HTTP chunk to itself or shares it with whole ones."""
    text = filler(200_000)
    _, arrived = receive(either, directive(answer_bytes=200_000, chunks=50, gap_ms=5))
    whole = [chunk for _, chunk in arrived if b'"complete"' not in chunk]
    seen = b''
    for chunk in whole:
        if not chunk.startswith(b'data: {"type": "chunk"'):
            break
        seen += b''.join(json.dumps(event, ensure_ascii=False).encode() for event in whole_events(chunk))
    assert seen.count(b'"chunk_index"') >= 45
    assert text_of(parse_stream(b''.join(chunk for _, chunk in arrived))) == text
