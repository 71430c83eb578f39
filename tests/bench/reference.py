"""
The reference: what a Python team would run today for the same contract - FastAPI, httpx and redis-py, all asynchronous, with
kept connections everywhere, uvloop and httptools. Sessions keep their conversation in Redis, and their messages run one at a
time. It leaves out what would only make it slower: rate limit, retries, cancelling, metrics, logs, a list of sessions.

Environment: COZE_BASE_URL, COZE_API_TOKEN, COZE_BOT_ID, REDIS_SOCKET.
"""
import asyncio
import datetime
import json
import os
import secrets
from typing import Optional

import httpx
import redis.asyncio
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

COZE = os.environ['COZE_BASE_URL']
BOT = os.environ['COZE_BOT_ID']
TTL_SECONDS = 86400
LOCK_MS = 60000
WAIT_SECONDS = 30
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
HEADERS = {'Authorization': 'Bearer ' + os.environ['COZE_API_TOKEN']}

# KEYS: session, lock. ARGV: token, conversation, now, ttl. Saves what came of a message and lets the next one in.
END = """
if redis.call('GET', KEYS[2]) == ARGV[1] then
	redis.call('DEL', KEYS[2])
	if ARGV[2] ~= '' then
		redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'active', ARGV[3])
		redis.call('HINCRBY', KEYS[1], 'count', 1)
		redis.call('EXPIRE', KEYS[1], ARGV[4])
	end
end
return 1
"""

app = FastAPI()
coze = httpx.AsyncClient(limits=LIMITS, timeout=httpx.Timeout(60, pool=None), headers=HEADERS)
store = redis.asyncio.Redis(unix_socket_path=os.environ['REDIS_SOCKET'], db=1, decode_responses=True)
end_script = store.register_script(END)


class Message(BaseModel):
    message: str = Field(min_length=1)
    session_id: Optional[str] = Field(None, min_length=1, max_length=128)
    user_id: Optional[str] = Field(None, min_length=1, max_length=128)
    conversation_id: Optional[str] = Field(None, min_length=1, max_length=128)


class Turn:
    """One message: `async with` holds its session."""

    def __init__(self, message):
        self.message = message
        self.session = message.session_id or 'session_' + secrets.token_hex(16)
        self.keys = ['ref:%s' % self.session, 'ref:%s:lock' % self.session]
        self.token = secrets.token_hex(8)
        self.conversation = message.conversation_id or ''
        self.message_id = ''
        self.accepted = False
        self.pieces = []

    async def begin(self):
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            async with store.pipeline(transaction=False) as pipe:
                pipe.set(self.keys[1], self.token, nx=True, px=LOCK_MS)
                pipe.hget(self.keys[0], 'conversation')
                locked, known = await pipe.execute()
            if locked:
                self.conversation = self.conversation or known or ''
                return
            if asyncio.get_running_loop().time() > deadline:
                raise HTTPException(409, '会话正忙')
            await asyncio.sleep(0.02)

    async def end(self):
        saved = self.conversation if self.accepted else ''
        await end_script(self.keys, [self.token, saved, datetime.datetime.now().timestamp(), TTL_SECONDS])

    async def deltas(self):
        """The pieces of the answer as they come."""
        body = {'bot_id': BOT, 'user_id': self.message.user_id or 'default_user', 'stream': True, 'auto_save_history': True,
                'additional_messages': [{'role': 'user', 'type': 'question', 'content': self.message.message,
                                         'content_type': 'text'}]}
        params = {'conversation_id': self.conversation} if self.conversation else None
        async with coze.stream('POST', COZE + '/chat', json=body, params=params) as answer:
            if answer.status_code != 200 or 'text/event-stream' not in answer.headers['Content-Type']:
                await answer.aread()
                raise HTTPException(503, 'Coze API请求失败: %d' % answer.status_code)
            name = ''
            async for line in answer.aiter_lines():
                if line.startswith('event:'):
                    name = line[6:].strip()
                elif line.startswith('data:'):
                    delta = self.take(name, line[5:])
                    if delta:
                        self.pieces.append(delta)
                        yield delta

    def take(self, name, data):
        if name == 'conversation.message.delta':
            event = json.loads(data)
            if event.get('type') == 'answer':
                self.message_id = event['id']
                return event.get('content')
        elif name in ('conversation.chat.created', 'conversation.chat.completed'):
            self.conversation = json.loads(data)['conversation_id']
            self.accepted = True
        elif name in ('error', 'conversation.chat.failed'):
            raise HTTPException(503, 'Coze API请求失败')
        return None

    def result(self):
        return {'session_id': self.session, 'message_id': self.message_id, 'conversation_id': self.conversation,
                'timestamp': datetime.datetime.now().isoformat()}


@app.post('/chat')
async def chat(message: Message):
    turn = Turn(message)
    await turn.begin()
    try:
        async for _ in turn.deltas():
            pass
    finally:
        await turn.end()
    return {'response': ''.join(turn.pieces), **turn.result()}


def event(kind, data):
    return 'data: %s\n\n' % json.dumps({'type': kind, 'data': data}, ensure_ascii=False)


async def events(turn):
    """The rest of a stream whose session is held."""
    try:
        index = 0
        async for delta in turn.deltas():
            yield event('chunk', {'content': delta, 'chunk_index': index})
            index += 1
        done = {'total_chunks': index, 'full_content': ''.join(turn.pieces), **turn.result()}
    except (HTTPException, httpx.HTTPError) as error:
        yield event('error', {'message': str(error), **turn.result()})
        return
    finally:
        await turn.end()
    yield event('complete', done)


@app.post('/chat/stream')
async def chat_stream(message: Message):
    turn = Turn(message)
    await turn.begin()
    return StreamingResponse(events(turn), media_type='text/event-stream', headers={
        'X-Session-ID': turn.session, 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no'})
