import assert from 'node:assert/strict';
import test from 'node:test';

import { nameOf, shorten, tidy } from '../../nginx/app/naming.js';

test('a short message is the name', () => {
  assert.equal(nameOf('在吗？'), '在吗？');
  assert.equal(nameOf('  Hello\n\n there '), 'Hello there');
});

test('a long one is cut between characters, Chinese ones counting twice', () => {
  assert.equal(nameOf('压'.repeat(40)), `${'压'.repeat(18)}…`);
  assert.equal(nameOf('a'.repeat(40)), `${'a'.repeat(36)}…`);
  assert.equal(shorten('👨‍👩‍👧‍👦👨‍👩‍👧‍👦', 2), '👨‍👩‍👧‍👦…');
});

test('signs of Markdown are left out, unless there is nothing else', () => {
  assert.equal(nameOf('## 1. **标题'), '标题');
  assert.equal(nameOf('> - quoted'), 'quoted');
  assert.equal(nameOf('***'), '***');
});

test('a number that is no list stays', () => {
  assert.equal(nameOf('3点睡不着'), '3点睡不着');
});

test('controls and marks of direction are taken out', () => {
  assert.equal(tidy('a\u202eb\u0000c\u2066d\te'), 'a b c d e');
});

test('a huge message takes no long time', () => {
  const begun = performance.now();
  nameOf('宽'.repeat(5_000_000));
  assert.ok(performance.now() - begun < 500);
});
