/*
 * markdown.js - an answer's Markdown as elements of the page.
 *
 * markdown-it says what the text means; the elements are made here one by one, from a list of those that are allowed. No text
 * of an answer is ever read as HTML, so there is nothing to sanitize, and the page's policy (Trusted Types) forbids it anyway.
 * Without markdown-it, which is only there when npm could be asked, the text is shown as it is.
 */
import { el } from './dom.js';

const PLAIN_FROM = 200_000; // characters; a longer answer goes on as plain text, as laying it out would take seconds
const PIECE_MIN = 2000; // characters of such text in one element
const PIECE_MAX = 8000;
const DEPTH_MAX = 40;
const LINKS = ['http:', 'https:', 'mailto:'];

let parser = null;

// Resolves to whether Markdown can be shown.
export async function loadMarkdown() {
  try {
    const { default: MarkdownIt } = await import('./vendor/markdown-it.js');
    parser = makeParser(MarkdownIt);
  } catch {
    parser = null;
  }
  return parser !== null;
}

export function makeParser(MarkdownIt) {
  const made = MarkdownIt({ html: false, linkify: true, breaks: true, maxNesting: DEPTH_MAX });
  made.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  made.inline.State = besideIdeographs(made.inline.State, made.utils);
  return made;
}

// CommonMark closes **emphasis** at a punctuation mark only before a space or another one, but Chinese has no spaces:
// in `**注意：**请` the stars would stay. Beside such a character, they count as they would beside a space.
function besideIdeographs(State, utils) {
  const ideograph = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u3000-\u303f\uff00-\uffef]/u;
  return class extends State {
    scanDelims(start, canSplitWord) {
      const found = super.scanDelims(start, canSplitWord);
      if (!canSplitWord) return found;
      const before = start > 0 ? String.fromCodePoint(this.src.codePointAt(start - 1)) : ' ';
      const after = this.src.slice(start + found.length, start + found.length + 1) || ' ';
      if (!ideograph.test(before) && !ideograph.test(after)) return found;
      const space = (character) => utils.isWhiteSpace(character.charCodeAt(0));
      return { ...found, can_open: found.can_open || !space(after), can_close: found.can_close || !space(before) };
    }
  };
}

// The address of a link, or null for one that must not be followed. Only whole ones: a relative one would mean this server.
export function safeAddress(address, allowed = LINKS) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  return allowed.includes(url.protocol) ? url.href : null;
}

// The beginning of a line that will not turn out to be a list's or anything else than text.
const PLAIN_BEGINNING = /^[\p{L}\p{Emoji_Presentation}]/u;

/*
 * The line of a growing text where its rest begins: everything before has its final meaning. The last block may still change,
 * and so may what stands in a line that is not complete, as a `2` that becomes `2. second`. 0: everything may.
 */
export function settledLines(tokens, text) {
  const lines = text.split('\n');
  const completeLines = lines.length - (PLAIN_BEGINNING.test(lines[lines.length - 1]) ? 0 : 1);
  const starts = tokens.filter((token) => token.level === 0 && token.map && token.nesting >= 0).map((token) => token.map[0]);
  const settled = starts.filter((line, index) => index > 0 && line < completeLines);
  return settled.length > 0 ? settled[settled.length - 1] : 0;
}

