/*
 * scroll.js - the conversation stays at its end while the reader is there, and stands still when not.
 */

const NEAR_PX = 64;

export class Scroll {
  #box;
  #follows = true;
  #moved;

  // moved(follows): the reader has left the end, or is back.
  constructor(box, content, moved) {
    this.#box = box;
    this.#moved = moved;
    box.addEventListener('scroll', () => this.#look(), { passive: true });
    // What grows, an opened keyboard, another width: all of them move the end.
    const watch = new ResizeObserver(() => {
      if (this.#follows) this.#jump();
      else this.#look();
    });
    watch.observe(box);
    watch.observe(content);
  }

  get #rest() {
    return this.#box.scrollHeight - this.#box.clientHeight - this.#box.scrollTop;
  }

  #look() {
    const follows = this.#rest < NEAR_PX;
    if (follows === this.#follows) return;
    this.#follows = follows;
    this.#moved(follows);
  }

  #jump() {
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  toEnd() {
    this.#follows = true;
    this.#jump();
    this.#moved(true);
  }
}
