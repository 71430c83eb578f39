/*
 * naming.js - what a conversation is called until somebody names it: the beginning of its first message.
 */

const WIDTH_MAX = 36; // of a Latin letter; a Chinese character takes two

// Controls, and characters that would turn the direction of what stands beside the name.
const UNSHOWN = /[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+/gu;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/u;

export function tidy(name) {
  return name.replace(UNSHOWN, ' ').replace(/\s+/gu, ' ').trim();
}

// Characters as people see them: an emoji of several code points is not torn apart.
function characters(text) {
  if (typeof Intl !== 'undefined' && Intl.Segmenter) {
    return Array.from(new Intl.Segmenter(undefined, { granularity: 'grapheme' }).segment(text), (part) => part.segment);
  }
  return Array.from(text);
}

export function shorten(name, most = WIDTH_MAX) {
  let width = 0;
  let kept = '';
  for (const character of characters(name.slice(0, most * 16))) {
    width += WIDE.test(character) ? 2 : 1;
    if (width > most) return `${kept.trimEnd()}…`;
    kept += character;
  }
  return kept;
}

export function nameOf(message) {
  // Markdown's own signs say nothing in a name.
  const line = tidy(message.slice(0, 2000)).replace(/^(?:[#>*\-`\s]|\d+[.)]\s)+/u, '');
  return shorten(line || tidy(message.slice(0, 2000)));
}
