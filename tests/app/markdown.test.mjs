import assert from 'node:assert/strict';
import test from 'node:test';

import MarkdownIt from '../../nginx/node_modules/markdown-it/dist/browser/markdown-it.esm.min.mjs';
import { makeParser, safeAddress, settledLines } from '../../nginx/app/markdown.js';

const parser = makeParser(MarkdownIt);
const render = (text) => parser.render(text).trim();

test('only whole addresses of the web and of mail are links', () => {
  for (const good of ['https://a.example/x?y#z', 'http://a.example', 'mailto:a@b.example']) assert.ok(safeAddress(good), good);
  for (const bad of ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', ' javascript:alert(1)', 'java\nscript:alert(1)', 'data:text/html,x',
    'vbscript:x', 'file:///etc/passwd', 'blob:https://a/b', '/session/x/clear', '//a.example', '#x', '', 'tel:1', 'intent:x', 'https://']) {
    assert.equal(safeAddress(bad), null, bad);
  }
  assert.equal(safeAddress('tel:12356', ['tel:']), 'tel:12356');
});

test('HTML is text', () => {
  assert.equal(render('<img src=x onerror=alert(1)>'), '<p>&lt;img src=x onerror=alert(1)&gt;</p>');
  assert.equal(render('<script>alert(1)</script>'), '<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>');
});

test('emphasis ends beside Chinese without a space', () => {
  for (const [text, strong] of [['**“重要”**的', '“重要”'], ['这是**注意：**请看', '注意：'], ['**注意：**请', '注意：'], ['他说**（小声）**好', '（小声）'],
    ['これは**「強調」**です', '「強調」'], ['**bold**。', 'bold'], ['**Wi-Fi（无线）**连接', 'Wi-Fi（无线）']]) {
    assert.ok(render(text).includes(`<strong>${strong}</strong>`), render(text));
  }
});

test('and a lone star does not begin any', () => {
  assert.equal(render('3 * 4 * 5'), '<p>3 * 4 * 5</p>');
  assert.equal(render('价格 * 数量'), '<p>价格 * 数量</p>');
  assert.equal(render('a ** b ** c'), '<p>a ** b ** c</p>');
});

test('an address in the text ends before Chinese punctuation', () => {
  assert.match(render('看 https://a.example/x。请'), /<a href="https:\/\/a.example\/x">https:\/\/a.example\/x<\/a>。请/);
});

const settled = (text) => settledLines(parser.parse(text, {}), text);

test('all but the last block is settled', () => {
  assert.equal(settled('one\n\ntwo\n\nthr'), 4);
  assert.equal(settled('one\n\ntwo\n'), 2);
  assert.equal(settled('one'), 0);
  assert.equal(settled('one\n\n```\ncode\n\nmore'), 2);
});

test('a line that is not complete settles nothing', () => {
  assert.equal(settled('1. one\n\n2'), 0); // 2. two
  assert.equal(settled('1. one\n\n2. two\n'), 0);
  assert.equal(settled('1. one\n\n**2'), 0);
  assert.equal(settled('text\n-'), 0);
  assert.equal(settled('1. one\n\ntex'), 2); // but where it can only be text
});
