"""
Bodies of megabytes, by the hundred: they are answered like small ones, others hardly notice them, the worker's memory
stays small, and clients that leave or stop in the middle take nothing with them. Most talk to the worker directly: nginx
would wait for the whole body first.
"""
import contextlib
import json
import signal
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastcgi
import probe
from probe import Prober
from stack import wait_for

MIB = 1024 * 1024
SIZE = 10 * MIB
SILENCE = 5  # seconds that a peer may stop in the middle of a request


@pytest.fixture
def stack(make_stack):
    stack = make_stack(WORKERS='1', MAX_REQUEST_SIZE=SIZE)
    stack.pid, = stack.worker_pids()
    stack.socket = fastcgi.worker_socket(stack)
    stack.chat('连接')
    yield stack
    assert stack.worker_pids() == [stack.pid], 'the worker died'


def document(size=SIZE, **fields):
    """JSON of just this size, most of it in a field that nobody asks for."""
    text = json.dumps({**fields, 'ignored': ''}, ensure_ascii=False).encode()
    return text[:-2] + b'a' * (size - len(text)) + text[-2:]


def ask(stack, body, path='/chat'):
    """(status, JSON) of a POST to the worker."""
    with fastcgi.Link(stack.socket, timeout=120) as link:
        link.send(fastcgi.request('POST', path, body, size=32768))
        status, _, answer = link.answer()
        return status, json.loads(answer)