const BLOCKS = new Set(['p', 'ul', 'ol', 'li', 'blockquote', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6']);
const INLINES = new Set(['strong', 'em', 's']);
const OWN_DIRECTION = new Set(['p', 'li', 'th', 'td', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6']);

// Makes elements of tokens. `texts` has the words of the buttons, `links` the allowed protocols.
class Builder {
  constructor(texts, links = LINKS) {
    this.texts = texts;
    this.links = links;
    this.heading = 2; // of the last heading: the message itself has level 2
  }

  build(tokens, root) {
    const open = [root];
    for (const token of tokens) {
      const parent = open[open.length - 1];
      if (token.nesting === 1) open.push(this.#open(token, parent));
      else if (token.nesting === -1) closed(open.pop());
      else if (token.type === 'inline') this.build(token.children, parent);
      else parent.append(...this.#leaf(token));
    }
  }

  #open(token, parent) {
    if (token.hidden) return parent; // a paragraph in a list without blank lines
    const made = this.#element(token);
    parent.append(made);
    if (made.className === 'table') return made.firstChild;
    return made;
  }

  #element(token) {
    const { tag } = token;
    if (tag === 'a') return this.#link(token.attrGet('href'));
    if (INLINES.has(tag)) return el(tag);
    if (!BLOCKS.has(tag)) return el('span');
    if (tag === 'table') return el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': this.texts.table }, el('table', { dir: 'auto' }));
    const made = el(this.#level(tag));
    if (OWN_DIRECTION.has(tag)) made.dir = 'auto';
    if (tag === 'ol' && token.attrGet('start')) made.start = Number(token.attrGet('start'));
    const align = /^text-align:(left|center|right)$/.exec(token.attrGet('style') ?? '');
    if (align) made.dataset.align = align[1];
    return made;
  }

  // Headings below that of the message, and none skipped.
  #level(tag) {
    if (!/^h[1-6]$/.test(tag)) return tag;
    this.heading = Math.min(Number(tag[1]) + 2, this.heading + 1, 6);
    return `h${this.heading}`;
  }

  #link(address) {
    const safe = safeAddress(address ?? '', this.links);
    if (!safe) return el('span');
    return el('a', { href: safe, target: '_blank', rel: 'noopener noreferrer', title: safe });
  }

  #leaf(token) {
    switch (token.type) {
      case 'softbreak':
      case 'hardbreak':
        return [el('br')];
      case 'hr':
        return [el('hr')];
      case 'code_inline':
        return [el('code', { dir: 'ltr' }, token.content)];
      case 'fence':
      case 'code_block':
        return [codeBlock(token.content, token.info.trim().split(/\s/u)[0], this.texts)];
      case 'image': {
        // Loading it would tell its server who reads this conversation, and when.
        const link = this.#link(token.attrGet('src'));
        link.append(this.texts.image(token.content || token.attrGet('src') || ''));
        return [link];
      }
      default:
        return [token.content];
    }
  }
}

function closed(made) {
  if (made.localName === 'em' && /\p{Script=Han}/u.test(made.textContent)) made.className = 'stress';
}

function codeBlock(content, language, texts) {
  const code = content.replace(/\n$/u, '');
  return el('div', { class: 'code' },
    el('div', { class: 'code-head' },
      el('span', { class: 'code-language' }, language.slice(0, 32)),
      el('button', { type: 'button', class: 'quiet small', 'data-copy': '' }, texts.copyCode)),
    el('pre', { tabindex: '0', dir: 'ltr', role: 'region', 'aria-label': texts.code }, el('code', {}, code)));
}

// One answer on the page, that may still grow.
export class Answer {
  #root;
  #texts;
  #builder;
  #settled; // element of the blocks that do not change any more
  #rest; // element of the others
  #from = 0; // where the others begin in the text
  #shown = '';
  #plain = null; // { node, shown }: of what is too long for more, the last text node, and up to where the text is shown
  #references = {};

  constructor(root, texts) {
    this.#root = root;
    this.#texts = texts;
    this.#reset();
  }

  get isPlain() {
    return this.#plain !== null;
  }

  #reset() {
    this.#builder = new Builder(this.#texts);
    this.#settled = el('div', { class: 'blocks' });
    this.#rest = el('div', { class: 'blocks' });
    this.#root.replaceChildren(this.#settled, this.#rest);
    this.#from = 0;
    this.#plain = null;
    this.#references = {};
  }

  // Shows `text`. Returns the elements that are complete since the last time.
  show(text, done) {
    if (!text.startsWith(this.#shown)) this.#reset();
    this.#shown = text;
    if (!parser) return this.#showPlain(text, 0);
    if (text.length > PLAIN_FROM) return this.#showPlain(text, this.#from);

    const rest = text.slice(this.#from);
    const tokens = parser.parse(rest, this.#references);
    const line = done ? Infinity : settledLines(tokens, rest);
    const settled = [];
    const growing = [];
    let into = settled;
    for (const token of tokens) {
      if (token.level === 0 && token.nesting >= 0 && token.map && token.map[0] >= line) into = growing;
      (line === 0 ? growing : into).push(token);
    }
    const fresh = document.createDocumentFragment();
    this.#builder.build(settled, fresh);
    const complete = [...fresh.children];
    this.#settled.append(fresh);
    if (line !== 0 && line !== Infinity) this.#from += offsetOfLine(rest, line);

    const level = this.#builder.heading;
    this.#rest.replaceChildren();
    this.#builder.build(growing, this.#rest);
    this.#builder.heading = level;
    if (done) this.#from = text.length;
    return complete;
  }

  // In pieces that end with a line where they can: only the last one is laid out again when more comes.
  #showPlain(text, from) {
    if (!this.#plain) {
      this.#rest.replaceChildren();
      this.#plain = { node: null, shown: from };
    }
    const plain = this.#plain;
    while (plain.shown < text.length) {
      if (!plain.node || plain.node.length >= PIECE_MAX || (plain.node.length >= PIECE_MIN && plain.node.data.endsWith('\n'))) {
        plain.node = document.createTextNode('');
        this.#rest.append(el('div', { class: 'plain', dir: 'auto' }, plain.node));
      }
      const most = plain.shown + PIECE_MAX - plain.node.length;
      const lineEnd = text.indexOf('\n', plain.shown + Math.max(0, PIECE_MIN - plain.node.length)) + 1;
      const end = Math.min(text.length, most, lineEnd || most);
      plain.node.appendData(text.slice(plain.shown, end));
      plain.shown = end;
    }
    return [];
  }
}

function offsetOfLine(text, line) {
  let at = 0;
  for (let n = 0; n < line; n++) at = text.indexOf('\n', at) + 1;
  return at;
}

// A line of Markdown from the operator, who may also give telephone numbers.
export function showLine(root, text, texts) {
  root.replaceChildren();
  if (!parser) root.append(text);
  else new Builder(texts, [...LINKS, 'tel:']).build(parser.parseInline(text, {}), root);
}
