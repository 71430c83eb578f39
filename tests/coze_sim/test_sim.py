"""test_sim.py - proves the simulator: the protocol, every directive, the control endpoints.

Each test has conversations of its own; the queue and the defaults are for all, so `sim` resets them.
Waiting is always for a condition that the simulator reports, never for a time.
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest
import requests

HERE = pathlib.Path(__file__).parent
TOKEN = "pat_test"
HEADERS = {"Authorization": "Bearer " + TOKEN}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Sim:
    """A running simulator and the calls that a client makes."""

    def __init__(self, directory, **env):
        self.dir, self.port, self.tls_port = directory, free_port(), free_port()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SIM_")} | {
            "SIM_DIR": str(directory), "SIM_PORT": str(self.port), "SIM_TLS_PORT": str(self.tls_port),
            "SIM_TOKEN": TOKEN} | env
        self.base = f"http://127.0.0.1:{self.port}"
        self.tls_base = f"https://localhost:{self.tls_port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def command(self, verb):
        return subprocess.run([HERE / "sim", verb], env=self.env, capture_output=True, text=True, timeout=30)

    def start(self):
        done = self.command("start")
        assert done.returncode == 0, done.stderr
        return self

    # control

    def control(self, name, body=None, **params):
        if body is None and name != "reset":
            reply = self.session.get(f"{self.base}/_sim/{name}", params=params)
        else:
            reply = self.session.post(f"{self.base}/_sim/{name}", json=body)
        reply.raise_for_status()
        return reply.json()

    def stats(self):
        return self.control("stats")

    def chats(self, conversation_id):
        return [c for c in self.control("chats") if c["conversation_id"] == conversation_id]

    def log(self, since=0):
        return self.control("log", since=since)

    def queue(self, path="/v3/chat", times=1, **sim):
        self.control("queue", {"path": path, "times": times, "sim": sim})

    def default(self, path="/v3/chat", **sim):
        self.control("default", {"path": path, "sim": sim})

    # Coze

    def call(self, method, path, headers=HEADERS, **kw):
        return self.session.request(method, self.base + path, headers=headers, timeout=20, **kw)

    def conversation(self):
        return self.call("POST", "/v1/conversation/create", json={}).json()["data"]["id"]

    def body(self, text, stream, **extra):
        return {"bot_id": "7400000000000000009", "user_id": "u1", "stream": stream, "auto_save_history": True,
                "additional_messages": [{"role": "user", "type": "question", "name": "User",
                                         "content_type": "text", "content": text}]} | extra

    def chat(self, text="你好", stream=True, conversation=None, sim=None, **kw):
        if sim is not None:
            text += " sim:" + json.dumps(sim, ensure_ascii=False)
        return self.call("POST", "/v3/chat", json=self.body(text, stream),
                         params={"conversation_id": conversation} if conversation else None, **kw)

    def events(self, text="你好", conversation=None, **sim):
        return parse(self.chat(text, True, conversation, sim or None).content)

    def poll(self, text="你好", conversation=None, **sim):
        """Starts a chat without streaming; returns (the reply's chat, a function that retrieves, one that lists)."""
        chat = self.chat(text, False, conversation, sim or None).json()["data"]
        ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
        return (chat, lambda: self.call("GET", "/v3/chat/retrieve", params=ids).json(),
                lambda: self.call("GET", "/v3/chat/message/list", params=ids).json())

    def cancel(self, conversation, chat):
        return self.call("POST", "/v3/chat/cancel", json={"conversation_id": conversation, "chat_id": chat}).json()

    def raw(self, request, tls=False):
        """The bytes of the answer to raw bytes, until the other side closes; and whether it was a reset."""
        s = socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), timeout=20)
        with s:
            s.sendall(request)
            got = b""
            while True:
                try:
                    part = s.recv(65536)
                except ConnectionResetError:
                    return got, True
                if not part:
                    return got, False
                got += part

    def raw_chat(self, sim, stream=True):
        body = json.dumps(self.body("你好 sim:" + json.dumps(sim), stream)).encode()
        return self.raw(b"POST /v3/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (TOKEN.encode(), len(body), body))

    def leave_stream(self, sim, conversation):
        """Opens a stream, reads its first event, and closes the socket; returns the chat's id."""
        with requests.post(self.base + "/v3/chat", params={"conversation_id": conversation}, headers=HEADERS, stream=True,
                           json=self.body("你好 sim:" + json.dumps(sim), True), timeout=20) as reply:
            for line in reply.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    return json.loads(line[5:])["id"]


def parse(raw):
    """Events of a stream by the SSE standard: (name, data text)."""
    out, name, data = [], None, []
    for line in re.split(r"\r\n|\n", raw.decode("utf-8", "replace")) + [""]:
        if line == "":
            if data:
                out.append((name, "\n".join(data)))
            name, data = None, []
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return out


def names(events):
    return [name for name, _ in events]


def objects(events, name):
    return [json.loads(data) for n, data in events if n == name]


def answers(events):
    """The answers of a stream: {message id: (deltas, completed content)}."""
    deltas, whole = {}, {}
    for message in objects(events, "conversation.message.delta"):
        if message["type"] == "answer":
            deltas.setdefault(message["id"], []).append(message["content"])
    for message in objects(events, "conversation.message.completed"):
        if message["type"] == "answer":
            whole[message["id"]] = message["content"]
    return {k: (deltas.get(k, []), whole.get(k)) for k in deltas | whole}


def answer(events):
    (deltas, whole), = answers(events).values()
    assert "".join(deltas) == whole
    return whole


def filler(n):
    """The rule of `answer_bytes`."""
    blocks = ("%07d " % k + "扣子 Coze 😀，" * 6 + "test!\n" for k in itertools.count())
    text = "".join(itertools.islice(blocks, n // 128 + 1)).encode()[:n].decode("utf-8", "ignore")
    return text + "." * (n - len(text.encode()))


def until(condition, seconds=10):
    """Waits for a condition of the simulator; the limit is only for a broken one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
    raise AssertionError("the condition did not come true")


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    sim = Sim(tmp_path_factory.mktemp("sim")).start()
    yield sim
    sim.command("stop")


@pytest.fixture
def sim(running):
    running.control("reset")
    return running


# ---- the ordinary answer

def test_stream_is_in_the_documented_order(sim):
    reply = sim.chat()
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert reply.headers["Cache-Control"] == "no-cache"
    assert re.fullmatch(r"\d{14}[0-9A-F]{20}", reply.headers["X-Tt-Logid"])
    events = parse(reply.content)
    order = names(events)
    assert order[:2] == ["conversation.chat.created", "conversation.chat.in_progress"]
    assert order[-2:] == ["conversation.chat.completed", "done"]
    assert order.count("conversation.message.delta") == 10
    assert events[-1][1] == '"[DONE]"'
    kinds = [m["type"] for m in objects(events, "conversation.message.completed")]
    assert kinds == ["verbose", "knowledge", "function_call", "tool_response", "", "future_type",
                     "answer", "verbose", "follow_up", "follow_up", "follow_up"]
    chat = objects(events, "conversation.chat.completed")[0]
    assert re.fullmatch(r"\d{19}", chat["id"]) and re.fullmatch(r"\d{19}", chat["conversation_id"])
    assert chat["usage"]["token_count"] == chat["usage"]["input_count"] + chat["usage"]["output_count"] > 0
    assert b"event:conversation.chat.created\ndata:{" in reply.content


def test_it_remembers_the_conversation(sim):
    first = sim.events("你好")
    conversation = objects(first, "conversation.chat.created")[0]["conversation_id"]
    assert answer(first) == "收到：“你好”。这是本次会话的第 1 轮。"
    assert answer(sim.events('再"见"\n', conversation)) == '收到：“再"见"\n”。这是本次会话的第 2 轮，上一轮您说：“你好”。'
    old = sim.call("GET", "/v1/conversation/retrieve", params={"conversation_id": conversation}).json()["data"]
    cleared = sim.call("POST", f"/v1/conversations/{conversation}/clear").json()["data"]
    assert cleared["conversation_id"] == conversation and cleared["id"] != old["last_section_id"]
    assert "第 1 轮" in answer(sim.events("又来了", conversation))


def test_poll_flow(sim):
    chat, retrieve, listing = sim.poll("问题 😀")
    assert chat["status"] == "in_progress"
    done = retrieve()
    assert done["code"] == 0 and done["data"]["status"] == "completed" and len(done["detail"]["logid"]) == 34
    messages = listing()["data"]
    said, = [m for m in messages if m["type"] == "answer"]
    assert said["content"] == "收到：“问题 😀”。这是本次会话的第 1 轮。" and said["created_at"]
    assert {m["type"] for m in messages} > {"verbose", "follow_up", "function_call"}
    posted = sim.call("POST", "/v3/chat/retrieve",
                      params={"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}).json()
    assert posted["data"]["id"] == chat["id"]


def test_polled_chat_goes_through_its_states(sim):
    chat, retrieve, listing = sim.poll("慢", gen_ms=400, answers=["一", "二"])
    assert chat["status"] == "created"
    partial = listing()["data"]
    assert [m["type"] for m in partial if m["type"] in ("answer", "follow_up")] == []
    assert "tool_response" in [m["type"] for m in partial]
    seen = []

    def finished():
        status = retrieve()["data"]
        if status["status"] not in seen:
            seen.append(status["status"])
            if status["status"] != "completed":
                assert set(status) == {"bot_id", "conversation_id", "created_at", "id", "status"}
        return status["status"] == "completed"
    until(finished)
    assert seen == ["created", "in_progress", "completed"]
    listed = [m for m in listing()["data"] if m["type"] == "answer"]
    assert [m["content"] for m in sorted(listed, key=lambda m: m["created_at"])] == ["一", "二"]
    assert [m["content"] for m in listed] == ["二", "一"]


def test_object_string_messages_are_understood(sim):
    body = sim.body("", True)
    body["additional_messages"][-1] |= {"content_type": "object_string",
                                       "content": json.dumps([{"type": "text", "text": "图里是什么"}])}
    assert "图里是什么" in answer(parse(sim.call("POST", "/v3/chat", json=body).content))


def test_large_bodies_are_taken(sim):
    events = parse(sim.chat("大" * 3_000_000).content)
    assert "（共 9000000 字节）" in answer(events)
    assert sim.log()[-1]["body"] == {"truncated": True, "bytes": sim.log()[-1]["body"]["bytes"]}


# ---- strictness

def code_of(reply):
    return reply.json()["code"]


@pytest.mark.parametrize("change, code", [
    ({"conversation_id": "1"}, 4000), ({"bot_id": ""}, 4000), ({"user_id": 7}, 4000), ({"stream": "true"}, 4000),
    ({"stream": None}, 4000), ({"additional_messages": []}, 4000), ({"additional_messages": None}, 4000),
    ({"additional_messages": [{"role": "assistant", "content": "x", "content_type": "text"}]}, 4000),
    ({"additional_messages": [{"role": "user", "content": "x"}]}, 4000),
    ({"additional_messages": [{"role": "user", "content": "x", "content_type": "text"}] * 101}, 4004),
    ({"stream": False, "auto_save_history": False}, 4007),
])
def test_bad_chats_are_refused(sim, change, code):
    reply = sim.call("POST", "/v3/chat", json=sim.body("x", True) | change)
    assert reply.status_code == 200 and reply.headers["Content-Type"].startswith("application/json")
    assert code_of(reply) == code and reply.json()["detail"]["logid"]
    assert sim.stats()["chat_starts"] == 0


@pytest.mark.parametrize("missing", ["bot_id", "user_id", "stream", "additional_messages"])
def test_missing_fields_are_refused(sim, missing):
    body = sim.body("x", True)
    del body[missing]
    assert code_of(sim.call("POST", "/v3/chat", json=body)) == 4000


@pytest.mark.parametrize("raw", [b"", b"{", b"[]x", b'{"a":NaN}', b'{"a":"\xff"}', b"1"])
def test_wrong_json_is_refused(sim, raw):
    assert code_of(sim.call("POST", "/v3/chat", data=raw, headers=HEADERS | {"Content-Type": "application/json"})) == 4000


def test_parameters_must_be_where_they_belong(sim):
    chat, _, _ = sim.poll()
    ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
    assert code_of(sim.call("POST", "/v3/chat/message/list", params=ids)) == 4000
    assert code_of(sim.call("POST", "/v3/chat/cancel", params=ids, json={})) == 4000
    assert code_of(sim.call("POST", "/v3/chat/retrieve", json=ids)) == 4000
    assert code_of(sim.call("GET", "/v3/chat/retrieve", params={"chat_id": chat["id"]})) == 4000
    assert code_of(sim.call("GET", "/v3/chat/retrieve", params=ids | {"chat_id": "1"})) == 4001
    assert code_of(sim.call("GET", "/v3/chat/retrieve", params=ids | {"conversation_id": "1"})) == 4002
    assert code_of(sim.call("GET", "/v3/chat")) == 4000
    assert code_of(sim.call("POST", "/v3/chat", data=json.dumps(sim.body("x", True)),
                            headers=HEADERS | {"Content-Type": "text/plain"})) == 4000
    assert sim.call("GET", "/v3/chats").status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
def test_the_token_is_checked(sim, headers):
    for path in ("/v3/chat", "/v1/conversation/create"):
        reply = sim.call("POST", path, json=sim.body("x", True), headers=headers)
        assert reply.status_code == 200 and code_of(reply) == 4100
    sim.default(auth_status=401)
    assert sim.call("POST", "/v3/chat", json=sim.body("x", True), headers=headers).status_code == 401
    logged = sim.log()[0]["headers"]["authorization"]
    assert logged == {"present": "Authorization" in headers, "matches": False}
    assert "wrong" not in json.dumps(sim.log())


def test_only_own_conversations_are_known(sim):
    assert code_of(sim.chat(conversation="7312345678901234567")) == 4002
    assert code_of(sim.call("POST", "/v1/conversations/1/clear")) == 4002
    assert code_of(sim.call("GET", "/v1/conversation/retrieve", params={"conversation_id": "1"})) == 4002


# ---- one chat at a time

def test_a_second_chat_is_refused_while_one_runs(sim):
    conversation = sim.conversation()
    chat, _, _ = sim.poll("慢", conversation, gen_ms=60000)
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 4016
    refused = sim.chat(conversation=conversation)
    assert refused.headers["Content-Type"] == "text/event-stream"
    (name, data), = parse(refused.content)
    assert name == "error" and json.loads(data)["code"] == 4016
    assert sim.stats()["overlaps"] == 2 and sim.stats()["running"] == 1
    cancelled = sim.cancel(conversation, chat["id"])
    assert cancelled["code"] == 0 and cancelled["data"]["status"] == "canceled"
    assert sim.cancel(conversation, chat["id"])["code"] == 4104
    assert sim.chats(conversation)[0]["cancelled_ms"]
    assert "第 1 轮" in answer(sim.events("再来", conversation))
    assert sim.stats()["running"] == 0


def test_a_chat_goes_on_when_its_client_leaves(sim):
    conversation = sim.conversation()
    chat = sim.leave_stream({"gap_ms": 6000}, conversation)
    left = until(lambda: [c for c in sim.chats(conversation) if c["client_gone_ms"]])[0]
    assert left["id"] == chat and left["status"] in ("created", "in_progress") and left["ended_ms"] is None
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 4016
    entry = until(lambda: [e for e in sim.log() if e.get("chat_id") == chat and e["ended"]])[0]
    assert entry["ended"] == "client_gone" and entry["end_t_ms"] >= entry["t_ms"]
    assert sim.stats()["open_streams"] == 0
    assert sim.cancel(conversation, chat)["code"] == 0
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 0


def test_a_left_chat_ends_by_itself(sim):
    conversation = sim.conversation()
    sim.leave_stream({"gap_ms": 30}, conversation)
    left = until(lambda: [c for c in sim.chats(conversation) if c["ended_ms"]])[0]
    assert left["status"] == "completed" and left["ended_ms"] - left["started_ms"] == pytest.approx(300, abs=1)
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 0


def test_the_conversation_is_free_when_the_stream_has_ended(sim):
    conversation = sim.conversation()
    for _ in range(30):
        assert answer(sim.events("快", conversation, gap_ms=1))
    assert sim.stats()["overlaps"] == 0


# ---- how the answer is made

def test_answer_and_chunks(sim):
    events = sim.events(answer="一二三四五六", chunks=3)
    assert list(answers(events).values()) == [(["一二", "三四", "五六"], "一二三四五六")]
    assert len(objects(sim.events(answer="ab", chunks=50), "conversation.message.delta")) == 2


@pytest.mark.parametrize("n", [0, 1, 7, 10, 127, 128, 129, 1000, 70001, 3_000_000])
def test_answer_bytes(sim, n):
    events = sim.events(answer_bytes=n, chunks=7)
    assert answer(events) == filler(n) and len(filler(n).encode()) == n
    assert len(objects(events, "conversation.message.delta")) <= 7


def test_deltas(sim):
    events = sim.events(deltas=["\u0000\u0001", '"\\/', "é", "", "😀\r\n"])
    assert list(answers(events).values())[0][0] == ["\u0000\u0001", '"\\/', "é", "", "😀\r\n"]
    answer(events)


def test_answers_have_ids_of_their_own(sim):
    events = sim.events(answers=["第一", "第二", "第三"])
    assert [whole for _, whole in answers(events).values()] == ["第一", "第二", "第三"]
    assert all("".join(deltas) == whole for deltas, whole in answers(events).values())


def test_completed_only(sim):
    events = sim.events(answer="整体", completed_only=True)
    assert "conversation.message.delta" not in names(events)
    assert [whole for _, whole in answers(events).values()] == ["整体"]


def test_card(sim):
    cards = [m for m in objects(sim.events(card=True), "conversation.message.completed") if m["content_type"] == "card"]
    assert len(cards) == 1 and cards[0]["type"] == "answer" and json.loads(cards[0]["content"])


def test_reasoning_comes_first_and_in_the_same_message(sim):
    messages = objects(sim.events(reasoning=True, chunks=2), "conversation.message.delta")
    assert [bool(m.get("reasoning_content")) for m in messages] == [True, True, False, False]
    assert {m["id"] for m in messages} == {messages[0]["id"]} and messages[0]["content"] == ""


def test_huge_delta_and_huge_line(sim):
    events = sim.events(huge_delta=True, answer_bytes=500_000, huge_line_bytes=1_000_000)
    assert len(objects(events, "conversation.message.delta")) == 1 and answer(events) == filler(500_000)
    assert max(len(m["content"]) for m in objects(events, "conversation.message.completed")
               if m["type"] == "tool_response") == 1_000_000


def test_noise_can_be_switched_off(sim):
    events = sim.events(noise=False)
    assert [m["type"] for m in objects(events, "conversation.message.completed")] == ["answer"]


def test_last_occurrence_of_the_directive_counts(sim):
    text = '看 sim:{"answer":"旧"} 这里'
    assert answer(sim.events(text, answer="x sim:{} y")) == "x sim:{} y"
    assert answer(sim.events(text, noise=False)).startswith("收到：“" + text + "”")


@pytest.mark.parametrize("text", ['sim:{"answr":"x"}', 'sim:{"chunks":"x"}', 'sim:{"fault":"x"}', "sim:{", 'sim:{} 尾'])
def test_mistyped_directives_are_refused(sim, text):
    assert code_of(sim.chat(text)) == 4000


# ---- spelling of the stream

@pytest.mark.parametrize("spelling", [
    {"crlf": True}, {"space": True}, {"comments": True}, {"unknown_events": True}, {"multi_data": True},
    {"escape_unicode": True}, {"no_final_newline": True}, {"split": 1, "chunks": 2, "noise": False}, {"split": 7}, {"last_error_null": True},
    {"crlf": True, "space": True, "comments": True, "unknown_events": True, "multi_data": True, "split": 100,
     "no_final_newline": True, "escape_unicode": True, "reasoning": True}])
def test_every_spelling_says_the_same(sim, spelling):
    text = '说 "引号" \\ {a,b} 😀'
    raw = sim.chat(text, sim=spelling).content
    events = parse(raw)
    assert answer(events) == f"收到：“{text}”。这是本次会话的第 1 轮。"
    assert names(events)[-1] == "done"
    assert raw.endswith(b'"[DONE]"') == ("no_final_newline" in spelling)
    assert (b"\r\n" in raw) == ("crlf" in spelling)
    assert (b"event: " in raw) == ("space" in spelling)
    assert (b"\n: keep-alive" in b"\n" + raw) == ("comments" in spelling)
    assert (b"\ndata:\"" in raw.replace(b" ", b"").replace(b"\r", b"").replace(b'data:"[DONE]"', b"")) == ("multi_data" in spelling)
    assert any(byte > 127 for byte in raw) != ("escape_unicode" in spelling)
    assert (objects(events, "conversation.chat.completed")[0]["last_error"] is None) == ("last_error_null" in spelling)


def test_split_writes_are_separate_http_chunks(sim):
    got, _ = sim.raw_chat({"split": 1, "chunks": 1, "noise": False})
    body = got.split(b"\r\n\r\n", 1)[1]
    assert body.startswith(b"1\r\ne\r\n1\r\nv\r\n1\r\ne\r\n1\r\nn\r\n")


@pytest.mark.parametrize("kind, data", [("quoted", ['"[DONE]"']), ("bare", ["[DONE]"]), ("none", []),
                                        ("debug_url", ['{"debug_url":"https://example.invalid/debug"}'])])
def test_done(sim, kind, data):
    assert [d for n, d in sim.events(done=kind) if n == "done"] == data


def test_empty_done(sim):
    assert sim.chat(sim={"done": "empty"}).content.endswith(b"event:done\ndata:\n\n")


def test_gaps_and_first_byte(sim):
    begun = time.monotonic()
    reply = sim.chat(sim={"first_ms": 200, "gap_ms": 30, "chunks": 3, "noise": False}, stream=True)
    took = time.monotonic() - begun
    assert reply.elapsed.total_seconds() >= 0.2 and took >= 0.29
    begun = time.monotonic()
    sim.events(gen_ms=200)
    assert time.monotonic() - begun >= 0.2


# ---- faults

@pytest.mark.parametrize("stream", [True, False])
def test_fault_json_error(sim, stream):
    reply = sim.chat(stream=stream, sim={"fault": "json_error", "code": 4020, "msg": "慢一点"})
    assert reply.status_code == 200 and reply.json()["code"] == 4020 and reply.json()["msg"] == "慢一点"
    assert code_of(sim.chat(stream=stream, sim={"fault": "json_error", "code": 4013, "code_as_string": True})) == "4013"
    assert code_of(sim.chat(stream=stream, sim={"fault": "json_error", "code": 700012006})) == 700012006
    assert sim.stats()["chat_starts"] == 0


def test_fault_sse_error(sim):
    reply = sim.chat(sim={"fault": "sse_error", "code": 4009})
    (name, data), = parse(reply.content)
    assert (reply.headers["Content-Type"], name, json.loads(data)["code"]) == ("text/event-stream", "error", 4009)
    assert code_of(sim.chat(stream=False, sim={"fault": "sse_error", "code": 4009})) == 4009


def test_fault_chat_failed(sim):
    events = sim.events(fault="chat_failed", code=4028, msg="quota", code_as_string=True, noise=False)
    assert names(events) == ["conversation.chat.created", "conversation.chat.in_progress", "conversation.chat.failed"]
    failed = json.loads(events[-1][1])
    assert failed["last_error"] == {"code": "4028", "msg": "quota"} and failed["failed_at"]
    chat, retrieve, listing = sim.poll(fault="chat_failed", code=4028)
    assert retrieve()["data"]["last_error"]["code"] == 4028 and retrieve()["code"] == 0
    assert listing()["code"] == 0 and "data" not in listing()


def test_fault_chat_failed_after_text(sim):
    events = sim.events(fault="chat_failed_after_text", cut_after=3)
    assert names(events).count("conversation.message.delta") == 3
    assert names(events)[-1] == "conversation.chat.failed"


def test_fault_http(sim):
    reply = sim.chat(sim={"fault": "http", "http_status": 429, "retry_after": 3})
    assert reply.status_code == 429 and reply.headers["Retry-After"] == "3" and code_of(reply) == 429
    reply = sim.chat(sim={"fault": "http", "http_status": 504, "html": True})
    assert reply.status_code == 504 and "Powered by Tengine" in reply.text
    assert reply.headers["Content-Type"].startswith("text/html") and "X-Tt-Logid" not in reply.headers
    assert sim.chat(sim={"fault": "http"}).status_code == 500
    assert sim.chat(sim={"http_status": 502}).status_code == 502


def test_fault_raw_json_line(sim):
    reply = sim.chat(sim={"fault": "raw_json_line", "code": 4101})
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert code_of(reply) == 4101 and not reply.content.endswith(b"\n")


@pytest.mark.parametrize("how, reset", [("rst", True), ("fin", False)])
def test_fault_cut(sim, how, reset):
    got, was_reset = sim.raw_chat({"fault": "cut", "cut_after": 3, "cut_how": how})
    assert was_reset == reset and got.count(b"message.delta") == 3 and not got.endswith(b"0\r\n\r\n")
    assert sim.log()[-1]["ended"] == "cut"
    assert sim.raw_chat({"fault": "cut", "cut_after": -1}) == (b"", True)
    assert sim.raw_chat({"fault": "cut"}, stream=False) == (b"", True)
    assert sim.stats()["chat_starts"] == 3


def test_fault_eof(sim):
    got, was_reset = sim.raw_chat({"fault": "eof", "cut_after": 4})
    assert not was_reset and got.endswith(b"0\r\n\r\n") and got.count(b"message.delta") == 4
    assert b"chat.completed" not in got and b"message.completed\ndata:{\"type\":\"answer\"" not in got
    assert sim.chat(sim={"fault": "eof", "cut_after": -1}).content == b""


def test_a_cut_chat_runs_on(sim):
    conversation = sim.conversation()
    with pytest.raises(requests.exceptions.RequestException):
        sim.chat(conversation=conversation, sim={"fault": "cut", "cut_after": 1, "gap_ms": 50, "chunks": 200})
    chat, = sim.chats(conversation)
    assert chat["status"] in ("created", "in_progress")
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 4016


@pytest.mark.parametrize("fault, before", [("stall_header", 0), ("stall", 2), ("stall_done", 10)])
def test_stalls_go_on_afterwards(sim, fault, before):
    begun = time.monotonic()
    with sim.call("POST", "/v3/chat", json=sim.body('x sim:{"fault":"%s","stall_ms":300}' % fault, True), stream=True) as reply:
        at = {"header": time.monotonic() - begun}
        deltas = 0
        raw = b""
        for line in reply.iter_lines(chunk_size=1):
            raw += line + b"\n"
            if line.startswith(b"event:"):
                deltas += line == b"event:conversation.message.delta"
                at.setdefault((line[6:].decode(), deltas), time.monotonic() - begun)
    assert names(parse(raw))[-1] == "done" and deltas == 10
    assert (at["header"] >= 0.3) == (fault == "stall_header")
    assert (at["conversation.message.delta", 3] >= 0.3) == (fault != "stall_done")
    assert at["done", 10] >= 0.3


def test_leaving_during_a_silent_start_is_noticed(sim):
    conversation = sim.conversation()
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(sim.base + "/v3/chat", params={"conversation_id": conversation}, timeout=0.2, headers=HEADERS,
                      json=sim.body('x sim:{"fault":"stall_header","stall_ms":60000}', True))
    chat = until(lambda: [c for c in sim.chats(conversation) if c["client_gone_ms"]])[0]
    assert chat["status"] == "created" and sim.cancel(conversation, chat["id"])["code"] == 0


def test_fault_requires_action_and_tool_outputs(sim):
    for stream in (True, False):
        events = sim.events(fault="requires_action", noise=False)
        assert names(events)[2:] == ["conversation.chat.requires_action", "done"]
        chat = json.loads(events[2][1])
        call, = chat["required_action"]["submit_tool_outputs"]["tool_calls"]
        ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
        assert sim.call("GET", "/v3/chat/retrieve", params=ids).json()["data"]["status"] == "requires_action"
        assert sim.cancel(**{"conversation": chat["conversation_id"], "chat": chat["id"]})["code"] == 4104
        reply = sim.call("POST", "/v3/chat/submit_tool_outputs", params=ids, json={
            "tool_outputs": [{"tool_call_id": call["id"], "output": "晴"}], "stream": stream})
        if stream:
            assert answer(parse(reply.content)) == "工具返回：“晴”。"
        listed = sim.call("GET", "/v3/chat/message/list", params=ids).json()["data"]
        assert [m["content"] for m in listed if m["type"] == "answer"] == ["工具返回：“晴”。"]


def test_fault_empty_and_empty_answer(sim):
    events = sim.events(fault="empty")
    assert answers(events) == {} and names(events)[-2:] == ["conversation.chat.completed", "done"]
    assert list(answers(sim.events(fault="empty_answer")).values()) == [([], "")]
    _, retrieve, listing = sim.poll(fault="empty", noise=False)
    assert retrieve()["data"]["status"] == "completed" and listing()["data"] == []
    assert [m["content"] for m in sim.poll(fault="empty_answer", noise=False)[2]()["data"]] == [""]


def test_fault_canceled(sim):
    events = sim.events(fault="canceled", cut_after=1)
    assert names(events)[-3:] == ["conversation.message.delta", "conversation.chat.canceled", "done"]
    assert sim.poll(fault="canceled")[1]()["data"]["status"] == "canceled"


def test_fault_json_chat(sim):
    reply = sim.chat(sim={"fault": "json_chat", "answer": "好"})
    chat = reply.json()["data"]
    assert reply.headers["Content-Type"].startswith("application/json") and chat["status"] == "in_progress"
    listed = sim.call("GET", "/v3/chat/message/list",
                      params={"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}).json()["data"]
    assert [m["content"] for m in listed if m["type"] == "answer"] == ["好"]


@pytest.mark.parametrize("spelling", [{}, {"multi_data": True, "crlf": True}])
def test_fault_bad_json(sim, spelling):
    events = sim.events(fault="bad_json", **spelling)
    bad = []
    for name, data in events:
        try:
            json.loads(data)
        except ValueError:
            bad.append(name)
    assert bad == ["conversation.message.delta"] and names(events)[-1] == "done"
    with pytest.raises(ValueError):
        json.loads(sim.chat(stream=False, sim={"fault": "bad_json"}).content)


def test_fault_bad_utf8(sim):
    assert b"\xff\xfe" in sim.chat(sim={"fault": "bad_utf8"}).content
    chat, _, _ = sim.poll(fault="bad_utf8")
    assert b"\xff\xfe" in sim.call("GET", "/v3/chat/message/list", params={
        "conversation_id": chat["conversation_id"], "chat_id": chat["id"]}).content


def test_fault_occupied_and_unknown_conversation(sim):
    assert json.loads(sim.events(fault="occupied")[0][1])["code"] == 4016
    assert code_of(sim.chat(stream=False, sim={"fault": "occupied"})) == 4016
    assert code_of(sim.chat(sim={"fault": "unknown_conversation"})) == 4002
    assert sim.stats()["overlaps"] == 0


def test_faults_of_later_calls(sim):
    chat, retrieve, listing = sim.poll(retrieve_fault={"code": 4009, "times": 2},
                                       list_fault={"http_status": 502, "html": True, "times": 1},
                                       cancel_fault={"code": 5000}, gen_ms=60000)
    assert [retrieve()["code"] for _ in range(3)] == [4009, 4009, 0]
    params = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
    assert sim.call("GET", "/v3/chat/message/list", params=params).status_code == 502
    assert listing()["code"] == 0
    assert sim.cancel(chat["conversation_id"], chat["id"])["code"] == 5000
    _, retrieve, _ = sim.poll(retrieve_fault={"stall_ms": 200})
    begun = time.monotonic()
    assert retrieve()["code"] == 0 and time.monotonic() - begun >= 0.2


def test_poll_status(sim):
    conversation = sim.conversation()
    _, retrieve, listing = sim.poll(conversation=conversation, code=5000,
                                    poll_status=["created", "in_progress", "in_progress", "failed"])
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 4016
    assert [retrieve()["data"]["status"] for _ in range(5)] == ["created", "in_progress", "in_progress", "failed", "failed"]
    assert "data" not in listing()
    assert code_of(sim.chat(stream=False, conversation=conversation)) == 0
    _, retrieve, _ = sim.poll(poll_status=["created"])
    assert [retrieve()["data"]["status"] for _ in range(2)] == ["created", "completed"]


# ---- control

def test_queue_and_default(sim):
    sim.queue(times=2, fault="http", http_status=503)
    sim.queue(fault="json_error", code=4013)
    sim.default(answer="缺省", chunks=1)
    replies = [sim.chat('x sim:{"answer":"自己的"}') for _ in range(4)]
    assert [r.status_code for r in replies] == [503, 503, 200, 200] and code_of(replies[2]) == 4013
    assert answer(parse(replies[3].content)) == "自己的"
    assert list(answers(sim.events("y")).values()) == [(["缺省"], "缺省")]
    sim.queue("/v1/conversation/create", code=5000)
    sim.queue("/v1/conversations/:id/clear", http_status=500)
    assert code_of(sim.call("POST", "/v1/conversation/create", json={})) == 5000
    conversation = sim.conversation()
    assert sim.call("POST", f"/v1/conversations/{conversation}/clear").status_code == 500
    assert sim.call("POST", f"/v1/conversations/{conversation}/clear").status_code == 200
    sim.queue(fault="http")
    sim.control("reset")
    assert "收到" in answer(sim.events("z"))


@pytest.mark.parametrize("name, body", [
    ("queue", {"path": "/nowhere", "sim": {}}), ("queue", {"sim": {"nokey": 1}}), ("queue", {"times": 0, "sim": {}}),
    ("queue", []), ("default", {"sim": {"retrieve_fault": {"nokey": 1}}})])
def test_control_mistakes_are_refused(sim, name, body):
    reply = sim.session.post(f"{sim.base}/_sim/{name}", json=body)
    assert reply.status_code == 400 and reply.json()["error"]


def test_log(sim):
    conversation = sim.conversation()
    since = sim.log()[-1]["seq"]
    before = time.time() * 1000
    sim.chat("日志", conversation=conversation, headers=HEADERS | {"User-Agent": "probe", "Accept": "text/event-stream"})
    sim.call("POST", "/v3/chat", data=b"{bad", headers=HEADERS)
    good, bad = sim.log(since)
    assert (good["method"], good["path"], good["query"]) == ("POST", "/v3/chat", {"conversation_id": conversation})
    assert good["headers"] == {"authorization": {"present": True, "matches": True}, "content-type": "application/json",
                               "accept": "text/event-stream", "user-agent": "probe", "http_version": "1.1"}
    assert good["body"] == sim.body("日志", True)
    assert good["chat_id"] == sim.chats(conversation)[0]["id"] and good["conversation_id"] == conversation
    assert good["ended"] == "ok" and good["status"] == 200
    assert before - 50 <= good["t_ms"] <= good["end_t_ms"] <= time.time() * 1000 + 50
    assert bad["body"] is None and bad["body_text"] == "{bad"


def test_running_requests_are_in_the_log_and_the_stats(sim):
    conversation = sim.conversation()
    with sim.call("POST", "/v3/chat", params={"conversation_id": conversation}, stream=True,
                  json=sim.body('x sim:{"gap_ms":10000}', True)) as reply:
        lines = reply.iter_lines(chunk_size=1)  # to be kept: its end would close the connection
        assert next(lines)
        assert sim.stats()["open_streams"] == 1 and sim.stats()["running"] == 1
        assert sim.log()[-1]["ended"] is None
    until(lambda: sim.stats()["open_streams"] == 0)


def test_connections_are_counted(sim):
    before = sim.stats()["connections"]
    for _ in range(3):
        with requests.Session() as own:
            for _ in range(4):
                own.post(sim.base + "/v3/chat", json=sim.body("x", True), headers=HEADERS)
    assert sim.stats()["connections"] - before == 3


# ---- TLS and HTTP/2

def curl(sim, *args):
    return subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", sim.dir / "ca.pem", "-H", f"Authorization: Bearer {TOKEN}",
                           "-H", "Content-Type: application/json", *args], capture_output=True, timeout=30)


def test_http2_over_tls(sim):
    args = []
    for i in range(5):
        args += [sim.tls_base + "/v3/chat", "-d", json.dumps(sim.body(f"第{i}个", True)), "-w", "%{http_version}\n"]
        args += ["--next", "-sS", "--cacert", sim.dir / "ca.pem", "-H", f"Authorization: Bearer {TOKEN}",
                 "-H", "Content-Type: application/json"] if i < 4 else []
    done = curl(sim, *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n\n2\n") == 5 and "第4个" in done.stdout.decode()
    stats = sim.stats()
    assert stats["http2_requests"] == 5 and stats["connections"] == 1 and stats["requests"] == 5
    for name in ("127.0.0.1", "localhost"):
        context = ssl.create_default_context(cafile=sim.dir / "ca.pem")
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", sim.tls_port)) as s, \
                context.wrap_socket(s, server_hostname=name) as secure:
            assert secure.selected_alpn_protocol() == "h2"


def test_http2_client_leaving_is_noticed(sim):
    conversation = sim.conversation()
    process = subprocess.Popen(
        ["curl", "-sSN", "--noproxy", "*", "--cacert", sim.dir / "ca.pem", "-H", f"Authorization: Bearer {TOKEN}",
         "-H", "Content-Type: application/json", f"{sim.tls_base}/v3/chat?conversation_id={conversation}",
         "-d", json.dumps(sim.body('x sim:{"gap_ms":10000}', True))], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"event:conversation.chat.created\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    chat = until(lambda: [c for c in sim.chats(conversation) if c["client_gone_ms"]])[0]
    assert chat["status"] in ("created", "in_progress")
    assert until(lambda: [e for e in sim.log() if e.get("chat_id") == chat["id"] and e["ended"]])[0]["ended"] == "client_gone"
    assert sim.stats()["open_streams"] == 0


def test_http2_one_reset_stream_leaves_the_others(sim):
    conversation = sim.conversation()
    urls = [f"{sim.tls_base}/v3/chat", f"{sim.tls_base}/v3/chat?conversation_id={conversation}"]
    sim.default(gap_ms=50, chunks=4)
    common = ["-sS", "--noproxy", "*", "--cacert", str(sim.dir / "ca.pem"), "-H", f"Authorization: Bearer {TOKEN}",
              "-H", "Content-Type: application/json", "-d"]
    # The first transfer leaves after 100 ms with RST_STREAM, the second one shares its connection and ends well.
    done = subprocess.run(["curl", "-Z", *common, json.dumps(sim.body('短 sim:{"gap_ms":10000}', True)), "-m", "0.4", urls[0],
                           "--next", *common, json.dumps(sim.body("长", True)), urls[1]], capture_output=True, timeout=30)
    assert "event:done" in done.stdout.decode()
    until(lambda: [c for c in sim.control("chats") if c["client_gone_ms"]])


def test_http2_cut(sim):
    done = curl(sim, sim.tls_base + "/v3/chat", "-d", json.dumps(sim.body('x sim:{"fault":"cut"}', True)))
    assert done.returncode == 92 and done.stdout.count(b"message.delta") == 2


# ---- the command

def test_start_reports_a_used_port(sim, tmp_path):
    other = Sim(tmp_path / "a b", SIM_PORT=str(sim.port))
    done = other.command("start")
    assert done.returncode != 0 and done.stderr == f"sim: port {sim.port} is in use\n"
    assert sim.command("start").returncode != 0
    assert "running" in sim.command("status").stdout


def test_second_instance_with_other_settings(sim, tmp_path):
    other = Sim(tmp_path / ("long" * 40), SIM_TOKEN="", SIM_STRICT_CONVERSATIONS="0", SIM_PLAIN="1", SIM_LOG="0", SIM_GAP_MS="1",
                SIM_AUTH_STATUS="401", SIM_WORKERS="2", SIM_TLS_PORT="").start()
    try:
        events = other.events("你好", "自己的会话", chunks=4)
        assert answer(events) == "收到：“你好”。这是本次会话的第 1 轮。"
        assert len(events) == 2 + 4 + 1 + 2
        assert other.log() == []
        assert other.call("POST", "/v3/chat", json={}, headers={}).status_code == 401
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            same = list(pool.map(lambda _: code_of_any(Sim.chat(fresh(other), conversation="一个", sim={"gap_ms": 20})), range(16)))
        assert same.count("done") == 1 and same.count(4016) == 15
        assert other.stats()["overlaps"] == 15
    finally:
        assert other.command("stop").returncode == 0
    assert other.command("status").stdout == "stopped\n" and other.command("stop").returncode == 0
    with pytest.raises(requests.exceptions.ConnectionError):
        other.stats()
    assert sim.stats()


def test_reload_moves_it_and_forgets_nothing(tmp_path):
    sim = Sim(tmp_path / "moving").start()
    try:
        conversation, log = sim.conversation(), len(sim.log())
        sim.events("一", conversation)
        home, sim.base, sim.env["SIM_HOST"] = sim.base, f"http://127.0.0.2:{sim.port}", "127.0.0.2"
        assert sim.command("reload").returncode == 0
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(home + "/_sim/stats", timeout=5)
        assert answer(sim.events("二", conversation)).endswith("第 2 轮，上一轮您说：“一”。")
        first, second = sim.chats(conversation)
        assert (first["text"], second["text"]) == ("一", "二") and first["id"] != second["id"]
        assert [entry["chat_id"] for entry in sim.log()[log:]] == [first["id"], second["id"]]
        sim.base = home
        del sim.env["SIM_HOST"]
        assert sim.command("reload").returncode == 0 and sim.stats()["chat_starts"] == 2
    finally:
        assert sim.command("stop").returncode == 0


def fresh(sim):
    """The same simulator through a session of its own, for a thread."""
    copy = Sim.__new__(Sim)
    copy.__dict__ = sim.__dict__ | {"session": requests.Session()}
    return copy


def code_of_any(reply):
    name, data = parse(reply.content)[-1]
    return name if name == "done" else json.loads(data)["code"]


def test_many_streams_at_once(sim):
    def one(i):
        own = fresh(sim)
        return answer(own.events(f"第{i}", gap_ms=5, split=3 if i % 10 == 0 else 0)) == f"收到：“第{i}”。这是本次会话的第 1 轮。"
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(300)))
    assert sim.stats()["open_streams"] == 0 and sim.stats()["chat_starts"] == 300 and sim.stats()["overlaps"] == 0


def test_nothing_went_wrong_inside(running):
    assert re.findall(r"\[(?:error|crit|alert|emerg)\].*", (running.dir / "error.log").read_text()) == []