@pytest.mark.alone
@pytest.mark.parametrize('kind', ['good', 'broken'])
def test_a_hundred_at_once(stack, kind):
    body = document(message='你好')
    if kind == 'broken':
        body = body[:-1]
    with Prober(stack, chats=False) as quiet:
        wait_for(lambda: quiet.measured(300), 60, 'a calm measurement')
    with Prober(stack, chats=False) as others, ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(ask, stack, body) for _ in range(100)]
        assert {answer.result()[0] for answer in answers} == {200 if kind == 'good' else 400}
    print('p99 %.1f ms, longest %.1f ms; calm %.1f ms, %.1f ms; %d MiB' % (
        others.p99() * 1e3, others.longest() * 1e3, quiet.p99() * 1e3, quiet.longest() * 1e3,
        probe.status_field(stack.pid, 'VmHWM') // 1024))
    if probe.is_instrumented(stack.pid):
        return
    # They took turns; all at once they would be a gigabyte, and 50 ms of parsing each.
    assert probe.status_field(stack.pid, 'VmHWM') < 400 * 1024
    assert others.p99() < 2 * quiet.p99() + 0.1 and others.longest() < quiet.longest() + 0.5


@pytest.mark.parametrize('body, detail', [
    (document(message='你好')[:-1], '请求体不是有效的 JSON'),
    (document(message='你好')[:-3] + b'\xff"}', '请求体不是有效的 UTF-8 文本'),
    (document(message=' '), '字段 message 不能为空'),
    (document(), '缺少必填字段: message'),
    (document(message=1), '字段 message 必须是字符串'),
    (document(message='你好', session_id='x' * 129), '字段 session_id 无效'),
    (b'[' * SIZE, '请求体的 JSON'),
    (b' ' * SIZE, '请求体为空'),
    (json.dumps({'message': ' \n\t\r' * (MIB // 4)}).encode(), '字段 message 不能为空'),
], ids=lambda value: value if isinstance(value, str) else 'body')
def test_mistakes_are_told_as_in_small_bodies(stack, body, detail):
    status, answer = ask(stack, body)
    assert status == 400 and answer['detail'].startswith(detail)


def test_all_routes_take_them(stack):
    for size in 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, MIB, SIZE:
        status, answer = ask(stack, document(size, message='你好'))
        assert status == 200 and answer['response']
        assert ask(stack, document(size, conversation_id='c'), '/session/s/bind')[1]['conversation_id'] == 'c'
        with fastcgi.Link(stack.socket) as link:
            link.send(fastcgi.request('POST', '/chat/stream', document(size, message='你好')))
            status, headers, stream = link.answer()
            assert status == 200 and b'"complete"' in stream
    assert ask(stack, document(SIZE + 1, message='你好'))[0] == 413
    assert ask(stack, document(SIZE, message='你好'), '/nowhere')[0] == 404


def test_one_connection_carries_many(stack):
    """Also when the next request comes along with the body's last bytes."""
    large = fastcgi.request('POST', '/chat', document(MIB, message='你好'), keep=True)
    small = fastcgi.request('GET', '/', keep=True)
    with fastcgi.Link(stack.socket) as link:
        for _ in range(3):
            sender = threading.Thread(target=link.send, args=[large + small + large + small])
            sender.start()
            assert [link.answer()[0] for _ in range(4)] == [200] * 4
            sender.join()


def test_clients_that_leave(stack):
    """At any moment: in the queue, while their body is read, decoded or parsed."""
    before = probe.descriptors(stack.pid)
    request = fastcgi.request('POST', '/chat', document(MIB, message='你好'))

    def leave(number):
        with fastcgi.Link(stack.socket) as link:
            link.send_what_goes(request[:len(request) * (number % 10 + 1) // 10])

    for _ in range(3):
        # Two of which one holds the turn of all others, and hands it to the other, until they leave, too.
        with contextlib.ExitStack() as links:
            holders = [links.enter_context(fastcgi.Link(stack.socket)) for _ in range(2)]
            for holder in holders:
                holder.send(request[:200 * 1024])
            with ThreadPoolExecutor(8) as pool:
                waiting = [links.enter_context(fastcgi.Link(stack.socket)) for _ in range(8)]
                sending = [pool.submit(link.send_what_goes, request) for link in waiting]
                for link in waiting[:4] + holders + waiting[4:]:
                    with contextlib.suppress(OSError):
                        link.socket.shutdown(2)
                for one in sending:
                    one.result()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(leave, range(60)))
        with ThreadPoolExecutor(8) as pool:
            assert {status for status, _ in pool.map(lambda _: ask(stack, document(message='你好')), range(8))} == {200}
    wait_for(lambda: probe.descriptors(stack.pid) <= before + 2, what='the closing of descriptors')


def test_peers_that_stop_in_the_middle(stack):
    """They give their places away, and may go on later."""
    request = fastcgi.request('POST', '/chat', document(MIB, message='你好'))
    with contextlib.ExitStack() as links, ThreadPoolExecutor(3) as pool:
        silent = [links.enter_context(fastcgi.Link(stack.socket)) for _ in range(8)]
        for link in silent:
            link.send(request[:200 * 1024])
        # Of 1 MiB, as ten times that may take a busy machine longer than the silence of the others may last.
        waiting = [pool.submit(ask, stack, document(MIB, message='你好')) for _ in range(3)]
        assert [one.result(timeout=SILENCE - 1)[0] for one in waiting] == [200] * 3
        for link in silent[:3]:
            link.send(request[200 * 1024:300 * 1024])
        for link in silent[:3]:
            link.send(request[300 * 1024:])
            assert link.answer()[0] == 200
        for link in silent[3:]:
            assert link.is_closed(), 'silence has an end'


@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_worker(make_stack, how):
    """Asked kindly, it answers all that are there; else it goes at once, and in order."""
    stack = make_stack(WORKERS='1', MAX_REQUEST_SIZE=SIZE)
    stack.socket = fastcgi.worker_socket(stack)
    pid, = stack.worker_pids()
    request = fastcgi.request('POST', '/chat', document(message='你好'))
    with contextlib.ExitStack() as links, ThreadPoolExecutor(20) as pool:
        waiting = [links.enter_context(fastcgi.Link(stack.socket, timeout=60)) for _ in range(20)]
        sending = [pool.submit(link.send_what_goes, request) for link in waiting]
        wait_for(lambda: sum(one.done() for one in sending) >= 2, 30, 'the first bodies')
        os.kill(pid, how)
        if how == signal.SIGTERM:
            assert [link.answer()[0] for link in waiting] == [200] * 20
        for one in sending:
            one.result()
    wait_for(lambda: pid not in stack.worker_pids(), 10, 'its end')
    assert 'left open' not in stack.api_log()
    wait_for(lambda: stack.chat('新').status_code == 200, 10, 'its successor')
