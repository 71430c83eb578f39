import assert from 'node:assert/strict';
import test from 'node:test';

import { EventParser } from '../../nginx/app/sse.js';

const chunk = (content, chunk_index) => ({ type: 'chunk', data: { content, chunk_index } });
const line = (event) => `data: ${JSON.stringify(event)}\n\n`;

const EVENTS = [chunk('你好，', 0), chunk('a\nb "c" \u2028 😀', 1), { type: 'complete', data: { full_content: '…' } }];
const STREAM = `\n${EVENTS.map(line).join('\n')}\n`; // with the blank lines of the heartbeat

function parse(pieces) {
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

test('every split of the stream into two and three gives the same events', () => {
  for (let i = 0; i <= STREAM.length; i++) {
    assert.deepEqual(parse([STREAM.slice(0, i), STREAM.slice(i)]), EVENTS);
    const j = i + ((STREAM.length - i) >> 1);
    assert.deepEqual(parse([STREAM.slice(0, i), STREAM.slice(i, j), STREAM.slice(j)]), EVENTS);
  }
});

test('one character at a time gives the same events', () => {
  assert.deepEqual(parse(STREAM.split('')), EVENTS);
});

test('every split of the bytes gives the same events through a decoder', () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let i = 0; i <= bytes.length; i++) {
    const decoder = new TextDecoder();
    const pieces = [bytes.slice(0, i), bytes.slice(i)].map((part) => decoder.decode(part, { stream: true }));
    assert.deepEqual(parse(pieces), EVENTS);
  }
});

test('carriage returns, comments, other fields and several data lines are understood', () => {
  assert.deepEqual(parse([': hello\r\nevent: x\r\nid: 7\r\ndata:{"a":\r\ndata: 1}\r\n\r\n']), [{ a: 1 }]);
});

test('an event that is not complete is none', () => {
  assert.deepEqual(parse(['data: {"a":1}\n']), []);
  assert.deepEqual(parse(['data: {"a":1}']), []);
});

test('what is no JSON is an error', () => {
  assert.throws(() => parse(['data: {"a":\n\n']), SyntaxError);
});

test('a line of many megabytes in small pieces takes no long time', () => {
  const parser = new EventParser();
  const begun = performance.now();
  parser.push('data: "');
  for (let i = 0; i < 4000; i++) parser.push('x'.repeat(4096));
  const [event] = parser.push('"\n\n');
  assert.equal(event.length, 4000 * 4096);
  assert.ok(performance.now() - begun < 2000);
});
